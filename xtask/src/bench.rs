//! Benches that need whole processes, built in release and started together.

use std::process::Command;

use crate::workspace::{TaskResult, root};

/// Hellos against a bare server: builds everything, then runs the load generator.
pub(crate) fn hello(options: &[&str]) -> TaskResult {
    cargo(&["build", "--release", "--bins", "--package", "echo-backend", "--package", "broker-benches"])?;
    // By itself, as it is installed: built together, packages lend each other features.
    cargo(&["build", "--release", "--package", "brokerd"])?;
    cargo(
        &[
            &["run", "--release", "--quiet", "--package", "broker-benches", "--bin", "hello-load", "--"],
            options,
        ]
        .concat(),
    )
}

fn cargo(arguments: &[&str]) -> TaskResult {
    let status = Command::new("cargo").args(arguments).current_dir(root()).status()?;
    if status.success() { Ok(()) } else { Err(format!("`cargo {}` failed", arguments.join(" ")).into()) }
}
