//! Benches that need whole processes, built in release and started together.

use std::process::Command;

use crate::workspace::{TaskResult, root};

/// The load generators, by the name of the bench.
const BENCHES: [(&str, &str); 2] = [("hello", "hello-load"), ("start", "start-load")];

/// Builds everything, then runs the load generator of `bench`.
pub(crate) fn run(bench: &str, options: &[&str]) -> TaskResult {
    let Some((_, program)) = BENCHES.iter().find(|(name, _)| *name == bench) else {
        let names: Vec<_> = BENCHES.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no bench {bench:?}; there are: {}", names.join(", ")).into());
    };
    cargo(&["build", "--release", "--bins", "--package", "echo-backend", "--package", "broker-benches"])?;
    // By itself, as it is installed: built together, packages lend each other features.
    cargo(&["build", "--release", "--package", "brokerd"])?;
    let status = Command::new(root().join("target/release").join(program)).args(options).status()?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed").into()) }
}

fn cargo(arguments: &[&str]) -> TaskResult {
    let status = Command::new("cargo").args(arguments).current_dir(root()).status()?;
    if status.success() { Ok(()) } else { Err(format!("`cargo {}` failed", arguments.join(" ")).into()) }
}
