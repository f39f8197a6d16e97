//! What ties a child to this process's life: a gate, and the supervisor that opens it.
//!
//! macOS has no parent-death signal, so each such child gets a [`supervisor`](super::supervisor).
//! Invariant: a child does not become the program before its supervisor watches both it and this process;
//! where that comes to nothing, the gate is closed instead, and the child ends.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use libc::c_int;
use rustix::process::{Pid, Signal};

use super::super::super::unix::close_from::limit_end;
use super::super::super::unix::process::Orphan;
use super::supervisor::Supervisor;
use super::{Handle, pipe};
use crate::process::ParentDeath;

pub(crate) struct Bond(Option<Gate>);

/// A pipe. One byte opens it, its end closes it.
struct Gate {
    waiting: OwnedFd,
    opening: OwnedFd,
    parent: libc::pid_t,
}

impl Bond {
    /// To be called in the parent.
    pub(crate) fn new(parent_death: ParentDeath) -> rustix::io::Result<Self> {
        match parent_death {
            ParentDeath::Survive => Ok(Self(None)),
            ParentDeath::Terminate => {
                let (waiting, opening) = pipe()?;
                let parent = rustix::process::getpid().as_raw_nonzero().get();
                Ok(Self(Some(Gate { waiting, opening, parent })))
            }
        }
    }

    /// The child's part: waits at the gate. It does not return where the gate is closed, as whoever did
    /// that reports why, or is dead.
    ///
    /// # Safety
    /// Only in a child right after `fork`, with all signals blocked.
    pub(crate) unsafe fn tie(&self) -> c_int {
        let Some(gate) = &self.0 else { return 0 };
        // SAFETY: plain system calls, with a pointer to a live byte. The end that opens is closed for this
        // process alone, which never drops it: without that, the gate would never be seen closed.
        unsafe {
            libc::close(gate.opening.as_raw_fd());
            let mut byte = 0u8;
            loop {
                match libc::read(gate.waiting.as_raw_fd(), (&raw mut byte).cast(), 1) {
                    1 => return 0,
                    -1 if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
                    _ => libc::_exit(127),
                }
            }
        }
    }

    /// The parent's part, once the child is forked: starts the supervisor, which is to be reaped.
    ///
    /// Where the supervisor fails it says so in `report`, and the child ends; an error here means that there
    /// is none, and the child ends as soon as this bond is dropped.
    pub(crate) fn hold(&self, child: u32, report: BorrowedFd<'_>) -> io::Result<Option<Orphan>> {
        let Some(gate) = &self.0 else { return Ok(None) };
        let supervisor = Supervisor {
            parent: gate.parent,
            child: child.cast_signed(),
            gate: gate.opening.as_raw_fd(),
            report: report.as_raw_fd(),
            descriptor_end: limit_end(),
        };
        // SAFETY: the new process makes only async-signal-safe calls until it exits, and this one goes on as
        // if nothing had happened. All signals are blocked in this thread.
        let pid = match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            // SAFETY: this is the new process, right after the fork.
            0 => unsafe { supervisor.run() },
            pid => pid.unsigned_abs(),
        };
        match Handle::of_child(pid) {
            Ok(handle) => Ok(Some(Orphan::to_await(pid, handle))),
            Err(errno) => {
                discard(pid);
                Err(errno.into())
            }
        }
    }
}

/// Kills and reaps a supervisor that nobody could wait for.
fn discard(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    // It may have ended by itself.
    let _ = rustix::process::kill_process(pid, Signal::KILL);
    let options = rustix::process::WaitOptions::empty();
    while let Err(rustix::io::Errno::INTR) = rustix::process::waitpid(Some(pid), options) {}
}
