//! The instance lock by `flock` (flock(2)).
//!
//! `flock` belongs to the open file, so it can be handed to a successor together with the descriptor
//! (`brokerd upgrade`), which the POSIX record locks cannot. Invariant: the locked file is the one at
//! the path; a holder that goes removes it while it still holds the lock.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::super::os;
use crate::identity::process_start_time;
use crate::lock::{LockEntry, LockError};

/// Longest entry that is read: two numbers and a socket path fit with room to spare.
const MAX_ENTRY: u64 = 1024;

/// How long a lock may outlive its holder: what it has forked last has a copy of each descriptor until it executes
/// another program, or ends with it.
const OUTLIVES_HOLDER: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The lock of one endpoint, held until it is dropped. The lock file is removed then.
#[derive(Debug)]
pub struct InstanceLock {
    /// `None` once the descriptor was taken out.
    file: Option<File>,
    path: PathBuf,
}

impl InstanceLock {
    /// Acquires the lock file at `path`, which lies in a private directory, for `endpoint`.
    ///
    /// A file that a dead holder left behind is taken over. Does not wait for one that lives, and two seconds at
    /// most for what a dead one had just forked.
    ///
    /// # Errors
    /// [`LockError::Held`] names the holder; [`LockError::NotAFile`] for a symbolic link or the like.
    pub fn acquire(path: &Path, endpoint: &str) -> Result<Self, LockError> {
        let deadline = Instant::now() + OUTLIVES_HOLDER;
        loop {
            let file = open(path)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let holder = holder(file);
                    if holder.as_ref().is_some_and(is_gone) && Instant::now() < deadline {
                        std::thread::sleep(LOOK_AGAIN);
                        continue;
                    }
                    return Err(held(path, holder));
                }
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(failure("lock", path, errno.into())),
            }
            // Between open and flock the former holder may have removed the file; what is locked then
            // is a file that nobody else will ever find.
            match path.symlink_metadata() {
                Ok(found) if is_same(&file, &found) => return Self::begin(file, path, endpoint),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failure("look at", path, source)),
            }
        }
    }

    /// Takes over a lock that a predecessor handed on with [`InstanceLock::into_descriptor`].
    ///
    /// # Errors
    /// The descriptor is not the file at `path`, or another process holds the lock.
    pub fn from_descriptor(descriptor: OwnedFd, path: &Path, endpoint: &str) -> Result<Self, LockError> {
        let file = File::from(descriptor);
        let found = path.symlink_metadata().map_err(|source| failure("look at", path, source))?;
        if !is_same(&file, &found) {
            return Err(LockError::NotAFile { path: path.to_path_buf(), found: "another file" });
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let lock = Self { file: Some(file), path: path.to_path_buf() };
                lock.say_who_holds_it(endpoint);
                Ok(lock)
            }
            Err(Errno::WOULDBLOCK) => Err(held(path, holder(file))),
            Err(errno) => Err(failure("lock", path, errno.into())),
        }
    }

    /// Renews the entry of one that was taken over. A predecessor in the same process has left the very same, and
    /// that one stays where there is no room for another: what counts is the lock.
    fn say_who_holds_it(&self, endpoint: &str) {
        let Some(file) = &self.file else { return };
        let text = LockEntry::of_this_process(endpoint).to_text();
        let mut known = vec![0; text.len() + 1];
        if matches!(file.read_at(&mut known, 0), Ok(length) if known[..length] == *text.as_bytes()) {
            return;
        }
        let written = file.write_all_at(text.as_bytes(), 0).and_then(|()| file.set_len(text.len() as u64));
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "the lock file does not say who holds it");
        }
    }

    /// The descriptor that carries the lock, for a successor. The file stays, and so does the lock as
    /// long as a copy of the descriptor is open.
    pub fn into_descriptor(mut self) -> Option<OwnedFd> {
        self.file.take().map(OwnedFd::from)
    }

    /// A copy of the descriptor that carries the lock: whoever holds one keeps the lock alive.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone_descriptor(&self) -> io::Result<OwnedFd> {
        match &self.file {
            Some(file) => file.try_clone().map(OwnedFd::from),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether the locked file is still the one at its path.
    pub fn is_in_place(&self) -> bool {
        let found = self.path.symlink_metadata();
        self.file.as_ref().is_some_and(|file| found.is_ok_and(|found| is_same(file, &found)))
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn begin(mut file: File, path: &Path, endpoint: &str) -> Result<Self, LockError> {
        let text = LockEntry::of_this_process(endpoint).to_text();
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(text.as_bytes())
        };
        write(&mut file).map_err(|source| failure("write", path, source))?;
        Ok(Self { file: Some(file), path: path.to_path_buf() })
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        let Some(file) = &self.file else { return };
        // While the lock is held, nobody else replaces the file: the check cannot be overtaken.
        if self.path.symlink_metadata().is_ok_and(|found| is_same(file, &found))
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the lock file stays behind");
        }
    }
}

fn open(path: &Path) -> Result<File, LockError> {
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags.cast_signed())
        .open(path);
    let not_a_file = |found| LockError::NotAFile { path: path.to_path_buf(), found };
    let file = match opened {
        Ok(file) => file,
        Err(error) => {
            return Err(match Errno::from_io_error(&error) {
                Some(Errno::LOOP) => not_a_file("a symbolic link"),
                Some(Errno::ISDIR) => not_a_file("a directory"),
                Some(Errno::NXIO) => not_a_file("a socket or FIFO"),
                _ => failure("open", path, error),
            });
        }
    };
    match file.metadata() {
        Ok(metadata) if !metadata.is_file() => Err(not_a_file("something else")),
        // It is about to be overwritten, whoever put the name here.
        Ok(metadata) if metadata.nlink() > 1 => Err(not_a_file("a file that has another name, too")),
        Ok(metadata) if metadata.uid() != os::identity::effective_uid() => {
            Err(not_a_file("a file of another user"))
        }
        Ok(_) => Ok(file),
        Err(source) => Err(failure("look at", path, source)),
    }
}

fn is_same(file: &File, found: &std::fs::Metadata) -> bool {
    file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
}

fn holder(file: File) -> Option<LockEntry> {
    let mut text = String::new();
    file.take(MAX_ENTRY).read_to_string(&mut text).ok()?;
    LockEntry::parse(&text)
}

/// Whether who wrote the entry has ended, and another process may have its number by now.
fn is_gone(holder: &LockEntry) -> bool {
    process_start_time(holder.pid).map_or(true, |start_time| start_time != holder.start_time)
}

fn held(path: &Path, holder: Option<LockEntry>) -> LockError {
    LockError::Held { path: path.to_path_buf(), pid: holder.map(|holder| holder.pid) }
}

fn failure(operation: &'static str, path: &Path, source: io::Error) -> LockError {
    LockError::Io { operation, path: path.to_path_buf(), source }
}
