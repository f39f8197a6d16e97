//! SIGTERM, SIGINT and SIGHUP (signal(7)).

use std::io;

use super::signals;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Keeps signals from the calling thread, and from those that it will start: they stay pending until somebody
/// [listens](StopRequests::listen), or [lets them through](let_through_here).
pub fn block_here() {
    signals::block_all_here();
}

/// Lets signals through to the calling thread again, which listens.
pub fn let_through_here() {
    signals::unblock_all_here();
}

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

/// Tells when this process is asked to read its configuration again.
#[derive(Debug)]
pub struct ReloadRequests(Signal);

impl ReloadRequests {
    /// Begins to listen: from now on SIGHUP no longer ends the process. To be called before
    /// [`StopRequests::listen`], which lets through what came while nobody listened.
    ///
    /// # Errors
    /// The handler cannot be installed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next request. Cancel-safe.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_hang_up_is_a_request_to_reload_and_does_not_end_the_process() {
        let mut reload = ReloadRequests::listen().unwrap();
        for _ in 0..2 {
            kill_process(getpid(), Signal::HUP).unwrap();
            reload.next().await;
        }
    }
}
