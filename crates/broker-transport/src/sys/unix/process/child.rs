//! A child of this process.
//!
//! Invariant: a child is reaped exactly once: by whoever waits for it, or by the spawner when it is
//! dropped first. Until then its pid and its process group are its own, so signals cannot go astray.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group};
use tokio::io::unix::AsyncFd;

use super::super::super::os::process::Handle;
use super::register;
use super::spawner::{Orphan, RawChild, Spawner};
use super::stderr_pipe::StderrPipe;
use crate::process::{Exit, SignalError, StderrRing, StopSignal};
use crate::succession::ChildBequest;

/// A running or ended child. Dropping it does not end it; it is reaped all the same.
pub struct ChildProcess {
    pid: u32,
    /// `None` only while dropping.
    handle: Option<AsyncFd<Handle>>,
    /// How it ended. Whoever reaps or signals holds the lock, so that neither overtakes the other.
    exit: Mutex<Option<Exit>>,
    stderr: StderrRing,
    pipe: Arc<StderrPipe>,
    spawner: Spawner,
}

impl ChildProcess {
    /// On failure the child is killed and reaped.
    pub(super) fn adopt(child: RawChild, spawner: &Spawner) -> io::Result<Self> {
        let RawChild { pid, handle, stderr: pipe } = child;
        let stderr = StderrRing::new();
        let pipe = match StderrPipe::start(pipe, stderr.clone()) {
            Ok(pipe) => pipe,
            Err(error) => {
                spawner.reap(Orphan::to_kill(pid, handle));
                return Err(error);
            }
        };
        match register(handle) {
            Ok(handle) => Ok(Self {
                pid,
                handle: Some(handle),
                exit: Mutex::new(None),
                stderr,
                pipe,
                spawner: spawner.clone(),
            }),
            Err((handle, error)) => {
                spawner.reap(Orphan::to_kill(pid, handle));
                Err(error)
            }
        }
    }

    /// Takes over a child that this process has started before it was executed anew.
    ///
    /// # Errors
    /// It is no child of this process, or no descriptor is left; then it is killed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn inherit(bequest: ChildBequest, spawner: &Spawner) -> io::Result<Self> {
        let ChildBequest { pid, stderr, said } = bequest;
        let known = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::CHILD)?;
        // A dead one is left to be reaped by whoever waits for it.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::Pid(known), look)?;
        let child = Self::adopt(RawChild { pid, handle: Handle::of_child(pid)?, stderr }, spawner)?;
        child.stderr.push(said.as_bytes());
        Ok(child)
    }

    /// What of it goes to a successor of this process; nothing changes here.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn bequeath(&self) -> io::Result<ChildBequest> {
        let said = self.stderr.text();
        Ok(ChildBequest { pid: self.pid, stderr: self.pipe.try_clone()?, said })
    }

    /// Its process id, which is also that of its session and process group.
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
    /// The runtime is going down.
    pub async fn wait(&self) -> io::Result<Exit> {
        loop {
            if let Some(exit) = *self.exit() {
                return Ok(exit);
            }
            let mut ready = self.handle()?.readable().await?;
            if let Some(exit) = self.try_wait()? {
                return Ok(exit);
            }
            ready.clear_ready();
        }
    }

    /// How it ended; `None` while it lives.
    ///
    /// # Errors
    /// The system's.
    pub fn try_wait(&self) -> io::Result<Option<Exit>> {
        let mut exit = self.exit();
        if exit.is_none()
            && let Some(ended) = self.handle()?.get_ref().reap()?
        {
            self.pipe.finish();
            *exit = Some(ended);
        }
        Ok(*exit)
    }

    /// Tells it to end: [`StopSignal::Terminate`] goes to the child alone, which sees to what it
    /// started; [`StopSignal::Kill`] to its whole process group.
    ///
    /// # Errors
    /// [`SignalError::Exited`] once it was reaped.
    pub fn signal(&self, stop: StopSignal) -> Result<(), SignalError> {
        let exit = self.exit();
        if exit.is_some() {
            return Err(SignalError::Exited);
        }
        match stop {
            StopSignal::Terminate => self.handle()?.get_ref().signal(stop),
            StopSignal::Kill => kill_group(self.pid),
        }
    }

    fn handle(&self) -> io::Result<&AsyncFd<Handle>> {
        self.handle.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn exit(&self) -> MutexGuard<'_, Option<Exit>> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills the process group that a child leads, which must not be reaped yet: until then nobody else
/// can get its number.
pub(super) fn kill_group(pid: u32) -> Result<(), SignalError> {
    let group = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(SignalError::Exited)?;
    match kill_process_group(group, Signal::KILL) {
        Ok(()) => Ok(()),
        Err(Errno::SRCH) => Err(SignalError::Exited),
        Err(errno) => Err(SignalError::Io(errno.into())),
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let is_reaped = self.exit().is_some();
        if let Some(handle) = self.handle.take()
            && !is_reaped
        {
            self.spawner.reap(Orphan::to_await(self.pid, handle.into_inner()));
        }
    }
}

impl Debug for ChildProcess {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildProcess").field("pid", &self.pid).field("exit", &*self.exit()).finish()
    }
}
