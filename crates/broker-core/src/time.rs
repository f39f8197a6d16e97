//! Time as a value.
//!
//! Nothing in this crate asks what time it is: whoever drives it passes [`Now`] to every call, so a
//! test or a simulation steps through years without sleeping. What is counted on (deadlines, budgets,
//! rates) uses [`Monotonic`]; [`UnixMillis`] is only ever written down (events, replies to operators).
//!
//! Invariant: no operation here panics or wraps; sums saturate at the far end of time (584 years) and
//! differences at zero.

use std::time::Duration;

/// A point in time that never jumps: nanoseconds since an arbitrary origin, fixed for a process's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The point `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The point `duration` later, or the last one there is.
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        let nanos = duration.as_nanos();
        if nanos > u64::MAX as u128 { Self(u64::MAX) } else { Self(self.0.saturating_add(nanos as u64)) }
    }

    /// The time that passed since `earlier`; zero where `earlier` is in fact later.
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Wall-clock time: milliseconds since the Unix epoch, as the wire carries it. May jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(u64);

impl UnixMillis {
    /// The time `millis` milliseconds after the Unix epoch.
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this; zero where `earlier` is in fact later. Good for a limit that a
    /// peer names by the wall clock, not for measuring.
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// What time it is, by both clocks, read once per input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// What deadlines, budgets and rates are counted in.
    pub monotonic: Monotonic,
    /// What is written down.
    pub unix: UnixMillis,
}

impl Now {
    /// One reading of both clocks.
    pub const fn new(monotonic: Monotonic, unix: UnixMillis) -> Self {
        Self { monotonic, unix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NANOSECOND: Duration = Duration::from_nanos(1);

    #[test]
    fn a_sum_and_its_difference_agree_to_the_nanosecond() {
        let start = Monotonic::from_nanos(5);
        let later = start.saturating_add(Duration::new(3, 7));
        assert_eq!(later.as_nanos(), 3_000_000_012);
        assert_eq!(later.duration_since(start), Duration::new(3, 7));
        assert!(start < later);
    }

    #[test]
    fn a_difference_into_the_future_is_zero() {
        let start = Monotonic::from_nanos(5);
        assert_eq!(start.duration_since(start), Duration::ZERO);
        assert_eq!(start.duration_since(start.saturating_add(NANOSECOND)), Duration::ZERO);
    }

    #[test]
    fn the_wall_clocks_differences_are_milliseconds_and_never_negative() {
        let (earlier, later) = (UnixMillis::new(1_000), UnixMillis::new(1_250));
        assert_eq!(later.duration_since(earlier), Duration::from_millis(250));
        assert_eq!(earlier.duration_since(later), Duration::ZERO);
    }

    #[test]
    fn a_sum_stops_at_the_end_of_time() {
        let last = Monotonic::from_nanos(u64::MAX);
        let last_but_one = Monotonic::from_nanos(u64::MAX - 1);
        assert_eq!(last_but_one.saturating_add(NANOSECOND), last);
        assert_eq!(last.saturating_add(NANOSECOND), last);
        assert_eq!(Monotonic::default().saturating_add(Duration::MAX), last);
    }

    #[test]
    fn a_duration_beyond_64_bits_of_nanoseconds_does_not_wrap() {
        let nearly = Duration::from_nanos(u64::MAX);
        assert_eq!(Monotonic::default().saturating_add(nearly).as_nanos(), u64::MAX);
        assert_eq!(Monotonic::default().saturating_add(nearly + NANOSECOND).as_nanos(), u64::MAX);
    }
}
