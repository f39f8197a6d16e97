//! Another limit for buckets that are there already.
//!
//! What a peer has taken it goes on owing: permits, not time. With a greater burst it has so many more left, with a
//! smaller one it is empty at worst, and what it owes comes back at the new rate. So neither is a debt forgiven nor
//! is anybody refused for longer than one recovery.
//!
//! Invariant: as everywhere here, no bucket is full later than one recovery from now.

use super::super::RateLimit;
use super::RateLimiter;
use crate::time::Monotonic;

impl RateLimiter {
    /// Replaces the limit. Takes one look at every peer that is remembered, of which there are at most
    /// [`MAX_PEERS`](super::MAX_PEERS) and a few.
    pub fn set_limit(&mut self, now: Monotonic, limit: RateLimit) {
        if limit == self.limit {
            return;
        }
        let now = self.advance(now);
        let emptiest = limit.recovery_ticks();
        let owed = |due: u64| due.saturating_sub(now).min(emptiest);
        self.current.retain(|_, due| {
            *due = owed(*due);
            *due > 0
        });
        let previous_length = self.previous_length;
        for (peer, due) in self.previous.drain() {
            let owed = owed(due.saturating_sub(previous_length));
            if owed > 0 {
                self.current.insert(peer, owed);
            }
        }
        // A tick has another length from now on.
        self.period_start = self.latest;
        self.previous_length = 0;
        self.limit = limit;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::super::PeerKey;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(nanos: u64) -> Monotonic {
        Monotonic::from_nanos(77 * SECOND + nanos)
    }

    fn peer(pid: u32) -> PeerKey {
        PeerKey::new(1000, Some(pid))
    }

    /// A limiter in which peer 1 has taken so many permits at the beginning.
    fn after(taken: u32, limit: RateLimit) -> RateLimiter {
        let mut limiter = RateLimiter::new(limit);
        for _ in 0..taken {
            limiter.check(at(0), peer(1)).unwrap();
        }
        limiter
    }

    #[test]
    fn with_a_greater_burst_a_peer_has_so_many_more_left() {
        let mut limiter = after(8, RateLimit::new(8, 1));
        assert!(limiter.check(at(0), peer(1)).is_err());
        limiter.set_limit(at(0), RateLimit::new(20, 1));
        assert_eq!(limiter.remaining(at(0), peer(1)), 12);
        assert_eq!(limiter.remaining(at(0), peer(2)), 20);
    }

    #[test]
    fn with_a_smaller_burst_a_bucket_is_empty_at_worst() {
        let mut limiter = after(100, RateLimit::new(100, 1));
        limiter.set_limit(at(0), RateLimit::new(4, 2));
        assert_eq!(limiter.check(at(0), peer(1)), Err(Duration::from_millis(500)));
        assert_eq!(limiter.remaining(at(2 * SECOND), peer(1)), 4);
    }

    #[test]
    fn what_is_owed_comes_back_at_the_new_rate() {
        let mut limiter = after(8, RateLimit::new(8, 1));
        limiter.set_limit(at(2 * SECOND), RateLimit::new(8, 6));
        assert_eq!(limiter.remaining(at(2 * SECOND), peer(1)), 2, "two came back at the old one");
        assert_eq!(limiter.remaining(at(3 * SECOND), peer(1)), 8);
    }

    #[test]
    fn debts_of_the_period_before_are_owed_too_and_who_owes_nothing_is_forgotten() {
        let mut limiter = after(4, RateLimit::new(4, 1));
        limiter.check(at(3 * SECOND), peer(1)).unwrap();
        // The next period begins with peer 2; peer 1 is in the older table.
        limiter.check(at(4 * SECOND), peer(2)).unwrap();
        assert_eq!(limiter.remaining(at(4 * SECOND), peer(1)), 3);
        limiter.set_limit(at(4 * SECOND), RateLimit::new(10, 1));
        assert_eq!([1, 2, 3].map(|pid| limiter.remaining(at(4 * SECOND), peer(pid))), [9, 9, 10]);
        limiter.set_limit(at(60 * SECOND), RateLimit::new(1, 1));
        assert_eq!(limiter.known_peers(), 0);
    }

    #[test]
    fn the_same_limit_again_changes_nothing() {
        let mut limiter = after(3, RateLimit::new(8, 1));
        limiter.set_limit(at(SECOND / 2), RateLimit::new(8, 1));
        assert_eq!(limiter.remaining(at(SECOND / 2), peer(1)), 5);
        assert_eq!(limiter.remaining(at(SECOND), peer(1)), 6);
    }

    proptest! {
        #[test]
        fn a_changed_limiter_goes_on_as_one_bucket_that_owes_permits(
            steps in prop::collection::vec(
                (0u64..5 * SECOND, prop::option::of((0u32..50, 1u32..20))), 1..100,
            ),
        ) {
            let mut limit = RateLimit::new(8, 2);
            let mut limiter = RateLimiter::new(limit);
            // Billionths of a permit.
            let (mut owed, mut now) = (0u64, 0);
            for (pause, change) in steps {
                now += pause;
                owed = owed.saturating_sub(pause * u64::from(limit.refill_per_second()));
                if let Some((burst, refill)) = change {
                    limit = RateLimit::new(burst, refill);
                    limiter.set_limit(at(now), limit);
                    owed = owed.min(u64::from(limit.burst()) * SECOND);
                }
                let is_granted = owed + SECOND <= u64::from(limit.burst()) * SECOND;
                prop_assert_eq!(limiter.check(at(now), peer(1)).is_ok(), is_granted);
                owed += if is_granted { SECOND } else { 0 };
            }
        }
    }
}
