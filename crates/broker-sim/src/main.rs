//! `broker-sim`: lives many histories, one after the other, and tells the first whose invariants do not hold.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program for people")]

use std::process::ExitCode;
use std::time::Instant;

use broker_sim::{Figures, Telling, run};
use clap::Parser;

/// Drives the broker's state machine through simulated histories.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many histories.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The seed of the first.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Lives only this one, and prints everything that happens in it.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    replay: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.replay {
        return match run(seed, Telling::Aloud) {
            Ok(outcome) => {
                println!("{:?}", outcome.figures);
                ExitCode::SUCCESS
            }
            Err(violation) => {
                eprintln!("broker-sim: {violation}");
                ExitCode::FAILURE
            }
        };
    }
    let began = Instant::now();
    let mut all = Figures::default();
    for seed in arguments.first..arguments.first.saturating_add(arguments.seeds) {
        match run(seed, Telling::Figures) {
            Ok(outcome) => all.add(&outcome.figures),
            Err(violation) => {
                eprintln!("broker-sim: {violation}");
                eprintln!("replay it with `cargo xtask sim --replay {seed}`");
                return ExitCode::FAILURE;
            }
        }
    }
    let took = began.elapsed().as_secs_f64();
    let Figures { events, agreements, refusals, adoptions, emitted, closed_silently, succeeded, crashed } =
        all;
    println!("{} seeds from {}: every invariant held", arguments.seeds, arguments.first);
    println!("{events} events in {took:.1} s, {:.0} events/s", events as f64 / took);
    println!("{agreements} agreements, {refusals} refusals, {adoptions} connections adopted");
    println!("{closed_silently} connections closed without a reply, {emitted} lifecycle events");
    println!("{succeeded} brokers went on as another program, {crashed} were killed");
    ExitCode::SUCCESS
}
