//! Cold starts through the broker, and bare: `cargo xtask bench start`.
//!
//! Bare is what a client without a broker would do: start the program, and connect as soon as it listens.
//! Through the broker it says Hello for a version that does not run, and connects where it is told to. Both
//! take turns, with the same program.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use broker_benches::load::clients::exchange;
use broker_benches::load::samples::Samples;
use broker_benches::load::servers::{Server, backend_in, broker, command, define, hello, wait_for};
use broker_protocol::prost::Message;
use broker_protocol::wire::Frame;
use broker_protocol::{HEADER_LEN, PayloadProtocol};
use clap::Parser;

/// Cold starts.
#[derive(Debug, Parser)]
#[command(name = "start-load")]
struct Options {
    /// Starts of each kind
    #[arg(long, default_value_t = 200)]
    starts: u32,
}

pub(super) fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("start-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let home = tempfile::Builder::new().prefix("sl").tempdir_in("/tmp")?;
    define(home.path(), "bind", &[])?;
    define(home.path(), "passed", &["--label", "spawn.activation=listen-fds"])?;
    let server = broker(home.path(), command(home.path(), "brokerd")?.arg("serve"))?;
    wait_for(|| UnixStream::connect(&server.socket).map(drop))?;
    let mut kinds = [
        ("bare", Samples::default()),
        ("broker, bind", Samples::default()),
        ("broker, listen-fds", Samples::default()),
    ];
    for start in 0..=options.starts {
        let took =
            [bare(home.path(), start)?, through(&server, "bind", start)?, through(&server, "passed", start)?];
        if start > 0 {
            for ((_, samples), took) in kinds.iter_mut().zip(took) {
                samples.push(took);
            }
        }
    }
    println!("| start | p50 us | p99 us | over bare us |\n|---|--:|--:|--:|");
    let base = kinds[0].1.percentile_us(0.5);
    for (name, samples) in &mut kinds {
        let (p50, p99) = (samples.percentile_us(0.5), samples.percentile_us(0.99));
        println!("| {name} | {p50:.0} | {p99:.0} | {:.0} |", p50 - base);
    }
    Ok(())
}

/// Starts the program and connects; ends it again.
fn bare(home: &Path, start: u32) -> io::Result<Duration> {
    let socket = home.join(format!("b{start}/s.sock"));
    std::fs::create_dir_all(home.join(format!("b{start}")))?;
    let mut command = command(home, "echo-backend")?;
    command.arg("--endpoint").arg(&socket);
    let begun = Instant::now();
    let mut process = command.spawn()?;
    // A thread that waits in the kernel would need a notification that a bare client does not have.
    while UnixStream::connect(&socket).is_err() {
        std::thread::yield_now();
    }
    let took = begun.elapsed();
    process.kill()?;
    process.wait()?;
    Ok(took)
}

/// Says Hello for a version that does not run, and connects; ends the backend again.
fn through(server: &Server, service: &str, start: u32) -> io::Result<Duration> {
    let request = hello(service, &format!("1.0.{start}"));
    let mut answer = [0; 2048];
    let begun = Instant::now();
    let length = exchange(&server.socket, &request, &mut answer)?;
    let mut backend = UnixStream::connect(backend_in(&answer[HEADER_LEN..length])?)?;
    let took = begun.elapsed();
    let end = Frame::request(PayloadProtocol::new(0xF001), 1, "?exit 0").encode_to_vec();
    backend.write_all(&[&[1][..], &(end.len() as u32).to_le_bytes(), &end].concat())?;
    backend.read_to_end(&mut Vec::new())?;
    Ok(took)
}
