//! Hellos against the bare server, in one run with the same bytes: `cargo xtask bench hello`.
//!
//! Each server is a process of its own and each client a thread that connects for every Hello, as
//! clients do. The servers take turns, round by round, so that whatever else the machine does hits all.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use broker_benches::load::clients::{drive, exchange};
use broker_benches::load::plot;
use broker_benches::load::process::{cpu_time, resident_kib, syscalls_during};
use broker_benches::load::report::{Cost, Row, figures, median, table, to_json};
use broker_benches::load::samples::Samples;
use broker_protocol::PayloadProtocol;
use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, Hello};
use clap::Parser;

/// Load on a broker and on a bare server that moves the same bytes.
#[derive(Debug, Parser)]
#[command(name = "hello-load")]
struct Options {
    /// Numbers of clients
    #[arg(long, value_delimiter = ',', default_value = "1,8,64,512")]
    clients: Vec<usize>,
    /// Hellos per server, number of clients and round
    #[arg(long, default_value_t = 10_000)]
    hellos: usize,
    /// Rounds; the servers take turns in each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Another server that answers the same Hello, as NAME=SOCKET
    #[arg(long, value_parser = named_socket)]
    also: Vec<(String, PathBuf)>,
    /// Write the figures here
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write a picture here
    #[arg(long)]
    svg: Option<PathBuf>,
}

fn named_socket(text: &str) -> Result<(String, PathBuf), String> {
    let (name, socket) = text.split_once('=').ok_or("expected NAME=SOCKET")?;
    Ok((name.to_owned(), PathBuf::from(socket)))
}

/// Hellos whose system calls are counted.
const COUNTED: usize = 2_000;
/// Connections that are held open in silence: the share of one peer.
const HELD: usize = 512;
/// Where the registered backend says it is.
const SERVICE: (&str, &str) = ("build-cache", "1.4.2");

/// A server under load. Those that were started here are killed when dropped.
struct Server {
    name: String,
    socket: PathBuf,
    pid: Option<u32>,
    idle_kib: u64,
    process: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let home = tempfile::Builder::new().prefix("hl").tempdir_in("/tmp")?;
    let request = request();
    let _backend = start_backend(home.path())?;
    let broker = start_broker(home.path())?;
    let mut answer = [0; 2048];
    let length = wait_for(|| exchange(&broker.socket, &request, &mut answer))?;
    let canned = home.path().join("answer");
    std::fs::write(&canned, &answer[..length])?;
    eprintln!("a Hello is {} bytes, its answer {length}", request.len());
    let mut servers =
        vec![start_bare(home.path(), &canned, "single")?, start_bare(home.path(), &canned, "multi")?, broker];
    servers.extend(options.also.iter().map(|(name, socket)| Server {
        name: name.clone(),
        socket: socket.clone(),
        pid: None,
        idle_kib: 0,
        process: None,
    }));
    for server in &mut servers {
        wait_for(|| exchange(&server.socket, &request, &mut [0; 2048]))?;
        server.idle_kib = server.pid.map_or(Ok((0, 0)), resident_kib)?.0;
    }

    let mut rows = Vec::new();
    for clients in &options.clients {
        rows.extend(measure(options, &servers, &request, *clients)?);
    }
    let costs = servers.iter().map(|server| cost(server, &request)).collect::<io::Result<Vec<_>>>()?;
    println!("{}", table(&mut rows, &costs));
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", to_json(&mut rows, &costs)))?;
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, plot::svg(&rows.iter_mut().map(figures).collect::<Vec<_>>()))?;
    }
    Ok(())
}

/// All servers in turn, as many rounds as wanted, after one that does not count.
fn measure(options: &Options, servers: &[Server], request: &[u8], clients: usize) -> io::Result<Vec<Row>> {
    let mut latencies: Vec<Samples> = servers.iter().map(|_| Samples::default()).collect();
    let mut throughputs: Vec<Vec<f64>> = servers.iter().map(|_| Vec::new()).collect();
    let mut cpu = vec![Duration::ZERO; servers.len()];
    for round in 0..=options.rounds {
        for (index, server) in servers.iter().enumerate() {
            let before = server.pid.map_or(Ok(Duration::ZERO), cpu_time)?;
            let result = drive(&server.socket, request, clients, options.hellos).map_err(|error| {
                io::Error::new(error.kind(), format!("{} with {clients} clients: {error}", server.name))
            })?;
            if round > 0 {
                cpu[index] += server.pid.map_or(Ok(Duration::ZERO), cpu_time)?.saturating_sub(before);
                throughputs[index].push(options.hellos as f64 / result.took.as_secs_f64());
                latencies[index].extend(&result.latencies);
            }
        }
        eprint!("\r{clients} clients, round {round} of {}", options.rounds);
    }
    eprintln!();
    let answers = (options.hellos * options.rounds) as f64;
    Ok(servers
        .iter()
        .zip(latencies)
        .zip(throughputs.iter_mut().zip(cpu))
        .map(|((server, latencies), (throughput, cpu))| Row {
            server: server.name.clone(),
            clients,
            latencies,
            throughput: median(throughput),
            cpu_us: cpu.as_secs_f64() * 1e6 / answers,
        })
        .collect())
}

fn cost(server: &Server, request: &[u8]) -> io::Result<Cost> {
    let Some(pid) = server.pid else {
        return Ok(Cost {
            server: server.name.clone(),
            syscalls: None,
            idle_kib: 0,
            held_kib: 0,
            peak_kib: 0,
        });
    };
    let (_, peak_kib) = resident_kib(pid)?;
    let held = (0..HELD).map(|_| UnixStream::connect(&server.socket)).collect::<io::Result<Vec<_>>>()?;
    // Connections are accepted in order: one more that is closed or answered comes after all of them.
    let _ = exchange(&server.socket, request, &mut [0; 2048]);
    let (held_kib, _) = resident_kib(pid)?;
    drop(held);
    wait_for(|| exchange(&server.socket, request, &mut [0; 2048]))?;
    let counted = syscalls_during(pid, || drive(&server.socket, request, 1, COUNTED).map(drop));
    if let Err(error) = &counted {
        eprintln!("{}: system calls are not counted: {error}", server.name);
    }
    Ok(Cost {
        server: server.name.clone(),
        syscalls: counted.ok().map(|calls| calls as f64 / COUNTED as f64),
        idle_kib: server.idle_kib,
        held_kib,
        peak_kib,
    })
}

/// A Hello as any client of any process may send it.
fn request() -> Vec<u8> {
    let hello = Hello {
        client_min_protocol: 1,
        client_max_protocol: 1,
        service_name: SERVICE.0.to_owned(),
        wanted_version: SERVICE.1.to_owned(),
        client_version: "3.0.15".to_owned(),
        client_lib_name: "running-process".to_owned(),
        client_lib_version: "3.0.15".to_owned(),
        ..Hello::default()
    };
    let body = Frame::request(PayloadProtocol::CONTROL, 7, hello.encode_to_vec()).encode_to_vec();
    let length = (body.len() as u32).to_le_bytes();
    [&[1][..], &length, &body].concat()
}

fn program(name: &str) -> io::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(io::Error::other(format!("{} is not built; run `cargo xtask bench hello`", path.display())))
}

fn command(home: &Path, name: &str) -> io::Result<Command> {
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

fn started(name: &str, socket: PathBuf, command: &mut Command) -> io::Result<Server> {
    let process = command.spawn()?;
    Ok(Server { name: name.to_owned(), socket, pid: Some(process.id()), idle_kib: 0, process: Some(process) })
}

fn start_bare(home: &Path, answer: &Path, flavour: &str) -> io::Result<Server> {
    let socket = home.join(format!("bare-{flavour}.sock"));
    let mut command = command(home, "bare-server")?;
    started(&format!("bare ({flavour})"), socket.clone(), command.arg(&socket).arg(answer).arg(flavour))
}

fn start_backend(home: &Path) -> io::Result<Server> {
    let socket = home.join("e/backend.sock");
    let mut command = command(home, "echo-backend")?;
    let server = started("backend", socket.clone(), command.arg("--endpoint").arg(&socket))?;
    wait_for(|| UnixStream::connect(&server.socket).map(drop))?;
    Ok(server)
}

fn start_broker(home: &Path) -> io::Result<Server> {
    let binary = program("echo-backend")?;
    let added =
        command(home, "brokerd")?.args(["service", "add", SERVICE.0, "--binary"]).arg(binary).status()?;
    if !added.success() {
        return Err(io::Error::other("the service was not defined"));
    }
    let socket = home.join("r/broker.sock");
    let most = u32::MAX.to_string();
    let backend = format!(
        "service={},version={},endpoint={}",
        SERVICE.0,
        SERVICE.1,
        home.join("e/backend.sock").display()
    );
    let mut command = command(home, "brokerd")?;
    command.env("RUST_LOG", "warn").arg("serve").arg("--socket").arg(&socket).args(["--backend", &backend]);
    // All clients are threads of one process, which is one peer.
    started(
        "brokerd",
        socket,
        command.args(["--hello-burst", &most, "--hello-refill", &most, "--max-connections", "2048"]),
    )
}

/// Tries until it works, for as long as a start may take.
fn wait_for<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
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
