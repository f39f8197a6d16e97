//! The limiter against a textbook's bucket, on random visits.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::{PeerKey, RateLimit, RateLimiter};
use crate::time::Monotonic;

const SECOND: u64 = 1_000_000_000;

const ORIGIN: u64 = 77 * SECOND + 3;

fn peer(pid: u32) -> PeerKey {
    PeerKey::new(1000, Some(pid))
}

/// The bucket as a textbook has it, in exact fractions: nothing forgotten, nothing clever.
#[derive(Default)]
struct Model {
    /// When each peer's bucket is full, in units of 1/refill nanosecond since the origin of time.
    full_at: HashMap<PeerKey, u128>,
}

impl Model {
    fn check(&mut self, limit: RateLimit, now: Monotonic, peer: PeerKey) -> Result<(), Duration> {
        let refill = u128::from(limit.refill_per_second());
        let now = u128::from(now.as_nanos()) * refill;
        let full_at = self.full_at.entry(peer).or_default();
        let tolerance = u128::from(limit.burst() - 1) * u128::from(SECOND);
        let arrival = (*full_at).max(now);
        if arrival - now > tolerance {
            let missing = (arrival - now - tolerance).div_ceil(refill);
            return Err(Duration::from_nanos(missing.try_into().unwrap()));
        }
        *full_at = arrival + u128::from(SECOND);
        Ok(())
    }
}

/// Pauses of every size that matters: none, around a permit, around a recovery, and long.
fn pause(limit: RateLimit) -> impl Strategy<Value = u64> {
    let permit = SECOND / u64::from(limit.refill_per_second());
    let recovery = limit.recovery().as_nanos() as u64;
    prop_oneof![
        4 => Just(0),
        4 => 0..=2 * permit + 2,
        2 => recovery / 2..=recovery + 2,
        1 => 2 * recovery..=5 * recovery,
    ]
}

fn any_limit() -> impl Strategy<Value = RateLimit> {
    let refill = prop_oneof![1u32..=20, Just(256), 1u32..=u32::MAX];
    (1u32..=6, refill).prop_map(|(burst, refill)| RateLimit::new(burst, refill))
}

fn any_visits() -> impl Strategy<Value = (RateLimit, Vec<(u64, u32)>)> {
    any_limit()
        .prop_flat_map(|limit| (Just(limit), proptest::collection::vec((pause(limit), 1u32..=4), 1..200)))
}

proptest! {
    #[test]
    fn it_grants_and_refuses_just_as_the_naive_model_does((limit, visits) in any_visits()) {
        let (mut limiter, mut model) = (RateLimiter::new(limit), Model::default());
        let mut now = Monotonic::from_nanos(ORIGIN);
        for (pause, pid) in visits {
            now = now.saturating_add(Duration::from_nanos(pause));
            let left = limiter.remaining(now, peer(pid));
            let granted = limiter.check(now, peer(pid));
            prop_assert_eq!(granted, model.check(limit, now, peer(pid)));
            prop_assert_eq!(granted.is_ok(), left > 0);
            prop_assert_eq!(limiter.remaining(now, peer(pid)), left.saturating_sub(1));
        }
    }

    #[test]
    fn a_small_table_grants_no_user_more_than_its_seats_and_the_shared_bucket_may(
        (limit, visits) in any_visits(),
        max_peers in 1usize..=3,
    ) {
        // At one instant at most max_peers own buckets and the shared one can be emptied.
        let mut limiter = RateLimiter::with_max_peers(limit, max_peers);
        let mut now = Monotonic::from_nanos(ORIGIN);
        let mut granted_now = 0;
        for (pause, pid) in visits {
            if pause > 0 {
                granted_now = 0;
            }
            now = now.saturating_add(Duration::from_nanos(pause));
            granted_now += u64::from(limiter.check(now, peer(pid)).is_ok());
            prop_assert!(granted_now <= (max_peers as u64 + 1) * u64::from(limit.burst()));
            prop_assert!(limiter.known_peers() <= max_peers + 1);
        }
    }
}
