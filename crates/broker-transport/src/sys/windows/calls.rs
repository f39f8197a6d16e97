//! Small steps between this language's values and the system's.
//!
//! Invariant: a call that failed becomes the error of that very call.

use std::ffi::{OsStr, OsString, c_void};
use std::io;
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::os::windows::io::{FromRawHandle, OwnedHandle};
use std::path::{Component, Path, Prefix};

use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE, LocalFree};
use windows_sys::core::BOOL;

/// Longest text that is asked for, in UTF-16 units: no path is longer.
const MAX_TEXT: usize = 32 * 1024;

/// Length that a text is first assumed to have.
const USUAL_TEXT: usize = 512;

/// Whether a call that answers with a truth value has succeeded.
pub(super) fn done(result: BOOL) -> io::Result<()> {
    if result == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The handle that a call has made.
///
/// # Safety
/// It was just given out by a call, and nobody else closes it.
pub(super) unsafe fn owned(handle: HANDLE) -> io::Result<OwnedHandle> {
    if handle.is_null() || handle == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: passed on from the caller.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// UTF-16 that ends with NUL, as the system's calls take it.
pub(super) fn wide(text: impl AsRef<OsStr>) -> io::Result<Vec<u16>> {
    let mut units: Vec<u16> = text.as_ref().encode_wide().collect();
    if units.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name has a NUL character in it"));
    }
    units.push(0);
    Ok(units)
}

/// A path as [`wide`]. A long one is given in the form for which no limit of 260 characters holds.
pub(super) fn wide_path(path: &Path) -> io::Result<Vec<u16>> {
    /// Below the limit by the room that the system keeps for a short name in a directory.
    const LONG: usize = 247;
    let plain = wide(path)?;
    if plain.len() <= LONG {
        return Ok(plain);
    }
    // That form is taken as it is, so it has to be absolute and tidy already.
    let absolute = std::path::absolute(path)?;
    match absolute.components().next() {
        Some(Component::Prefix(prefix)) if matches!(prefix.kind(), Prefix::Disk(_)) => {
            let mut verbatim = OsString::from(r"\\?\");
            verbatim.push(absolute);
            wide(verbatim)
        }
        _ => Ok(plain),
    }
}

/// Up to the first NUL, or all of it.
pub(super) fn text(units: &[u16]) -> OsString {
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    OsString::from_wide(&units[..end])
}

/// A text by a call that fills a buffer and puts the text's length, or the room it needs, into its number.
pub(super) fn filled(mut call: impl FnMut(*mut u16, &mut u32) -> BOOL) -> io::Result<OsString> {
    let mut room = USUAL_TEXT;
    loop {
        let mut buffer = vec![0; room];
        let mut length = room as u32;
        match done(call(buffer.as_mut_ptr(), &mut length)) {
            Ok(()) => return Ok(text(&buffer)),
            Err(error) if !is_too_small(&error) || room >= MAX_TEXT => return Err(error),
            Err(_) => room = MAX_TEXT,
        }
    }
}

fn is_too_small(error: &io::Error) -> bool {
    use windows_sys::Win32::Foundation::{ERROR_INSUFFICIENT_BUFFER, ERROR_MORE_DATA};
    let code = error.raw_os_error().map(i32::cast_unsigned);
    matches!(code, Some(ERROR_INSUFFICIENT_BUFFER | ERROR_MORE_DATA))
}

/// Memory that a call has made and that `LocalFree` takes back.
pub(super) struct Local(pub(super) *mut c_void);

impl Drop for Local {
    fn drop(&mut self) {
        // SAFETY: by the type's meaning the memory came from the local heap; null is let be.
        unsafe { LocalFree(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_survives_the_way_there_and_back() {
        assert_eq!(text(&wide("a b\u{1F980}").unwrap()), OsString::from("a b\u{1F980}"));
        assert_eq!(text(&[97, 98]), OsString::from("ab"));
        assert_eq!(wide("a\0b").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
