//! What is Linux's own: `/proc`, `SO_PEERCRED`, pidfds, `close_range`.

pub(crate) mod connections;
pub(crate) mod identity;
mod network_fs;
#[cfg(feature = "tokio")]
pub(crate) mod process;
pub(crate) mod socket;

use rustix::fs::OFlags;

pub(crate) use self::network_fs::network_filesystem;
pub use super::unix::{AsDescriptor, BorrowedDescriptor, OwnedDescriptor};
pub(crate) use super::unix::{
    detach, files, inherited, limits, listener, lock, private_dir, program, stream,
};
#[cfg(feature = "tokio")]
pub(crate) use super::unix::{passing, stop_requests};
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
