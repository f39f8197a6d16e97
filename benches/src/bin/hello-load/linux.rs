//! Hellos against the bare server, in one run with the same bytes: `cargo xtask bench hello`.
//!
//! Each server is a process of its own and each client a thread that connects for every Hello, as
//! clients do. The servers take turns, round by round, so that whatever else the machine does hits all.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use broker_benches::load::clients::{drive, exchange};
use broker_benches::load::plot;
use broker_benches::load::process::{cpu_time, resident_kib, syscalls_during};
use broker_benches::load::report::{Cost, Row, figures, median, table, to_json};
use broker_benches::load::samples::Samples;
use broker_benches::load::servers::{
    SERVICE, Server, backend_in, broker, command, define, hello, registration, start_backend, start_bare,
    start_broker, wait_for,
};
use broker_protocol::HEADER_LEN;
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
    /// Then so many Hellos to the broker alone, looked at in ten parts
    #[arg(long, default_value_t = 0)]
    soak: usize,
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
/// Clients of a long run.
const SOAKING: usize = 8;
/// The broker's place among the servers.
const BROKER: usize = 2;
/// The broker that counts its allocations, as seen from this program.
const COUNTING_BROKER: &str = "../counting/release/brokerd";
/// Connections that are held open in silence: the share of one peer.
const HELD: usize = 512;

pub(super) fn main() -> ExitCode {
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
    let requests = [hello(SERVICE.0, SERVICE.1)];
    let [request] = &requests;
    let _backend = start_backend(home.path())?;
    let live = start_broker(home.path())?;
    let mut answer = [0; 2048];
    let length = wait_for(|| exchange(&live.socket, request, &mut answer))?;
    // A refusal would be quick to measure, too.
    backend_in(&answer[HEADER_LEN..length])?;
    let canned = home.path().join("answer");
    std::fs::write(&canned, &answer[..length])?;
    eprintln!("a Hello is {} bytes, its answer {length}", request.len());
    let mut servers =
        vec![start_bare(home.path(), &canned, "single")?, start_bare(home.path(), &canned, "multi")?, live];
    servers.extend(options.also.iter().map(|(name, socket)| Server::elsewhere(name.clone(), socket.clone())));
    let mut idle_kib = Vec::new();
    for server in &servers {
        wait_for(|| exchange(&server.socket, request, &mut [0; 2048]))?;
        idle_kib.push(server.pid.map_or(Ok((0, 0)), resident_kib)?.0);
    }

    let mut rows = Vec::new();
    for clients in &options.clients {
        rows.extend(measure(options, &servers, &requests, *clients)?);
    }
    let costs = servers.iter().zip(idle_kib).map(|(server, idle_kib)| cost(server, &requests, idle_kib));
    let mut costs = costs.collect::<io::Result<Vec<_>>>()?;
    match allocations(home.path(), &requests) {
        Ok(count) => costs[BROKER].allocations = Some(count),
        Err(error) => eprintln!("allocations are not counted: {error}"),
    }
    println!("{}", table(&mut rows, &costs));
    if options.soak > 0 {
        soak(&servers[BROKER], &servers[0], &requests, options.soak)?;
    }
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", to_json(&mut rows, &costs)))?;
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, plot::svg(&rows.iter_mut().map(figures).collect::<Vec<_>>()))?;
    }
    Ok(())
}

/// All servers in turn, as many rounds as wanted, after one that does not count.
fn measure(
    options: &Options,
    servers: &[Server],
    requests: &[Vec<u8>],
    clients: usize,
) -> io::Result<Vec<Row>> {
    let mut latencies: Vec<Samples> = servers.iter().map(|_| Samples::default()).collect();
    let mut throughputs: Vec<Vec<f64>> = servers.iter().map(|_| Vec::new()).collect();
    let mut cpu = vec![Duration::ZERO; servers.len()];
    for round in 0..=options.rounds {
        for (index, server) in servers.iter().enumerate() {
            let before = server.pid.map_or(Ok(Duration::ZERO), cpu_time)?;
            let result = drive(&server.socket, requests, clients, options.hellos).map_err(|error| {
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

fn cost(server: &Server, requests: &[Vec<u8>; 1], idle_kib: u64) -> io::Result<Cost> {
    let Some(pid) = server.pid else {
        return Ok(Cost {
            server: server.name.clone(),
            syscalls: None,
            allocations: None,
            idle_kib: 0,
            held_kib: 0,
            peak_kib: 0,
        });
    };
    let (_, peak_kib) = resident_kib(pid)?;
    let held = (0..HELD).map(|_| UnixStream::connect(&server.socket)).collect::<io::Result<Vec<_>>>()?;
    // Connections are accepted in order: one more that is closed or answered comes after all of them.
    let [request] = requests;
    let _ = exchange(&server.socket, request, &mut [0; 2048]);
    let (held_kib, _) = resident_kib(pid)?;
    drop(held);
    wait_for(|| exchange(&server.socket, request, &mut [0; 2048]))?;
    let counted = syscalls_during(pid, || drive(&server.socket, requests, 1, COUNTED).map(drop));
    if let Err(error) = &counted {
        eprintln!("{}: system calls are not counted: {error}", server.name);
    }
    Ok(Cost {
        server: server.name.clone(),
        syscalls: counted.ok().map(|calls| calls as f64 / COUNTED as f64),
        allocations: None,
        idle_kib,
        held_kib,
        peak_kib,
    })
}

/// Allocations per answer of a broker that was built to count them: what a longer run takes more.
fn allocations(home: &Path, requests: &[Vec<u8>]) -> io::Result<f64> {
    // As the broker beside it, but for its home.
    let own = home.join("c");
    std::fs::create_dir(&own)?;
    define(&own, SERVICE.0, &[])?;
    let count = |answers: usize| {
        let mut serve = command(&own, COUNTING_BROKER)?;
        serve.arg("serve").arg("--backend").arg(registration(home, SERVICE.0)).stderr(Stdio::piped());
        let server = broker(&own, &mut serve)?;
        let driven = wait_for(|| exchange(&server.socket, &requests[0], &mut [0; 2048]))
            .and_then(|_| drive(&server.socket, requests, 1, answers));
        let said = server.stop()?;
        driven?;
        let count = said.lines().find_map(|line| line.strip_prefix("allocations: ")?.parse::<u64>().ok());
        count.ok_or_else(|| io::Error::other(format!("the broker told no number: {said}")))
    };
    let (fewer, more) = (count(COUNTED)?, count(2 * COUNTED)?);
    Ok(more.saturating_sub(fewer) as f64 / COUNTED as f64)
}

/// Shows whether anything drifts: time, memory and descriptors over many Hellos. The bare server gets a tenth
/// as many in between, so that a machine that gets slower is told from a broker that does.
fn soak(broker: &Server, bare: &Server, requests: &[Vec<u8>], hellos: usize) -> io::Result<()> {
    let Some(pid) = broker.pid else { return Ok(()) };
    println!(
        "| Hellos so far | p50 us | p99 us | answers/s | p50 to the bare one's | resident KiB | descriptors |\n|--:|--:|--:|--:|--:|--:|--:|"
    );
    for part in 1..=10 {
        let mut round = drive(&broker.socket, requests, SOAKING, hellos / 10)?;
        let mut control = drive(&bare.socket, requests, SOAKING, hellos / 100)?;
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        println!(
            "| {} | {:.1} | {:.1} | {:.0} | {:.2}x | {} | {descriptors} |",
            part * (hellos / 10),
            round.latencies.percentile_us(0.5),
            round.latencies.percentile_us(0.99),
            round.latencies.len() as f64 / round.took.as_secs_f64(),
            round.latencies.percentile_us(0.5) / control.latencies.percentile_us(0.5),
            resident_kib(pid)?.0,
        );
    }
    println!();
    Ok(())
}
