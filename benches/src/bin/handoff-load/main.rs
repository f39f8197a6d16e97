//! Handoffs against reconnecting, where there are Unix sockets.

use std::process::ExitCode;

#[cfg(unix)]
mod unix;

#[cfg(unix)]
fn main() -> ExitCode {
    unix::main()
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    broker_benches::needs("handoff-load", "a Unix system")
}
