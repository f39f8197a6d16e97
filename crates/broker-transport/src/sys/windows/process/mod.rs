//! Processes by `CreateProcessW`, job objects and waits on process handles.
//!
//! `command_line` and `environment` are pure, `plan` makes everything ready, `create` starts the process, `job`
//! holds what it starts, `death` tells of its end, and `child` and `watch` are what callers hold.
//!
//! - **Inheriting.** A child is given a list of handles (`PROC_THREAD_ATTRIBUTE_HANDLE_LIST`) and inherits
//!   those alone, whatever else is marked as inheritable in this process. The other way round there is a gap:
//!   while a child is made, copies of its handles are marked so, and code elsewhere in this process that starts
//!   programs *without* such a list passes them on, too. No end of a stream is waited for here because of that:
//!   a death is told by the process handle.
//! - **Jobs.** Every child is in a job of its own from its first instruction on
//!   (`PROC_THREAD_ATTRIBUTE_JOB_LIST`, Windows 10), inside of those that this process is in. What it starts is
//!   in there, too, unless it asks to break away. One that is to end with this process is in a job that ends
//!   when its last handle is closed, which is held here alone.
//! - **Ending.** There is no SIGTERM. The nearest, a Ctrl+Break event, reaches only processes of the sender's
//!   console, and a child has a hidden console of its own: in this process's console it would die with the
//!   user's window. So [`StopSignal::Terminate`](crate::process::StopSignal) ends a child as harshly as `Kill`
//!   does, with all it has started, and differs in the exit code alone. Our own backends have been asked to
//!   finish over their control connection by then.
//! - **Listeners** cannot be passed: a waiting client is connected to one instance of a pipe, not to its name.

mod child;
mod command_line;
mod create;
mod death;
mod environment;
mod job;
mod plan;
mod spawner;
mod stderr_pipe;
mod watch;

pub use self::child::ChildProcess;
pub use self::spawner::Spawner;
pub use self::watch::ProcessWatch;

use windows_sys::Win32::Foundation::{DBG_TERMINATE_PROCESS, STATUS_CONTROL_C_EXIT};

use crate::process::StopSignal;

/// The exit code of a process that is ended from here: as after Ctrl+C, or as at the end of a session.
const fn exit_code(stop: StopSignal) -> u32 {
    match stop {
        StopSignal::Terminate => STATUS_CONTROL_C_EXIT.cast_unsigned(),
        StopSignal::Kill => DBG_TERMINATE_PROCESS.cast_unsigned(),
    }
}
