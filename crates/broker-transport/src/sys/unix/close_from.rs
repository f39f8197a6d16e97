//! Keeping descriptors from a program that is about to be executed.

use std::path::Path;

use libc::c_int;
use rustix::process::{Resource, getrlimit};

use super::super::os;

/// No process is expected to reach it; a larger limit would only make the loop slow.
const HIGHEST_END: c_int = 1 << 20;

/// Marks every descriptor from `first` on close-on-exec. Where the kernel cannot do that in one call, only
/// those below `end`, which no open one reached when the caller looked.
///
/// # Safety
/// For a child between fork and exec: nobody else must count on what these descriptors are inherited as.
/// It calls nothing that is not async-signal-safe.
pub(crate) unsafe fn close_from(first: c_int, end: c_int) {
    // SAFETY: plain system calls; numbers that are not open are refused, which does not matter.
    unsafe {
        for descriptor in first..os::unmarked_end(first, end) {
            libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

/// The number that a descriptor of this process cannot reach: its limit.
pub(crate) fn limit_end() -> c_int {
    let soft = getrlimit(Resource::Nofile).current;
    soft.and_then(|soft| c_int::try_from(soft).ok()).unwrap_or(c_int::MAX).min(HIGHEST_END)
}

/// The number that no descriptor in this listing reaches: much less than the limit, as a rule. The limit
/// where the listing cannot be read, as in a root directory without `/proc`.
pub(crate) fn listed_end(listing: &Path) -> c_int {
    let numbers = std::fs::read_dir(listing).into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<c_int>().ok());
    numbers.max().map_or_else(limit_end, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn no_open_descriptor_reaches_the_end_whether_it_can_be_listed_or_not() {
        let open = std::fs::File::open("/dev/null").unwrap();
        let high = rustix::io::fcntl_dupfd_cloexec(&open, 200).unwrap();
        assert_eq!(listed_end(Path::new("/absent/fd")), limit_end());
        for end in [listed_end(Path::new(os::OWN_DESCRIPTORS)), limit_end()] {
            assert!(high.as_raw_fd() < end, "{high:?} {end}");
        }
    }
}
