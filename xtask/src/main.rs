//! Repository tasks, run as `cargo xtask <task>`.
//!
//! This file only knows which tasks there are; each task is a module of its own.

#![forbid(unsafe_code)]

mod bench;
mod book;
mod ci;
mod codegen;
mod cross;
mod faults;
mod fuzz;
mod layering;
mod schedules;
mod sim;
mod threats;
mod unsafe_code;
mod workspace;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <task>

tasks:
  ci [--no-skip]      run every check that must hold before a change lands (--no-skip: a missing tool fails)
  cross [...]         check for Windows, macOS and a newer Linux compiler (--help tells the options)
  layering            check that dependencies between the crates point one way
  sim [--seeds N]     live through N simulated histories of the broker (--help tells the options)
  schedules [...]     search the schedules of the threads that share something (--help tells the options)
  unsafe [--check]    write the inventory of unsafe code (--check: only tell whether it is current)
  threats             check that SECURITY.md names a test for every threat
  book                check that every page of docs/ is in its table of contents, and every link leads somewhere
  bench NAME [...]    measure: hello, start, scale, handoff, hostile, upgrade, instructions (--help tells)
  faults [...]        kill broker, backends and clients before each of their system calls
  soak [...]          half an hour of load with random deaths (--help tells the options)
  fuzz [...]          look for inputs that a fuzz target fails on (--help tells the options)
  codegen [--check]   write the wire types from proto/ (--check: only tell whether they are current)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["ci"] => ci::run(ci::Absent::IsSkipped),
        ["ci", "--no-skip"] => ci::run(ci::Absent::Fails),
        ["cross", options @ ..] => cross::run(options),
        ["layering"] => layering::check(),
        ["unsafe"] => unsafe_code::write(),
        ["unsafe", "--check"] => unsafe_code::check(),
        ["book"] => book::check(),
        ["threats"] => threats::check(),
        ["bench", bench, options @ ..] => bench::run(bench, options),
        ["sim", options @ ..] => sim::run(options),
        ["schedules", options @ ..] => schedules::run(options),
        ["faults", options @ ..] => faults::every_step(options),
        ["soak", options @ ..] => faults::soak(options),
        ["fuzz", options @ ..] => fuzz::run(options),
        [cross::RUNNER, program @ ..] => match cross::run_program(program) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        ["codegen"] => codegen::write(),
        ["codegen", "--check"] => codegen::check(),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
