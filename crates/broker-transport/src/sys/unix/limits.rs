//! Descriptor limits by the listing of the own descriptors and `getrlimit` (getrlimit(2)).
//!
//! Invariant: the limit that this process started with is never forgotten once it was raised.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::os;
use crate::limits::{DescriptorLimits, DescriptorUsage, InodeUsage, Space};

/// The limit before it was raised, for children.
static ORIGINAL: OnceLock<(Option<u64>, Option<u64>)> = OnceLock::new();

pub(crate) fn descriptor_usage() -> io::Result<DescriptorUsage> {
    // One of the entries is the listing's own descriptor.
    let listed = std::fs::read_dir(os::OWN_DESCRIPTORS)?.count() as u64;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    Ok(DescriptorUsage { open: listed.saturating_sub(1), limit })
}

pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    ORIGINAL.get_or_init(|| (current, maximum));
    let highest = os::highest_descriptor_limit(maximum);
    if current.unwrap_or(u64::MAX) >= highest.unwrap_or(u64::MAX) {
        return Ok(current.unwrap_or(u64::MAX));
    }
    setrlimit(Resource::Nofile, Rlimit { current: highest, maximum })?;
    Ok(highest.unwrap_or(u64::MAX))
}

pub(crate) fn descriptor_limits() -> DescriptorLimits {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let soft = current.unwrap_or(u64::MAX);
    let hard = os::highest_descriptor_limit(maximum).unwrap_or(u64::MAX);
    DescriptorLimits { soft, hard: hard.max(soft) }
}

pub(crate) fn is_descriptor_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

pub(crate) fn inode_usage(path: &Path) -> io::Result<InodeUsage> {
    let facts = rustix::fs::statvfs(path)?;
    Ok(InodeUsage { total: facts.f_files, free: facts.f_ffree })
}

pub(crate) fn space(path: &Path) -> io::Result<Space> {
    let facts = rustix::fs::statvfs(path)?;
    Ok(Space {
        available: facts.f_bavail.saturating_mul(facts.f_frsize),
        total: facts.f_blocks.saturating_mul(facts.f_frsize),
        read_only: facts.f_flag.contains(StatVfsMountFlags::RDONLY),
        no_execution: os::forbids_execution(&facts),
    })
}

/// The limits that a child starts with, where this process's own are no longer the original ones.
#[cfg(feature = "tokio")]
pub(crate) fn original_limit() -> Option<libc::rlimit> {
    let to_raw = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    ORIGINAL
        .get()
        .map(|(current, maximum)| libc::rlimit { rlim_cur: to_raw(*current), rlim_max: to_raw(*maximum) })
}

/// Does something under the limit that this process started with.
#[cfg(feature = "tokio")]
pub(crate) fn with_original_limit<R>(work: impl FnOnce() -> R) -> R {
    let Some((current, maximum)) = ORIGINAL.get().copied() else { return work() };
    let raised = getrlimit(Resource::Nofile);
    // Lowering one's own soft limit, and raising it again, is always allowed.
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    let done = work();
    let _ = setrlimit(Resource::Nofile, raised);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_counted_and_the_limit_can_be_raised() {
        let (usage, limits) = (descriptor_usage().unwrap(), descriptor_limits());
        assert!(limits.soft <= limits.hard);
        assert!(usage.open >= 3 && usage.open <= usage.limit);
        assert!(usage.ratio() > 0.0 && usage.ratio() <= 1.0);
        let raised = raise_descriptor_limit().unwrap();
        assert!(raised >= usage.limit);
        assert_eq!(raised, limits.hard);
        assert_eq!(descriptor_usage().unwrap().limit, raised);
    }

    #[test]
    fn inodes_are_counted_where_there_is_a_file_system() {
        let usage = inode_usage(&std::env::temp_dir()).unwrap();
        assert!(usage.free <= usage.total);
        let space = space(&std::env::temp_dir()).unwrap();
        assert!(space.available <= space.total && !space.read_only);
        assert_eq!(inode_usage(Path::new("/absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
