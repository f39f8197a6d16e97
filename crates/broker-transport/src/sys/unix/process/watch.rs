//! Watching a process that is not a child.
//!
//! Invariant: it is held on to from the start, so what is told and signalled is that one process.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::super::super::os::process::Handle;
use super::register;
use crate::process::{SignalError, StopSignal, WatchError};
use crate::stream::Stream;

/// Holds on to a process that somebody else started, and tells when it dies.
#[derive(Debug)]
pub struct ProcessWatch {
    handle: AsyncFd<Handle>,
}

impl ProcessWatch {
    /// Watches the process that has this pid now.
    ///
    /// The pid may have been reused before this call: compare the
    /// [start time](crate::identity::process_start_time) or probe it afterwards.
    ///
    /// # Errors
    /// [`WatchError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open(pid: u32) -> Result<Self, WatchError> {
        match Handle::open(pid) {
            Ok(handle) => Self::from_handle(handle),
            Err(Errno::SRCH | Errno::INVAL) => Err(WatchError::NoSuchProcess { pid }),
            Err(errno) => Err(WatchError::Io(errno.into())),
        }
    }

    /// Watches the process at the other end of a connection, by the kernel's word: the very one that
    /// opened it on Linux (6.5), the one that used it last on macOS.
    ///
    /// # Errors
    /// [`WatchError::NoPeer`] where the kernel does not say, and for a peer that is gone.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn of_peer(stream: &Stream) -> Result<Self, WatchError> {
        match Handle::of_peer(stream.as_fd())? {
            Some(handle) => Self::from_handle(handle),
            None => Err(WatchError::NoPeer),
        }
    }

    fn from_handle(handle: Handle) -> Result<Self, WatchError> {
        let handle = register(handle).map_err(|(_, error)| WatchError::Io(error))?;
        Ok(Self { handle })
    }

    /// Returns when the process is dead. Cancel-safe.
    ///
    /// # Errors
    /// The runtime is going down.
    pub async fn died(&self) -> io::Result<()> {
        loop {
            let mut ready = self.handle.readable().await?;
            if self.is_dead()? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Whether the process is dead by now.
    ///
    /// # Errors
    /// The system's.
    pub fn is_dead(&self) -> io::Result<bool> {
        self.handle.get_ref().is_dead()
    }

    /// Signals this process, and never its group: that is not ours.
    ///
    /// # Errors
    /// [`SignalError`].
    pub fn signal(&self, stop: StopSignal) -> Result<(), SignalError> {
        self.handle.get_ref().signal(stop)
    }
}
