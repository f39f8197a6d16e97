//! One bucket and its limit: what a permit costs, and when the next one is there.
//!
//! A bucket is one number, the time at which it will be full again (the generic cell rate algorithm's
//! theoretical arrival time). Time is counted in ticks of 1/refill nanosecond from an origin that the
//! caller chooses, so that a permit is worth [`TICKS_PER_PERMIT`] whatever the rate: nothing is rounded,
//! and no rate drifts. It reads no clock and knows no peers.
//!
//! Invariant: no bucket is ever full later than one recovery from now.

use std::time::Duration;

/// What one permit is worth.
pub(super) const TICKS_PER_PERMIT: u64 = 1_000_000_000;

/// How many permits a peer has at once, and how fast they come back. Neither is ever 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    burst: u32,
    refill_per_second: u32,
}

impl RateLimit {
    /// 256 at once, 256 per second (behaviour.md 2).
    pub const DEFAULT: Self = Self::new(256, 256);

    /// A limit of `burst` permits at once and `refill_per_second` in the long run; 0 counts as 1.
    pub const fn new(burst: u32, refill_per_second: u32) -> Self {
        Self {
            burst: if burst == 0 { 1 } else { burst },
            refill_per_second: if refill_per_second == 0 { 1 } else { refill_per_second },
        }
    }

    /// Permits in a full bucket.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// Permits that come back per second.
    pub const fn refill_per_second(self) -> u32 {
        self.refill_per_second
    }

    /// The time in which an empty bucket fills; what a reused pid can inherit of debt at most.
    pub const fn recovery(self) -> Duration {
        self.duration(self.recovery_ticks())
    }

    /// [`recovery`](Self::recovery) in ticks: below 2^32 * 10^9.
    pub(super) const fn recovery_ticks(self) -> u64 {
        self.burst as u64 * TICKS_PER_PERMIT
    }

    /// The ticks in so many nanoseconds. Where they exceed 64 bits, any recovery is long over.
    pub(super) const fn ticks(self, nanos: u64) -> u64 {
        nanos.saturating_mul(self.refill_per_second as u64)
    }

    /// The first whole nanosecond by which `ticks` have passed.
    pub(super) const fn duration(self, ticks: u64) -> Duration {
        Duration::from_nanos(ticks.div_ceil(self.refill_per_second as u64))
    }

    /// Takes a permit out of the bucket that is full at `due`, or says how many ticks are missing.
    pub(super) fn spend(self, due: &mut u64, now: u64) -> Result<(), u64> {
        let full_at = (*due).max(now) + TICKS_PER_PERMIT;
        let latest = now + self.recovery_ticks();
        if full_at > latest {
            return Err(full_at - latest);
        }
        *due = full_at;
        Ok(())
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_zero_counts_as_one() {
        assert_eq!(RateLimit::new(0, 0), RateLimit::new(1, 1));
        assert_eq!((RateLimit::default().burst(), RateLimit::default().refill_per_second()), (256, 256));
    }

    #[test]
    fn a_bucket_fills_within_one_recovery_rounded_up_to_the_nanosecond() {
        assert_eq!(RateLimit::default().recovery(), Duration::from_secs(1));
        assert_eq!(RateLimit::new(1, 3).recovery(), Duration::from_nanos(333_333_334));
        assert_eq!(RateLimit::new(u32::MAX, 1).recovery(), Duration::from_secs(u32::MAX.into()));
    }

    #[test]
    fn ticks_turn_back_into_the_nanoseconds_they_came_from() {
        let limit = RateLimit::new(1, 3);
        assert_eq!(limit.duration(limit.ticks(5)), Duration::from_nanos(5));
        assert_eq!(limit.duration(limit.ticks(5) + 1), Duration::from_nanos(6));
        assert_eq!(limit.ticks(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_bucket_that_is_full_already_saves_nothing_up() {
        let (limit, now) = (RateLimit::new(2, 1), 7 * TICKS_PER_PERMIT);
        let mut due = 0;
        assert_eq!(limit.spend(&mut due, now), Ok(()));
        assert_eq!(due, 8 * TICKS_PER_PERMIT);
        assert_eq!(limit.spend(&mut due, now), Ok(()));
        assert_eq!(limit.spend(&mut due, now), Err(TICKS_PER_PERMIT));
        assert_eq!(due, 9 * TICKS_PER_PERMIT);
    }
}
