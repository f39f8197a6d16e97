//! What is macOS's own. Sockets, locks and directories work by POSIX; processes and identity are still
//! missing (kqueue, `IOPlatformUUID`) and say so.

pub(crate) mod identity;
pub(crate) mod socket;

use std::io;
use std::path::Path;

use rustix::fs::OFlags;

pub(crate) use super::no_connections as connections;
#[cfg(feature = "tokio")]
pub(crate) use super::no_process as process;
pub use super::unix::{AsDescriptor, BorrowedDescriptor, OwnedDescriptor};
pub(crate) use super::unix::{
    detach, files, inherited, limits, listener, lock, private_dir, program, stream,
};
#[cfg(feature = "tokio")]
pub(crate) use super::unix::{passing, stop_requests};
use crate::endpoint::Platform;

pub(crate) const PLATFORM: Platform = Platform::MacOs;

/// Where a process's own descriptors are listed.
pub(crate) const OWN_DESCRIPTORS: &str = "/dev/fd";

/// How a directory is opened to walk on from it.
pub(crate) const DIRECTORY_HANDLE: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// The mode bits of a file, whose type differs between platforms.
pub(crate) fn raw_mode(stat: &rustix::fs::Stat) -> u32 {
    u32::from(stat.st_mode)
}

/// The name of the network file system that `path` lies on; `None` for a local one (statfs(2), `MNT_LOCAL`).
pub(crate) fn network_filesystem(path: &Path) -> io::Result<Option<&'static str>> {
    let is_local = rustix::fs::statfs(path)?.f_flags & libc::MNT_LOCAL as u32 != 0;
    Ok(if is_local { None } else { Some("that this volume is mounted from") })
}
