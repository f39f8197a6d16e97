//! What holds for whatever bytes come: one function for each place where foreign bytes come in.
//!
//! A target takes any bytes and panics where a property does not hold; that it does not panic otherwise is only
//! the least of them. `fuzz/` calls the targets with bytes that a fuzzer makes up, `tests/replay.rs` with those
//! that were kept. Invariant: a target reads no clock that its outcome depends on and draws no randomness, so the
//! same bytes always come to the same end.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a target tells a fault by a panic"
)]

pub mod admin;
pub mod configuration;
pub mod connection;
pub mod control;
pub mod decision;
pub mod definition;
pub mod disk_entry;
pub mod frame;
pub mod framing;
pub mod handoff;
pub mod hello;
pub mod hello_reply;
pub mod manifest;
pub mod mux;
pub mod names;
pub mod seed;

use seed::Seed;

/// A place where foreign bytes come in.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called, as a folder of inputs and as a program.
    pub name: &'static str,
    /// Panics where a property does not hold for these bytes.
    pub run: fn(&[u8]),
    /// What a search for other inputs begins with.
    pub seeds: fn() -> Vec<Seed>,
}

/// Where the inputs are kept from which a search begins, in a folder for each target.
pub const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");

/// Where the inputs are kept that a target once failed on, in a folder for each target.
pub const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/regressions");

macro_rules! targets {
    ($($name:ident),+ $(,)?) => {
        /// Every target, by name.
        pub const TARGETS: &[Target] = &[
            $(Target { name: stringify!($name), run: $name::target, seeds: $name::seeds }),+
        ];
    };
}

targets! {
    admin, configuration, connection, control, decision, definition, disk_entry, frame, framing, handoff, hello,
    hello_reply, manifest, mux, names,
}
