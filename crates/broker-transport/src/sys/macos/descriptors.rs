//! How far this process's descriptors reach (libproc.h).
//!
//! Invariant: async-signal-safe, as one plain system call is all there is to it.

use std::ptr::null_mut;

use libc::c_int;

/// The number that no open descriptor reaches, by the size of the kernel's table, which is much less than
/// the limit as a rule; `end` where the kernel does not say.
///
/// Without a buffer, `proc_pidinfo` tells how large one for the whole table would be, with room to spare.
pub(crate) fn table_end(end: c_int) -> c_int {
    // SAFETY: a null buffer of length 0 is not written to.
    let bytes = unsafe { libc::proc_pidinfo(libc::getpid(), libc::PROC_PIDLISTFDS, 0, null_mut(), 0) };
    if bytes > 0 { (bytes / libc::PROC_PIDLISTFD_SIZE).min(end) } else { end }
}
