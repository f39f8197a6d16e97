//! Named pipes: making, opening, looking into them (Win32, "Named Pipes").
//!
//! Everything here is over in a moment; what may take longer is an [`overlapped`](super::overlapped) call.
//! Invariant: every pipe is made and opened for overlapped calls, carries bytes and not messages, and takes
//! no client from another machine.

use std::io;
use std::mem::size_of;
use std::num::NonZeroU32;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, OwnedHandle};
use std::path::Path;
use std::ptr::{null, null_mut};

use windows_sys::Wdk::Storage::FileSystem::{
    FILE_INFORMATION_CLASS, FILE_PIPE_CLOSING_STATE, FILE_PIPE_LOCAL_INFORMATION, FILE_SYNCHRONOUS_IO_ALERT,
    FILE_SYNCHRONOUS_IO_NONALERT, FileModeInformation, FilePipeLocalInformation, NtQueryInformationFile,
};
use windows_sys::Win32::Foundation::{
    ERROR_BROKEN_PIPE, ERROR_PIPE_NOT_CONNECTED, GENERIC_READ, GENERIC_WRITE,
};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, OPEN_EXISTING, PIPE_ACCESS_DUPLEX,
    SECURITY_IDENTIFICATION, SECURITY_SQOS_PRESENT,
};
use windows_sys::Win32::System::IO::IO_STATUS_BLOCK;
use windows_sys::Win32::System::Pipes::{
    CreateNamedPipeW, GetNamedPipeClientProcessId, GetNamedPipeInfo, GetNamedPipeServerProcessId,
    PIPE_READMODE_BYTE, PIPE_REJECT_REMOTE_CLIENTS, PIPE_SERVER_END, PIPE_TYPE_BYTE,
    PIPE_UNLIMITED_INSTANCES, PIPE_WAIT, PeekNamedPipe,
};

use super::calls::{done, owned, wide};
use super::error::{is, of_status};
use super::security::OwnerOnly;
use crate::endpoint::pipe_name;

/// How much the system holds for a reader in each direction, in bytes. What is written beyond that waits
/// until it is read.
const BUFFER: u32 = 64 * 1024;

/// Which end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Server,
    Client,
}

/// Whether a pipe's name must be free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instance {
    First,
    Further,
}

/// A pipe's full name, for the system.
pub(super) fn wide_name(endpoint: &Path) -> io::Result<Vec<u16>> {
    wide(pipe_name(&endpoint.to_string_lossy()))
}

/// Makes an instance of a pipe, which a client may connect to from now on.
pub(super) fn create(name: &[u16], instance: Instance, security: &OwnerOnly) -> io::Result<OwnedHandle> {
    let first = match instance {
        Instance::First => FILE_FLAG_FIRST_PIPE_INSTANCE,
        Instance::Further => 0,
    };
    let attributes = security.attributes();
    // SAFETY: the name ends with a NUL; it and the attributes outlive the call.
    let handle = unsafe {
        CreateNamedPipeW(
            name.as_ptr(),
            PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED | first,
            PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_WAIT | PIPE_REJECT_REMOTE_CLIENTS,
            PIPE_UNLIMITED_INSTANCES,
            BUFFER,
            BUFFER,
            0,
            &raw const attributes,
        )
    };
    // SAFETY: the call has just made it.
    unsafe { owned(handle) }
}

/// Connects to a pipe, at once or not at all. Its server may learn who we are, and not act as us.
pub(super) fn open(name: &[u16]) -> io::Result<OwnedHandle> {
    // SAFETY: the name ends with a NUL and outlives the call.
    let handle = unsafe {
        CreateFileW(
            name.as_ptr(),
            GENERIC_READ | GENERIC_WRITE,
            0,
            null(),
            OPEN_EXISTING,
            FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION,
            null_mut(),
        )
    };
    // SAFETY: the call has just made it.
    unsafe { owned(handle) }
}

/// A server's end and a client's, connected with each other.
pub(super) fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let leaf = format!("rpb-pair-{:032x}", u128::from_ne_bytes(random));
    let name = wide_name(Path::new(&leaf))?;
    let near = create(&name, Instance::First, &OwnerOnly::pipe()?)?;
    let far = open(&name)?;
    Ok((near, far))
}

/// Which end of a pipe this is; an error where it is none.
pub(super) fn end(pipe: BorrowedHandle<'_>) -> io::Result<End> {
    let mut flags = 0;
    // SAFETY: the result has room, and what is not wanted may be null.
    let outcome =
        unsafe { GetNamedPipeInfo(pipe.as_raw_handle(), &raw mut flags, null_mut(), null_mut(), null_mut()) };
    done(outcome)?;
    Ok(if flags & PIPE_SERVER_END == 0 { End::Client } else { End::Server })
}

/// [`end`] of a pipe that somebody else has opened.
pub(super) fn end_of_foreign(pipe: BorrowedHandle<'_>) -> io::Result<End> {
    let end = end(pipe)?;
    let mut mode = 0_u32;
    // SAFETY: the mode is what is asked for.
    let is_known = unsafe { query(pipe, FileModeInformation, &mut mode) };
    // A system that does not tell is taken to have opened it as everybody does.
    let waits = FILE_SYNCHRONOUS_IO_ALERT | FILE_SYNCHRONOUS_IO_NONALERT;
    if is_known.is_ok() && mode & waits != 0 {
        let what = "a pipe that was not opened for overlapped calls";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(end)
}

/// The process that opened an end of a pipe.
pub(super) fn process_of(pipe: BorrowedHandle<'_>, end: End) -> io::Result<Option<NonZeroU32>> {
    let mut pid = 0;
    // SAFETY: the result has room.
    done(unsafe {
        match end {
            End::Server => GetNamedPipeServerProcessId(pipe.as_raw_handle(), &raw mut pid),
            End::Client => GetNamedPipeClientProcessId(pipe.as_raw_handle(), &raw mut pid),
        }
    })?;
    Ok(NonZeroU32::new(pid))
}

/// What there is to read, without taking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// This many bytes, at least one.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// Nothing, and there never will be.
    End,
}

/// Looks into a pipe; what is there is copied into `buffer`, as far as that goes.
pub(super) fn peek(pipe: BorrowedHandle<'_>, buffer: &mut [u8]) -> io::Result<Look> {
    let (mut available, length) = (0, u32::try_from(buffer.len()).unwrap_or(u32::MAX));
    // SAFETY: the buffer has room for `length` bytes, and what is not wanted may be null.
    let outcome = done(unsafe {
        PeekNamedPipe(
            pipe.as_raw_handle(),
            buffer.as_mut_ptr().cast(),
            length,
            null_mut(),
            &raw mut available,
            null_mut(),
        )
    });
    match outcome {
        Ok(()) if available == 0 => Ok(Look::Nothing),
        Ok(()) => Ok(Look::Bytes(available as usize)),
        Err(error) if is_end(&error) => Ok(Look::End),
        Err(error) => Err(error),
    }
}

/// Whether the other end is closed, whatever there is still to read.
pub(super) fn is_closing(pipe: BorrowedHandle<'_>) -> io::Result<bool> {
    let mut facts = FILE_PIPE_LOCAL_INFORMATION::default();
    // SAFETY: the structure is the one that is asked for.
    unsafe { query(pipe, FilePipeLocalInformation, &mut facts) }?;
    Ok(facts.NamedPipeState == FILE_PIPE_CLOSING_STATE)
}

/// What the kernel knows of an open file.
///
/// # Safety
/// `T` is what it answers for this class.
unsafe fn query<T>(
    file: BorrowedHandle<'_>,
    class: FILE_INFORMATION_CLASS,
    answer: &mut T,
) -> io::Result<()> {
    let mut status = IO_STATUS_BLOCK::default();
    let room = size_of::<T>() as u32;
    // SAFETY: both results have room; the caller vouches for the type of the second.
    let outcome = unsafe {
        NtQueryInformationFile(file.as_raw_handle(), &raw mut status, (&raw mut *answer).cast(), room, class)
    };
    if outcome < 0 { Err(of_status(outcome)) } else { Ok(()) }
}

/// Whether reading failed because the other end is closed, and everything is read.
pub(super) fn is_end(error: &io::Error) -> bool {
    is(error, ERROR_BROKEN_PIPE) || is(error, ERROR_PIPE_NOT_CONNECTED)
}
