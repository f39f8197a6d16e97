//! Handles for other processes by `DuplicateHandle` (protocol.md, "Conversations" 5).
//!
//! A handle is put into the other process's table, and a message tells its value there. Invariants: the
//! process is the one behind a connection, or a child; a duplicate whose value nobody was told is closed.

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle, RawHandle};
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{
    DUPLICATE_CLOSE_SOURCE, DUPLICATE_SAME_ACCESS, DuplicateHandle, HANDLE, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, PROCESS_DUP_HANDLE};

use super::calls::done;
use super::peer;
use super::pipe::{self, End};
use super::process::ChildProcess;
use super::stream::Stream;
use crate::fd_passing::FdPassError;
use crate::passing::{Carrier, ClaimError};

pub(crate) const CARRIER: Carrier = Carrier::Table;

/// The process that gets handles.
#[derive(Debug)]
pub(crate) struct Recipient {
    process: OwnedHandle,
}

impl Recipient {
    pub(crate) fn peer_of(stream: &Stream) -> io::Result<Self> {
        let (_, process) = peer::process(stream.as_handle(), stream.end(), PROCESS_DUP_HANDLE)?;
        Ok(Self { process })
    }

    pub(crate) fn child(child: &ChildProcess) -> io::Result<Self> {
        Ok(Self { process: child.handle()?.try_clone_to_owned()? })
    }

    pub(crate) fn prepare(&self, handle: BorrowedHandle<'_>) -> io::Result<Passage> {
        let process = self.process.try_clone()?;
        let mut value: HANDLE = null_mut();
        // SAFETY: the handles are open and the result has room; the current process's needs no closing.
        done(unsafe {
            DuplicateHandle(
                GetCurrentProcess(),
                handle.as_raw_handle(),
                process.as_raw_handle(),
                &raw mut value,
                0,
                0,
                DUPLICATE_SAME_ACCESS,
            )
        })?;
        Ok(Passage { process, value, is_told: false })
    }
}

/// A duplicate in another process's table.
#[derive(Debug)]
pub(crate) struct Passage {
    process: OwnedHandle,
    value: HANDLE,
    is_told: bool,
}

// SAFETY: a number that means something in the other process only.
unsafe impl Send for Passage {}
// SAFETY: as above.
unsafe impl Sync for Passage {}

impl Passage {
    pub(crate) fn handle_value(&self) -> u64 {
        self.value.addr() as u64
    }

    pub(crate) async fn send(
        mut self,
        stream: &Stream,
        bytes: &[u8],
        _descriptor: BorrowedHandle<'_>,
    ) -> Result<usize, FdPassError> {
        let sent = stream.write_some(bytes).await?;
        self.is_told = true;
        Ok(sent)
    }

    pub(crate) fn try_send(
        mut self,
        stream: &Stream,
        bytes: &[u8],
        _descriptor: BorrowedHandle<'_>,
    ) -> Result<usize, FdPassError> {
        let sent = stream.try_write(bytes)?;
        self.is_told = true;
        Ok(sent)
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        // SAFETY: the value is that of a handle which was put there for this passage, and which nobody there
        // knows of. Without a target the source is closed, and nothing else is done.
        let outcome = unsafe {
            DuplicateHandle(
                self.process.as_raw_handle(),
                self.value,
                null_mut(),
                null_mut(),
                0,
                0,
                DUPLICATE_CLOSE_SOURCE,
            )
        };
        if let Err(error) = done(outcome) {
            tracing::debug!(%error, "a handle stays behind in a process that was not told of it");
        }
    }
}

/// Takes the handle with this value, which the peer of `told_on` has put into this process's table.
pub(crate) fn claim(
    _carried: Option<OwnedHandle>,
    handle_value: u64,
    told_on: &Stream,
) -> Result<OwnedHandle, ClaimError> {
    let sender = peer::pid(told_on.as_handle(), told_on.end())?;
    let refused = |found| ClaimError::NotTheirs { value: handle_value, found };
    let value = usize::try_from(handle_value).map_err(|_| refused("a value too large for a handle"))?;
    let raw: RawHandle = std::ptr::with_exposed_provenance_mut(value);
    if raw.is_null() || raw == INVALID_HANDLE_VALUE {
        return Err(ClaimError::Missing);
    }
    // SAFETY: borrowed for this function only; a value that stands for nothing is an error of the calls below.
    let handle = unsafe { BorrowedHandle::borrow_raw(raw) };
    match pipe::end(handle) {
        Ok(End::Server) => {}
        Ok(End::Client) => return Err(refused("a client's end of a pipe")),
        Err(_) => return Err(refused("no pipe")),
    }
    if pipe::process_of(handle, End::Server).ok().flatten() != Some(sender) {
        return Err(refused("a pipe of another process"));
    }
    // SAFETY: it is an end of a connection that the sender has accepted, so nothing that this process made
    // for itself, and the sender says that it was put here for whoever is told. Who can put handles into this
    // process could as well close every one of them.
    let claimed = unsafe { OwnedHandle::from_raw_handle(raw) };
    // From here on it is closed where it is not taken, so that its connection is the sender's alone again.
    if told_on.peer()?.user.is_self() { Ok(claimed) } else { Err(ClaimError::Foreign) }
}
