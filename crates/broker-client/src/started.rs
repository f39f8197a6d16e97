//! The process of a broker that was started here.
//!
//! When to start one is decided in [`autostart`](crate::autostart). Invariant: a broker outlives the session,
//! the connector and the client that started it, and is no zombie while the client lives.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Instant;

use broker_transport::detach::{detached, find_program};

use crate::start_error::{StartError, StartFault};

/// The exit status of a broker that found another one in its place (behaviour.md, section 6).
const ALREADY_RUNNING: i32 = 3;

/// A program and its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

impl Launch {
    /// Starts it in the root directory, so that it holds no other in use. Looks at the file system and forks:
    /// not for an event loop.
    pub(crate) fn run(self) -> Result<Started, StartError> {
        let program = find_program(&self.program);
        let spawned = program.and_then(|program| {
            let mut command = Command::new(program);
            detached(command.args(&self.arguments).current_dir("/")).spawn()
        });
        match spawned {
            Ok(child) => Ok(Started { pid: child.id(), since: Instant::now(), child: Some(child) }),
            Err(source) => Err(self.failed(StartFault::NotExecuted { source })),
        }
    }

    pub(crate) fn failed(&self, fault: StartFault) -> StartError {
        let words = self.arguments.iter().map(|word| word.to_string_lossy());
        let program = self.program.display().to_string();
        let command = words.fold(program, |command, word| format!("{command} {word}"));
        StartError { command, fault }
    }
}

/// What has become of a broker that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It runs.
    Runs,
    /// It found another broker in its place, and ended.
    MadeWay,
    /// It ended otherwise.
    Ended(ExitStatus),
    /// It ended, and nobody can say how.
    Unknown,
}

/// A broker that was started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) since: Instant,
    /// None once it has ended.
    child: Option<Child>,
}

impl Started {
    /// What has become of it; does not wait. How it ended is told once.
    pub(crate) fn fate(&mut self) -> Fate {
        let Some(child) = &mut self.child else { return Fate::Unknown };
        let fate = match child.try_wait() {
            Ok(None) => return Fate::Runs,
            Ok(Some(status)) if status.code() == Some(ALREADY_RUNNING) => Fate::MadeWay,
            Ok(Some(status)) => Fate::Ended(status),
            // The kernel keeps no status where SIGCHLD is ignored, and hands it out only once where this
            // program waits for any child of its own (ECHILD, waitpid(2)).
            Err(_) => Fate::Unknown,
        };
        self.child = None;
        fate
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // Somebody has to take note of its end, whenever that is. Without a thread for it, nobody does.
        let _ = std::thread::Builder::new().name("broker-end".to_owned()).spawn(move || child.wait());
    }
}
