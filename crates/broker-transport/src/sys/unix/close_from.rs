//! Keeping descriptors from a program that is about to be executed.

use libc::c_int;

/// Marks every descriptor from `first` on close-on-exec. Where the kernel cannot do that in one call, only
/// those below `end`, which no open one reached when the caller looked.
///
/// # Safety
/// For a child between fork and exec: nobody else must count on what these descriptors are inherited as.
/// It calls nothing that is not async-signal-safe.
pub(crate) unsafe fn close_from(first: c_int, end: c_int) {
    // SAFETY: plain system calls; numbers that are not open are refused, which does not matter.
    unsafe {
        // Linux 5.11 for the flag.
        #[cfg(target_os = "linux")]
        if libc::syscall(
            libc::SYS_close_range,
            first as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        ) == 0
        {
            return;
        }
        for descriptor in first..end {
            libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}
