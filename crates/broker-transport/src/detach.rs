//! Processes that outlive the one that starts them.

use std::process::{Command, Stdio};

/// Sets a command up to run on its own: without this process's input and output; out of reach of what its
/// terminal sends to it (a process group of its own, setpgid(2); none of its console on Windows); and without
/// any other of its descriptors. One that was inherited, such as a build's output or its job tokens, would keep
/// its reader waiting for as long as the process lives.
///
/// The process still has this one for its parent: somebody has to wait for its end.
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
    crate::sys::detach::isolate(command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}
