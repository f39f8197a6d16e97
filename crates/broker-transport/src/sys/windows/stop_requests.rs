//! Console control events (SetConsoleCtrlHandler).
//!
//! Ctrl+C and Ctrl+Break come from the console or from another process of it; the other three mean that the
//! system ends this process itself some seconds later, so there is little time to finish. A process without a
//! console gets none of them but the last two, and those only as a service.

use std::io;

use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlLogoff, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_logoff,
    ctrl_shutdown,
};

/// Tells when this process is asked to end.
#[derive(Debug)]
pub struct StopRequests {
    interrupt: CtrlC,
    interrupt_hard: CtrlBreak,
    close: CtrlClose,
    logoff: CtrlLogoff,
    shutdown: CtrlShutdown,
}

impl StopRequests {
    /// Begins to listen: from now on these events no longer end the process by themselves, or not at once.
    ///
    /// # Errors
    /// The handler cannot be installed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: ctrl_c()?,
            interrupt_hard: ctrl_break()?,
            close: ctrl_close()?,
            logoff: ctrl_logoff()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    /// Waits for the next request and tells what it was. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl+C",
            _ = self.interrupt_hard.recv() => "Ctrl+Break",
            _ = self.close.recv() => "the console's end",
            _ = self.logoff.recv() => "the end of the session",
            _ = self.shutdown.recv() => "the system's shutdown",
        }
    }
}
