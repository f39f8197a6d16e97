//! How long a Hello takes while another process is hostile to the broker: `cargo xtask bench hostile`.
//!
//! Each load has a broker of its own, with the limits that it has without any options, and a peer of its own
//! (`hostile-peer`, which the end-to-end tests use, too). The client stays within its permits, and every one of
//! its Hellos has to be agreed to. Each load is compared with the same broker when it was idle.

use std::io::{self, BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, ExitCode, Stdio};
use std::time::{Duration, Instant};

use broker_benches::load::clients::exchange;
use broker_benches::load::process::resident_kib;
use broker_benches::load::samples::Samples;
use broker_benches::load::servers::{Server, backend_in, command, define, hello, program, started, wait_for};
use broker_protocol::HEADER_LEN;
use clap::Parser;

/// Hellos to a broker that another process is hostile to.
#[derive(Debug, Parser)]
#[command(name = "hostile-load")]
struct Options {
    /// Hellos while the broker is idle, and as many under each load
    #[arg(long, default_value_t = 4_000)]
    hellos: usize,
    /// Frames of garbage
    #[arg(long, default_value_t = 1_000_000)]
    garbage: u64,
    /// Only the loads whose name begins so
    #[arg(long, default_value = "")]
    only: String,
}

/// From one Hello to the next: a client has 256 permits for each second.
const PACE: Duration = Duration::from_millis(5);
/// How long Hellos are said at most, where each takes its time.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a broker may take to give memory back.
const SETTLING: Duration = Duration::from_secs(30);

/// What is done to a broker: its name in the table, and how `hostile-peer` is told. Rounds are so long that the
/// lines about them fit into a pipe that nobody reads meanwhile.
const LOADS: [(&str, &[&str]); 9] = [
    ("20,000 connections held", &["hold", "--connections", "20000"]),
    (
        "one byte a second on 500 connections",
        &["trickle", "--connections", "500", "--tick-ms", "1000", "--round", "1"],
    ),
    ("half frames of 64 KiB", &["half-frames", "--connections", "512", "--round", "1"]),
    ("frames of 16 MiB", &["declare-16-mib", "--round", "10"]),
    ("garbage frames", &["garbage", "--round", "1000"]),
    ("253 descriptors on each Hello", &["attach-descriptors", "--round", "1000"]),
    ("Hellos whose answers are not read", &["never-read", "--connections", "1024", "--round", "1000"]),
    ("dumps that are not read", &["never-read-dump", "--connections", "1024", "--round", "1000"]),
    ("connects and is gone", &["vanish", "--round", "1000"]),
];
/// Where no round is ever over while nothing is cut off, the load is on from the start.
const ON_FROM_THE_START: [&str; 2] = ["trickle", "half-frames"];

pub(super) fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostile-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    println!(
        "| load | Hellos | p50 us | p99 us | max us | p50 | p99 | idle KiB | peak KiB | afterwards KiB | to idle |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for (name, arguments) in LOADS.iter().filter(|(name, _)| name.starts_with(&options.only)) {
        let temporary = tempfile::Builder::new().prefix("ho").tempdir_in("/tmp")?;
        let outcome = under_load(options, temporary.path(), (name, arguments))?;
        eprintln!("{name}: {outcome}");
    }
    Ok(())
}

/// Measures one load and prints its row; what else is to be told.
fn under_load(options: &Options, home: &Path, (name, arguments): (&str, &[&str])) -> io::Result<String> {
    define(home, "cache", &[])?;
    let socket = home.join("s");
    let mut serve = command(home, "brokerd")?;
    serve.env("RUST_LOG", "error").args(["serve", "--socket"]).arg(&socket);
    let server = started("brokerd", socket, &mut serve)?;
    let pid = server.pid.ok_or(io::ErrorKind::NotFound)?;
    wait_for(|| agreed(&server))?;
    let mut idle = hellos(&server, options.hellos)?;
    let (idle_kib, _) = resident_kib(pid)?;

    let count = if arguments[0] == "garbage" { options.garbage } else { u64::MAX };
    let mut peer = Peer::start(&server, arguments, count)?;
    if !ON_FROM_THE_START.contains(&arguments[0]) {
        peer.next_round()?;
    }
    let mut loaded = hellos(&server, options.hellos)?;
    let (done, took) = if count == u64::MAX { peer.stop()? } else { peer.wait()? };
    let (_, peak_kib) = resident_kib(pid)?;
    let afterwards_kib = settled(pid, idle_kib)?;

    let figures = [&mut idle, &mut loaded].map(|samples| {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| samples.percentile_us(share));
        (samples.len(), p50, p99, max)
    });
    let (count, idle_p50, idle_p99, max) = figures[0];
    println!(
        "| idle before it | {count} | {idle_p50:.0} | {idle_p99:.0} | {max:.0} | | | {idle_kib} | | | |"
    );
    let (count, p50, p99, max) = figures[1];
    println!(
        "| {name} | {count} | {p50:.0} | {p99:.0} | {max:.0} | {:.2}x | {:.2}x | | {peak_kib} | {afterwards_kib} | {:.2}x |",
        p50 / idle_p50,
        p99 / idle_p99,
        afterwards_kib as f64 / idle_kib as f64,
    );
    server.stop()?;
    Ok(format!("{done} in {:.1} s", took.as_secs_f64()))
}

/// Says Hello again and again at a pace that its permits allow.
fn hellos(server: &Server, count: usize) -> io::Result<Samples> {
    let mut samples = Samples::default();
    let end = Instant::now() + LONGEST;
    let mut next = Instant::now();
    while samples.len() < count && next < end {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next = Instant::now() + PACE;
        let begun = Instant::now();
        agreed(server)?;
        samples.push(begun.elapsed());
    }
    Ok(samples)
}

/// Says Hello, and makes sure that it is not refused.
fn agreed(server: &Server) -> io::Result<()> {
    let mut answer = [0; 2048];
    let length = exchange(&server.socket, &hello("cache", "1.0.0"), &mut answer)?;
    backend_in(&answer[HEADER_LEN..length]).map(drop)
}

/// The broker's memory once it is within a fifth of what it was, or when it had time enough.
fn settled(pid: u32, idle_kib: u64) -> io::Result<u64> {
    let give_up = Instant::now() + SETTLING;
    loop {
        let (now, _) = resident_kib(pid)?;
        if now * 5 <= idle_kib * 6 || Instant::now() > give_up {
            return Ok(now);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A process that is hostile until it is told to stop. Killed when dropped.
struct Peer {
    process: Child,
    rounds: Lines<BufReader<ChildStdout>>,
    begun: Instant,
    done: u64,
}

impl Peer {
    fn start(server: &Server, arguments: &[&str], count: u64) -> io::Result<Self> {
        let mut process = std::process::Command::new(program("hostile-peer")?)
            .arg(&server.socket)
            .args(arguments)
            .args(["--count", &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let rounds = BufReader::new(stdout).lines();
        Ok(Self { process, rounds, begun: Instant::now(), done: 0 })
    }

    /// Waits for the end of a round; whether there was one.
    fn next_round(&mut self) -> io::Result<bool> {
        let Some(line) = self.rounds.next().transpose()? else { return Ok(false) };
        self.done = line.parse().map_err(io::Error::other)?;
        Ok(true)
    }

    fn stop(mut self) -> io::Result<(u64, Duration)> {
        drop(self.process.stdin.take());
        self.wait()
    }

    /// Waits for its end: how much it did, and how long it took.
    fn wait(mut self) -> io::Result<(u64, Duration)> {
        while self.next_round()? {}
        let took = self.begun.elapsed();
        let status = self.process.wait()?;
        if status.success() { Ok((self.done, took)) } else { Err(io::Error::other("the peer failed")) }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
