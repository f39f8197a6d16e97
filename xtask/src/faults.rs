//! What is too long for every change: death at every step, and the long soak (docs/faults.md).

use std::process::Command;

use crate::workspace::{TaskResult, root};

/// Kills the broker, a backend and a client before each of their system calls; the usual tests take some of them.
pub(crate) fn every_step(options: &[&str]) -> TaskResult {
    cargo(&["build", "--package", "brokerd", "--package", "echo-backend"], &[])?;
    let test = ["test", "--package", "broker-tests", "--test", "steps", "--", "--nocapture"];
    cargo(&[&test[..], options].concat(), &[("BROKER_FAULTS_EVERY", "1")])
}

/// Mixed load with random deaths, in release.
pub(crate) fn soak(options: &[&str]) -> TaskResult {
    // Each by itself, as it is installed: built together, packages lend each other features.
    cargo(&["build", "--release", "--package", "brokerd"], &[])?;
    cargo(&["build", "--release", "--package", "echo-backend"], &[])?;
    cargo(&["build", "--release", "--package", "broker-tests", "--bins"], &[])?;
    let status = Command::new(root().join("target/release/soak")).args(options).status()?;
    if status.success() { Ok(()) } else { Err("something was left behind; it is told above".into()) }
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> TaskResult {
    let status = Command::new("cargo")
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(root())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("`cargo {}` failed", arguments.join(" ")).into()) }
}
