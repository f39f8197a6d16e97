//! The harness of the end-to-end tests: a private home, real processes, bytes written by hand.
//!
//! Each test has a [`World`] of its own, so tests run side by side. Waiting is always for an event (a
//! line, an end of file, an exit), with [`PATIENCE`] as the bound after which the test has failed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may end at any surprise")]

#[cfg(doctest)]
mod book;
mod hostile_peer;
mod plain_backend;
mod process;
#[allow(unsafe_code)]
mod sys;
mod unpacked;
mod wire;
mod world;

use std::time::Duration;

pub use hostile_peer::HostilePeer;
pub use plain_backend::{OfferConnection, PlainBackend, ReceivedOffer, acknowledgement};
pub use process::{Daemon, Finished, exists, goes_without, has_died, kill, signal};
#[cfg(target_os = "linux")]
pub use sys::linux;
pub use sys::{Listener, Signal, Stream};
pub use unpacked::Unpacked;
pub use wire::{Wire, agreed, frame_of, hello, is_listening, refused, reply_of};
pub use world::World;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
