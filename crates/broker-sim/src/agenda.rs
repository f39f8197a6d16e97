//! What happens when: the queue of a discrete event simulation.
//!
//! Invariant: of two things at the same time, the one that was entered first happens first.

use std::collections::BTreeMap;

use broker_core::time::Monotonic;

/// Events in the order in which they happen.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    entries: BTreeMap<(Monotonic, u64), T>,
    next: u64,
}

impl<T> Agenda<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: BTreeMap::new(), next: 0 }
    }

    pub(crate) fn enter(&mut self, at: Monotonic, event: T) {
        self.entries.insert((at, self.next), event);
        self.next += 1;
    }

    /// When the next event happens.
    pub(crate) fn next_time(&self) -> Option<Monotonic> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Monotonic, T)> {
        self.entries.pop_first().map(|((at, _), event)| (at, event))
    }
}
