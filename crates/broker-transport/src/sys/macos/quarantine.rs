//! Whether a file was downloaded and not yet approved (getxattr(2)).
//!
//! Gatekeeper keeps such a program from being executed, or kills it right after. Invariant: the attribute
//! is looked at and never removed: that is the user's decision.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::rules::is_approved;

const ATTRIBUTE: &std::ffi::CStr = c"com.apple.quarantine";

/// More than the part of its value that counts.
const ROOM: usize = 256;

/// Whether what lies at `path` is in quarantine; also `false` where that cannot be told.
pub(crate) fn is_quarantined(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut value = [0u8; ROOM];
    // SAFETY: both texts end with NUL, and `value` has room for its length.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), ATTRIBUTE.as_ptr(), value.as_mut_ptr().cast(), value.len(), 0, 0)
    };
    match usize::try_from(length) {
        Ok(length) => !is_approved(&value[..length]),
        // One that is too long is there all the same.
        Err(_) => std::io::Error::last_os_error().raw_os_error() == Some(libc::ERANGE),
    }
}
