//! Watching a process that is not a child.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::super::socket::peer_pidfd;
use super::pidfd;
use crate::process::{SignalError, StopSignal, WatchError};
use crate::stream::Stream;

/// Holds on to a process that somebody else started, and tells when it dies.
#[derive(Debug)]
pub struct ProcessWatch {
    pidfd: AsyncFd<OwnedFd>,
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
        match pidfd::open(pid) {
            Ok(pidfd) => Self::from_pidfd(pidfd),
            Err(Errno::SRCH | Errno::INVAL) => Err(WatchError::NoSuchProcess { pid }),
            Err(errno) => Err(WatchError::Io(errno.into())),
        }
    }

    /// Watches the very process that opened a connection, by the kernel's word (Linux 6.5).
    ///
    /// # Errors
    /// [`WatchError::NoPeer`] on older kernels and for a peer that is gone.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn of_peer(stream: &Stream) -> Result<Self, WatchError> {
        match peer_pidfd(stream.as_fd())? {
            Some(pidfd) => Self::from_pidfd(pidfd),
            None => Err(WatchError::NoPeer),
        }
    }

    fn from_pidfd(pidfd: OwnedFd) -> Result<Self, WatchError> {
        let pidfd = pidfd::watch(pidfd).map_err(|(_, error)| WatchError::Io(error))?;
        Ok(Self { pidfd })
    }

    /// Returns when the process is dead. Cancel-safe.
    ///
    /// # Errors
    /// The runtime is going down.
    pub async fn died(&self) -> io::Result<()> {
        loop {
            let mut ready = self.pidfd.readable().await?;
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
        pidfd::is_dead(self.pidfd.get_ref().as_fd())
    }

    /// Signals this process, and never its group: that is not ours.
    ///
    /// # Errors
    /// [`SignalError`].
    pub fn signal(&self, stop: StopSignal) -> Result<(), SignalError> {
        pidfd::signal(self.pidfd.get_ref(), stop)
    }
}
