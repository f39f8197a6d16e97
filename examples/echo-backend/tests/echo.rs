//! The program itself, started as a broker starts it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use broker_protocol::prost::Message;
use broker_protocol::wire::Frame;
use broker_protocol::{PayloadProtocol, frame_bytes};
use broker_transport::endpoint::Platform;
use broker_transport::frame_io::read_frame_body;
use broker_transport::probe::{Expectation, Mismatch, NotReady, wait_ready};
use broker_transport::process::{BaseEnv, ChildProcess, Exit, SpawnCommand, Spawner, StopSignal};
use broker_transport::stream::{ConnectErrorKind, Stream};
use tempfile::TempDir;

/// Far beyond what anything here takes: reaching it is a failure, not a matter of speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// On Windows nobody asks a process to end, and it has no listener, no signals and no numbered descriptors.
const IS_WINDOWS: bool = matches!(Platform::CURRENT, Platform::Windows);

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A pipe lies in no directory, so the directory's name is part of its own.
    fn endpoint(&self) -> PathBuf {
        let dir = self.dir.path();
        match Platform::CURRENT {
            Platform::Linux | Platform::MacOs => dir.join("be.sock"),
            Platform::Windows => format!("rpb-test{}", dir.file_name().unwrap().to_str().unwrap()).into(),
        }
    }

    /// Checks that nobody listens any more, and that nothing stays where something can.
    async fn is_left(&self) {
        assert!(!self.endpoint().exists());
        let error = Stream::connect(self.endpoint()).await.unwrap_err();
        assert_eq!(error.kind, ConnectErrorKind::NotFound);
    }

    /// A command with the environment that a broker makes.
    fn command(&self, args: &[&str]) -> SpawnCommand {
        let mut command = bare(args);
        for (name, value) in [
            ("SERVICE_NAME", "echo"),
            ("SERVICE_VERSION", "1.0.0"),
            ("BACKEND_PIPE", self.endpoint().to_str().unwrap()),
            ("BACKEND_NAMESPACE", "namespace"),
            ("INSTANCE", "shared"),
        ] {
            command = command.env(format!("RUNNING_PROCESS_BROKER_V1_{name}"), value);
        }
        command
    }

    async fn start(&self, args: &[&str]) -> ChildProcess {
        start(self.command(args)).await
    }

    async fn is_ready(&self, child: &ChildProcess) -> Result<(), NotReady> {
        let expectation = Expectation { pid: Some(child.pid()), ..Expectation::default() };
        wait_ready(self.endpoint(), child, &expectation, PATIENCE).await.map(drop)
    }
}

fn bare(args: &[&str]) -> SpawnCommand {
    let mut command = SpawnCommand::new(std::path::absolute(env!("CARGO_BIN_EXE_echo-backend")).unwrap());
    command.base_env = BaseEnv::Empty;
    command.args = args.iter().map(Into::into).collect();
    // Where what belongs to a pipe lies.
    match std::env::var_os("LOCALAPPDATA") {
        Some(place) if IS_WINDOWS => command.env("LOCALAPPDATA", place),
        _ => command,
    }
}

async fn start(command: SpawnCommand) -> ChildProcess {
    Spawner::start().unwrap().spawn(command).await.unwrap()
}

async fn ask(endpoint: &Path, payload: &str) -> String {
    let stream = Stream::connect(endpoint).await.unwrap();
    let request = Frame::request(PayloadProtocol::FBUILD, 1, payload.to_owned());
    stream.send_all(&frame_bytes(&request).unwrap()).await.unwrap();
    let answer = Frame::decode(read_frame_body(&stream, 1024).await.unwrap()).unwrap();
    assert_eq!((answer.lane(), answer.request_id), (PayloadProtocol::FBUILD, 1));
    String::from_utf8(answer.payload.to_vec()).unwrap()
}

async fn stops_with(child: &ChildProcess, signal: StopSignal, expected: Exit) {
    child.signal(signal).unwrap();
    let exit = child.wait().await.unwrap();
    if IS_WINDOWS {
        assert!(!exit.is_success(), "{exit}");
    } else {
        assert_eq!(exit, expected, "{}", child.stderr().text());
    }
}

#[tokio::test]
async fn it_echoes_and_answers_questions_about_itself() {
    let place = Place::new();
    let child = start(place.command(&[]).env("GREETING", "a b=c")).await;
    place.is_ready(&child).await.unwrap();
    let endpoint = place.endpoint();
    assert_eq!(ask(&endpoint, "hello").await, "hello");
    assert_eq!(ask(&endpoint, "?pid").await, child.pid().to_string());
    let root = if IS_WINDOWS { ask(&endpoint, "?env SystemRoot").await } else { "/".to_owned() };
    assert_eq!(ask(&endpoint, "?cwd").await, root);
    assert_eq!(ask(&endpoint, "?env GREETING").await, "a b=c");
    if Platform::CURRENT == Platform::Linux {
        let first = ask(&endpoint, "?fds").await;
        assert!(first.starts_with("0,1,2,"), "{first}");
    }
    stops_with(&child, StopSignal::Terminate, Exit::Code(0)).await;
    place.is_left().await;
}

#[cfg(unix)] // An instance of a pipe is no listener.
#[tokio::test]
async fn it_takes_a_listener_that_was_passed_to_it() {
    let place = Place::new();
    let options = broker_transport::listener::BindOptions::default();
    let bound = broker_transport::listener::BoundSocket::bind(place.endpoint(), &options).unwrap();
    let mut command = place.command(&[]);
    command.listen_fd = Some(bound.into_descriptor().unwrap());
    let child = start(command).await;
    assert_eq!(ask(&place.endpoint(), "?pid").await, child.pid().to_string());
    assert_eq!(ask(&place.endpoint(), "?env LISTEN_FDNAMES").await, "backend");
    stops_with(&child, StopSignal::Terminate, Exit::Code(0)).await;
    place.is_left().await;
}

#[tokio::test]
async fn it_exits_when_asked_by_a_client() {
    let place = Place::new();
    let child = place.start(&[]).await;
    place.is_ready(&child).await.unwrap();
    let stream = Stream::connect(&place.endpoint()).await.unwrap();
    let request = Frame::request(PayloadProtocol::FBUILD, 1, "?exit 9");
    stream.send_all(&frame_bytes(&request).unwrap()).await.unwrap();
    assert_eq!(child.wait().await.unwrap(), Exit::Code(9));
}

#[tokio::test]
async fn it_serves_an_endpoint_without_a_broker() {
    let place = Place::new();
    let child = start(bare(&["--endpoint", place.endpoint().to_str().unwrap(), "--delay-ms", "1"])).await;
    place.is_ready(&child).await.unwrap();
    assert_eq!(ask(&place.endpoint(), "hello").await, "hello");
    stops_with(&child, StopSignal::Terminate, Exit::Code(0)).await;
}

#[tokio::test]
async fn without_a_broker_and_an_endpoint_it_says_what_to_do() {
    let child = start(bare(&[])).await;
    assert_eq!(child.wait().await.unwrap(), Exit::Code(2));
    let text = child.stderr().text();
    assert!(text.contains("started by a broker") && text.contains("--endpoint PATH"), "{text}");
}

#[tokio::test]
async fn it_fails_as_told() {
    let place = Place::new();
    let child = place.start(&["--fail", "7"]).await;
    assert_eq!(child.wait().await.unwrap(), Exit::Code(7));
    assert_eq!(child.stderr().last_lines(1), ["echo-backend: failing, as --fail asked for"]);
}

#[tokio::test]
async fn it_says_it_is_another_process() {
    let place = Place::new();
    let child = place.start(&["--wrong-identity"]).await;
    let error = place.is_ready(&child).await.unwrap_err();
    assert!(matches!(error, NotReady::Mismatch(Mismatch::Pid { .. })), "{error}");
    stops_with(&child, StopSignal::Terminate, Exit::Code(0)).await;
}

#[cfg(unix)] // It is the signal that is ignored.
#[tokio::test]
async fn it_ignores_a_request_to_end_and_goes_on_serving() {
    let place = Place::new();
    let child = place.start(&["--ignore-term"]).await;
    place.is_ready(&child).await.unwrap();
    child.signal(StopSignal::Terminate).unwrap();
    assert_eq!(ask(&place.endpoint(), "hello").await, "hello");
    assert_eq!(child.try_wait().unwrap(), None);
    stops_with(&child, StopSignal::Kill, Exit::Signal(9)).await;
}

#[tokio::test]
async fn it_never_listens_when_it_hangs() {
    let place = Place::new();
    let child = place.start(&["--hang"]).await;
    let expectation = Expectation::default();
    let error =
        wait_ready(place.endpoint(), &child, &expectation, Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, NotReady::TimedOut { .. }), "{error}");
    stops_with(&child, StopSignal::Kill, Exit::Signal(9)).await;
}
