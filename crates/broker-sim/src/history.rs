//! What has happened: counted, boiled down to a fingerprint, and told in words where somebody wants to read it.

use std::fmt::{Debug, Display};
use std::hash::{BuildHasher, Hasher};

use broker_core::hello::Reply;
use broker_core::time::Now;
use foldhash::fast::{FixedState, FoldHasher};
use thiserror::Error;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("seed {seed}, event {event}: {invariant}, but {what}")]
pub struct Violation {
    /// The seed, which replays it.
    pub seed: u64,
    /// After how many events.
    pub event: u64,
    /// Which invariant.
    pub invariant: &'static str,
    /// What is the case instead.
    pub what: String,
}

/// What came of one history, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Things that happened.
    pub events: u64,
    /// Agreements.
    pub agreements: u64,
    /// Refusals.
    pub refusals: u64,
    /// Connections that a backend has taken over.
    pub adoptions: u64,
    /// Lifecycle events of the broker.
    pub emitted: u64,
    /// Connections that were closed without a reply.
    pub closed_silently: u64,
    /// Brokers that went on as another program.
    pub succeeded: u64,
    /// Brokers that were killed.
    pub crashed: u64,
}

impl Figures {
    /// Adds those of another history.
    pub const fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.agreements += other.agreements;
        self.refusals += other.refusals;
        self.adoptions += other.adoptions;
        self.emitted += other.emitted;
        self.closed_silently += other.closed_silently;
        self.succeeded += other.succeeded;
        self.crashed += other.crashed;
    }
}

/// How much is remembered of what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// The figures.
    Figures,
    /// A fingerprint of everything besides.
    Fingerprint,
    /// Everything, printed as it happens.
    Aloud,
}

/// The record of one history.
pub(crate) struct History {
    pub(crate) seed: u64,
    pub(crate) figures: Figures,
    telling: Telling,
    fingerprint: FoldHasher<'static>,
}

impl History {
    pub(crate) fn new(seed: u64, telling: Telling) -> Self {
        Self { seed, figures: Figures::default(), telling, fingerprint: FixedState::default().build_hasher() }
    }

    /// Something happens.
    pub(crate) fn note(&mut self, now: Now, what: &dyn Debug) {
        self.figures.events += 1;
        match self.telling {
            Telling::Figures => {}
            Telling::Fingerprint => {
                self.fingerprint.write_u64(now.monotonic.as_nanos());
                self.fingerprint.write(format!("{what:?}").as_bytes());
            }
            Telling::Aloud => {
                println!("{:>8} {:>14.6} {what:?}", self.figures.events, seconds(now));
            }
        }
    }

    pub(crate) const fn emitted(&mut self) {
        self.figures.emitted += 1;
    }

    pub(crate) const fn succeeded(&mut self) {
        self.figures.succeeded += 1;
    }

    pub(crate) const fn crashed(&mut self) {
        self.figures.crashed += 1;
    }

    pub(crate) const fn replied(&mut self, reply: &Reply) {
        match reply {
            Reply::Negotiated(_) => self.figures.agreements += 1,
            Reply::Refused(_) => self.figures.refusals += 1,
        }
    }

    pub(crate) const fn closed(&mut self, replies: u32) {
        if replies == 0 {
            self.figures.closed_silently += 1;
        }
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint.finish()
    }

    pub(crate) fn violation(&self, invariant: &'static str, what: impl Display) -> Violation {
        Violation { seed: self.seed, event: self.figures.events, invariant, what: what.to_string() }
    }
}

fn seconds(now: Now) -> f64 {
    now.monotonic.duration_since(broker_core::time::Monotonic::from_nanos(0)).as_secs_f64()
}
