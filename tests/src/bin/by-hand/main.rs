//! A client that knows only bytes, as a process of its own, for tests that end it at each of its steps.

#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("by-hand: steps are counted on Linux only");
    std::process::exit(2);
}
