//! What libc does not declare for macOS, by `<sys/proc_info.h>` of the system's headers.
//!
//! Invariant: only numbers; what is laid out by them is checked against the size that the kernel writes.

use libc::c_int;

/// `proc_listpids`: the processes of one effective user.
pub(crate) const PROC_UID_ONLY: u32 = 4;

/// `proc_pidfdinfo`: a `struct socket_fdinfo`.
pub(crate) const PROC_PIDFDSOCKETINFO: c_int = 3;
