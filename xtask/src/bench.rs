//! Benches that need whole processes, built in release and started together.

use std::process::Command;

use crate::workspace::{TaskResult, root};

/// The programs that measure, by the name of the bench, and whether they start a broker.
const BENCHES: [(&str, &str, bool); 7] = [
    ("hello", "hello-load", true),
    ("start", "start-load", true),
    ("scale", "scale-load", true),
    ("handoff", "handoff-load", true),
    ("hostile", "hostile-load", true),
    ("upgrade", "upgrade-load", true),
    ("instructions", "instructions", false),
];

/// Builds what it takes, then runs the program of `bench`.
pub(crate) fn run(bench: &str, options: &[&str]) -> TaskResult {
    let Some((_, program, with_broker)) = BENCHES.iter().find(|(name, ..)| *name == bench) else {
        let names: Vec<_> = BENCHES.iter().map(|(name, ..)| *name).collect();
        return Err(format!("there is no bench {bench:?}; there are: {}", names.join(", ")).into());
    };
    cargo(&["build", "--release", "--bins", "--package", "broker-benches"])?;
    if *with_broker {
        cargo(&["build", "--release", "--package", "echo-backend"])?;
        // By itself, as it is installed: built together, packages lend each other features.
        cargo(&["build", "--release", "--package", "brokerd"])?;
    }
    if bench == "hostile" {
        cargo(&["build", "--release", "--package", "broker-tests", "--bin", "hostile-peer"])?;
    }
    if bench == "hello" {
        let counting = ["--features", "count-allocations", "--target-dir", "target/counting"];
        cargo(&[&["build", "--release", "--package", "brokerd"][..], &counting].concat())?;
    }
    let status = Command::new(root().join("target/release").join(program)).args(options).status()?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed").into()) }
}

fn cargo(arguments: &[&str]) -> TaskResult {
    let status = Command::new("cargo").args(arguments).current_dir(root()).status()?;
    if status.success() { Ok(()) } else { Err(format!("`cargo {}` failed", arguments.join(" ")).into()) }
}
