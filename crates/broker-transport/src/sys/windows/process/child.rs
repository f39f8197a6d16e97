//! A child of this process.
//!
//! Invariant: the process handle is held until its end, so its pid is its own until then; and so is its job,
//! whose last handle would end it.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::os::windows::io::{BorrowedHandle, OwnedHandle};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::unsupported;
use super::death::Death;
use super::job::Job;
use super::spawner::Spawner;
use super::stderr_pipe::StderrPipe;
use crate::process::{Exit, SignalError, StderrRing, StopSignal};
use crate::succession::ChildBequest;

/// A running or ended child. Dropping it does not end it.
pub struct ChildProcess {
    pid: u32,
    /// How it ended. Whoever looks for it or ends it holds the lock.
    exit: Mutex<Option<Exit>>,
    stderr: StderrRing,
    /// `None` only while dropping.
    held: Option<Held>,
}

/// What is held until the child's end.
struct Held {
    death: Death,
    rest: Rest,
}

struct Rest {
    job: Job,
    pipe: Option<StderrPipe>,
}

impl ChildProcess {
    /// On failure the child is ended.
    pub(super) fn adopt(
        pid: u32,
        process: OwnedHandle,
        job: Job,
        stderr: Option<OwnedHandle>,
    ) -> io::Result<Self> {
        let ring = StderrRing::new();
        let pipe = stderr.map(|pipe| StderrPipe::start(pipe, ring.clone())).transpose();
        match pipe.and_then(|pipe| Ok((pipe, Death::of(process)?))) {
            Ok((pipe, death)) => {
                let held = Some(Held { death, rest: Rest { job, pipe } });
                Ok(Self { pid, exit: Mutex::new(None), stderr: ring, held })
            }
            Err(error) => {
                // It may have ended by itself.
                let _ = job.end(StopSignal::Kill);
                Err(error)
            }
        }
    }

    /// Takes over a child of a predecessor: there is none on this platform.
    ///
    /// # Errors
    /// Always.
    pub fn inherit(_bequest: ChildBequest, _spawner: &Spawner) -> io::Result<Self> {
        unsupported("going on as another program")
    }

    /// What of it goes to a successor of this process: there is none on this platform.
    ///
    /// # Errors
    /// Always.
    pub fn bequeath(&self) -> io::Result<ChildBequest> {
        unsupported("going on as another program")
    }

    /// Its process id.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The last of what it wrote to stderr. Complete up to its death once [`wait`](Self::wait) returned.
    pub const fn stderr(&self) -> &StderrRing {
        &self.stderr
    }

    /// Returns how it ended, once it has. Cancel-safe, and any number of times.
    ///
    /// # Errors
    /// The system's.
    pub async fn wait(&self) -> io::Result<Exit> {
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(exit);
            }
            self.held()?.death.comes().await?;
        }
    }

    /// How it ended; `None` while it lives.
    ///
    /// # Errors
    /// The system's.
    pub fn try_wait(&self) -> io::Result<Option<Exit>> {
        let mut exit = self.exit();
        if exit.is_none() {
            let Held { death, rest } = self.held()?;
            if death.is_here()? {
                let code = death.exit_code()?.cast_signed();
                if let Some(pipe) = &rest.pipe {
                    pipe.finish();
                }
                *exit = Some(Exit::Code(code));
            }
        }
        Ok(*exit)
    }

    /// Ends it, with everything it has started: there is no other way that every program understands. What the
    /// signal changes is the exit code.
    ///
    /// # Errors
    /// [`SignalError::Exited`] once its end was seen.
    pub fn signal(&self, stop: StopSignal) -> Result<(), SignalError> {
        let exit = self.exit();
        if exit.is_some() {
            return Err(SignalError::Exited);
        }
        Ok(self.held()?.rest.job.end(stop)?)
    }

    /// The process, with all rights.
    pub(crate) fn handle(&self) -> io::Result<BorrowedHandle<'_>> {
        Ok(self.held()?.death.process())
    }

    fn held(&self) -> io::Result<&Held> {
        self.held.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn exit(&self) -> MutexGuard<'_, Option<Exit>> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let has_ended = self.exit().is_some();
        if let Some(Held { death, rest }) = self.held.take()
            && !has_ended
        {
            death.keep(rest);
        }
    }
}

impl Debug for ChildProcess {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildProcess").field("pid", &self.pid).field("exit", &*self.exit()).finish()
    }
}
