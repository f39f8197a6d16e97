//! Load on a broker and a bare server, where the kernel tells what it costs them.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    broker_benches::needs("hello-load", "Linux")
}
