//! Reaping, signalling and watching through a pid and a kqueue (kqueue(2), `EVFILT_PROC`).
//!
//! Invariant: the event of the end is never taken out of the kqueue, so that its descriptor is readable
//! from the end on for ever, as a pidfd is.
//!
//! The kernel watches the process, not the number, but signals go by number. A child keeps its number
//! until it is reaped here. A stranger is seen to be alive first; between that look and the signal it could
//! end, be reaped and have its number given away, which takes the kernel a whole round through all numbers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::null_mut;

use rustix::event::kqueue::{
    Event, EventFilter, EventFlags, ProcessEvents, UserDefinedFlags, UserFlags, kevent_timespec, kqueue,
};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, WaitOptions};

use super::super::super::unix::process::signal_of;
use super::super::identity::process_start_time;
use super::super::socket::peer_pid;
use crate::process::{Exit, SignalError, StopSignal};

/// Holds on to one process; readable once that is dead.
#[derive(Debug)]
pub(crate) struct Handle {
    kqueue: OwnedFd,
    pid: Pid,
}

impl Handle {
    /// The process that has this pid now.
    pub(crate) fn open(pid: u32) -> rustix::io::Result<Self> {
        let handle = Self::new(pid)?;
        match handle.watch() {
            Ok(()) => Ok(handle),
            // A zombie cannot be watched; it can be signalled, to no effect.
            Err(Errno::SRCH) => match rustix::process::test_kill_process(handle.pid) {
                Ok(()) | Err(Errno::PERM) => handle.dead(),
                Err(errno) => Err(errno),
            },
            Err(errno) => Err(errno),
        }
    }

    /// A child that nobody else reaps, so its pid is its own until we do.
    pub(crate) fn of_child(pid: u32) -> rustix::io::Result<Self> {
        let handle = Self::new(pid)?;
        match handle.watch() {
            Ok(()) => Ok(handle),
            Err(Errno::SRCH) => handle.dead(),
            Err(errno) => Err(errno),
        }
    }

    /// The process that used the other end of a connection last; `None` where the kernel does not name it.
    ///
    /// It was named before it was watched, so it is asked again: while the kernel still names it, the other
    /// end is still open, and a start time that has not changed is that of the process first named. Left is
    /// one case: it had died before, its end is kept open by a process that inherited and never used it,
    /// and its number is another's already.
    pub(crate) fn of_peer(socket: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let Some(pid) = peer_pid(socket) else { return Ok(None) };
        let Ok(started) = process_start_time(pid.get()) else { return Ok(None) };
        let handle = match Self::open(pid.get()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let is_same = peer_pid(socket) == Some(pid)
            && process_start_time(pid.get()).is_ok_and(|started_now| started_now == started);
        Ok(is_same.then_some(handle))
    }

    /// Reaps a child; `None` while it lives.
    pub(crate) fn reap(&self) -> io::Result<Option<Exit>> {
        // The end is told a moment before a child can be reaped: then it is waited for, for that moment.
        let options = if self.is_dead()? { WaitOptions::empty() } else { WaitOptions::NOHANG };
        loop {
            match rustix::process::waitpid(Some(self.pid), options) {
                Ok(None) => return Ok(None),
                Ok(Some((_, status))) => {
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
        let mut descriptors = [PollFd::new(&self.kqueue, PollFlags::IN)];
        Ok(poll(&mut descriptors, Some(&at_once))? > 0)
    }

    /// Signals the one process.
    pub(crate) fn signal(&self, stop: StopSignal) -> Result<(), SignalError> {
        if self.is_dead()? {
            return Err(SignalError::Exited);
        }
        match rustix::process::kill_process(self.pid, signal_of(stop)) {
            Ok(()) => Ok(()),
            Err(Errno::SRCH) => Err(SignalError::Exited),
            Err(errno) => Err(SignalError::Io(errno.into())),
        }
    }

    fn new(pid: u32) -> rustix::io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        let kqueue = kqueue()?;
        rustix::io::fcntl_setfd(&kqueue, FdFlags::CLOEXEC)?;
        Ok(Self { kqueue, pid })
    }

    fn watch(&self) -> rustix::io::Result<()> {
        let filter = EventFilter::Proc { pid: self.pid, flags: ProcessEvents::EXIT };
        self.add(&Event::new(filter, EventFlags::ADD, null_mut()))
    }

    /// Readable from now on, without an end to wait for.
    fn dead(self) -> rustix::io::Result<Self> {
        let user = |flags| EventFilter::User { ident: 0, flags, user_flags: UserDefinedFlags::new(0) };
        self.add(&Event::new(user(UserFlags::empty()), EventFlags::ADD, null_mut()))?;
        self.add(&Event::new(user(UserFlags::TRIGGER), EventFlags::empty(), null_mut()))?;
        Ok(self)
    }

    fn add(&self, event: &Event) -> rustix::io::Result<()> {
        let mut none: [Event; 0] = [];
        // SAFETY: the event refers to a process or to nothing, and to no descriptor.
        unsafe { kevent_timespec(&self.kqueue, std::slice::from_ref(event), &mut none[..], None) }.map(|_| ())
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kqueue.as_fd()
    }
}

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.kqueue.as_raw_fd()
    }
}
