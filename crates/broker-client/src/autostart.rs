//! A broker that a client starts because none runs.
//!
//! Any number of clients may do so at once: the brokers' own lock lets one of them live, and each client
//! waits for whichever that is. Invariant: a broker that was started here outlives the session, the
//! connector and the client, and never becomes a zombie while the client lives.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use broker_transport::detach::detached;

/// Pause between two looks whether it listens by now.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

/// The exit status of a broker that found another one in its place.
const ALREADY_RUNNING: i32 = 3;

/// A broker that was started.
#[derive(Debug)]
pub(crate) struct Started(Option<Child>);

impl Started {
    /// Starts it, out of reach of what ends this process from its terminal and in the root directory, so that
    /// it holds no other in use. `PATH` is searched for a program without a slash.
    pub(crate) fn run(program: &Path, arguments: &[OsString]) -> io::Result<Self> {
        let has_place = program.parent().is_some_and(|parent| !parent.as_os_str().is_empty());
        let program = if has_place { std::path::absolute(program)? } else { program.to_path_buf() };
        let mut command = Command::new(program);
        Ok(Self(Some(detached(command.args(arguments).current_dir("/")).spawn()?)))
    }

    /// How it has ended; none while it runs, and where it made way for another broker.
    pub(crate) fn failure(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.0 else { return Ok(None) };
        let Some(status) = child.try_wait()? else { return Ok(None) };
        self.0 = None;
        Ok(Some(status).filter(|status| status.code() != Some(ALREADY_RUNNING)))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        // Somebody has to take note of its end, whenever that is. Without a thread for it, nobody does.
        let _ = std::thread::Builder::new().name("broker-end".to_owned()).spawn(move || child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_to_its_end(script: &str) -> Option<ExitStatus> {
        let mut started = Started::run(Path::new("/bin/sh"), &["-c".into(), script.into()]).unwrap();
        started.0.as_mut().unwrap().wait().unwrap();
        started.failure().unwrap()
    }

    #[test]
    fn only_a_broker_that_ends_and_is_not_replaced_has_failed() {
        assert_eq!(run_to_its_end("exit 1").unwrap().code(), Some(1));
        assert_eq!(run_to_its_end("exit 0").unwrap().code(), Some(0));
        assert_eq!(run_to_its_end("kill -9 $$").unwrap().code(), None);
        assert_eq!(run_to_its_end("exit 3"), None);

        let mut started = Started::run(Path::new("/bin/cat"), &["-".into()]).unwrap();
        started.0.as_mut().unwrap().wait().unwrap();
        let mut waits = Started::run(Path::new("/bin/sleep"), &["60".into()]).unwrap();
        assert_eq!(waits.failure().unwrap(), None, "it runs");
        waits.0.as_mut().unwrap().kill().unwrap();
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        let error = Started::run(Path::new("/absent/brokerd"), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
