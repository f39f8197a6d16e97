//! The simulator, in release: many histories in a short time.

use std::process::Command;

use crate::workspace::{TaskResult, root};

/// Lives through as many histories as the options say; `--help` tells them.
pub(crate) fn run(options: &[&str]) -> TaskResult {
    let status = Command::new("cargo")
        .args(["run", "--release", "--quiet", "--package", "broker-sim", "--"])
        .args(options)
        .current_dir(root())
        .status()?;
    if status.success() { Ok(()) } else { Err("the simulation failed".into()) }
}
