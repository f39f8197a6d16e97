//! Handles that this process was started with.
//!
//! Invariant: a value becomes an owned handle only after it was seen to be what it should be, so a false
//! promise in the environment never closes a handle that is somebody else's.

use std::io;
use std::mem::size_of;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle, RawHandle};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

use windows_sys::Wdk::System::Threading::{NtQueryInformationProcess, ProcessBasicInformation};
use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, SetHandleInformation};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, PROCESS_BASIC_INFORMATION};

use super::calls::done;
use super::listener::passes_no_listeners;
use super::peer;
use super::pipe;
use crate::activation::{ActivationError, PassedListener, PassedStream};
use crate::listener::{BindError, BoundSocket};

/// Whether the stream to the parent has an owner in this process.
static IS_STREAM_TAKEN: AtomicBool = AtomicBool::new(false);

/// Fails: nobody can pass a listener on this system.
pub(crate) fn take_listener(
    passed: PassedListener,
    path: Option<&Path>,
) -> Result<BoundSocket, ActivationError> {
    let shown = path.unwrap_or(Path::new("an inherited handle"));
    let _ = passed.number();
    let (operation, source) = ("listen on", passes_no_listeners().into());
    Err(BindError::Io { operation, path: shown.to_path_buf(), source }.into())
}

/// Fails, too.
pub(crate) fn take_listener_at(passed: PassedListener, path: &Path) -> Result<BoundSocket, ActivationError> {
    take_listener(passed, Some(path))
}

pub(crate) fn take_parent_stream(passed: PassedStream) -> Result<OwnedHandle, ActivationError> {
    if IS_STREAM_TAKEN.swap(true, Ordering::Relaxed) {
        return Err(ActivationError::Taken);
    }
    let taken = claim(passed.number());
    if taken.is_err() {
        IS_STREAM_TAKEN.store(false, Ordering::Relaxed);
    }
    taken
}

fn claim(number: i32) -> Result<OwnedHandle, ActivationError> {
    let refused = |found| ActivationError::NotTheParents { descriptor: number.into(), found };
    let value = usize::try_from(number).map_err(|_| refused("no handle"))?;
    let raw: RawHandle = std::ptr::with_exposed_provenance_mut(value);
    // SAFETY: borrowed for this function only; a value that stands for nothing is an error of the calls below.
    let handle = unsafe { BorrowedHandle::borrow_raw(raw) };
    let Ok(end) = pipe::end(handle) else { return Err(refused("no pipe")) };
    let peer = peer::credentials(handle, end).map_err(|_| refused("a stream of nobody known"))?;
    if !peer.user.is_self() || peer.pid.map(std::num::NonZeroU32::get) != parent().ok() {
        return Err(refused("a stream of another process"));
    }
    // SAFETY: the handle is open.
    done(unsafe { SetHandleInformation(handle.as_raw_handle(), HANDLE_FLAG_INHERIT, 0) })
        .map_err(|_| refused("a stream that is stuck"))?;
    // SAFETY: the other end is the parent's, which had this one inherited by its child and named its value;
    // a value that was there from the start is not handed out again by the system, so no other part of this
    // process got it from there, and `IS_STREAM_TAKEN` sees to it that it is taken once.
    Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
}

/// The process that started this one; its number may have passed on since.
fn parent() -> io::Result<u32> {
    let mut facts = PROCESS_BASIC_INFORMATION::default();
    // SAFETY: the result has room, and its length is told; the current process's handle needs no closing.
    let outcome = unsafe {
        NtQueryInformationProcess(
            GetCurrentProcess(),
            ProcessBasicInformation,
            (&raw mut facts).cast(),
            size_of::<PROCESS_BASIC_INFORMATION>() as u32,
            null_mut(),
        )
    };
    if outcome < 0 {
        return Err(super::error::of_status(outcome));
    }
    u32::try_from(facts.InheritedFromUniqueProcessId).map_err(io::Error::other)
}
