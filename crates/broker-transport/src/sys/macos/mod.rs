//! What is macOS's own: kqueue, libproc, sysctl, `LOCAL_PEERPID`, `F_FULLFSYNC`, quarantine.

pub(crate) mod connections;
mod descriptors;
pub(crate) mod identity;
pub(crate) mod memory;
#[cfg(feature = "tokio")]
pub(crate) mod process;
mod quarantine;
mod raw;
mod rules;
pub(crate) mod socket;
mod socket_info;
mod sysctl;

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::OFlags;

pub(crate) use self::quarantine::is_quarantined;
pub(crate) use super::locks_by_entry as held_locks;
#[cfg(feature = "sandbox")]
pub(crate) use super::no_sandbox as sandbox;
pub use super::unix::{AsDescriptor, BorrowedDescriptor, OwnedDescriptor};
pub(crate) use super::unix::{
    detach, files, inherited, limits, listener, lock, private_dir, program, service_manager, stream,
};
#[cfg(feature = "tokio")]
pub(crate) use super::unix::{passing, stop_requests, succession};
use crate::endpoint::Platform;

pub(crate) const PLATFORM: Platform = Platform::MacOs;

/// Where a process's own descriptors are listed.
pub(crate) const OWN_DESCRIPTORS: &str = "/dev/fd";

/// How a directory is opened to walk on from it.
pub(crate) const DIRECTORY_HANDLE: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// `OPEN_MAX` of `<sys/syslimits.h>`: above it setrlimit(2) may refuse, whatever the hard limit says.
const OPEN_MAX: u64 = 10_240;

/// The mode bits of a file, whose type differs between platforms.
pub(crate) fn raw_mode(stat: &rustix::fs::Stat) -> u32 {
    u32::from(stat.st_mode)
}

/// The name of the network file system that `path` lies on; `None` for a local one (statfs(2), `MNT_LOCAL`).
pub(crate) fn network_filesystem(path: &Path) -> io::Result<Option<&'static str>> {
    let is_local = rustix::fs::statfs(path)?.f_flags & libc::MNT_LOCAL as u32 != 0;
    Ok(if is_local { None } else { Some("that this volume is mounted from") })
}

/// The highest descriptor limit that this process may set.
pub(crate) fn highest_descriptor_limit(maximum: Option<u64>) -> Option<u64> {
    Some(maximum.map_or(OPEN_MAX, |maximum| maximum.min(OPEN_MAX)))
}

/// Tells where those descriptors end that are to be marked close-on-exec one by one.
///
/// # Safety
/// None is needed: it only looks.
pub(crate) unsafe fn unmarked_end(_first: c_int, end: c_int) -> c_int {
    descriptors::table_end(end)
}

/// # Safety
/// None is needed: libc keeps no signal for itself here.
pub(crate) unsafe fn reset_reserved(_signal: c_int) {}

/// Whether a file system forbids to execute what lies on it: statvfs(3) does not tell here.
pub(crate) const fn forbids_execution(_facts: &rustix::fs::StatVfs) -> bool {
    false
}

/// Puts a file's content on the disk itself: fsync(2) leaves it in the drive's cache here, fcntl(2)'s
/// `F_FULLFSYNC` does not. A file system that has none, such as a mounted share, gets an fsync.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    loop {
        // SAFETY: a plain system call on a descriptor that lives through it.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_FULLFSYNC) } != -1 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ENOTSUP | libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL) => {
                return Ok(rustix::fs::fsync(file)?);
            }
            _ => return Err(error),
        }
    }
}
