//! How many descriptors this process has open and may have, and how many inodes a disk has left.
//!
//! Figures for metrics and for start-up; pressure itself shows where an accept fails
//! ([`AcceptError`](crate::listener::AcceptError)). Invariant: a limit is only ever raised, and a
//! spawned child gets the original one back.

use std::io;
use std::path::Path;

use crate::sys::limits as sys;

/// Open descriptors and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorUsage {
    /// Open now.
    pub open: u64,
    /// The soft limit (`RLIMIT_NOFILE`); `u64::MAX` when there is none. On Windows what one process can have.
    pub limit: u64,
}

impl DescriptorUsage {
    /// The used share, from 0 to 1.
    pub fn ratio(self) -> f64 {
        if self.limit == 0 { 1.0 } else { self.open as f64 / self.limit as f64 }
    }
}

/// Counts this process's descriptors.
///
/// # Errors
/// The listing of `/proc/self/fd` fails, for instance because no descriptor is left to read it with.
pub fn descriptor_usage() -> io::Result<DescriptorUsage> {
    sys::descriptor_usage()
}

/// How many descriptors this process may have, now and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimits {
    /// The soft limit; `u64::MAX` when there is none.
    pub soft: u64,
    /// The highest that it can be raised to.
    pub hard: u64,
}

/// The limits as they are; nothing is raised.
pub fn descriptor_limits() -> DescriptorLimits {
    sys::descriptor_limits()
}

/// Raises the soft limit of descriptors to the hard one and returns it.
///
/// Children that this crate starts get the former limit, as programs that use `select` break above 1024.
///
/// # Errors
/// The system refuses.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    sys::raise_descriptor_limit()
}

/// Whether an operation failed because this process (`EMFILE`) or the system (`ENFILE`) is out of descriptors, or
/// on Windows of the memory and quota that handles are made of.
pub fn is_descriptor_shortage(error: &io::Error) -> bool {
    sys::is_descriptor_shortage(error)
}

/// Inodes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InodeUsage {
    /// All there are; 0 where the file system makes them as needed.
    pub total: u64,
    /// Those that are free.
    pub free: u64,
}

/// Counts the inodes of the file system that `path` lies on (statvfs(3)).
///
/// # Errors
/// There is no such path; [`Unsupported`](crate::Unsupported) on Windows, where files are not counted so.
pub fn inode_usage(path: &Path) -> io::Result<InodeUsage> {
    sys::inode_usage(path)
}

/// What a file system has left, and what it permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this user may still write.
    pub available: u64,
    /// All bytes there are.
    pub total: u64,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// Whether nothing can be executed.
    pub no_execution: bool,
}

/// What the file system that `path` lies on has left (statvfs(3), `GetDiskFreeSpaceExW`).
///
/// # Errors
/// There is no such path.
pub fn space(path: &Path) -> io::Result<Space> {
    sys::space(path)
}
