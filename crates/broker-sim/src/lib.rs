//! A simulated world around the broker's state machine.
//!
//! The real [`Broker`] is driven through a history of clients, backends, kernel, disk and clock, all of which
//! comes from one seed: the same seed gives the same history, event for event. Each history has its own faults
//! and limits; after every event the invariants are checked that the broker promises (ARCHITECTURE.md).
//!
//! It simulates what is around the state machine, not sockets and processes: what `brokerd` does between the
//! two is done here in the same order, by hand, and is tested with real ones elsewhere.
//!
//! ```
//! use broker_sim::{Telling, run};
//!
//! let once = run(7, Telling::Fingerprint)?;
//! assert_eq!(once, run(7, Telling::Fingerprint)?);
//! # Ok::<(), broker_sim::Violation>(())
//! ```

#![forbid(unsafe_code)]

mod agenda;
mod chance;
mod clients;
mod disk;
mod history;
mod invariants;
mod kernel;
mod ledger;
mod offers;
mod plan;
mod starts;
mod successors;
mod world;

use broker_core::broker::Broker;
use broker_core::entropy::SeededEntropy;

use history::History;
pub use history::{Figures, Telling, Violation};
use world::World;

/// What came of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// In numbers.
    pub figures: Figures,
    /// Of everything that happened, where it was asked for.
    pub fingerprint: u64,
}

/// Lives the history of one seed.
///
/// # Errors
/// The first invariant that does not hold.
pub fn run(seed: u64, telling: Telling) -> Result<Outcome, Violation> {
    run_with(seed, telling, &|broker| broker)
}

/// The same, with a broker that is made ready in some way first.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    seed: u64,
    telling: Telling,
    prepare: &dyn Fn(Broker<SeededEntropy>) -> Broker<SeededEntropy>,
) -> Result<Outcome, Violation> {
    let mut world = World::new(seed, History::new(seed, telling), prepare);
    world.live()?;
    world.history.figures.adoptions = world.ledger.adoptions;
    Ok(Outcome { figures: world.history.figures, fingerprint: world.history.fingerprint() })
}
