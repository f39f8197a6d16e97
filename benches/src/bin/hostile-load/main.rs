//! What a client has of a broker that other processes wear down, where the kernel tells what it takes.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    broker_benches::needs("hostile-load", "Linux")
}
