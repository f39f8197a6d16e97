//! A process that ends a child when this process dies.
//!
//! Forked without exec: it waits in a kqueue for either end, with every signal blocked and every other
//! descriptor closed, in a session of its own. A child that ends first ends it, too. SIGTERM rather than
//! SIGKILL, and sent once: a backend that outlives its broker by a moment to flush a cache and remove its
//! socket does no harm, while one that is cut off in the middle of a write may.
//!
//! Invariant: nothing here allocates, locks or drops: only system calls and values on the stack
//! (signal-safety(7)). Who kills it with SIGKILL unties the child; nobody has reason to.

use std::io;
use std::mem::zeroed;
use std::ptr::{null, null_mut};

use libc::{c_int, pid_t};

use super::super::super::unix::process::exec::{Stage, report_and_exit};
use super::super::descriptors::table_end;
use super::rules::{Ended, Step};

/// What it has to know, from before the fork.
pub(super) struct Supervisor {
    pub(super) parent: pid_t,
    pub(super) child: pid_t,
    /// Where one byte lets the child go on.
    pub(super) gate: c_int,
    /// Where a failure is told.
    pub(super) report: c_int,
    /// First descriptor that no open one reaches, where the kernel does not say.
    pub(super) descriptor_end: c_int,
}

impl Supervisor {
    /// # Safety
    /// Only in a child of `parent`'s right after `fork`, with all signals blocked.
    pub(super) unsafe fn run(&self) -> ! {
        // SAFETY: system calls with pointers to live, initialised values; numbers that are not open are
        // refused, which does not matter. Whatever is closed is this process's copy, which is never dropped.
        unsafe {
            libc::setsid();
            libc::chdir(c"/".as_ptr());
            let queue = libc::kqueue();
            if queue == -1 {
                report_and_exit(self.report, Stage::ParentDeath);
            }
            self.watch(queue, self.parent);
            // While it is still the parent it lives, so what is watched is no other process of that number.
            if libc::getppid() != self.parent {
                libc::_exit(0);
            }
            self.watch(queue, self.child);
            for descriptor in 0..table_end(self.descriptor_end) {
                if descriptor != queue && descriptor != self.gate {
                    libc::close(descriptor);
                }
            }
            // A child that is gone by now refuses the byte, and its end is in the queue.
            libc::write(self.gate, [1u8].as_ptr().cast(), 1);
            libc::close(self.gate);
            self.wait(queue)
        }
    }

    /// Adds a process to the queue. One that is gone leaves nothing to do: the gate closes with this process.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    unsafe fn watch(&self, queue: c_int, pid: pid_t) {
        let change = libc::kevent {
            ident: pid.unsigned_abs() as usize,
            filter: libc::EVFILT_PROC,
            flags: libc::EV_ADD,
            fflags: libc::NOTE_EXIT,
            data: 0,
            udata: null_mut(),
        };
        // SAFETY: `change` is one live event, and none is asked for.
        unsafe {
            if libc::kevent(queue, &raw const change, 1, null_mut(), 0, null()) == -1 {
                if io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) {
                    libc::_exit(0);
                }
                report_and_exit(self.report, Stage::ParentDeath);
            }
        }
    }

    /// # Safety
    /// As [`run`](Self::run).
    unsafe fn wait(&self, queue: c_int) -> ! {
        let mut ended = Ended::default();
        loop {
            // SAFETY: system calls; and the queue is this process's own.
            unsafe {
                match ended.step() {
                    Step::Wait => self.take(queue, &mut ended, null()),
                    Step::End => libc::_exit(0),
                    Step::Terminate => {
                        // What ended in the meantime must not be signalled: its number may be another's.
                        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
                        self.take(queue, &mut ended, &raw const at_once);
                        if ended.step() == Step::Terminate {
                            libc::kill(self.child, libc::SIGTERM);
                        }
                        libc::_exit(0)
                    }
                }
            }
        }
    }

    /// Takes what the queue has to tell.
    ///
    /// # Safety
    /// As [`run`](Self::run); `timeout` is null or points to a live value.
    unsafe fn take(&self, queue: c_int, ended: &mut Ended, timeout: *const libc::timespec) {
        // SAFETY: zero is a value of every field; there is room for as many events as are asked for.
        unsafe {
            let mut events: [libc::kevent; 2] = zeroed();
            let count = libc::kevent(queue, null(), 0, events.as_mut_ptr(), 2, timeout);
            if count == -1 && io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                libc::_exit(1);
            }
            for event in events.iter().take(usize::try_from(count).unwrap_or(0)) {
                let pid = event.ident;
                ended.parent |= pid == self.parent.unsigned_abs() as usize;
                ended.child |= pid == self.child.unsigned_abs() as usize;
            }
        }
    }
}
