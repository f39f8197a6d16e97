//! What a broker does where the system has nothing left to give, or a backend does not come round: real limits, real
//! file systems, real processes. Death at every step is in `steps.rs`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[path = "faults/descriptors.rs"]
mod descriptors;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/replaced.rs"]
mod replaced;
#[path = "faults/rights.rs"]
mod rights;
#[path = "faults/stopped.rs"]
mod stopped;

use std::process::Command;

use broker_tests::{Finished, Wire, World, agreed, hello};

/// `brokerd serve` in this world.
fn serve(world: &World) -> Command {
    world.brokerd(&["serve", "--socket", world.socket().to_str().unwrap()])
}

/// Says Hello and has the backend answer a request.
fn is_served(world: &World) {
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    assert_eq!(Wire::connect(pipe.as_ref()).tell("good day"), "good day");
}

/// A broker that does not begin: it says what, where and what to do next, and ends with 1.
fn does_not_begin(case: &str, command: &mut Command, said: &[&str]) {
    let failed = Finished::of(command);
    assert_eq!(failed.status.code(), Some(1), "{case}: {failed:?}");
    for text in said.iter().chain(&["\n  next: "]) {
        assert!(failed.stderr.contains(text), "{case}: no {text:?} in {failed:?}");
    }
}
