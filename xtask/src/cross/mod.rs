//! Type-checks the workspace for the systems that this machine is not, and runs the Windows tests under Wine.
//!
//! The pinned toolchain stays as it is: everything here is done by the system's own compiler, which builds the
//! standard library for each target, in a target directory of its own. What cannot be done is said and fails;
//! nothing is passed over in silence.

mod packages;
mod targets;
mod toolchain;
mod wine;

use std::process::Command;
use std::time::{Duration, Instant};

use targets::{TARGETS, Target, WINDOWS};
use toolchain::Toolchain;
use wine::Wine;
pub(crate) use wine::{RUNNER, run_program};

use crate::workspace::{TaskError, TaskResult};

const USAGE: &str = "\
usage: cargo xtask cross                       type-check every target, then run the Windows tests
       cargo xtask cross check [TARGET]...     only type-check (without TARGET: all of them)
       cargo xtask cross test [-- FILTER...]   only run the Windows tests, under Wine

environment:
  BROKER_CROSS_CARGO   the cargo that is used (/usr/bin/cargo)
  BROKER_CROSS_RUSTC   the rustc that is used (/usr/bin/rustc); its sources lie in its sysroot
  WINEDEBUG            what Wine says (-all: nothing)
";

/// How long the tests may take together. Each has a limit of its own where cargo-nextest is installed.
const TESTS_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Only warnings of ours count, and every one is told: a lint that is an error would hide what is behind it.
const NO_WARNINGS: [(&str, &str); 2] =
    [("CARGO_UNSTABLE_WARNINGS", "true"), ("CARGO_BUILD_WARNINGS", "deny")];

/// A panic says where it was without it, and a program links in half the time.
const NO_DEBUG_INFO: (&str, &str) = ("CARGO_PROFILE_DEV_DEBUG", "0");

/// What the test runs leave out, and why.
const NOT_RUN: [(&str, &str); 3] = [
    ("broker-fuzz", "its inputs name places as Unix does, and need a connection of which one half ends"),
    ("broker-benches", "measures, and its tests are about figures, which are the same everywhere"),
    ("xtask", "reads the sources and runs cargo, on the machine where they are"),
];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Plan<'a> {
    Help,
    All,
    Check(Vec<&'static Target>),
    Test(&'a [&'a str]),
}

impl Plan<'_> {
    fn checked(&self) -> Vec<&'static Target> {
        match self {
            Self::Help | Self::Test(_) => Vec::new(),
            Self::All => TARGETS.iter().collect(),
            Self::Check(targets) => targets.clone(),
        }
    }

    fn filters(&self) -> Option<&[&str]> {
        match self {
            Self::Help | Self::Check(_) => None,
            Self::All => Some(&[]),
            Self::Test(filters) => Some(filters),
        }
    }
}

/// Says which packages a whole run misses, if any.
pub(crate) fn missing() -> Option<String> {
    packages::missing(&Toolchain::from_env(), true)
}

/// Does what the options ask for, as far as it gets, and fails when any of it did.
pub(crate) fn run(options: &[&str]) -> TaskResult {
    let plan = parse(options)?;
    if plan == Plan::Help {
        print!("{USAGE}");
        return Ok(());
    }
    let toolchain = Toolchain::from_env();
    if let Some(message) = packages::missing(&toolchain, plan.filters().is_some()) {
        return Err(message.into());
    }
    let mut failed = Vec::new();
    for target in plan.checked() {
        if let Err(error) = check(&toolchain, target) {
            println!("{error}");
            failed.push(target.triple);
        }
    }
    if let Some(filters) = plan.filters() {
        // What does not type-check is not built.
        if failed.contains(&WINDOWS) {
            failed.push("the Windows tests (not built)");
        } else if let Err(error) = test(&toolchain, filters) {
            println!("{error}");
            failed.push("the Windows tests");
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("cross: failed: {}", failed.join(", ")).into()) }
}

fn parse<'a>(options: &'a [&'a str]) -> Result<Plan<'a>, TaskError> {
    match options {
        [] => Ok(Plan::All),
        ["help" | "--help" | "-h"] => Ok(Plan::Help),
        ["check"] => Ok(Plan::Check(TARGETS.iter().collect())),
        ["check", triples @ ..] => {
            triples.iter().map(|triple| targets::find(triple)).collect::<Result<_, _>>().map(Plan::Check)
        }
        ["test"] => Ok(Plan::Test(&[])),
        ["test", "--", filters @ ..] => Ok(Plan::Test(filters)),
        _ => Err(format!("cannot read these options of cross\n{USAGE}").into()),
    }
}

fn check(toolchain: &Toolchain, target: &Target) -> TaskResult {
    println!("\n== type check for {}", target.triple);
    let mut cargo = toolchain.cargo();
    cargo.args(["check", "--workspace", "--all-targets", "--keep-going", "--target", target.triple]);
    cargo.envs(target.environment.iter().copied());
    cargo.envs(NO_WARNINGS);
    let started = Instant::now();
    if !cargo.status()?.success() {
        return Err(format!("{} does not type-check", target.triple).into());
    }
    println!("{} type-checks ({} s)", target.triple, started.elapsed().as_secs());
    Ok(())
}

fn test(toolchain: &Toolchain, filters: &[&str]) -> TaskResult {
    println!("\n== tests for {WINDOWS}, under Wine");
    for (package, why) in NOT_RUN {
        println!("without {package}: {why}");
    }
    // The end-to-end tests run the daemon and the examples as processes of their own.
    let build =
        |what: &str, arguments: &[&str]| match for_tests(toolchain).args(arguments).status()?.success() {
            true => Ok(()),
            false => Err(TaskError::from(format!("{what} cannot be built"))),
        };
    let programs = ["brokerd", "echo-backend", "echo-client"].map(|program| ["-p", program]);
    build("the programs", &[&["build", "--target", WINDOWS][..], programs.as_flattened()].concat())?;
    let mut selection = vec!["--workspace", "--target", WINDOWS];
    selection.extend(NOT_RUN.iter().flat_map(|(package, _)| ["--exclude", package]));
    let kinds = ["--lib", "--bins", "--tests"];
    build("the tests", &[&["test", "--no-run"][..], &selection, &kinds].concat())?;

    let mut wine = Wine::start(toolchain.target_dir())?;
    let mut cargo = for_tests(toolchain);
    if toolchain.has("nextest") {
        cargo.args(["nextest", "run", "--profile", "cross", "--no-fail-fast"]).args(&selection).args(filters);
    } else {
        cargo.args(["test", "--no-fail-fast"]).args(&selection).args(kinds).arg("--").args(filters);
    }
    wine.make_runner_of(&mut cargo, WINDOWS)?;
    wine.run(&mut cargo, TESTS_LIMIT)
}

/// Builds, and runs, what is tested; always alike, or it would be built twice.
fn for_tests(toolchain: &Toolchain) -> Command {
    let mut cargo = toolchain.cargo();
    cargo.envs(NO_WARNINGS).envs([NO_DEBUG_INFO]);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_options_everything_is_checked_and_tested() {
        let plan = parse(&[]).unwrap();
        assert_eq!(plan.checked().len(), 3);
        assert_eq!(plan.filters(), Some(&[][..]));
    }

    #[test]
    fn a_check_takes_targets_and_runs_no_tests() {
        let plan = parse(&["check", "aarch64-apple-darwin"]).unwrap();
        let triples: Vec<_> = plan.checked().iter().map(|target| target.triple).collect();
        assert_eq!(triples, ["aarch64-apple-darwin"]);
        assert_eq!(plan.filters(), None);
        assert_eq!(parse(&["check"]).unwrap().checked().len(), 3);
    }

    #[test]
    fn an_unknown_target_is_refused_with_those_there_are() {
        let error = parse(&["check", "riscv64"]).unwrap_err().to_string();
        assert!(error.contains("riscv64") && error.contains(WINDOWS), "{error}");
    }

    #[test]
    fn a_test_run_takes_filters_behind_two_dashes_and_checks_nothing() {
        let plan = parse(&["test", "--", "-E", "test(a)"]).unwrap();
        assert!(plan.checked().is_empty());
        assert_eq!(plan.filters(), Some(&["-E", "test(a)"][..]));
        assert_eq!(parse(&["test"]).unwrap().filters(), Some(&[][..]));
        assert!(parse(&["test", "a"]).is_err());
    }

    #[test]
    fn help_does_nothing_and_anything_else_is_refused() {
        assert_eq!(parse(&["--help"]).unwrap(), Plan::Help);
        assert!(parse(&["build"]).unwrap_err().to_string().contains("usage: cargo xtask cross"));
    }
}
