//! Processes by fork, exec and `waitpid`, as far as POSIX goes.
//!
//! `plan` prepares in the parent, `exec` runs in the child, `spawner` is the thread that forks and
//! reaps, `request_queue` is how it is asked to, `child` and `watch` are what callers hold. From
//! `os::process` come the `Handle` that holds on to a process, the `Bond` that ties a child to its parent's
//! life, and the `Wake` of the thread.
//! Invariant: nothing here knows how a system tells of a process's death.

mod child;
pub(crate) mod exec;
mod plan;
mod planted;
pub(crate) mod request_queue;
#[cfg(all(test, feature = "shuttle"))]
mod schedules;
mod spawner;
mod stderr_pipe;
mod watch;

use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use self::child::ChildProcess;
pub(crate) use self::spawner::Orphan;
pub use self::spawner::Spawner;
pub use self::watch::ProcessWatch;
use super::super::os::process::Handle;
use crate::process::StopSignal;

/// Registers a handle, which becomes readable when its process dies, and stays so.
fn register(handle: Handle) -> Result<AsyncFd<Handle>, (Handle, io::Error)> {
    // SAFETY: a handle owns its descriptor and returns the same one for as long as it lives; callers
    // keep it inside until they take it out for good.
    unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }
        .map_err(tokio::io::unix::AsyncFdRegisterError::into_parts)
}

pub(crate) const fn signal_of(stop: StopSignal) -> rustix::process::Signal {
    match stop {
        StopSignal::Terminate => rustix::process::Signal::TERM,
        StopSignal::Kill => rustix::process::Signal::KILL,
    }
}
