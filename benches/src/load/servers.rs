//! The servers that are put under load, each a process of its own in a home of its own.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, Hello, HelloReply, Negotiated, hello_reply};
use broker_protocol::{Capabilities, PayloadProtocol};

/// The service whose backend is registered, and its version.
pub const SERVICE: (&str, &str) = ("build-cache", "1.4.2");

/// A server under load. Those that were started here are killed when dropped.
pub struct Server {
    /// What it is called in the tables.
    pub name: String,
    /// Where it listens.
    pub socket: PathBuf,
    /// Its process id, where it was started here.
    pub pid: Option<u32>,
    process: Option<Child>,
}

impl Server {
    /// A server that runs already, started by somebody else.
    pub const fn elsewhere(name: String, socket: PathBuf) -> Self {
        Self { name, socket, pid: None, process: None }
    }

    /// Asks it to end (SIGTERM) and waits until it has; what it said on a standard error that was piped.
    ///
    /// # Errors
    /// It was not started here, or did not end well.
    pub fn stop(mut self) -> io::Result<String> {
        let process = self.process.take().ok_or(io::ErrorKind::NotFound)?;
        let pid = i32::try_from(process.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.ok_or(io::ErrorKind::NotFound)?, rustix::process::Signal::TERM)?;
        let output = process.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(said)
        } else {
            Err(io::Error::other(format!("{} ended with {}: {said}", self.name, output.status)))
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A Hello as any client of any process may send it, in its frame.
pub fn hello(service: &str, version: &str) -> Vec<u8> {
    hello_with(service, version, Capabilities::empty())
}

/// A [`hello`] of a client that can do this.
pub fn hello_with(service: &str, version: &str, capabilities: Capabilities) -> Vec<u8> {
    let hello = Hello {
        client_min_protocol: 1,
        client_max_protocol: 1,
        service_name: service.to_owned(),
        wanted_version: version.to_owned(),
        client_version: "3.0.15".to_owned(),
        client_lib_name: "running-process".to_owned(),
        client_lib_version: "3.0.15".to_owned(),
        client_capabilities: capabilities.bits(),
        ..Hello::default()
    };
    let body = Frame::request(PayloadProtocol::CONTROL, 7, hello.encode_to_vec()).encode_to_vec();
    let length = (body.len() as u32).to_le_bytes();
    [&[1][..], &length, &body].concat()
}

/// Where the backend listens that a reply's body names.
///
/// # Errors
/// It is a refusal, or no reply.
pub fn backend_in(body: &[u8]) -> io::Result<String> {
    negotiated_in(body).map(|negotiated| negotiated.backend_pipe)
}

/// The agreement in a reply's body.
///
/// # Errors
/// It is a refusal, or no reply.
pub fn negotiated_in(body: &[u8]) -> io::Result<Negotiated> {
    let reply =
        Frame::decode(body).and_then(|frame| HelloReply::decode(frame.payload)).map_err(io::Error::other)?;
    match reply.result {
        Some(hello_reply::Result::Negotiated(negotiated)) => Ok(negotiated),
        other => Err(io::Error::other(format!("not negotiated: {other:?}"))),
    }
}

/// A program of this workspace, by its path from where this one is.
///
/// # Errors
/// It is not built.
pub fn program(name: &str) -> io::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(io::Error::other(format!("{} is not built; `cargo xtask bench` builds it", path.display())))
}

/// A program of this workspace in a home of its own.
///
/// # Errors
/// It is not built.
pub fn command(home: &Path, name: &str) -> io::Result<Command> {
    let mut command = Command::new(program(name)?);
    command
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home.join("x"))
        .env("RUNNING_PROCESS_BROKER_ALLOW_PRIVILEGED", "1")
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_STATE_HOME")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    Ok(command)
}

/// Starts a server.
///
/// # Errors
/// It cannot be executed.
pub fn started(name: &str, socket: PathBuf, command: &mut Command) -> io::Result<Server> {
    let process = command.spawn()?;
    Ok(Server { name: name.to_owned(), socket, pid: Some(process.id()), process: Some(process) })
}

/// The bare server, in one of its flavours.
///
/// # Errors
/// As [`started`].
pub fn start_bare(home: &Path, answer: &Path, flavour: &str) -> io::Result<Server> {
    let socket = home.join(format!("bare-{flavour}.sock"));
    let mut command = command(home, "bare-server")?;
    started(&format!("bare ({flavour})"), socket.clone(), command.arg(&socket).arg(answer).arg(flavour))
}

/// A backend that runs by itself, to be registered.
///
/// # Errors
/// As [`started`].
pub fn start_backend(home: &Path) -> io::Result<Server> {
    let socket = home.join("e/backend.sock");
    let mut command = command(home, "echo-backend")?;
    let server = started("backend", socket.clone(), command.arg("--endpoint").arg(&socket))?;
    wait_for(|| UnixStream::connect(&server.socket).map(drop))?;
    Ok(server)
}

/// A broker with one definition, and one backend that is registered.
///
/// # Errors
/// As [`started`].
pub fn start_broker(home: &Path) -> io::Result<Server> {
    define(home, SERVICE.0, &[])?;
    let mut command = command(home, "brokerd")?;
    let backend = registration(home, SERVICE.0);
    broker(home, command.arg("serve").args(["--backend", &backend]))
}

/// Defines a service whose backend is `echo-backend`.
///
/// # Errors
/// `brokerd service add` fails.
pub fn define(home: &Path, service: &str, options: &[&str]) -> io::Result<()> {
    let binary = program("echo-backend")?;
    let mut command = command(home, "brokerd")?;
    let added = command.args(["service", "add", service, "--binary"]).arg(binary).args(options).status()?;
    if added.success() { Ok(()) } else { Err(io::Error::other(format!("{service} was not defined"))) }
}

/// The `--backend` option for the backend of [`start_backend`] under a service's name.
pub fn registration(home: &Path, service: &str) -> String {
    format!("service={service},version={},endpoint={}", SERVICE.1, home.join("e/backend.sock").display())
}

/// Starts a broker whose limits no load reaches: all clients are threads of one process, which is one peer.
///
/// # Errors
/// As [`started`].
pub fn broker(home: &Path, serve: &mut Command) -> io::Result<Server> {
    let socket = home.join("r/broker.sock");
    let most = u32::MAX.to_string();
    serve.env("RUST_LOG", "error").arg("--socket").arg(&socket);
    serve.args(["--hello-burst", &most, "--hello-refill", &most, "--max-connections", "2048"]);
    started("brokerd", socket, serve)
}

/// Tries until it works, for as long as a start may take.
///
/// # Errors
/// The last one, when it never did.
pub fn wait_for<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut last = None;
    for _ in 0..2_000 {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => last = Some(error),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
}
