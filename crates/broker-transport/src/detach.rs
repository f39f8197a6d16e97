//! Processes that outlive the one that starts them.
//!
//! It sets such a process up and finds its program; whoever starts it waits for its end. Invariant: what this
//! process does with its signals, and on Unix what it has open, does not reach the other one.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a service manager tells the service that it has started. Another process would speak for that one, as
/// nothing says whom `NOTIFY_SOCKET` is meant for.
const FROM_THE_MANAGER: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Sets a command up to run on its own: without this process's input and output, and out of reach of what its
/// terminal sends to it (a process group of its own, setpgid(2); none of its console on Windows).
///
/// On Unix it gets no other descriptor, and has no signal blocked or ignored, whatever holds for the thread
/// that starts it. A descriptor that was inherited, such as a build's output or its job tokens, would keep its
/// reader waiting for as long as the process lives; a blocked SIGTERM would keep the process itself. On Windows
/// it still inherits the handles that are marked as inheritable, which those of the standard library are not; this
/// process's own standard handles lose that mark here. It leaves this process's job, where that lets it.
///
/// What a service manager has told this process by variables does not reach it.
///
/// The process still has this one for its parent: somebody has to wait for its end. Where SIGCHLD is ignored,
/// the standard library panics over a program that cannot be executed, so [find](find_program) it first.
///
/// ```
/// # #[cfg(unix)] {
/// let mut command = std::process::Command::new("true");
/// let mut child = broker_transport::detach::detached(&mut command).spawn()?;
/// assert!(child.wait()?.success());
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn detached(command: &mut Command) -> &mut Command {
    for variable in FROM_THE_MANAGER {
        command.env_remove(variable);
    }
    crate::sys::detach::isolate(command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// The absolute path of a program, so that it means the same in whatever directory the program is to run.
///
/// One with a slash is taken from the current directory. A bare name is looked for in `PATH`, of which only
/// the absolute directories count: what runs for long is not to depend on where somebody happened to be. On
/// Windows only `.exe` files are programs, and that ending may be left out.
///
/// # Errors
/// [`NotFound`](io::ErrorKind::NotFound), or
/// [`PermissionDenied`](io::ErrorKind::PermissionDenied) for what is no file that this user may execute.
///
/// ```
/// # #[cfg(unix)] {
/// use broker_transport::detach::find_program;
///
/// assert!(find_program("sh".as_ref())?.is_absolute());
/// assert!(find_program("/absent/sh".as_ref()).is_err());
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn find_program(program: &Path) -> io::Result<PathBuf> {
    crate::sys::program::find(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detached_process_does_not_speak_for_the_service_that_has_started_it() {
        let mut command = Command::new("any");
        command
            .env("NOTIFY_SOCKET", "/run/notify")
            .env("WATCHDOG_USEC", "1")
            .env("LISTEN_FDS", "1")
            .env("A", "b");
        let passed: Vec<_> = detached(&mut command).get_envs().filter(|(_, value)| value.is_some()).collect();
        assert_eq!(passed, [("A".as_ref(), Some("b".as_ref()))]);
    }
}
