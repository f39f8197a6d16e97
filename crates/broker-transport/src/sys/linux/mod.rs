//! What is Linux's own: `/proc`, `SO_PEERCRED`, pidfds, `close_range`.

pub(crate) mod connections;
pub(crate) mod held_locks;
pub(crate) mod identity;
pub(crate) mod memory;
mod network_fs;
#[cfg(feature = "tokio")]
pub(crate) mod process;
#[cfg(feature = "sandbox")]
pub(crate) mod sandbox;
pub(crate) mod socket;

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::path::Path;
use std::ptr::null_mut;

use rustix::fs::OFlags;

pub(crate) use self::network_fs::network_filesystem;
pub use super::unix::{AsDescriptor, BorrowedDescriptor, OwnedDescriptor};
pub(crate) use super::unix::{
    detach, files, inherited, limits, listener, lock, private_dir, program, service_manager, stream,
};
#[cfg(feature = "tokio")]
pub(crate) use super::unix::{passing, stop_requests, succession};
use crate::endpoint::Platform;

pub(crate) const PLATFORM: Platform = Platform::Linux;

/// Where a process's own descriptors are listed.
pub(crate) const OWN_DESCRIPTORS: &str = "/proc/self/fd";

/// How a directory is opened to walk on from it; needs no read permission (open(2), `O_PATH`).
pub(crate) const DIRECTORY_HANDLE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The mode bits of a file, whose type differs between platforms.
pub(crate) const fn raw_mode(stat: &rustix::fs::Stat) -> u32 {
    stat.st_mode
}

/// The highest descriptor limit that this process may set: its hard one.
pub(crate) const fn highest_descriptor_limit(maximum: Option<u64>) -> Option<u64> {
    maximum
}

/// Whether a file system was mounted with `noexec`.
pub(crate) const fn forbids_execution(facts: &rustix::fs::StatVfs) -> bool {
    facts.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC)
}

/// Puts a file's content on the disk (fsync(2)).
pub(crate) fn sync(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// Whether the system keeps a file from being executed because it was downloaded: never here.
pub(crate) const fn is_quarantined(_path: &Path) -> bool {
    false
}

/// Marks every descriptor from `first` on close-on-exec in one call; tells where those end that are left
/// to mark one by one.
///
/// # Safety
/// As [`close_from`](super::unix::close_from::close_from).
pub(crate) unsafe fn unmarked_end(first: c_int, end: c_int) -> c_int {
    // SAFETY: a plain system call, of Linux 5.11 for the flag.
    let result = unsafe {
        let first = first as libc::c_uint;
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if result == 0 { first } else { end }
}

/// libc refuses the signals that it keeps for its own threads, but whoever started this process may have
/// ignored them.
///
/// # Safety
/// As [`reset_dispositions`](super::unix::signals::reset_dispositions).
pub(crate) unsafe fn reset_reserved(signal: c_int) {
    // The kernel's structure is shorter than these words, and all zero for the default.
    let default = [0u64; 8];
    // SAFETY: `default` is valid to read for longer than the kernel reads, and no old value is asked for.
    unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, null_mut::<u64>(), 8usize);
    }
}
