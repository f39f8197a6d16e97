//! Reaping, signalling and watching through a pidfd.
//!
//! Invariant: a pidfd names one process for ever, whatever becomes of its pid.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

use super::super::super::unix::process::signal_of;
use super::super::socket::peer_pidfd;
use crate::process::{Exit, SignalError, StopSignal};

/// Holds on to one process; readable once that is dead.
#[derive(Debug)]
pub(crate) struct Handle(OwnedFd);

impl Handle {
    /// The process that has this pid now.
    pub(crate) fn open(pid: u32) -> rustix::io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).map(Self)
    }

    /// A child that nobody else reaps, so its pid is its own until we do.
    pub(crate) fn of_child(pid: u32) -> rustix::io::Result<Self> {
        Self::open(pid)
    }

    /// The very process that opened a connection (Linux 6.5); `None` where the kernel does not name it.
    pub(crate) fn of_peer(socket: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        Ok(peer_pidfd(socket)?.map(Self))
    }

    /// Reaps a child; `None` while it lives.
    pub(crate) fn reap(&self) -> io::Result<Option<Exit>> {
        loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            match rustix::process::waitid(WaitId::PidFd(self.0.as_fd()), options) {
                Ok(None) => return Ok(None),
                Ok(Some(status)) => {
                    let by_signal = || status.terminating_signal().map_or(Exit::Unknown, Exit::Signal);
                    return Ok(Some(status.exit_status().map_or_else(by_signal, Exit::Code)));
                }
                Err(Errno::INTR) => {}
                Err(Errno::CHILD) => return Ok(Some(Exit::Unknown)),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Whether the process has died, reaped or not.
    pub(crate) fn is_dead(&self) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut descriptors = [PollFd::new(&self.0, PollFlags::IN)];
        Ok(poll(&mut descriptors, Some(&at_once))? > 0)
    }

    /// Signals the one process.
    pub(crate) fn signal(&self, stop: StopSignal) -> Result<(), SignalError> {
        match rustix::process::pidfd_send_signal(&self.0, signal_of(stop)) {
            Ok(()) => Ok(()),
            Err(Errno::SRCH) => Err(SignalError::Exited),
            Err(errno) => Err(SignalError::Io(errno.into())),
        }
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
