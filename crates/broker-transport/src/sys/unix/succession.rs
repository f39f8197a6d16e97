//! Replacing the image of this process (execve(2)).
//!
//! Only the spawner's thread does it. Linux ends every other thread then, and a child whose thread ends gets its
//! parent-death signal (PR_SET_PDEATHSIG(2const)); the thread that executes lives on. The descriptors keep their
//! numbers, which stand at the head of an anonymous file whose own number is an argument. Invariant: until the
//! very call, a failure leaves nothing changed; after a failed call, everything is changed back.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use super::super::os;
use super::limits::with_original_limit;
use super::process::Orphan;
use crate::process::Spawner;
use crate::succession::{Inheritance, NotSucceeded, Succession};

pub(crate) const IS_OFFERED: bool = true;

/// What the anonymous file begins with: nobody else's has it.
const MAGIC: &[u8; 16] = b"broker-inherits\x01";
/// Most descriptors that are read back: more than any process may have open (fs.nr_open).
const MOST_DESCRIPTORS: u32 = 1 << 30;

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Executes the successor; returns only when that fails. `orphans` are the children nobody waits for.
pub(crate) fn become_successor(succession: Box<Succession>, orphans: &[u32]) -> NotSucceeded {
    let source = match prepare(&succession, orphans) {
        Ok(prepared) => execute(&succession, &prepared),
        Err(error) => error,
    };
    NotSucceeded { succession, source }
}

struct Prepared {
    /// The arguments, each ending with NUL.
    argv: Vec<CString>,
    will: File,
}

fn prepare(succession: &Succession, orphans: &[u32]) -> io::Result<Prepared> {
    if !succession.program.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected an absolute path"));
    }
    let mut will = os::process::anonymous_file()?;
    let numbers = succession.descriptors.iter().map(|descriptor| descriptor.as_raw_fd().cast_unsigned());
    will.write_all(MAGIC)?;
    write_list(&mut will, numbers)?;
    write_list(&mut will, orphans.iter().copied())?;
    will.write_all(&succession.document)?;
    will.rewind()?;
    let number = will.as_raw_fd().to_string();
    let texts = [succession.program.as_os_str()].into_iter();
    let texts = texts.chain(succession.args.iter().map(AsRef::as_ref)).chain([OsStr::new(&number)]);
    let argv = texts.map(|text| CString::new(text.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    Ok(Prepared { argv, will })
}

fn write_list(to: &mut File, numbers: impl ExactSizeIterator<Item = u32>) -> io::Result<()> {
    let count = u32::try_from(numbers.len()).map_err(io::Error::other)?;
    let bytes: Vec<u8> = [count].into_iter().chain(numbers).flat_map(u32::to_le_bytes).collect();
    to.write_all(&bytes)
}

fn execute(succession: &Succession, prepared: &Prepared) -> io::Error {
    let descriptors = || succession.descriptors.iter().map(AsFd::as_fd).chain([prepared.will.as_fd()]);
    let set_all = |flags: FdFlags| descriptors().try_for_each(|descriptor| fcntl_setfd(descriptor, flags));
    let mut argv: Vec<_> = prepared.argv.iter().map(|text| text.as_ptr()).collect();
    argv.push(std::ptr::null());
    let error = match set_all(FdFlags::empty()) {
        // The successor begins with the limits that this process began with, or it would take the raised
        // ones for those.
        Ok(()) => with_original_limit(|| {
            // SAFETY: every pointer but the last, which is NULL, is to a C string that lives through the call.
            unsafe { libc::execv(argv[0], argv.as_ptr()) };
            io::Error::last_os_error()
        }),
        Err(errno) => errno.into(),
    };
    // They are open, so that this cannot fail.
    let _ = set_all(FdFlags::CLOEXEC);
    error
}

pub(crate) fn take(number: i32) -> io::Result<Inheritance> {
    if IS_TAKEN.swap(true, Ordering::Relaxed) {
        return Err(io::Error::other("the inheritance was taken before"));
    }
    let mut will = File::from(adopt(number)?);
    let mut magic = [0; MAGIC.len()];
    let foreign =
        || io::Error::new(io::ErrorKind::InvalidData, "it was left by no predecessor of this program");
    will.read_exact(&mut magic).map_err(|_| foreign())?;
    if magic != *MAGIC {
        return Err(foreign());
    }
    let numbers = read_list(&mut will)?;
    let orphans = read_list(&mut will)?;
    let mut document = Vec::new();
    will.read_to_end(&mut document)?;
    let descriptors =
        numbers.into_iter().map(|number| adopt(number.cast_signed())).collect::<Result<_, _>>()?;
    Ok(Inheritance { descriptors, document, orphans })
}

fn read_list(from: &mut File) -> io::Result<Vec<u32>> {
    let mut word = [0; 4];
    let mut next = |from: &mut File| from.read_exact(&mut word).map(|()| u32::from_le_bytes(word));
    let count = next(from)?;
    if count > MOST_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    (0..count).map(|_| next(from)).collect()
}

/// Takes a descriptor that the predecessor has left open, and keeps it from children.
fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD takes any number and answers EBADF where nothing is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open. What this process opens itself is close-on-exec from its first moment, and this one is
    // not (below), so it was open from the start: nobody here got it from the kernel, and nobody else takes it,
    // as it is close-on-exec from here on.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    match fcntl_getfd(&descriptor) {
        Ok(flags) if !flags.contains(FdFlags::CLOEXEC) => {
            fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
            Ok(descriptor)
        }
        Ok(_) => {
            // Somebody's own: it is not ours to close.
            std::mem::forget(descriptor);
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is in use by this process"))
        }
        Err(errno) => Err(errno.into()),
    }
}

pub(crate) fn reap(orphans: Vec<u32>, spawner: &Spawner) -> io::Result<()> {
    orphans.into_iter().try_for_each(|pid| {
        // A child that is not reaped keeps its number.
        let handle = os::process::Handle::of_child(pid)?;
        spawner.reap(Orphan::to_await(pid, handle));
        Ok(())
    })
}
