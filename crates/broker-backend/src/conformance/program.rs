//! A service that is started as a broker starts it (protocol.md, end of "Conversations"; behaviour.md,
//! section 4, "Start").
//!
//! Invariant: the process ends with the value that stands for it, and its directory with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use broker_protocol::control::CONTROL_FD;
use broker_protocol::{ServiceName, Version};
use broker_transport::endpoint::{self, Platform};
use broker_transport::passing::Recipient;
use broker_transport::process::{ChildProcess, Inherited, SpawnCommand, Spawner, StopSignal};
use broker_transport::stream::Stream;
use tempfile::TempDir;

use super::report::{Outcome, Stop, failed, skipped};
use crate::environment;

/// Lines of the program's standard error that are told when it ends too early.
const STDERR_LINES: usize = 5;

/// A program that is a service, with what it needs to be started.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    service: ServiceName,
    version: Version,
}

impl Program {
    /// The program at this absolute path, as the service of this name and version.
    pub fn new(path: impl Into<PathBuf>, service: ServiceName, version: Version) -> Self {
        Self { path: path.into(), args: Vec::new(), env: Vec::new(), service, version }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds a variable. The rest of the environment is that of this process, but for what a broker keeps to
    /// itself.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub(super) const fn service(&self) -> &ServiceName {
        &self.service
    }

    pub(super) const fn version(&self) -> &Version {
        &self.version
    }
}

/// Where a program's endpoint will lie.
pub(super) struct Place {
    endpoint: PathBuf,
    /// What the endpoint lies in, where it lies in anything.
    _dir: Option<TempDir>,
}

impl Place {
    pub(super) fn new() -> Outcome<Self> {
        if Platform::CURRENT == Platform::Windows {
            let endpoint = endpoint::new_backend_endpoint().map_err(skipped)?;
            return Ok(Self { endpoint, _dir: None });
        }
        // Short, as a socket's path has to fit its address.
        let dir = tempfile::Builder::new().prefix("rpc").tempdir();
        let dir = dir.map_err(|error| skipped(format_args!("no directory to start it in: {error}")))?;
        Ok(Self { endpoint: dir.path().join("be.sock"), _dir: Some(dir) })
    }

    pub(super) fn endpoint(&self) -> PathBuf {
        self.endpoint.clone()
    }
}

/// The process.
pub(super) struct Started {
    child: ChildProcess,
    /// The broker's end of the control connection, until it is taken into use.
    pub(super) control: Option<(Stream, Recipient)>,
    _place: Place,
}

impl Started {
    pub(super) async fn start(program: &Program, place: Place) -> Outcome<Self> {
        let mut command = SpawnCommand::new(&program.path);
        command.args.clone_from(&program.args);
        command.env.clone_from(&program.env);
        let namespace = endpoint::current_user_hash().map_err(skipped)?.to_string();
        let path = place.endpoint();
        let told: [(&str, &str); 5] = [
            (environment::SERVICE_NAME, program.service.as_str()),
            (environment::SERVICE_VERSION, &program.version.to_string()),
            (environment::BACKEND_PIPE, utf8(&path)?),
            (environment::BACKEND_NAMESPACE, &namespace),
            (environment::INSTANCE, "shared"),
        ];
        for (name, value) in told {
            command = command.env(name, value);
        }
        let (near, far) = Stream::pair().map_err(skipped)?;
        command.inherited.push(Inherited { variable: CONTROL_FD.into(), descriptor: far.into_owned_fd() });
        let child = Spawner::start().map_err(skipped)?.spawn(command).await;
        let child = child.map_err(|error| failed("a program that starts", error))?;
        let recipient = Recipient::child(&child).map_err(skipped)?;
        Ok(Self { child, control: Some((near, recipient)), _place: place })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns only if it ends.
    pub(super) async fn ended(&self) -> Stop {
        match self.child.wait().await {
            Ok(exit) => failed(
                "a program that serves",
                format_args!(
                    "it ended with {exit}: {}",
                    self.child.stderr().last_lines(STDERR_LINES).join(" | ")
                ),
            ),
            Err(error) => skipped(format_args!("the program cannot be watched: {error}")),
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself. Whoever started it reaps it.
        let _ = self.child.signal(StopSignal::Kill);
    }
}

fn utf8(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| skipped(format_args!("{} is not UTF-8", path.display())))
}
