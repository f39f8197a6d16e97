//! Starting processes from a runtime's blocking threads.
//!
//! Creating a process waits for the disk, and for whoever scans what is executed. Invariant: a child whose
//! starter has gone away in the meantime is ended, as nobody knows of it.

use std::io;

use super::child::ChildProcess;
use super::create::{create, exec_failure};
use super::job::Job;
use super::plan::prepare;
use crate::process::{SpawnCommand, SpawnError, StopSignal};

/// Starts processes.
#[derive(Clone, Debug)]
pub struct Spawner {
    _nothing: (),
}

impl Spawner {
    /// A spawner. There is nothing to start on this platform.
    ///
    /// # Errors
    /// None.
    pub fn start() -> io::Result<Self> {
        Ok(Self { _nothing: () })
    }

    /// Starts a process.
    ///
    /// Cancelling may leave it unstarted, or ends it right away.
    ///
    /// # Errors
    /// [`SpawnError`]; nothing is left behind.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn spawn(&self, command: SpawnCommand) -> Result<ChildProcess, SpawnError> {
        let program = command.program.clone();
        match tokio::task::spawn_blocking(move || spawn(command)).await {
            Ok(child) => child.and_then(|unclaimed| unclaimed.claim(program)),
            // The runtime is going down.
            Err(error) => Err(SpawnError::Setup {
                program,
                stage: "wait for the start",
                source: io::Error::other(error),
            }),
        }
    }
}

fn spawn(command: SpawnCommand) -> Result<Unclaimed, SpawnError> {
    let program = command.program.clone();
    let setup = |stage, source| SpawnError::Setup { program: program.clone(), stage, source };
    let job =
        Job::new(command.parent_death).map_err(|source| setup("arrange for this process's death", source))?;
    let (plan, stderr) = prepare(command)?;
    let (pid, process) = create(plan, &job).map_err(|source| SpawnError::Exec {
        program: program.clone(),
        failure: exec_failure(&source),
        source,
    })?;
    let child = ChildProcess::adopt(pid, process, job, stderr);
    child.map(|child| Unclaimed(Some(child))).map_err(|source| setup("watch the child", source))
}

/// A child that its starter has not got yet.
struct Unclaimed(Option<ChildProcess>);

impl Unclaimed {
    fn claim(mut self, program: std::path::PathBuf) -> Result<ChildProcess, SpawnError> {
        let gone = || SpawnError::Setup {
            program,
            stage: "wait for the start",
            source: io::ErrorKind::NotFound.into(),
        };
        self.0.take().ok_or_else(gone)
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(child) = &self.0 {
            // It may have ended by itself.
            let _ = child.signal(StopSignal::Kill);
        }
    }
}
