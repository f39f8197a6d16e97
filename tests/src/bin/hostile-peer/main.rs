//! A peer that does to a broker what no client should, for as long as it is let.
//!
//! A broker tells its peers apart by the kernel's process ids, so this is a process of its own. It works in
//! rounds and prints after each how much it has done so far. It ends when its count is done, or when its
//! standard input does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a peer that cannot do its work has to say so and end")]

#[cfg(unix)]
mod behaviour;
#[cfg(unix)]
mod progress;
#[cfg(unix)]
mod unix;

#[cfg(unix)]
fn main() {
    unix::main();
}

#[cfg(not(unix))]
fn main() -> std::process::ExitCode {
    eprintln!("hostile-peer: it knows only Unix sockets");
    std::process::ExitCode::FAILURE
}
