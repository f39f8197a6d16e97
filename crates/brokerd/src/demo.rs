//! `brokerd demo`: a whole round on this machine, with real processes, in a directory of its own.
//!
//! It is a client and a broker's operator, nothing more: the broker is this very program, started as any
//! other is, and so is the backend. Nothing is left behind.

use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use broker_backend::{Backend, Request, StopRequests};
use broker_client::{
    Connector, DISABLE_VARIABLE, Hello, HelloError, Origin, PayloadProtocol, ServiceName, SessionError,
    Version, blocking, broker_is_enabled,
};
use broker_protocol::wire::{AdminRequest, AdminVerb};
use broker_transport::endpoint::{self, Platform};
use serde::Serialize;

use crate::config::CONFIG_VARIABLE;
use crate::config::keys::ENTRIES;
use crate::failure::Failure;
use crate::output;

/// The lane of the demo's own conversation: private use.
const LANE: PayloadProtocol = PayloadProtocol::new(0xF0DE);
/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks at a broker that is starting.
const PAUSE: Duration = Duration::from_millis(5);

/// A directory, a broker in it, and this program's path.
struct Stage {
    program: PathBuf,
    dir: tempfile::TempDir,
    broker: Option<Child>,
    is_silent: bool,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut broker) = self.broker.take() {
            // Only when a step failed: the last one has waited for its end.
            let _ = broker.kill();
            let _ = broker.wait();
        }
    }
}

/// Shows the round, or tells of it once it is over.
pub(crate) fn run(wants_json: bool) -> Result<ExitCode, Failure> {
    match broker_is_enabled() {
        Ok(true) => {}
        Ok(false) => {
            return Err(Failure::refused(SessionError::Disabled)
                .next(format!("env -u {DISABLE_VARIABLE} brokerd demo")));
        }
        Err(error) => return Err(Failure::usage(error)),
    }
    let mut stage = Stage::set(wants_json)?;
    let told = stage.play()?;
    if wants_json {
        output::json_answer("demo", &told);
    }
    Ok(ExitCode::SUCCESS)
}

/// What the round has shown. Keys are stable.
#[derive(Serialize)]
struct Told {
    directory: String,
    backend_pipe: String,
    started_in_ms: u128,
    found_in_us: u128,
    answer: String,
    handoffs: Vec<Handoff>,
    refusals: Vec<Refusal>,
}

#[derive(Serialize)]
struct Handoff {
    adopted: bool,
    took_us: u128,
    answer: String,
}

#[derive(Serialize)]
struct Refusal {
    service: &'static str,
    version: &'static str,
    code: &'static str,
    reason: String,
}

impl Stage {
    fn play(&mut self) -> Result<Told, Failure> {
        self.say(format_args!("A private directory: {}", self.dir.path().display()));
        if broker_transport::identity::is_privileged() {
            self.say(format_args!(
                "(as a privileged user, which `brokerd serve` would refuse; here nobody else gets in)"
            ));
        }

        self.say(format_args!("\n1. Say which services there are:"));
        let program = self.program.display().to_string();
        let add = ["service", "add", "demo", "--binary", &program];
        self.shown(&[&add[..], &["--min-version", "1.2.0", "--label", "spawn.args=demo-backend"]].concat())?;

        self.say(format_args!("\n2. Run a broker:"));
        self.serve()?;

        self.say(format_args!("\n3. A client says Hello, in version 1.4.2:"));
        let begun = Instant::now();
        let agreement = self.hello("demo", "1.4.2").map_err(Failure::refused)?;
        let started_in_ms = begun.elapsed().as_millis();
        let backend_pipe = agreement.backend_pipe.display().to_string();
        self.say(format_args!("   Negotiated: version {} at {backend_pipe}", agreement.daemon_version));
        self.say(format_args!("   (the broker started it: {started_in_ms} ms)"));
        let begun = Instant::now();
        self.hello("demo", "1.4.2").map_err(Failure::refused)?;
        let found_in_us = begun.elapsed().as_micros();
        self.say(format_args!("   and again, now that it runs: {found_in_us} us"));

        self.say(format_args!("\n4. The client talks to the backend itself:"));
        let answer = self.talk("good day")?;
        self.say(format_args!("   it answers: {answer}"));

        let heading =
            "5. The next ones are passed on; from the second on, the request travels with the Hello:";
        self.say(format_args!("\n{heading}"));
        let handoffs = self.pass_on()?;

        self.say(format_args!("\n6. Others are told why not, and what to do:"));
        let refusals = self.be_refused()?;

        self.say(format_args!("\n7. Look at it:"));
        let socket = self.socket().display().to_string();
        self.shown(&["status", "--socket", &socket])?;

        self.say(format_args!("\n8. End it:"));
        self.shut_down()?;
        self.say(format_args!("   drained; backend, socket and lock are gone"));
        self.say(format_args!("\nNext: `brokerd service add NAME --binary PATH`, then `brokerd serve`."));
        let directory = self.dir.path().display().to_string();
        Ok(Told { directory, backend_pipe, started_in_ms, found_in_us, answer, handoffs, refusals })
    }

    fn pass_on(&self) -> Result<Vec<Handoff>, Failure> {
        let connector = Connector::new(wanted("demo", "1.4.2")).broker(self.socket());
        let connector = connector.timeout(PATIENCE).with_handoff();
        let mut handoffs = Vec::new();
        for round in ["first", "then"] {
            let begun = Instant::now();
            let (session, answer) = blocking::Session::connect_with_request(&connector, LANE, "good day")
                .map_err(Failure::refused)?;
            let took_us = begun.elapsed().as_micros();
            let adopted = session.origin() == Origin::Handoff;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let way = if adopted { "adopted" } else { "dialled" };
            self.say(format_args!("   {round} ({way}, {took_us} us): {answer}"));
            handoffs.push(Handoff { adopted, took_us, answer });
        }
        Ok(handoffs)
    }

    fn be_refused(&self) -> Result<Vec<Refusal>, Failure> {
        let mut refusals = Vec::new();
        for (service, version) in [("unknown", "1.0.0"), ("demo", "1.1.9")] {
            match self.hello(service, version) {
                Err(HelloError::Refused(refused)) => {
                    let code = broker_protocol::wire::ErrorCode::try_from(refused.kind.code());
                    let code = code.unwrap_or_default().as_str_name();
                    self.say(format_args!("   Refused ({code}): {}", refused.reason));
                    refusals.push(Refusal { service, version, code, reason: refused.reason.to_string() });
                }
                Err(error) => return Err(Failure::refused(error)),
                Ok(_) => return Err(Failure::refused(format!("{service} {version} was not refused"))),
            }
        }
        Ok(refusals)
    }
}

/// Where temporary files go, unless the sockets of backends would get too long a path there.
fn place() -> PathBuf {
    const RANDOM_NAME: &str = "rpdemoXXXXXX";
    let usual = std::env::temp_dir();
    let runtime = endpoint::RuntimePlaces {
        xdg_runtime_dir: Some(usual.join(RANDOM_NAME).into()),
        tmpdir: Some(usual.join(RANDOM_NAME).into()),
        local_app_data: Some(usual.join(RANDOM_NAME).into()),
        ..endpoint::RuntimePlaces::default()
    };
    let fits = endpoint::current_user_hash()
        .and_then(|user| {
            endpoint::socket_path(Platform::CURRENT, &endpoint::backend_leaf(&user, [0; 16]), &runtime)
        })
        .is_ok();
    if fits { usual } else { PathBuf::from("/tmp") }
}

impl Stage {
    fn set(is_silent: bool) -> Result<Self, Failure> {
        let failed = |what: &str, error: std::io::Error| Failure::refused(format!("{what}: {error}"));
        let program = std::env::current_exe().map_err(|error| failed("cannot find this program", error))?;
        let dir = tempfile::Builder::new().prefix("rpdemo").tempdir_in(place());
        let dir = dir.map_err(|error| failed("cannot make a directory for the demo", error))?;
        Ok(Self { program, dir, broker: None, is_silent })
    }

    /// Says something, unless JSON is wanted.
    fn say(&self, text: std::fmt::Arguments<'_>) {
        if !self.is_silent {
            output::line(text);
        }
    }

    fn socket(&self) -> PathBuf {
        match Platform::CURRENT {
            Platform::Linux | Platform::MacOs => self.dir.path().join("run/demo.sock"),
            // A pipe lies in no directory, so it has the random name of this one.
            Platform::Windows => self.dir.path().file_name().unwrap_or_default().into(),
        }
    }

    /// This program in a home of its own.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for variable in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", CONFIG_VARIABLE]
            .into_iter()
            .chain(ENTRIES.iter().filter_map(|entry| entry.key().variable))
        {
            command.env_remove(variable);
        }
        command
            .args(arguments)
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("TMPDIR", self.dir.path())
            .env("USERPROFILE", self.dir.path())
            .env("APPDATA", self.dir.path())
            .env("LOCALAPPDATA", self.dir.path())
            .env("RUNNING_PROCESS_BROKER_ALLOW_PRIVILEGED", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command as the reader would, and shows what it prints.
    fn shown(&self, arguments: &[&str]) -> Result<(), Failure> {
        self.say(format_args!("   $ brokerd {}", arguments.join(" ")));
        let output = self.command(arguments).output();
        let output = output
            .map_err(|error| Failure::refused(format!("cannot run {}: {error}", self.program.display())))?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            self.say(format_args!("   {line}"));
        }
        if output.status.success() {
            Ok(())
        } else {
            Err(Failure::refused(String::from_utf8_lossy(&output.stderr)))
        }
    }

    fn serve(&mut self) -> Result<(), Failure> {
        let socket = self.socket();
        let arguments = ["serve", "--socket", &socket.display().to_string()];
        self.say(format_args!("   $ brokerd {} &", arguments.join(" ")));
        let child = self.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.broker =
            Some(child.map_err(|error| Failure::refused(format!("cannot start a broker: {error}")))?);
        let deadline = Instant::now() + PATIENCE;
        let ready = AdminRequest { verb: AdminVerb::Readyz.into(), ..AdminRequest::default() };
        while let Err(error) = blocking::admin(&socket, &ready) {
            if Instant::now() > deadline {
                return Err(Failure::refused(format!("the broker did not come up: {error}")));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn hello(&self, service: &str, version: &str) -> Result<broker_client::Agreement, HelloError> {
        blocking::say_hello(&self.socket(), &wanted(service, version), PATIENCE)
    }

    /// One request to the demo's backend, and the text of its answer.
    fn talk(&self, text: &'static str) -> Result<String, Failure> {
        let connector = Connector::new(wanted("demo", "1.4.2")).broker(self.socket()).timeout(PATIENCE);
        let mut session = blocking::Session::connect(&connector).map_err(Failure::refused)?;
        let answer = session.request(LANE, text).map_err(Failure::refused)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn shut_down(&mut self) -> Result<(), Failure> {
        let socket = self.socket().display().to_string();
        self.shown(&["shutdown", "--socket", &socket])?;
        if let Some(mut broker) = self.broker.take() {
            let status = broker
                .wait()
                .map_err(|error| Failure::refused(format!("cannot wait for the broker: {error}")))?;
            if !status.success() {
                return Err(Failure::refused(format!("the broker ended with {status}")));
            }
        }
        Ok(())
    }
}

fn wanted(service: &str, version: &str) -> Hello {
    // The demo's own names and versions are good ones.
    let (Ok(service), Ok(version)) = (ServiceName::parse(service), Version::parse(version)) else {
        unreachable!("a constant that does not parse")
    };
    Hello::new(service, version)
}

/// The demo's backend: says back what it is told.
pub(crate) fn backend() -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::refused(format!("cannot start the event loop: {error}")))?;
    runtime.block_on(async {
        let mut stop = StopRequests::listen().map_err(Failure::refused)?;
        let backend = Backend::from_env().map_err(Failure::refused)?;
        let version =
            backend.environment().map(|environment| environment.version.to_string()).unwrap_or_default();
        let answer = move |request: Request| {
            let said = String::from_utf8_lossy(request.payload()).into_owned();
            let answer = format!("\"{said}\" to you too, says demo {version}");
            async move { answer }
        };
        let stopped = async {
            stop.next().await;
        };
        backend.serve_until(answer, stopped).await.map_err(Failure::refused)?;
        Ok(ExitCode::SUCCESS)
    })
}
