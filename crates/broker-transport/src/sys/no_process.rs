//! Processes where this crate cannot start or watch them yet.
//!
//! Invariant: none of these types has a value, so nothing but the refusal to make one can be called.

use std::convert::Infallible;
use std::io;

use crate::process::{Exit, SignalError, SpawnCommand, SpawnError, StderrRing, StopSignal, WatchError};
use crate::stream::Stream;
use crate::unsupported::Unsupported;

const fn unsupported(operation: &'static str) -> Unsupported {
    Unsupported { operation, platform: std::env::consts::OS }
}

/// Starts processes. Not on this platform yet.
#[derive(Clone, Debug)]
pub struct Spawner(Infallible);

impl Spawner {
    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`].
    pub fn start() -> io::Result<Self> {
        Err(unsupported("starting processes").into())
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub async fn spawn(&self, _command: SpawnCommand) -> Result<ChildProcess, SpawnError> {
        match self.0 {}
    }
}

/// A child of this process. Not on this platform yet.
#[derive(Debug)]
pub struct ChildProcess(Infallible);

impl ChildProcess {
    /// Cannot be called.
    pub const fn pid(&self) -> u32 {
        match self.0 {}
    }

    /// Cannot be called.
    pub const fn stderr(&self) -> &StderrRing {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub async fn wait(&self) -> io::Result<Exit> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn try_wait(&self) -> io::Result<Option<Exit>> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn signal(&self, _stop: StopSignal) -> Result<(), SignalError> {
        match self.0 {}
    }
}

/// Watches a process that somebody else started. Not on this platform yet.
#[derive(Debug)]
pub struct ProcessWatch(Infallible);

impl ProcessWatch {
    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`].
    pub fn open(_pid: u32) -> Result<Self, WatchError> {
        Err(WatchError::Io(unsupported("watching processes").into()))
    }

    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`].
    pub fn of_peer(_stream: &Stream) -> Result<Self, WatchError> {
        Err(WatchError::Io(unsupported("watching a peer's process").into()))
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::unused_async, reason = "the same signature on every platform")]
    pub async fn died(&self) -> io::Result<()> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn is_dead(&self) -> io::Result<bool> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn signal(&self, _stop: StopSignal) -> Result<(), SignalError> {
        match self.0 {}
    }
}
