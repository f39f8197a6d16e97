//! Passing a connection on against dialling anew: `cargo xtask bench handoff`.
//!
//! Each sample is what a client goes through from before it connects to the broker until the first byte of
//! its backend's answer is there. All ways take turns, so what disturbs one disturbs all; client, broker
//! and backends are processes of their own, and all backends the same program.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use broker_benches::load::samples::Samples;
use broker_benches::load::servers::{broker, command, define, hello_with, negotiated_in, started, wait_for};
use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, Negotiated};
use broker_protocol::{Capabilities, PayloadProtocol};
use clap::Parser;

/// Handoffs against reconnecting.
#[derive(Debug, Parser)]
#[command(name = "handoff-load")]
struct Options {
    /// Samples of each way
    #[arg(long, default_value_t = 20_000)]
    samples: u32,
    /// Only the ways whose name contains this, beside the first
    #[arg(long, default_value = "")]
    only: String,
}

/// Samples in a row of one way, before it is the next one's turn.
const TURN: u32 = 200;
/// Samples at the beginning of a turn that do not count: they pay for what the way before has left for later.
const WARM_UP: u32 = 10;
/// The backend that is started, and has a control connection.
const STARTED: &str = "started";
/// The backend that is registered, and is dialled for each offer.
const PLAIN: &str = "plain";
const VERSION: &str = "1.4.2";

/// How a client gets from the broker to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It reads the reply, closes, and dials the backend.
    Reconnect,
    /// It waits for the event, and goes on with its connection.
    Event,
    /// The reply comes from the backend; it goes on with its connection.
    OwnersReply,
    /// Its request travels with the Hello.
    EarlyData,
}

/// One row of the table.
struct Row {
    name: &'static str,
    way: Way,
    hello: Vec<u8>,
    /// At most this much of the first row's median.
    goal: Option<f64>,
    samples: Samples,
}

impl Row {
    fn new(name: &'static str, way: Way, service: &str, goal: Option<f64>) -> Self {
        let capabilities = match way {
            Way::Reconnect => Capabilities::empty(),
            Way::Event => Capabilities::HANDLE_PASSING,
            Way::OwnersReply | Way::EarlyData => Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA,
        };
        let hello = hello_with(service, VERSION, capabilities);
        Self { name, way, hello, goal, samples: Samples::default() }
    }
}

pub(super) fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("handoff-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let home = tempfile::Builder::new().prefix("ho").tempdir_in("/tmp")?;
    let (endpoint, offers_at) = (home.path().join("e/b.sock"), home.path().join("e/h.sock"));
    define(home.path(), STARTED, &[])?;
    define(home.path(), PLAIN, &[])?;
    let mut backend = command(home.path(), "echo-backend")?;
    backend.arg("--endpoint").arg(&endpoint).arg("--offers-at").arg(&offers_at);
    let _backend = started("backend", endpoint.clone(), &mut backend)?;
    wait_for(|| UnixStream::connect(&offers_at).map(drop))?;
    let registration = format!(
        "service={PLAIN},version={VERSION},endpoint={},handoff={}",
        endpoint.display(),
        offers_at.display()
    );
    let mut serve = command(home.path(), "brokerd")?;
    let server = broker(home.path(), serve.arg("serve").args(["--backend", &registration]))?;
    wait_for(|| UnixStream::connect(&server.socket).map(drop))?;

    let mut rows = vec![
        Row::new("reconnect", Way::Reconnect, STARTED, None),
        Row::new("plain v1 handoff", Way::Event, PLAIN, Some(1.25)),
        Row::new("control connection, plain client", Way::Event, STARTED, None),
        Row::new("control connection", Way::OwnersReply, STARTED, Some(1.15)),
        Row::new("control connection + early data", Way::EarlyData, STARTED, Some(0.88)),
    ];
    let mut at = 0;
    rows.retain(|row| {
        at += 1;
        at == 1 || row.name.contains(&options.only)
    });
    let client = Client::new(server.socket.clone());
    for row in &rows {
        // The first agreement starts the backend, whose announcement may come a moment after it.
        wait_for(|| client.sample(row))?;
    }
    for _ in 0..options.samples.div_ceil(TURN) {
        for row in &mut rows {
            for sample in 0..WARM_UP + TURN {
                let took = client.sample(row)?;
                if sample >= WARM_UP {
                    row.samples.push(took);
                }
            }
        }
    }
    print(&mut rows);
    Ok(())
}

fn print(rows: &mut [Row]) {
    let [base_p50, base_p99] = [0.5, 0.99].map(|share| rows[0].samples.percentile_us(share));
    println!("| way to the first byte of the answer | p50 us | p99 us | p50 | p99 | goal p50 |");
    println!("|---|--:|--:|--:|--:|--:|");
    for row in rows {
        let [p50, p99] = [0.5, 0.99].map(|share| row.samples.percentile_us(share));
        let goal = row.goal.map_or_else(String::new, |goal| format!("{goal:.2}x"));
        println!(
            "| {} | {p50:.1} | {p99:.1} | {:.2}x | {:.2}x | {goal} |",
            row.name,
            p50 / base_p50,
            p99 / base_p99
        );
    }
}

/// A client that blocks.
struct Client {
    socket: PathBuf,
    request: Vec<u8>,
}

impl Client {
    fn new(socket: PathBuf) -> Self {
        let frame = Frame::request(PayloadProtocol::new(0xF001), 9, "good day");
        Self { socket, request: framed(&frame.encode_to_vec()) }
    }

    /// Goes the way once; how long it took.
    fn sample(&self, row: &Row) -> io::Result<Duration> {
        let begun = Instant::now();
        let mut stream = UnixStream::connect(&self.socket)?;
        match row.way {
            Way::Reconnect => {
                stream.write_all(&row.hello)?;
                let agreed = negotiated_in(&read_body(&mut stream)?)?;
                drop(stream);
                let mut backend = UnixStream::connect(&agreed.backend_pipe)?;
                self.ask(&mut backend, begun)
            }
            Way::Event => {
                stream.write_all(&row.hello)?;
                handed_over(&negotiated_in(&read_body(&mut stream)?)?, Capabilities::HANDLE_PASSING)?;
                read_body(&mut stream)?;
                self.ask(&mut stream, begun)
            }
            Way::OwnersReply => {
                stream.write_all(&row.hello)?;
                handed_over(&negotiated_in(&read_body(&mut stream)?)?, Capabilities::EARLY_DATA)?;
                self.ask(&mut stream, begun)
            }
            Way::EarlyData => {
                stream.write_all(&[&row.hello[..], &self.request].concat())?;
                handed_over(&negotiated_in(&read_body(&mut stream)?)?, Capabilities::EARLY_DATA)?;
                finish(&mut stream, begun)
            }
        }
    }

    fn ask(&self, stream: &mut UnixStream, begun: Instant) -> io::Result<Duration> {
        stream.write_all(&self.request)?;
        finish(stream, begun)
    }
}

/// Whether the connection has become the backend's, or will.
fn handed_over(agreed: &Negotiated, by: Capabilities) -> io::Result<()> {
    if Capabilities::from_bits_retain(agreed.server_capabilities).contains(by) {
        Ok(())
    } else {
        Err(io::Error::other("the connection is not handed over"))
    }
}

/// Waits for the first byte of the answer; the rest is read when the time is taken.
fn finish(stream: &mut UnixStream, begun: Instant) -> io::Result<Duration> {
    let mut answer = [0; 512];
    if stream.read(&mut answer)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(begun.elapsed())
}

fn read_body(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut header = [0; 5];
    stream.read_exact(&mut header)?;
    let mut body = vec![0; u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&[1][..], &(body.len() as u32).to_le_bytes(), body].concat()
}
