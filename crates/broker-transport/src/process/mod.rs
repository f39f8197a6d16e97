//! Starting processes, watching them, and learning of their death (behaviour.md, section 4).
//!
//! What is started when, and what a death means, is decided elsewhere. Invariants: a child has no
//! descriptor but 0, 1, 2 and those named to it; a child is reaped exactly once, also when nobody
//! waits for it; and a signal never reaches a process that merely got the same pid.

mod command;
mod stderr;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::limits::is_descriptor_shortage;

pub use self::command::{BaseEnv, Inherited, ParentDeath, SpawnCommand, is_passed_on};
pub use self::stderr::{STDERR_RING_BYTES, StderrRing};
pub use crate::activation::{LISTEN_FD, LISTEN_NAME};
pub use crate::sys::process::{ChildProcess, ProcessWatch, Spawner};

/// Why a process was not started. Nothing is left behind.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The path of the program is relative; what it means depends on where one stands.
    #[error("expected the absolute path of a program, got {}", program.display())]
    NotAbsolute {
        /// The program.
        program: PathBuf,
    },
    /// An argument with a NUL byte, or a variable whose name is empty or has `=` or NUL in it.
    #[error("{text:?} cannot be passed to a program: {problem}")]
    Unpassable {
        /// The text.
        text: OsString,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The program could not be executed.
    #[error("cannot execute {}: {failure}", program.display())]
    Exec {
        /// The program.
        program: PathBuf,
        /// What is wrong, as far as a caller can act on it.
        failure: ExecFailure,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The child could not be made ready.
    #[error("cannot {stage} for {}: {source}", program.display())]
    Setup {
        /// The program.
        program: PathBuf,
        /// What was tried.
        stage: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl SpawnError {
    /// Whether it failed because no descriptor was left, in this process or in the system.
    pub fn is_descriptor_shortage(&self) -> bool {
        match self {
            Self::Exec { source, .. } | Self::Setup { source, .. } => is_descriptor_shortage(source),
            Self::NotAbsolute { .. } | Self::Unpassable { .. } => false,
        }
    }
}

/// What a caller can tell about a failed `execve` (execve(2)) or `CreateProcessW`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ExecFailure {
    /// `ENOENT`, `ENOTDIR` and the like: there is no such file, or a script's interpreter is missing.
    #[error("there is no such file, or its interpreter is missing")]
    NotFound,
    /// `EACCES`, `EPERM` and the like: it is not an executable file, or may not be reached.
    #[error("it is not executable, or may not be reached")]
    PermissionDenied,
    /// `ENOEXEC`: not a format that this machine executes.
    #[error("it is in no format that this machine executes")]
    WrongFormat,
    /// `ETXTBSY`: somebody has it open for writing; trying again may help.
    #[error("it is open for writing")]
    Busy,
    /// It was downloaded, and macOS waits for the user to approve of it.
    #[error(
        "macOS holds it in quarantine, as it was downloaded; if you trust it, run \
         `xattr -d com.apple.quarantine` with its path"
    )]
    Quarantined,
    /// Anything else; see the source.
    #[error("the system refuses")]
    Other,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// By itself, with this code. On Windows also by somebody else: the code is what that one has chosen, or
    /// the system's own (`NTSTATUS`), which is negative here.
    Code(i32),
    /// By a signal of this number.
    Signal(i32),
    /// Somebody else in this process reaped it first.
    Unknown,
}

impl Exit {
    /// Whether it ended by itself and with code 0.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // As such statuses are written and looked up.
            Self::Code(code @ ..0) => write!(f, "exit code {code:#010x}"),
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("an unknown end"),
        }
    }
}

/// How a process is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// `SIGTERM`: it may clean up. A child gets it alone and sees to its own children. Windows has nothing like
    /// it, so there it is as harsh as [`Kill`](Self::Kill).
    Terminate,
    /// `SIGKILL`: it may not. A child's whole process group gets it, or its job, as nobody is left to see to
    /// the rest.
    Kill,
}

/// Why a signal was not sent.
#[derive(Debug, Error)]
pub enum SignalError {
    /// The process has ended.
    #[error("the process has ended")]
    Exited,
    /// The system refused.
    #[error("cannot signal the process: {0}")]
    Io(#[from] io::Error),
}

/// Why a process cannot be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// There is none with this pid.
    #[error("there is no process {pid}")]
    NoSuchProcess {
        /// The pid.
        pid: u32,
    },
    /// The kernel does not name the peer's process.
    #[error("the kernel does not say which process is at the other end")]
    NoPeer,
    /// The system refused.
    #[error("cannot watch the process: {0}")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_the_system_is_shown_as_it_is_written() {
        assert_eq!(Exit::Code(0xC000_0005_u32.cast_signed()).to_string(), "exit code 0xc0000005");
        assert_eq!(Exit::Code(3).to_string(), "exit code 3");
    }
}
