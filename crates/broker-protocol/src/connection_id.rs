//! The id of one negotiation.
//!
//! Invariant: never 0, never handed out twice by one [`ConnectionIds`].

use std::fmt::{self, Display, Formatter};
use std::num::NonZeroU64;

/// Identifies one negotiation within a broker process. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(NonZeroU64);

impl ConnectionId {
    /// The id with this value; `None` for 0.
    pub const fn new(value: u64) -> Option<Self> {
        match NonZeroU64::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The value on the wire.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl Display for ConnectionId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Hands out ids in ascending order, starting with 1.
///
/// At a billion ids a second the counter lasts 584 years; were it ever exhausted, no further id is
/// handed out, because a reused one could match an old token.
#[derive(Clone, Debug)]
pub struct ConnectionIds {
    next: Option<NonZeroU64>,
}

impl Default for ConnectionIds {
    fn default() -> Self {
        Self { next: Some(NonZeroU64::MIN) }
    }
}

impl ConnectionIds {
    /// Ids after one that a predecessor has given out last.
    pub fn after(last: ConnectionId) -> Self {
        Self { next: last.0.checked_add(1) }
    }

    /// The last id that was given out; `None` before the first.
    pub fn last(&self) -> Option<ConnectionId> {
        match self.next {
            Some(next) => ConnectionId::new(next.get() - 1),
            None => ConnectionId::new(u64::MAX),
        }
    }

    /// The next id; `None` once all 2^64 - 1 are used up.
    pub fn allocate(&mut self) -> Option<ConnectionId> {
        let id = self.next?;
        self.next = id.checked_add(1);
        Some(ConnectionId(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_id() {
        assert_eq!(ConnectionId::new(0), None);
        assert_eq!(ConnectionId::new(1).map(ConnectionId::get), Some(1));
    }

    #[test]
    fn ids_ascend_from_one() {
        let mut ids = ConnectionIds::default();
        assert_eq!(ids.allocate().map(ConnectionId::get), Some(1));
        assert_eq!(ids.allocate().map(ConnectionId::get), Some(2));
    }

    #[test]
    fn ids_go_on_after_a_predecessor_s() {
        let mut ids = ConnectionIds::default();
        assert_eq!(ids.last(), None);
        let last = ids.allocate().unwrap();
        assert_eq!(ids.last(), Some(last));
        assert_eq!(ConnectionIds::after(last).allocate(), ids.allocate());
        let mut used_up = ConnectionIds::after(ConnectionId::new(u64::MAX).unwrap());
        assert_eq!(used_up.last().map(ConnectionId::get), Some(u64::MAX));
        assert_eq!(used_up.allocate(), None);
    }

    #[test]
    fn an_exhausted_counter_never_wraps() {
        let mut ids = ConnectionIds { next: NonZeroU64::new(u64::MAX) };
        assert_eq!(ids.allocate().map(ConnectionId::get), Some(u64::MAX));
        assert_eq!(ids.allocate(), None);
        assert_eq!(ids.allocate(), None);
    }
}
