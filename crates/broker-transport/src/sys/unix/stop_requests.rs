//! SIGTERM and SIGINT (signal(7)).

use std::io;

use super::signals;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Tells when this process is asked to end.
#[derive(Debug)]
pub struct StopRequests {
    terminate: Signal,
    interrupt: Signal,
}

impl StopRequests {
    /// Begins to listen: from now on SIGTERM and SIGINT no longer end the process by themselves.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        let requests =
            Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        // Whoever started this process may have blocked them, as a predecessor does until now.
        signals::unblock_all_here();
        Ok(requests)
    }

    /// Waits for the next request and tells what it was. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
