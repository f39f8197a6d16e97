//! A broker that goes on as another program under a constant load: `cargo xtask bench upgrade`.
//!
//! The load does not wait: each Hello has its moment, and its latency counts from then, however late its
//! client gets to it. One that is refused, or whose connection fails, ends the program with exit code 1.

use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use broker_benches::load::clients::exchange;
use broker_benches::load::samples::Samples;
use broker_benches::load::servers::{backend_in, broker, command, define, hello, wait_for};
use broker_protocol::HEADER_LEN;
use clap::Parser;

/// Clients; enough that one which waits does not keep the next Hello from its moment.
const CLIENTS: u64 = 64;
/// How far from an upgrade a Hello may be and still count as one during it.
const NEAR: Duration = Duration::from_millis(250);

/// Upgrades under load.
#[derive(Debug, Parser)]
#[command(name = "upgrade-load")]
struct Options {
    /// Hellos per second
    #[arg(long, default_value_t = 2_000)]
    rate: u64,
    /// How long, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Upgrades, evenly spread
    #[arg(long, default_value_t = 3)]
    upgrades: u32,
}

/// A Hello that was answered: when it was due, and how long after that it was.
type Answered = (Duration, Duration);

pub(super) fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("upgrade-load: {failed} Hellos failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("upgrade-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<u64> {
    let home = tempfile::Builder::new().prefix("ul").tempdir_in("/tmp")?;
    define(home.path(), "cache", &[])?;
    let server = broker(home.path(), command(home.path(), "brokerd")?.arg("serve"))?;
    wait_for(|| UnixStream::connect(&server.socket).map(drop))?;
    let request = hello("cache", "1.0.0");
    ask(&server.socket, &request)?;
    let failed = AtomicU64::new(0);
    let begin = Instant::now() + Duration::from_millis(100);
    let (answered, upgrades) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (socket, request, failed) = (&server.socket, &request, &failed);
                scope.spawn(move || {
                    let count = options.rate * options.seconds;
                    let mut answered = Vec::new();
                    for number in (client..count).step_by(CLIENTS as usize) {
                        let due = Duration::from_secs_f64(number as f64 / options.rate as f64);
                        std::thread::sleep((begin + due).saturating_duration_since(Instant::now()));
                        match ask(socket, request) {
                            Ok(()) => answered.push((due, begin.elapsed().saturating_sub(due))),
                            Err(error) => {
                                eprintln!("a Hello after {due:?}: {error}");
                                failed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                    answered
                })
            })
            .collect();
        let upgrades = (1..=options.upgrades).map(|number| {
            let share = f64::from(number) / f64::from(options.upgrades + 1);
            let due = Duration::from_secs_f64(options.seconds as f64 * share);
            std::thread::sleep((begin + due).saturating_duration_since(Instant::now()));
            let started = begin.elapsed();
            let upgraded = command(home.path(), "brokerd")?
                .args(["upgrade", "--socket"])
                .arg(&server.socket)
                .status()?;
            if upgraded.success() {
                Ok((started, begin.elapsed()))
            } else {
                Err(io::Error::other("the broker was not upgraded"))
            }
        });
        let upgrades = upgrades.collect::<io::Result<Vec<_>>>();
        let answered: Vec<Answered> =
            clients.into_iter().flat_map(|client| client.join().unwrap_or_default()).collect();
        upgrades.map(|upgrades| (answered, upgrades))
    })?;
    let failed = failed.into_inner();
    println!("{} Hellos answered, {failed} failed, {} upgrades", answered.len(), upgrades.len());
    for (from, to) in &upgrades {
        println!(
            "an upgrade after {:.1} s took {:.1} ms",
            from.as_secs_f64(),
            (*to - *from).as_secs_f64() * 1e3
        );
    }
    println!("| Hellos | count | p50 us | p99 us | longest us |\n|---|--:|--:|--:|--:|");
    let is_near = |due: Duration| upgrades.iter().any(|(from, to)| due + NEAR > *from && due < *to + NEAR);
    let kinds = [("within 250 ms of an upgrade", true), ("at other times", false)];
    for (name, near) in kinds {
        let mut samples = Samples::default();
        let mut longest = Duration::ZERO;
        for (_, took) in answered.iter().filter(|(due, _)| is_near(*due) == near) {
            samples.push(*took);
            longest = longest.max(*took);
        }
        let (p50, p99) = (samples.percentile_us(0.5), samples.percentile_us(0.99));
        let count = answered.iter().filter(|(due, _)| is_near(*due) == near).count();
        println!("| {name} | {count} | {p50:.0} | {p99:.0} | {} |", longest.as_micros());
    }
    server.stop()?;
    Ok(failed)
}

/// One Hello, which has to come to an agreement.
fn ask(socket: &std::path::Path, request: &[u8]) -> io::Result<()> {
    let mut answer = [0; 2048];
    let length = exchange(socket, request, &mut answer)?;
    backend_in(&answer[HEADER_LEN..length]).map(drop)
}
