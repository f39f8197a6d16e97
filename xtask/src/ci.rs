//! Everything that must hold before a change lands, in the order in which it fails fastest.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::workspace::{TaskResult, root};
use crate::{bench, codegen, cross, layering, schedules, threats, unsafe_code};

/// What becomes of a check whose tool is not there.
#[derive(Clone, Copy)]
pub(crate) enum Absent {
    IsSkipped,
    Fails,
}

impl Absent {
    fn tell(self, message: &str) -> TaskResult {
        match self {
            Self::IsSkipped => {
                println!("skipped: {message}");
                Ok(())
            }
            Self::Fails => Err(message.into()),
        }
    }
}

/// Runs all checks and stops at the first that fails.
pub(crate) fn run(absent: Absent) -> TaskResult {
    let started = Instant::now();
    cargo("formatting", &["fmt", "--all", "--", "--check"], &[])?;
    cargo("formatting of the fuzz programs", &["fmt", "--manifest-path", FUZZ, "--", "--check"], &[])?;
    step("generated code");
    codegen::check()?;
    step("layering");
    layering::check()?;
    step("unsafe code and threats");
    unsafe_code::check()?;
    threats::check()?;
    cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    cargo(
        "lints without tokio",
        &[
            "clippy",
            "--package",
            "broker-transport",
            "--package",
            "broker-client",
            "--no-default-features",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )?;
    let counting =
        ["clippy", "--package", "brokerd", "--features", "count-allocations", "--", "-D", "warnings"];
    cargo("lints of the broker that counts", &counting, &[])?;
    let searched = [&["clippy", "--all-targets"][..], &schedules::SELECTION, &["--", "-D", "warnings"]];
    cargo("lints of what searches schedules", &searched.concat(), &[])?;
    fuzz_programs()?;
    deny(absent)?;
    browser(absent)?;
    terminal(absent)?;
    tests()?;
    planted_bugs()?;
    step("schedules");
    schedules::run(&[])?;
    cargo("doc tests", &["test", "--workspace", "--doc"], &[])?;
    instructions(absent)?;
    step("book");
    crate::book::check()?;
    cargo("docs", &["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    other_systems(absent)?;
    println!("\nall checks passed in {} s", started.elapsed().as_secs());
    Ok(())
}

/// The manifest of the programs that cargo-fuzz builds.
const FUZZ: &str = "fuzz/Cargo.toml";

/// Type-checks them with the pinned compiler. Running them takes another one, and libFuzzer, which is not built
/// here: a library that is said to be there already is linked, and nothing is linked.
fn fuzz_programs() -> TaskResult {
    let check = ["check", "--manifest-path", FUZZ, "--target-dir", "target", "--locked"];
    cargo("fuzz programs", &check, &[("CUSTOM_LIBFUZZER_PATH", "target/libfuzzer.a")])
}

fn deny(absent: Absent) -> TaskResult {
    if !is_installed("deny") {
        step("dependencies");
        return absent.tell("cargo-deny is not installed; get it with `cargo install cargo-deny`");
    }
    // An exception that nobody needs any more would let the next one pass unseen.
    let check = ["deny", "check", "--deny", "unmatched-skip", "bans", "licenses", "sources"];
    cargo("dependencies", &check, &[])
}

/// The simulator finds the bugs that are put into the broker; without them it has run with the other tests.
fn planted_bugs() -> TaskResult {
    let options = ["test", "--package", "broker-sim", "--features", "planted-bugs", "--test", "planted_bugs"];
    cargo("planted bugs", &options, &[])
}

/// The Hello path must not get longer unnoticed (docs/performance.md).
fn instructions(absent: Absent) -> TaskResult {
    step("instructions");
    let mut valgrind = Command::new("valgrind");
    if !valgrind.arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return absent.tell("valgrind is not installed; get it from your system's packages");
    }
    bench::run("instructions", &[])
}

/// Last, because it takes the longest where the standard library is not built yet.
fn other_systems(absent: Absent) -> TaskResult {
    step("other systems");
    match cross::missing() {
        Some(message) => absent.tell(&message),
        // What nothing else here compiles: Windows is built for its tests.
        None => {
            cross::run(&["check", "aarch64-apple-darwin"])?;
            cross::run(&["test"])
        }
    }
}

/// The tests go without a browser where there is none, and say so where nobody looks.
fn browser(absent: Absent) -> TaskResult {
    step("browser");
    let mut chromium = Command::new("chromium");
    let version = chromium.arg("--version").stderr(Stdio::null());
    if !version.status().is_ok_and(|status| status.success()) {
        return absent.tell("chromium is not installed; get it from your system's packages");
    }
    Ok(())
}

/// As with the browser: a terminal that the tests can look at.
fn terminal(absent: Absent) -> TaskResult {
    step("terminal");
    let mut tmux = Command::new("tmux");
    if !tmux.arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return absent.tell("tmux is not installed; get it from your system's packages");
    }
    Ok(())
}

fn tests() -> TaskResult {
    // The end-to-end tests run the daemon and the example backend as processes of their own.
    cargo("programs", &["build", "--package", "brokerd", "--package", "echo-backend"], &[])?;
    if is_installed("nextest") {
        cargo("tests", &["nextest", "run", "--workspace", "--no-fail-fast"], &[])
    } else {
        cargo("tests", &["test", "--workspace", "--lib", "--bins", "--tests"], &[])
    }
}

fn is_installed(subcommand: &str) -> bool {
    let mut command = Command::new("cargo");
    command.args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn step(name: &str) {
    println!("\n== {name}");
}

fn cargo(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> TaskResult {
    step(name);
    let status = Command::new("cargo")
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(root())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{name}: `cargo {}` failed", arguments.join(" ")).into())
    }
}
