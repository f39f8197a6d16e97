//! The instance lock by a file's sharing mode (CreateFileW).
//!
//! The holder has the file open for writing and lets others read, but neither write nor remove it. Asking for the
//! same is how the lock is tried for: the system grants it to one. Unlike the locks of `LockFileEx`, which belong
//! to one process, this one belongs to the open file as `flock` does, so a copy of the handle carries it, in
//! another process, too. And unlike there, a file that is locked cannot be replaced, so none has to be looked for
//! after locking. Whoever opens the file without letting others write keeps the lock from being acquired; the
//! standard library does not, nor do the tools that come with the system.
//!
//! Invariant: the locked file is the one at the path; a holder that goes removes it while it still holds the lock.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::windows::io::{AsHandle, AsRawHandle, OwnedHandle};
use std::path::{Path, PathBuf};
use std::time::Duration;

use windows_sys::Win32::Foundation::{ERROR_SHARING_VIOLATION, GENERIC_READ, GENERIC_WRITE};
use windows_sys::Win32::Storage::FileSystem::{
    DELETE, FILE_ATTRIBUTE_NORMAL, FILE_DISPOSITION_FLAG_DELETE, FILE_DISPOSITION_FLAG_POSIX_SEMANTICS,
    FILE_DISPOSITION_INFO, FILE_DISPOSITION_INFO_EX, FILE_FLAG_OPEN_REPARSE_POINT, FILE_INFO_BY_HANDLE_CLASS,
    FILE_SHARE_READ, FileDispositionInfo, FileDispositionInfoEx, OPEN_ALWAYS, SetFileInformationByHandle,
};

use super::calls::done;
use super::files::{facts, facts_of, open_no_follow};
use super::security::Opening;
use crate::files::FileKind;
use crate::lock::{LockEntry, LockError};

/// How often the file is opened before it counts as held, beside the last time, and the pause between.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Longest entry that is read: two numbers and a pipe's name fit with room to spare.
const MAX_ENTRY: u64 = 1024;

/// The lock of one endpoint, held until it is dropped. The lock file is removed then.
#[derive(Debug)]
pub struct InstanceLock {
    /// `None` once the handle was taken out.
    file: Option<File>,
    path: PathBuf,
}

impl InstanceLock {
    /// Acquires the lock file at `path`, which lies in a private directory, for `endpoint`.
    ///
    /// Does not wait. A file that a dead holder left behind is taken over.
    ///
    /// # Errors
    /// [`LockError::Held`] names the holder; [`LockError::NotAFile`] for a symbolic link or the like.
    pub fn acquire(path: &Path, endpoint: &str) -> Result<Self, LockError> {
        let file = open(path)?;
        Self::begin(file, path, endpoint)
    }

    /// Takes over a lock that a predecessor handed on with [`InstanceLock::into_descriptor`].
    ///
    /// # Errors
    /// The handle is not the file at `path`, or it does not carry the lock.
    pub fn from_descriptor(handle: OwnedHandle, path: &Path, endpoint: &str) -> Result<Self, LockError> {
        let file = File::from(handle);
        let own = facts_of(file.as_handle()).map_err(|source| failure("look at", path, source))?;
        let found = facts(path).map_err(|source| failure("look at", path, source))?;
        if (own.device, own.inode) != (found.device, found.inode) {
            return Err(LockError::NotAFile { path: path.to_path_buf(), found: "another file" });
        }
        match open(path) {
            // Nobody held it.
            Ok(file) => Self::begin(file, path, endpoint),
            // If that is somebody else, this handle is not one that can be written to, as there is only one.
            Err(LockError::Held { .. }) => Self::begin(file, path, endpoint),
            Err(error) => Err(error),
        }
    }

    /// The handle that carries the lock, for a successor. The file stays, and so does the lock as long as a
    /// copy of the handle is open.
    pub fn into_descriptor(mut self) -> Option<OwnedHandle> {
        self.file.take().map(OwnedHandle::from)
    }

    /// A copy of the handle that carries the lock: whoever holds one keeps the lock alive.
    ///
    /// # Errors
    /// No handle is left.
    pub fn try_clone_descriptor(&self) -> io::Result<OwnedHandle> {
        match &self.file {
            Some(file) => file.try_clone().map(OwnedHandle::from),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether the locked file is still the one at its path: it cannot be replaced while it is locked.
    pub const fn is_in_place(&self) -> bool {
        true
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
        if let Err(error) = remove(file) {
            tracing::warn!(path = %self.path.display(), %error, "the lock file stays behind");
        }
    }
}

/// Removes the very file that is open, at once, or where that cannot be, when the last one has closed it.
fn remove(file: &File) -> io::Result<()> {
    let at_once = FILE_DISPOSITION_INFO_EX {
        Flags: FILE_DISPOSITION_FLAG_DELETE | FILE_DISPOSITION_FLAG_POSIX_SEMANTICS,
    };
    let later = FILE_DISPOSITION_INFO { DeleteFile: true };
    inform(file, FileDispositionInfoEx, &at_once).or_else(|_| inform(file, FileDispositionInfo, &later))
}

fn inform<T>(file: &File, class: FILE_INFO_BY_HANDLE_CLASS, information: &T) -> io::Result<()> {
    // SAFETY: the handle is open, and the callers give the structure of the class.
    done(unsafe {
        SetFileInformationByHandle(
            file.as_raw_handle(),
            class,
            (&raw const *information).cast(),
            size_of::<T>() as u32,
        )
    })
}

/// Tries again where somebody merely reads the file at this moment, without letting others write: who indexes or
/// backs up does.
fn patiently(open: impl Fn() -> io::Result<File>) -> io::Result<File> {
    for _ in 0..ATTEMPTS {
        match open() {
            Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION.cast_signed()) => {
                std::thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
    open()
}

/// Opens the file as a holder does.
fn open(path: &Path) -> Result<File, LockError> {
    let opening = Opening {
        access: GENERIC_READ | GENERIC_WRITE | DELETE,
        share: FILE_SHARE_READ,
        disposition: OPEN_ALWAYS,
        flags: FILE_ATTRIBUTE_NORMAL | FILE_FLAG_OPEN_REPARSE_POINT,
    };
    let not_a_file = |found| LockError::NotAFile { path: path.to_path_buf(), found };
    let file = match patiently(|| opening.open_private(path)) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION.cast_signed()) => {
            return Err(LockError::Held { path: path.to_path_buf(), pid: holder(path) });
        }
        // Opening a directory so is denied.
        Err(error) => {
            return Err(match facts(path).map(|facts| facts.kind) {
                Ok(FileKind::Directory) => not_a_file("a directory"),
                _ => failure("open", path, error),
            });
        }
    };
    match facts_of(file.as_handle()).map(|facts| facts.kind) {
        Ok(FileKind::Regular) => Ok(file),
        Ok(FileKind::Symlink) => Err(not_a_file("a symbolic link")),
        Ok(_) => Err(not_a_file("something else")),
        Err(source) => Err(failure("look at", path, source)),
    }
}

fn holder(path: &Path) -> Option<u32> {
    let mut text = String::new();
    open_no_follow(path).ok()?.0.take(MAX_ENTRY).read_to_string(&mut text).ok()?;
    LockEntry::parse(&text).map(|entry| entry.pid)
}

fn failure(operation: &'static str, path: &Path, source: io::Error) -> LockError {
    LockError::Io { operation, path: path.to_path_buf(), source }
}
