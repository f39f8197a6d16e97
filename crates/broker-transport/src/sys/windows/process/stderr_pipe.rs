//! A child's stderr, from its pipe into its ring.
//!
//! A thread of its own reads the pipe, as its end is not told where tokio could hear of it in time. Invariants:
//! the child never waits for its reader, and nobody waits for more than what was in the pipe when the child
//! ended, whoever else still has it open.

use std::fs::OpenOptions;
use std::io;
use std::os::windows::io::{AsRawHandle, OwnedHandle};
use std::ptr::{null, null_mut};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use windows_sys::Win32::Foundation::{
    ERROR_BROKEN_PIPE, ERROR_IO_PENDING, ERROR_OPERATION_ABORTED, HANDLE, WAIT_OBJECT_0,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, PIPE_ACCESS_INBOUND, ReadFile,
};
use windows_sys::Win32::System::IO::{CancelIoEx, GetOverlappedResult, OVERLAPPED};
use windows_sys::Win32::System::Pipes::{
    CreateNamedPipeW, PIPE_READMODE_BYTE, PIPE_REJECT_REMOTE_CLIENTS, PIPE_TYPE_BYTE, PIPE_WAIT,
    PeekNamedPipe,
};
use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, SetEvent, WaitForMultipleObjects};

use super::super::calls::{done, owned, wide};
use super::super::security::OwnerOnly;
use crate::process::StderrRing;

/// How much the pipe holds.
const ROOM: u32 = 64 * 1024;

const CHUNK: usize = 4096;

/// Most chunks that are taken after the child's end: what a grandchild goes on to say is nobody's. More than
/// the pipe holds.
const CHUNKS_AT_THE_END: usize = 64;

/// Both ends of a new pipe: one that is read with overlapped calls, and one that is written to.
///
/// An anonymous pipe has no overlapped calls, so it has a name, which nobody can guess, and no other user can open.
pub(super) fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let path = format!(r"\\.\pipe\broker-stderr-{:032x}", u128::from_ne_bytes(random));
    let (name, owner_only) = (wide(&path)?, OwnerOnly::pipe()?);
    let attributes = owner_only.attributes();
    // SAFETY: the name ends with NUL; the handle is new and not inherited.
    let reader = unsafe {
        owned(CreateNamedPipeW(
            name.as_ptr(),
            PIPE_ACCESS_INBOUND | FILE_FLAG_OVERLAPPED | FILE_FLAG_FIRST_PIPE_INSTANCE,
            PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_WAIT | PIPE_REJECT_REMOTE_CLIENTS,
            1,
            0,
            ROOM,
            0,
            &raw const attributes,
        ))
    }?;
    // The one instance is taken from now on.
    let writer = OpenOptions::new().write(true).open(&path)?;
    Ok((reader, writer.into()))
}

/// Reads a pipe until its child ends.
#[derive(Debug)]
pub(super) struct StderrPipe {
    /// Set when the child has ended.
    end: Arc<OwnedHandle>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl StderrPipe {
    pub(super) fn start(pipe: OwnedHandle, ring: StderrRing) -> io::Result<Self> {
        let end = Arc::new(event()?);
        let mut source = Source { read: event()?, end: Arc::clone(&end), pipe, ring };
        let reader = std::thread::Builder::new().name("broker-stderr".into()).spawn(move || {
            if let Err(error) = source.read_all() {
                tracing::debug!(%error, "a child's stderr cannot be read");
            }
        })?;
        Ok(Self { end, reader: Mutex::new(Some(reader)) })
    }

    /// Takes what is in the pipe after the child's end, and stops reading.
    pub(super) fn finish(&self) {
        // SAFETY: the handle is open.
        if unsafe { SetEvent(self.end.as_raw_handle()) } == 0 {
            return;
        }
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reader) = reader {
            // It panics nowhere; if it did, its bytes would be missing and nothing else.
            let _ = reader.join();
        }
    }
}

impl Drop for StderrPipe {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The thread's side.
struct Source {
    pipe: OwnedHandle,
    /// Set when a read has come to its end.
    read: OwnedHandle,
    end: Arc<OwnedHandle>,
    ring: StderrRing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// There may be more.
    More,
    /// The child has ended.
    ChildEnded,
    /// Every writer is gone.
    Closed,
}

impl Source {
    fn read_all(&mut self) -> io::Result<()> {
        loop {
            match self.take_chunk()? {
                State::More => {}
                State::ChildEnded => break,
                State::Closed => return Ok(()),
            }
        }
        // What a process wrote before it ended is in the pipe by then.
        for _ in 0..CHUNKS_AT_THE_END {
            if !self.has_more() || self.take_chunk()? == State::Closed {
                break;
            }
        }
        Ok(())
    }

    fn has_more(&self) -> bool {
        let mut available = 0;
        // SAFETY: the handle is open, and only the number of bytes is written to.
        let is_known = unsafe {
            PeekNamedPipe(
                self.pipe.as_raw_handle(),
                null_mut(),
                0,
                null_mut(),
                &raw mut available,
                null_mut(),
            )
        };
        is_known != 0 && available > 0
    }

    /// Waits for the next bytes, or for the child's end.
    fn take_chunk(&mut self) -> io::Result<State> {
        let mut chunk = [0; CHUNK];
        let mut overlapped = OVERLAPPED { hEvent: self.read.as_raw_handle(), ..OVERLAPPED::default() };
        let pipe = self.pipe.as_raw_handle();
        // SAFETY: the chunk and the structure stay where they are until the read has come to its end, which is
        // waited for below on every way.
        let started =
            unsafe { ReadFile(pipe, chunk.as_mut_ptr(), CHUNK as u32, null_mut(), &raw mut overlapped) };
        if started == 0 {
            match io::Error::last_os_error() {
                error if is(&error, ERROR_IO_PENDING) => {}
                error if is(&error, ERROR_BROKEN_PIPE) => return Ok(State::Closed),
                error => return Err(error),
            }
        }
        let events: [HANDLE; 2] = [self.read.as_raw_handle(), self.end.as_raw_handle()];
        // SAFETY: both handles are open. The first one that is set is told of.
        let is_read = unsafe { WaitForMultipleObjects(2, events.as_ptr(), 0, INFINITE) } == WAIT_OBJECT_0;
        let mut length = 0;
        // SAFETY: the read is the one of this structure; after it was cancelled, its end is near.
        let result = done(unsafe {
            if !is_read {
                CancelIoEx(pipe, &raw const overlapped);
            }
            GetOverlappedResult(pipe, &raw const overlapped, &raw mut length, 1)
        });
        match result {
            Ok(()) => self.ring.push(&chunk[..length as usize]),
            Err(error) if is(&error, ERROR_BROKEN_PIPE) => return Ok(State::Closed),
            Err(error) if is(&error, ERROR_OPERATION_ABORTED) => {}
            Err(error) => return Err(error),
        }
        Ok(if is_read { State::More } else { State::ChildEnded })
    }
}

fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error() == Some(code.cast_signed())
}

/// An event that stays set until a read resets it.
fn event() -> io::Result<OwnedHandle> {
    // SAFETY: without a name and with default rights; the handle is new and not inherited.
    unsafe { owned(CreateEventW(null(), 1, 0, null())) }
}
