//! What is started, with which environment and which descriptors.
//!
//! A description only; [`Spawner`](super::Spawner) carries it out. Invariant: whatever this process
//! was given for itself alone (activation, readiness and watchdog variables, the identity of a backend)
//! is not passed on.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::descriptor::OwnedDescriptor;

/// Prefixes of variables that concern this process and none it starts.
const OWN_PREFIXES: [&[u8]; 4] = [b"LISTEN_", b"NOTIFY_SOCKET", b"WATCHDOG_", b"RUNNING_PROCESS_BROKER_V1_"];

/// A process to start.
///
/// It gets its own session and process group, cwd `/`, `/dev/null` as stdin and stdout, a pipe to its
/// [`StderrRing`](super::StderrRing) as stderr, an empty signal mask and default dispositions, and
/// the descriptor limit that this process had before it raised its own. Every descriptor not named
/// here is closed in it.
///
/// On Windows it gets a process group, a hidden console and a job of its own, stands in the Windows directory,
/// and has `NUL` for input and output.
#[derive(Debug)]
pub struct SpawnCommand {
    /// Absolute path of the program; also its `argv[0]`.
    pub program: PathBuf,
    /// The arguments behind `argv[0]`.
    pub args: Vec<OsString>,
    /// What the environment begins with.
    pub base_env: BaseEnv,
    /// What is added to it; the last one of a name wins.
    pub env: Vec<(OsString, OsString)>,
    /// A listening socket to pass as descriptor 3, with `LISTEN_FDS=1`, `LISTEN_PID` and
    /// `LISTEN_FDNAMES=backend` (sd_listen_fds(3)). On Windows it cannot be passed, and the start fails.
    pub listen_fd: Option<OwnedDescriptor>,
    /// Further descriptors. They are no part of `LISTEN_FDS`: a plain activated service expects
    /// exactly one there.
    pub inherited: Vec<Inherited>,
    /// What becomes of it when this process dies.
    pub parent_death: ParentDeath,
}

/// A descriptor that a child inherits.
#[derive(Debug)]
pub struct Inherited {
    /// The variable that tells the child its number, in decimal.
    pub variable: OsString,
    /// The descriptor.
    pub descriptor: OwnedDescriptor,
}

/// What a child's environment begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BaseEnv {
    /// This process's own, but for what [`is_passed_on`] holds back.
    #[default]
    Inherit,
    /// Nothing; on Windows `SystemRoot`, without which few programs run.
    Empty,
}

/// What becomes of a child when this process dies, in whatever way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParentDeath {
    /// It gets SIGTERM. On Windows it ends at once, with everything it has started.
    #[default]
    Terminate,
    /// It lives on. Its stderr is the null device from the start, as nobody is left to read it then.
    Survive,
}

impl SpawnCommand {
    /// A program without arguments, in this process's environment, which ends with this process.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            base_env: BaseEnv::default(),
            env: Vec::new(),
            listen_fd: None,
            inherited: Vec::new(),
            parent_death: ParentDeath::default(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// Whether a variable of this process's environment is passed on to a child.
///
/// Held back are `LISTEN_*`, `NOTIFY_SOCKET`, `WATCHDOG_*` and `RUNNING_PROCESS_BROKER_V1_*`: they were
/// meant for this process, and a child would take them for its own.
///
/// ```
/// use broker_transport::process::is_passed_on;
///
/// assert!(is_passed_on("PATH".as_ref()));
/// assert!(!is_passed_on("LISTEN_PID".as_ref()));
/// ```
pub fn is_passed_on(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    !OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_for_this_process_is_held_back() {
        for name in [
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "RUNNING_PROCESS_BROKER_V1_BACKEND_PIPE",
        ] {
            assert!(!is_passed_on(name.as_ref()), "{name}");
        }
        for name in ["PATH", "HOME", "LISTEN", "RUNNING_PROCESS_DISABLE", "XDG_RUNTIME_DIR"] {
            assert!(is_passed_on(name.as_ref()), "{name}");
        }
    }
}
