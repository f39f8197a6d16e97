//! Watching a process that is not a child.
//!
//! Invariant: an open handle names one process for ever, whatever becomes of its pid.

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, OwnedHandle};

use windows_sys::Win32::Foundation::ERROR_ACCESS_DENIED;
use windows_sys::Win32::System::Threading::{
    PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE, PROCESS_TERMINATE, TerminateProcess,
};

use super::super::calls::done;
use super::super::identity::{self, ESRCH};
use super::super::peer;
use super::death::Death;
use super::exit_code;
use crate::process::{SignalError, StopSignal, WatchError};
use crate::stream::Stream;

/// Holds on to a process that somebody else started, and tells when it dies.
#[derive(Debug)]
pub struct ProcessWatch {
    death: Death,
}

/// Opens the process that has this pid now, to wait for its end and for what else is asked.
///
/// # Errors
/// [`WatchError`].
pub(crate) fn open_process(pid: u32, extra_access: u32) -> Result<OwnedHandle, WatchError> {
    let access = PROCESS_SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION | extra_access;
    identity::open_process(pid, access).map_err(|error| match error.raw_os_error() {
        Some(ESRCH) => WatchError::NoSuchProcess { pid },
        _ => WatchError::Io(error),
    })
}

impl ProcessWatch {
    /// Watches the process that has this pid now.
    ///
    /// The pid may have been reused before this call: compare the
    /// [start time](crate::identity::process_start_time) or probe it afterwards. One that has ended can be
    /// watched for as long as somebody else has it open; it is dead from the beginning then.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn open(pid: u32) -> Result<Self, WatchError> {
        match open_process(pid, PROCESS_TERMINATE) {
            // It can be watched, though not ended.
            Err(WatchError::Io(error)) if is_denied(&error) => Self::from_handle(open_process(pid, 0)?),
            opened => Self::from_handle(opened?),
        }
    }

    /// Watches the very process that opened a connection.
    ///
    /// # Errors
    /// [`WatchError::NoPeer`] for a peer that is gone.
    pub fn of_peer(stream: &Stream) -> Result<Self, WatchError> {
        let access = PROCESS_SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_TERMINATE;
        let opened = match peer::process(stream.as_handle(), stream.end(), access) {
            // It can be watched, though not ended.
            Err(error) if is_denied(&error) => {
                peer::process(stream.as_handle(), stream.end(), access & !PROCESS_TERMINATE)
            }
            opened => opened,
        };
        match opened {
            Ok((_, process)) => Self::from_handle(process),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(WatchError::NoPeer),
            Err(error) if error.raw_os_error() == Some(ESRCH) => Err(WatchError::NoPeer),
            Err(error) => Err(error.into()),
        }
    }

    /// Watches a process by a handle that permits to wait for it and to ask for its exit code.
    pub(crate) fn from_handle(process: OwnedHandle) -> Result<Self, WatchError> {
        Ok(Self { death: Death::of(process)? })
    }

    /// Returns when the process is dead. Cancel-safe.
    ///
    /// # Errors
    /// The system's.
    pub async fn died(&self) -> io::Result<()> {
        self.death.comes().await
    }

    /// Whether the process is dead by now.
    ///
    /// # Errors
    /// The system's.
    pub fn is_dead(&self) -> io::Result<bool> {
        self.death.is_here()
    }

    /// Ends this process, and never what it has started: that is not ours.
    ///
    /// # Errors
    /// [`SignalError`].
    pub fn signal(&self, stop: StopSignal) -> Result<(), SignalError> {
        if self.is_dead()? {
            return Err(SignalError::Exited);
        }
        // SAFETY: the handle is open.
        let ended = unsafe { TerminateProcess(self.death.process().as_raw_handle(), exit_code(stop)) };
        match done(ended) {
            // It is refused for one that is ending by itself.
            Err(error) if is_denied(&error) && self.is_dead()? => Err(SignalError::Exited),
            ended => Ok(ended?),
        }
    }
}

fn is_denied(error: &io::Error) -> bool {
    error.raw_os_error() == Some(ERROR_ACCESS_DENIED.cast_signed())
}
