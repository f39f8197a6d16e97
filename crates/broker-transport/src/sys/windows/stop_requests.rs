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

/// Nothing is sent to a thread here.
pub fn block_here() {}

/// Nothing is sent to a thread here.
pub fn let_through_here() {}

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

/// Tells when this process is asked to read its configuration again, which here nobody does.
#[derive(Debug)]
pub struct ReloadRequests {
    _nothing: (),
}

impl ReloadRequests {
    /// There is no event that means this.
    ///
    /// # Errors
    /// None.
    pub const fn listen() -> io::Result<Self> {
        Ok(Self { _nothing: () })
    }

    /// Waits for good.
    pub async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, GenerateConsoleCtrlEvent};

    use super::super::calls::done;
    use super::super::is_wine;
    use super::*;
    use crate::process::{Exit, SpawnCommand, Spawner};

    const HELPER: &str = "BROKER_TRANSPORT_TEST_STOPPED";

    /// Exit codes of the helper.
    const HEARD: i32 = 3;
    const UNSENT: i32 = 4;

    /// Not a test of its own: everybody in its console gets the event.
    #[test]
    #[ignore = "run by a_console_event_is_a_request_and_does_not_end_the_process"]
    fn helper_that_stops_itself() {
        if std::env::var_os(HELPER).is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let request = runtime.block_on(async {
            let mut requests = StopRequests::listen().unwrap();
            // SAFETY: a plain call.
            match done(unsafe { GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, 0) }) {
                Ok(()) => requests.next().await,
                Err(_) => "nothing was sent",
            }
        });
        std::process::exit(match request {
            "Ctrl+Break" => HEARD,
            "nothing was sent" => UNSENT,
            _ => 0,
        });
    }

    #[tokio::test]
    async fn a_console_event_is_a_request_and_does_not_end_the_process() {
        let name = "sys::windows::stop_requests::tests::helper_that_stops_itself";
        // As a child of a broker it has a console of its own.
        let command = ["--exact", name, "--ignored", "--nocapture"]
            .iter()
            .fold(SpawnCommand::new(std::env::current_exe().unwrap()), SpawnCommand::arg)
            .env(HELPER, "1");
        let child = Spawner::start().unwrap().spawn(command).await.unwrap();
        let expected = if is_wine() {
            println!("not tested: Wine gives a process without a window no console to send events in");
            UNSENT
        } else {
            HEARD
        };
        assert_eq!(child.wait().await.unwrap(), Exit::Code(expected), "{}", child.stderr().text());
    }
}
