//! A backend that answers every request with its own payload, on whatever lane it comes.
//!
//! It shows how little a service needs to be reached through a broker, and is what the end-to-end tests
//! start: its flags make it slow, broken or a liar, and a few payloads ask about its process instead of
//! being echoed (see `commands.rs`). Started by a broker it serves the endpoint it was told; by hand,
//! the one given with `--endpoint`.
//!
//! Invariant: it ends by itself only with a line on stderr that says why; asked to end, with exit code 0.

mod commands;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use broker_backend::{
    Backend, DaemonProcess, EnvironmentError, Identity, ServiceName, StartError, StopRequests, Version,
};
use clap::Parser;

/// Exit code of a wrong command line, as clap has it.
const EXIT_USAGE: u8 = 2;

/// Answers every request with its own payload.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Serve this endpoint, without having been started by a broker.
    #[arg(long, value_name = "PATH")]
    endpoint: Option<PathBuf>,
    /// Take connections that a broker of plain v1 offers here.
    #[arg(long, value_name = "PATH")]
    offers_at: Option<PathBuf>,
    /// Announce itself to the broker at this endpoint, as a backend of --service in --version-of.
    #[arg(long, value_name = "PATH", requires = "service", requires = "version_of")]
    announce_to: Option<PathBuf>,
    /// The service to announce.
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    /// The version of it.
    #[arg(long, value_name = "VERSION")]
    version_of: Option<Version>,
    /// Wait before listening.
    #[arg(long, value_name = "N", default_value_t = 0)]
    delay_ms: u64,
    /// Write a line to stderr and exit with this status instead of serving.
    #[arg(long, value_name = "STATUS")]
    fail: Option<u8>,
    /// Never listen.
    #[arg(long)]
    hang: bool,
    /// Answer probes with the id of another process.
    #[arg(long)]
    wrong_identity: bool,
    /// Ignore SIGTERM; SIGINT still ends it.
    #[arg(long)]
    ignore_term: bool,
}

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(status) = args.fail {
        complain("failing, as --fail asked for");
        return ExitCode::from(status);
    }
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if was_started_by_nobody(&*failure) => {
            complain(failure);
            complain("  next: start it through a broker, or pass --endpoint PATH");
            ExitCode::from(EXIT_USAGE)
        }
        Err(failure) => {
            complain(failure);
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    let mut requests = StopRequests::listen()?;
    let mut stop = std::pin::pin!(asked_to_end(&mut requests, args.ignore_term));
    let begin = async {
        if args.hang {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(args.delay_ms)).await;
    };
    tokio::select! {
        () = &mut stop => return Ok(()),
        () = begin => {}
    }
    let mut backend = match &args.endpoint {
        Some(endpoint) => Backend::bind(endpoint)?,
        None => Backend::from_env()?,
    };
    if let (Some(broker), Some(service), Some(version)) = (&args.announce_to, &args.service, &args.version_of)
    {
        backend = backend.announced_to(broker, service, version);
    }
    if let Some(offers_at) = &args.offers_at {
        backend = backend.with_offers_at(offers_at)?;
    }
    if args.wrong_identity {
        let process = DaemonProcess::clone(&*backend.identity().known().await?);
        let lie = Identity::fixed(DaemonProcess { pid: process.pid + 1, ..process });
        backend = backend.with_identity(lie);
    }
    Ok(backend.serve_until(commands::Echo, stop).await?)
}

async fn asked_to_end(requests: &mut StopRequests, ignore_term: bool) {
    while requests.next().await == "SIGTERM" && ignore_term {}
}

fn was_started_by_nobody(failure: &(dyn std::error::Error + 'static)) -> bool {
    matches!(failure.downcast_ref(), Some(StartError::Environment(EnvironmentError::NoBroker)))
}

/// Not `eprintln!`, which panics where the broker that kept the other end is gone.
fn complain(what: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "echo-backend: {what}");
}
