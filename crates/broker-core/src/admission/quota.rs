//! How much of one resource each peer may hold at once.
//!
//! One type for everything that is counted per peer: connections, bytes that wait to be read or written,
//! starts under way, offers outstanding. Whoever owns the resource owns its quota, so what is charged and
//! what is held change together. Over the limit only that peer is turned away; how, its caller decides.
//!
//! Invariant: no peer is given more than the limit, and a peer is remembered exactly as long as it holds
//! something.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;
use thiserror::Error;

use super::PeerKey;

/// A peer that has as much as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this peer may have {limit}, has {held}, and wants {wanted} more")]
pub struct OverQuota {
    /// What one peer may hold.
    pub limit: usize,
    /// What this one holds.
    pub held: usize,
    /// What it wants beside that.
    pub wanted: usize,
}

/// What each peer holds of one resource.
///
/// ```
/// use broker_core::admission::{OverQuota, PeerKey, Quota};
///
/// let (greedy, modest) = (PeerKey::new(1000, Some(1)), PeerKey::new(1000, Some(2)));
/// let mut starts = Quota::new(2);
/// starts.charge(greedy, 2)?;
/// assert_eq!(starts.charge(greedy, 1), Err(OverQuota { limit: 2, held: 2, wanted: 1 }));
/// starts.charge(modest, 1)?; // does not notice
/// starts.release(greedy, 1);
/// starts.charge(greedy, 1)?;
/// # Ok::<(), OverQuota>(())
/// ```
#[derive(Debug)]
pub struct Quota {
    limit: usize,
    /// Never 0.
    held: HashMap<PeerKey, usize, RandomState>,
}

impl Quota {
    /// Nobody holds anything yet, and nobody may hold more than `limit`.
    pub fn new(limit: usize) -> Self {
        Self { limit, held: HashMap::default() }
    }

    /// Counts `amount` more as held by `peer`.
    ///
    /// # Errors
    /// [`OverQuota`], and nothing has changed.
    pub fn charge(&mut self, peer: PeerKey, amount: usize) -> Result<(), OverQuota> {
        if amount == 0 {
            return Ok(());
        }
        let entry = self.held.entry(peer);
        let held = match &entry {
            Entry::Occupied(held) => *held.get(),
            Entry::Vacant(_) => 0,
        };
        match held.checked_add(amount).filter(|sum| *sum <= self.limit) {
            Some(sum) => {
                *entry.or_insert(0) = sum;
                Ok(())
            }
            None => Err(OverQuota { limit: self.limit, held, wanted: amount }),
        }
    }

    /// Counts `amount` as given back. More than is held counts as all of it.
    pub fn release(&mut self, peer: PeerKey, amount: usize) {
        if amount > 0
            && let Entry::Occupied(mut held) = self.held.entry(peer)
        {
            let left = held.get().saturating_sub(amount);
            if left == 0 {
                held.remove();
            } else {
                *held.get_mut() = left;
            }
        }
    }

    /// Whether this peer may hold one more.
    pub fn has_room(&self, peer: PeerKey) -> bool {
        self.held_by(peer) < self.limit
    }

    /// What this peer holds.
    pub fn held_by(&self, peer: PeerKey) -> usize {
        self.held.get(&peer).copied().unwrap_or(0)
    }

    /// What one peer may hold.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Replaces the limit. Whoever holds more keeps it, and gets nothing more until it has given enough back.
    pub const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// How many peers hold something.
    pub fn peers(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn peer(pid: u32) -> PeerKey {
        PeerKey::new(1000, Some(pid))
    }

    #[test]
    fn a_peer_may_hold_its_limit_and_not_one_more() {
        let mut quota = Quota::new(3);
        assert_eq!(quota.charge(peer(1), 3), Ok(()));
        assert_eq!(quota.charge(peer(1), 1), Err(OverQuota { limit: 3, held: 3, wanted: 1 }));
        assert_eq!(quota.held_by(peer(1)), 3);
    }

    #[test]
    fn over_the_limit_only_that_peer_suffers() {
        let mut quota = Quota::new(2);
        assert_eq!(quota.charge(peer(1), 2), Ok(()));
        assert!(quota.charge(peer(1), 1).is_err());
        assert_eq!(quota.charge(peer(2), 2), Ok(()));
    }

    #[test]
    fn a_charge_that_does_not_fit_is_not_taken_in_part() {
        let mut quota = Quota::new(4);
        assert_eq!(quota.charge(peer(1), 3), Ok(()));
        assert_eq!(quota.charge(peer(1), 2), Err(OverQuota { limit: 4, held: 3, wanted: 2 }));
        assert_eq!(quota.charge(peer(1), 1), Ok(()));
    }

    #[test]
    fn nothing_is_free_even_where_nothing_may_be_held() {
        let mut quota = Quota::new(0);
        assert_eq!(quota.charge(peer(1), 0), Ok(()));
        assert!(quota.charge(peer(1), 1).is_err());
        assert!(quota.charge(peer(1), usize::MAX).is_err());
        assert_eq!(quota.peers(), 0);
    }

    #[test]
    fn an_amount_beyond_all_numbers_is_over_the_limit() {
        let mut quota = Quota::new(usize::MAX);
        assert_eq!(quota.charge(peer(1), 1), Ok(()));
        assert!(quota.charge(peer(1), usize::MAX).is_err());
    }

    #[test]
    fn under_a_lower_limit_what_is_held_is_kept_and_nothing_is_added() {
        let mut quota = Quota::new(3);
        assert_eq!(quota.charge(peer(1), 3), Ok(()));
        quota.set_limit(1);
        assert_eq!(quota.held_by(peer(1)), 3);
        quota.release(peer(1), 2);
        assert_eq!(quota.charge(peer(1), 1), Err(OverQuota { limit: 1, held: 1, wanted: 1 }));
        quota.release(peer(1), 1);
        assert_eq!(quota.charge(peer(1), 1), Ok(()));
    }

    #[test]
    fn what_is_given_back_twice_is_given_back_once() {
        let mut quota = Quota::new(2);
        assert_eq!(quota.charge(peer(1), 1), Ok(()));
        quota.release(peer(1), 5);
        quota.release(peer(1), 1);
        assert_eq!((quota.held_by(peer(1)), quota.peers()), (0, 0));
        assert_eq!(quota.charge(peer(1), 2), Ok(()));
    }

    proptest! {
        #[test]
        fn it_counts_as_a_plain_sum_does(
            steps in prop::collection::vec((any::<bool>(), 1u32..=4, 0usize..=5), 0..200),
        ) {
            const LIMIT: usize = 7;
            let mut quota = Quota::new(LIMIT);
            let mut sums = BTreeMap::<u32, usize>::new();
            for (charges, pid, amount) in steps {
                let sum = sums.entry(pid).or_default();
                if charges {
                    let fits = amount == 0 || *sum + amount <= LIMIT;
                    prop_assert_eq!(quota.charge(peer(pid), amount).is_ok(), fits);
                    *sum += if fits { amount } else { 0 };
                } else {
                    quota.release(peer(pid), amount);
                    *sum = sum.saturating_sub(amount);
                }
                prop_assert_eq!(quota.held_by(peer(pid)), *sum);
                prop_assert_eq!(quota.peers(), sums.values().filter(|sum| **sum > 0).count());
            }
        }
    }
}
