//! Why a broker that was to be started does not serve, and what to look at.
//!
//! Invariant: each text names the command, and the process where there was one.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

/// A broker that was to be [started](crate::Connector::start_broker) does not serve.
#[derive(Debug, Error)]
#[error("cannot start the broker with `{command}`: {fault}")]
pub struct StartError {
    /// The command.
    pub command: String,
    /// What became of it.
    #[source]
    pub fault: StartFault,
}

/// What became of a command that was to start a broker.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartFault {
    /// It was not executed.
    #[error("{source}; see whether it is installed and may be executed")]
    NotExecuted {
        /// Why not.
        source: io::Error,
    },
    /// It ended, and not because of another broker.
    #[error("it ended at once, {status}; run it by hand to see what it says")]
    Ended {
        /// How.
        status: ExitStatus,
    },
    /// It ran until the time was up, but nobody listened.
    #[error(
        "process {pid} runs, but has not listened at {} for {} ms; see what keeps it (`ps -fp {pid}`), or \
         allow it more time",
        endpoint.display(),
        since_start.as_millis()
    )]
    NotListening {
        /// Its process id.
        pid: u32,
        /// Where it should listen.
        endpoint: PathBuf,
        /// How long it had run when the time was up.
        since_start: Duration,
    },
    /// It ended until the time was up, however often it was started, and nobody listened.
    #[error(
        "process {pid} {end}, and nobody listens at {}; the process that {} names may hold the place, \
         so see what keeps it, or allow it more time",
        endpoint.display(),
        lock.display()
    )]
    Displaced {
        /// The process that was started last.
        pid: u32,
        /// What is known of its end.
        end: KnownEnd,
        /// Where it should listen.
        endpoint: PathBuf,
        /// The file that the holder of the place has locked.
        lock: PathBuf,
    },
}

/// What is known of the end of a broker that is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownEnd {
    /// It found another broker in its place.
    MadeWay,
    /// Nothing: this program ignores SIGCHLD, or waits for whatever child ends.
    Unknown,
}

impl Display for KnownEnd {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MadeWay => "made way for another broker",
            Self::Unknown => "has ended, how is not known as this program does not keep it",
        })
    }
}
