//! A broker that knows much beside one that knows little: `cargo xtask bench scale`.
//!
//! Many definitions on disk, many registered backends (their endpoints shared by one process), many peers,
//! each a process of its own: how long the broker takes to start, what each of them costs in memory, and
//! what a Hello costs afterwards. The two brokers take turns, so that whatever else the machine does hits both.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use broker_benches::load::clients::{drive, exchange};
use broker_benches::load::process::resident_kib;
use broker_benches::load::report::median;
use broker_benches::load::samples::Samples;
use broker_benches::load::servers::{
    SERVICE, Server, backend_in, broker, command, hello, program, registration, start_backend, wait_for,
};
use broker_protocol::HEADER_LEN;
use broker_protocol::prost::Message;
use broker_protocol::wire::ServiceDefinition;
use clap::Parser;

/// A broker that knows much beside one that knows little.
#[derive(Debug, Parser)]
#[command(name = "scale-load")]
struct Options {
    /// Service definitions
    #[arg(long, default_value_t = 100_000)]
    definitions: usize,
    /// Backends that are registered, of as many services
    #[arg(long, default_value_t = 10_000)]
    backends: usize,
    /// Processes that say one Hello each; more than kernel.pid_max of them share their ids
    #[arg(long, default_value_t = 20_000)]
    peers: usize,
    /// Hellos per broker and round
    #[arg(long, default_value_t = 20_000)]
    hellos: usize,
    /// Rounds; the brokers take turns in each
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

/// Starts whose median is told.
const STARTS: usize = 5;
/// Looks at the memory while it grows.
const LOOKS: usize = 4;
/// Clients at once.
const CLIENTS: [usize; 2] = [1, 8];
/// Below the minimum of every definition here: the Hello is refused, but the definition is loaded.
const TOO_OLD: &str = "0.1.0";

/// First word of the command line of a peer; the second is the broker's socket.
const PEER: &str = "--peer";

pub(super) fn main() -> ExitCode {
    // Before anything else is looked at: there may be a million of them.
    let mut words = std::env::args_os().skip(1);
    let outcome = match (words.next(), words.next()) {
        (Some(word), Some(socket)) if word == PEER => {
            exchange(Path::new(&socket), &hello(SERVICE.0, SERVICE.1), &mut [0; 2048]).map(drop)
        }
        _ => run(&Options::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let temporary = tempfile::Builder::new().prefix("sc").tempdir_in("/tmp")?;
    let [small_home, home] = ["s", "l"].map(|name| temporary.path().join(name));
    std::fs::create_dir(&small_home)?;
    std::fs::create_dir(&home)?;
    let names: Vec<_> = names().take(options.definitions.max(1)).collect();
    let served = &names[..options.backends.clamp(1, names.len())];
    write_definitions(&small_home, &names[..1])?;
    write_definitions(&home, &names)?;
    let _backends = [start_backend(&small_home)?, start_backend(&home)?];
    println!("{} definitions on disk, {} backends registered\n", names.len(), served.len());
    println!("| start, to the first answer | p50 ms |\n|---|--:|");
    println!("| one definition | {:.1} |", start_time(|| start(&small_home, &served[..1]))?);
    println!("| all definitions, one backend | {:.1} |", start_time(|| start(&home, &served[..1]))?);
    println!("| all definitions, all backends | {:.1} |\n", start_time(|| start(&home, served))?);

    let (small, large) = (start(&small_home, &served[..1])?, start(&home, served)?);
    wait_for(|| agreed(&small, SERVICE.0))?;
    wait_for(|| agreed(&large, SERVICE.0))?;
    println!("| known to the broker | resident KiB | bytes for each since the look before |\n|---|--:|--:|");
    let mut last =
        Look { what: "nothing but what it was told at its start", count: 0, kib: resident(&large)? };
    println!("| {} | {} | |", last.what, last.kib);
    grow(&large, &mut last, "definitions", names.len(), |at| {
        exchange(&large.socket, &hello(&names[at], TOO_OLD), &mut [0; 2048]).map(drop)
    })?;
    grow(&large, &mut last, "backends that were probed", served.len(), |at| agreed(&large, &served[at]))?;
    let pids = Mutex::new(HashSet::new());
    grow(&large, &mut last, "peers", options.peers, |_| {
        let pid = peer(&large.socket)?;
        pids.lock().map_err(|_| io::ErrorKind::Other)?.insert(pid);
        Ok(())
    })?;
    let distinct = pids.into_inner().map_err(|_| io::ErrorKind::Other)?.len();
    println!("\nOf {} processes, {distinct} had an id of their own.\n", options.peers);
    compare(options, &small, &large, served)
}

/// The service that everything else here asks for, and the others.
fn names() -> impl Iterator<Item = String> {
    std::iter::once(SERVICE.0.to_owned()).chain((1..).map(|number| format!("service-{number:06}")))
}

fn write_definitions(home: &Path, names: &[String]) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let dir = home.join(".config/running-process/services");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    let binary_path = program("echo-backend")?.display().to_string();
    for name in names {
        let definition = ServiceDefinition {
            service_name: name.clone(),
            binary_path: binary_path.clone(),
            min_version: "1.0.0".to_owned(),
            ..ServiceDefinition::default()
        };
        std::fs::write(dir.join(format!("{name}.servicedef")), definition.encode_to_vec())?;
    }
    Ok(())
}

/// A broker whose backends are registered for these services.
fn start(home: &Path, services: &[String]) -> io::Result<Server> {
    let mut serve = command(home, "brokerd")?;
    serve.arg("serve");
    for service in services {
        serve.arg("--backend").arg(registration(home, service));
    }
    broker(home, &mut serve)
}

/// The median time from before a broker is started to after its first answer, in milliseconds.
fn start_time(start: impl Fn() -> io::Result<Server>) -> io::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let server = start()?;
        while agreed(&server, SERVICE.0).is_err() {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::yield_now();
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        server.stop()?;
    }
    Ok(median(&mut times))
}

/// Says Hello, and makes sure that it is not refused.
fn agreed(server: &Server, service: &str) -> io::Result<()> {
    let mut answer = [0; 2048];
    let length = exchange(&server.socket, &hello(service, SERVICE.1), &mut answer)?;
    backend_in(&answer[HEADER_LEN..length]).map(drop)
}

/// A process that says Hello once; its id.
fn peer(socket: &Path) -> io::Result<u32> {
    let mut process =
        Command::new(std::env::current_exe()?).arg(PEER).arg(socket).stdin(Stdio::null()).spawn()?;
    let pid = process.id();
    if process.wait()?.success() { Ok(pid) } else { Err(io::Error::other("a peer was not answered")) }
}

/// The memory of a broker at some point.
struct Look {
    what: &'static str,
    count: usize,
    kib: u64,
}

fn resident(server: &Server) -> io::Result<u64> {
    Ok(resident_kib(server.pid.ok_or(io::ErrorKind::NotFound)?)?.0)
}

/// Makes a broker know `count` things, two at a time, and looks at its memory meanwhile.
fn grow(
    server: &Server,
    last: &mut Look,
    what: &'static str,
    count: usize,
    teach: impl Fn(usize) -> io::Result<()> + Sync,
) -> io::Result<()> {
    (last.what, last.count) = (what, 0);
    let next = AtomicUsize::new(0);
    for look in 1..=LOOKS {
        let end = count * look / LOOKS;
        let work = || loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= end {
                return Ok::<_, io::Error>(());
            }
            teach(at)?;
        };
        std::thread::scope(|scope| {
            [(); 2]
                .map(|()| scope.spawn(work))
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| io::Error::other("a thread panicked"))?)
        })?;
        next.store(end, Ordering::Relaxed);
        let kib = resident(server)?;
        let each = kib.saturating_sub(last.kib) as f64 * 1024.0 / (end - last.count).max(1) as f64;
        println!("| {end} {what} | {kib} | {each:.0} |");
        (last.count, last.kib) = (end, kib);
    }
    Ok(())
}

/// The same Hello to both, and one that asks the large one for another service each time.
fn compare(options: &Options, small: &Server, large: &Server, served: &[String]) -> io::Result<()> {
    let one = vec![hello(SERVICE.0, SERVICE.1)];
    // Steps that are prime to most counts visit all of them, far apart.
    let others = (0..served.len()).map(|at| hello(&served[at * 61_987 % served.len()], SERVICE.1)).collect();
    let cases: [(&str, &Server, &Vec<Vec<u8>>); 3] = [
        ("the small one", small, &one),
        ("the large one, the same service", large, &one),
        ("the large one, another service each time", large, &others),
    ];
    println!("| clients | a Hello to | p50 us | p99 us | p50 | p99 |\n|--:|---|--:|--:|--:|--:|");
    for clients in CLIENTS {
        let mut latencies = cases.map(|_| Samples::default());
        for round in 0..=options.rounds {
            for ((_, server, requests), latencies) in cases.iter().zip(&mut latencies) {
                let result = drive(&server.socket, requests, clients, options.hellos)?;
                if round > 0 {
                    latencies.extend(&result.latencies);
                }
            }
        }
        let base = [0.5, 0.99].map(|share| latencies[0].percentile_us(share));
        for ((name, ..), latencies) in cases.iter().zip(&mut latencies) {
            let [p50, p99] = [0.5, 0.99].map(|share| latencies.percentile_us(share));
            let ratios = [p50 / base[0], p99 / base[1]];
            println!("| {clients} | {name} | {p50:.1} | {p99:.1} | {:.2}x | {:.2}x |", ratios[0], ratios[1]);
        }
    }
    Ok(())
}
