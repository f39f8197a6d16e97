//! Everything that is left to chance, drawn from one seed.
//!
//! Invariant: the same seed gives the same draws, on every machine.

use std::time::Duration;

/// The source of all chance in one history.
#[derive(Debug)]
pub(crate) struct Chance(fastrand::Rng);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Whether something happens that does so in `percent` of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u8) -> bool {
        self.0.u8(..100) < percent
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
    }

    /// A number of this range, both ends included.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        self.0.u64(least..=most)
    }

    /// A duration of up to `most`, short ones far likelier than long ones.
    pub(crate) fn delay(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX).max(1);
        let order = self.0.u32(..most.ilog2() + 1);
        Duration::from_nanos(self.0.u64(..=most >> order))
    }

    /// A duration of up to `most`, none likelier than another.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.0.u64(..=u64::try_from(most.as_nanos()).unwrap_or(u64::MAX)))
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.0.u8(..)).collect()
    }

    pub(crate) fn seed(&mut self) -> u64 {
        self.0.u64(..)
    }
}
