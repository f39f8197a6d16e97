//! A peer that does to a broker what no client should, for as long as it is let.
//!
//! A broker tells its peers apart by the kernel's process ids, so this is a process of its own. It works in
//! rounds and prints after each how much it has done so far. It ends when its count is done, or when its
//! standard input does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a peer that cannot do its work has to say so and end")]

#[cfg(target_os = "linux")]
mod behaviour;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod progress;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("hostile-peer: it knows only the sockets of Linux");
    std::process::ExitCode::FAILURE
}
