//! Texts of the kernel's (sysctl(3)).
//!
//! Invariant: a text is returned whole or not at all.

use std::ffi::CStr;
use std::io;
use std::ptr::null_mut;

use super::rules::c_text;

/// Longer than any text that is asked for here.
const ROOM: usize = 1024;

pub(crate) fn text(name: &CStr) -> io::Result<Option<String>> {
    let mut bytes = [0u8; ROOM];
    let mut length = bytes.len();
    // SAFETY: `name` ends with NUL, `bytes` has room for `length` bytes, and nothing is set.
    let result = unsafe {
        libc::sysctlbyname(name.as_ptr(), bytes.as_mut_ptr().cast(), &raw mut length, null_mut(), 0)
    };
    // One that is too long for the buffer is refused (ENOMEM).
    if result == 0 { Ok(c_text(&bytes[..length])) } else { Err(io::Error::last_os_error()) }
}
