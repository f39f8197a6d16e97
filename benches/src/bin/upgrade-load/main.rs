//! A broker that is upgraded under load, where it can be.

use std::process::ExitCode;

#[cfg(unix)]
mod unix;

#[cfg(unix)]
fn main() -> ExitCode {
    unix::main()
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    broker_benches::needs("upgrade-load", "a Unix system")
}
