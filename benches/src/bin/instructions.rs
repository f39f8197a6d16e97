//! Instructions of the pure Hello path, which do not depend on how busy the machine is:
//! `cargo xtask bench instructions`.
//!
//! valgrind(1) runs this program twice for each scenario, once with more Hellos; what the second run takes
//! longer is theirs alone. The counts are compared with those in `benches/instructions.json`.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use broker_benches::connection::Connections;
use broker_benches::{Scale, answer, handler, now, peer, request, request_body, settle};
use broker_core::hello::BackendHandoff;
use clap::{Parser, ValueEnum};

/// Counts the instructions of a Hello.
#[derive(Debug, Parser)]
#[command(name = "instructions")]
struct Options {
    /// Write the counts to benches/instructions.json, to be compared with from now on
    #[arg(long)]
    record: bool,
    /// Only run a scenario: what is counted
    #[arg(long, hide = true, requires = "hellos")]
    run: Option<Scenario>,
    #[arg(long, hide = true)]
    hellos: Option<u64>,
}

/// What a Hello goes through.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scenario {
    /// From a decoded request to the decision.
    HandleRequest,
    /// From a request's body to the whole reply.
    BytesToBytes,
    /// The same, with a token issued and given back.
    BytesToBytesWithToken,
    /// All that the daemon does for a connection but its system calls: admission, accounting, metrics.
    Connection,
}

/// Hellos of the shorter and the longer run.
const HELLOS: (u64, u64) = (1_000, 11_000);
/// How much more than recorded is a failure, and how much less is news.
const TOLERANCE: f64 = 0.05;

type Counts = BTreeMap<String, f64>;

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match (options.run, options.hellos) {
        (Some(scenario), Some(hellos)) => {
            run(scenario, hellos);
            Ok(true)
        }
        _ => count_all().and_then(|counts| if options.record { record(&counts) } else { compare(&counts) }),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(scenario: Scenario, hellos: u64) {
    let handoff = match scenario {
        Scenario::BytesToBytesWithToken => BackendHandoff::Plain,
        Scenario::HandleRequest | Scenario::BytesToBytes | Scenario::Connection => BackendHandoff::DialOnly,
    };
    let (mut handler, body) = (handler(handoff, Scale::SMALL), request_body());
    let mut connections = Connections::default();
    let decoded = request(&body);
    let mut out = Vec::new();
    for _ in 0..hellos {
        match scenario {
            Scenario::HandleRequest => {
                let reply = handler.handle_request(now(), peer(), std::hint::black_box(&decoded));
                settle(&mut handler, reply);
            }
            Scenario::BytesToBytes | Scenario::BytesToBytesWithToken => {
                answer(&mut handler, std::hint::black_box(&body), &mut out);
            }
            Scenario::Connection => connections.answer(std::hint::black_box(&body), &mut out),
        }
    }
}

fn count_all() -> io::Result<Counts> {
    let counted = Scenario::value_variants().iter().map(|scenario| {
        let name = scenario.to_possible_value().ok_or(io::ErrorKind::InvalidInput)?.get_name().to_owned();
        let (fewer, more) = (count(&name, HELLOS.0)?, count(&name, HELLOS.1)?);
        Ok((name, more.saturating_sub(fewer) as f64 / (HELLOS.1 - HELLOS.0) as f64))
    });
    counted.collect()
}

/// Instructions of this program as it runs a scenario.
fn count(scenario: &str, hellos: u64) -> io::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--run", scenario, "--hellos", &hellos.to_string()])
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run valgrind: {error}; install it")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match instructions(&said) {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(io::Error::other(format!("valgrind did not count: {said}"))),
    }
}

/// The number after `I refs:` (since valgrind 3.21 `I   refs:`).
fn instructions(summary: &str) -> Option<u64> {
    let line = summary.lines().find(|line| line.contains("refs:") && line.contains("= I"))?;
    line.rsplit(':').next()?.trim().replace(',', "").parse().ok()
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

/// What is recorded, by the architecture it was counted on.
fn recorded() -> io::Result<BTreeMap<String, Counts>> {
    Ok(serde_json::from_str(&std::fs::read_to_string(file())?)?)
}

fn record(counts: &Counts) -> io::Result<bool> {
    let mut all = recorded()?;
    all.insert(ARCH.to_owned(), counts.iter().map(|(name, count)| (name.clone(), count.round())).collect());
    std::fs::write(file(), format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    compare(counts)
}

fn compare(counts: &Counts) -> io::Result<bool> {
    let all = recorded()?;
    let Some(recorded) = all.get(ARCH) else {
        println!("nothing is recorded for {ARCH}; --record it: {counts:?}");
        return Ok(true);
    };
    println!("| instructions of | recorded | now | ratio |\n|---|--:|--:|--:|");
    let mut holds = true;
    for (name, count) in counts {
        let Some(before) = recorded.get(name) else {
            return Err(io::Error::other(format!("{name} is not in {}; --record it", file().display())));
        };
        let ratio = count / before;
        println!("| {name} | {before} | {count:.0} | {ratio:.3}x |");
        if ratio > 1.0 + TOLERANCE {
            eprintln!(
                "{name}: {count:.0} instructions, more than 5% over {before}; make it shorter, or --record why not"
            );
            holds = false;
        } else if ratio < 1.0 - TOLERANCE {
            eprintln!(
                "{name}: {count:.0} instructions, less than {before} by more than 5%; --record it to keep it so"
            );
        }
    }
    Ok(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_either_kind_of_summary() {
        for line in ["==12== I   refs:      1,234,567", "==12== \n==12== I refs:        1,234,567\n"] {
            assert_eq!(instructions(line), Some(1_234_567));
        }
        assert_eq!(instructions("==12== D refs: 5"), None);
        assert_eq!(instructions("valgrind: no such file"), None);
    }

    #[test]
    fn every_scenario_runs_and_has_a_recorded_count() {
        let all = recorded().unwrap();
        for scenario in Scenario::value_variants() {
            run(*scenario, 2);
            let name = scenario.to_possible_value().unwrap();
            assert!(all.values().all(|recorded| recorded[name.get_name()] > 100.0), "{all:?}");
        }
    }
}
