//! Errors of the system's calls, by their numbers.

use std::io;

use windows_sys::Win32::Foundation::{NTSTATUS, RtlNtStatusToDosError};

/// Whether an error is this one of the system's.
pub(super) fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error() == Some(code.cast_signed())
}

/// The error behind a status of the kernel's.
pub(super) fn of_status(status: NTSTATUS) -> io::Error {
    // SAFETY: a plain conversion.
    let code = unsafe { RtlNtStatusToDosError(status) };
    io::Error::from_raw_os_error(code.cast_signed())
}
