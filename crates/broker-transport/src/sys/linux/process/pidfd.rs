//! Reaping, signalling and watching through a pidfd.
//!
//! Invariant: a pidfd names one process for ever, whatever becomes of its pid.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::process::{Exit, SignalError, StopSignal};

pub(super) fn open(pid: u32) -> rustix::io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty())
}

/// Registers a pidfd, which becomes readable when its process dies.
pub(super) fn watch(pidfd: OwnedFd) -> Result<AsyncFd<OwnedFd>, (OwnedFd, io::Error)> {
    // SAFETY: an OwnedFd is open and returns the same descriptor for as long as it lives; callers
    // keep it inside until they take it out for good.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }
        .map_err(tokio::io::unix::AsyncFdRegisterError::into_parts)
}

/// Reaps a child; `None` while it lives.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
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
pub(super) fn is_dead(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut descriptors = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    Ok(poll(&mut descriptors, Some(&at_once))? > 0)
}

/// Signals the one process.
pub(super) fn signal(pidfd: impl AsFd, stop: StopSignal) -> Result<(), SignalError> {
    match rustix::process::pidfd_send_signal(pidfd, number(stop)) {
        Ok(()) => Ok(()),
        Err(Errno::SRCH) => Err(SignalError::Exited),
        Err(errno) => Err(SignalError::Io(errno.into())),
    }
}

pub(super) const fn number(stop: StopSignal) -> Signal {
    match stop {
        StopSignal::Terminate => Signal::TERM,
        StopSignal::Kill => Signal::KILL,
    }
}
