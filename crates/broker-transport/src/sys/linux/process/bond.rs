//! What ties a child to this process's life (PR_SET_PDEATHSIG(2const)).
//!
//! Linux sends the signal when the *thread* that forked ends, so all forks happen on one that does not.
//! Invariant: a child whose parent died before the bond took effect does not become the program.

use std::io;
use std::os::fd::BorrowedFd;

use super::super::super::unix::process::Orphan;
use crate::process::ParentDeath;

pub(crate) struct Bond {
    parent_death: ParentDeath,
    parent: libc::pid_t,
}

impl Bond {
    /// To be called in the parent.
    pub(crate) fn new(parent_death: ParentDeath) -> rustix::io::Result<Self> {
        Ok(Self { parent_death, parent: rustix::process::getpid().as_raw_nonzero().get() })
    }

    /// The child's part; -1 and the error number on failure.
    ///
    /// SIGTERM rather than SIGKILL: a backend that outlives its broker by a moment to flush a cache and
    /// remove its socket does no harm, while one that is cut off in the middle of a write may. And it can
    /// see to its own children, which PDEATHSIG does not reach. One that ignores SIGTERM lives on as an
    /// orphan that no client is sent to any more.
    ///
    /// # Safety
    /// Only in a child right after `fork`, with all signals blocked.
    pub(crate) unsafe fn tie(&self) -> libc::c_int {
        match self.parent_death {
            ParentDeath::Survive => return 0,
            ParentDeath::Terminate => {}
        }
        // SAFETY: plain system calls.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong, 0, 0, 0) == -1 {
                return -1;
            }
            // The parent may have died before that took effect; then another process is the parent now.
            if libc::getppid() != self.parent {
                libc::_exit(127);
            }
        }
        0
    }

    /// The parent's part, once the child is forked: the kernel has none for it.
    pub(crate) fn hold(&self, _child: u32, _report: BorrowedFd<'_>) -> io::Result<Option<Orphan>> {
        Ok(None)
    }
}
