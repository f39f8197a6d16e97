//! Calls that the system carries out while the caller goes on (overlapped I/O).
//!
//! Such a call owns its `OVERLAPPED` and its bytes until the system is done with them, and tells of its end by
//! an event. It is no completion port that it tells: a pipe belongs to one port for life, so whoever the
//! connection is passed to could not bring its own. Invariant: memory that the system uses is freed only
//! after the call has ended.

use std::io;
use std::os::windows::io::{AsRawHandle, OwnedHandle};
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{
    ERROR_IO_INCOMPLETE, ERROR_IO_PENDING, ERROR_OPERATION_ABORTED, WAIT_OBJECT_0, WAIT_TIMEOUT,
};
use windows_sys::Win32::Storage::FileSystem::{ReadFile, WriteFile};
use windows_sys::Win32::System::IO::{CancelIoEx, GetOverlappedResult, OVERLAPPED};
use windows_sys::Win32::System::Pipes::ConnectNamedPipe;
use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, WaitForSingleObject};

use super::calls::{done, owned};
use super::error::is;

/// What is asked of the system.
#[derive(Clone, Copy)]
pub(super) enum Call {
    /// To connect a pipe's instance with a client.
    Connect,
    /// To read into these bytes. Without any, to tell when there is something to read.
    Read(*mut [u8]),
    /// To write these bytes.
    Write(*const [u8]),
}

/// One call on one file. The next one has a value and an event of its own: the system may still be about to set
/// this one's event when its outcome is known already.
#[derive(Debug)]
pub(super) struct Overlapped {
    file: Arc<OwnedHandle>,
    /// From `Box::leak`.
    state: NonNull<OVERLAPPED>,
    event: OwnedHandle,
    is_begun: bool,
    is_pending: bool,
}

// SAFETY: the pointer leads to a value of this one's own, which nobody else in this process uses.
unsafe impl Send for Overlapped {}
// SAFETY: nothing is done with it but through `&mut self`.
unsafe impl Sync for Overlapped {}

impl Overlapped {
    pub(super) fn new(file: Arc<OwnedHandle>) -> io::Result<Self> {
        // SAFETY: no attributes, no name; it stays set until it is reset.
        let event = unsafe { owned(CreateEventW(null(), 1, 0, null())) }?;
        let state = NonNull::from(Box::leak(Box::<OVERLAPPED>::default()));
        Ok(Self { file, state, event, is_begun: false, is_pending: false })
    }

    pub(super) const fn event(&self) -> &OwnedHandle {
        &self.event
    }

    /// Begins a call; what it came to where it has ended at once.
    ///
    /// # Safety
    /// The call's bytes are valid, and nobody else's, until it has ended: until a method here has told what
    /// it came to, or this value is dropped.
    ///
    /// # Panics
    /// The second time.
    pub(super) unsafe fn start(&mut self, call: Call) -> io::Result<Option<usize>> {
        assert!(!self.is_begun, "one call in its life");
        self.is_begun = true;
        let (file, state) = (self.file.as_raw_handle(), self.state.as_ptr());
        // The lowest bit keeps the outcome from a completion port (GetQueuedCompletionStatus). Whoever was passed
        // a handle of this pipe may have bound all of them to one, where this value would be taken for its own.
        let event = self.event.as_raw_handle().map_addr(|address| address | 1);
        // SAFETY: no call is pending, so the value is this one's alone. It lives until this one is dropped,
        // which ends the call first; the caller vouches for the bytes, whose lengths are cut to what fits.
        let is_done = unsafe {
            *state = OVERLAPPED { hEvent: event, ..OVERLAPPED::default() };
            match call {
                Call::Connect => ConnectNamedPipe(file, state),
                Call::Read(bytes) => ReadFile(file, bytes.cast(), count(bytes.len()), null_mut(), state),
                Call::Write(bytes) => WriteFile(file, bytes.cast(), count(bytes.len()), null_mut(), state),
            }
        };
        if is_done == 0 {
            let error = io::Error::last_os_error();
            if !is(&error, ERROR_IO_PENDING) {
                return Err(error);
            }
        }
        self.is_pending = true;
        self.outcome()
    }

    /// What the call came to; nothing while it is pending.
    pub(super) fn outcome(&mut self) -> io::Result<Option<usize>> {
        match self.ask(0) {
            Err(error) if is(&error, ERROR_IO_INCOMPLETE) => Ok(None),
            outcome => {
                self.is_pending = false;
                outcome.map(Some)
            }
        }
    }

    /// Waits until the call has ended, or the deadline has passed; nothing then.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Option<usize>> {
        loop {
            // SAFETY: the event is open.
            match unsafe { WaitForSingleObject(self.event.as_raw_handle(), milliseconds(deadline)) } {
                WAIT_OBJECT_0 => return self.outcome(),
                WAIT_TIMEOUT if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                    return Ok(None);
                }
                WAIT_TIMEOUT => {}
                _ => return Err(io::Error::last_os_error()),
            }
        }
    }

    /// Ends the call; what it has come to by then, which is nothing where it has done nothing.
    pub(super) fn cancel(&mut self) -> io::Result<Option<usize>> {
        if !self.is_pending {
            return Ok(None);
        }
        // SAFETY: `state` is that of a call on this file. One that has ended by itself is not found, which
        // is no failure.
        unsafe { CancelIoEx(self.file.as_raw_handle(), self.state.as_ptr()) };
        let outcome = self.ask(1);
        self.is_pending = false;
        match outcome {
            Ok(count) => Ok(Some(count)),
            // SAFETY: the call has ended, so the value is this one's alone.
            Err(error) if is_cancelled(&error) => match unsafe { self.state.as_ref() } {
                OVERLAPPED { InternalHigh: 0, .. } => Ok(None),
                OVERLAPPED { InternalHigh: count, .. } => Ok(Some(*count)),
            },
            Err(error) => Err(error),
        }
    }

    /// How much was done by a call that has failed.
    pub(super) fn done_before_failure(&self) -> usize {
        debug_assert!(!self.is_pending);
        // SAFETY: the call has ended, so the value is this one's alone.
        unsafe { self.state.as_ref() }.InternalHigh
    }

    fn ask(&mut self, wait: i32) -> io::Result<usize> {
        let mut count = 0;
        let (file, state) = (self.file.as_raw_handle(), self.state.as_ptr());
        // SAFETY: `state` is that of a call on this file.
        done(unsafe { GetOverlappedResult(file, state, &raw mut count, wait) })?;
        Ok(count as usize)
    }
}

impl Drop for Overlapped {
    fn drop(&mut self) {
        // Whatever it came to, nobody asks any more.
        let _ = self.cancel();
        // SAFETY: from `Box::leak`, and no call uses it any more.
        drop(unsafe { Box::from_raw(self.state.as_ptr()) });
    }
}

/// Whether a call was given up: here, or because the thread that began it has ended.
pub(super) fn is_cancelled(error: &io::Error) -> bool {
    is(error, ERROR_OPERATION_ABORTED)
}

fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// What is left until a deadline, rounded up, as the system counts it.
fn milliseconds(deadline: Option<Instant>) -> u32 {
    let Some(deadline) = deadline else { return INFINITE };
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_nanos(999_999);
    u32::try_from(left.as_millis()).unwrap_or(INFINITE).min(INFINITE - 1)
}

/// One call, from its beginning to its end or the deadline: nothing then, unless part of it was done.
///
/// # Safety
/// The call's bytes are valid, and nobody else's, until this returns.
pub(super) unsafe fn carry_out(
    file: Arc<OwnedHandle>,
    call: Call,
    deadline: Option<Instant>,
) -> io::Result<Option<usize>> {
    let mut overlapped = Overlapped::new(file)?;
    // SAFETY: as the caller vouches; the call has ended when this returns.
    if let Some(count) = unsafe { overlapped.start(call) }? {
        return Ok(Some(count));
    }
    match overlapped.wait(deadline)? {
        Some(count) => Ok(Some(count)),
        None => overlapped.cancel(),
    }
}
