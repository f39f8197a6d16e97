//! Processes by fork, pidfd and `waitid` (pidfd_open(2), waitid(2), PR_SET_PDEATHSIG(2const)).
//!
//! `plan` prepares in the parent, `exec` runs in the child, `spawner` is the thread that forks and
//! reaps, `child` and `watch` are what callers hold. Linux 5.4 is enough; `close_range` is used where
//! the kernel has it.

mod child;
mod exec;
mod pidfd;
mod plan;
mod spawner;
mod stderr_pipe;
mod watch;

pub use self::child::ChildProcess;
pub use self::spawner::Spawner;
pub use self::watch::ProcessWatch;
