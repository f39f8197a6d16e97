//! The one place that reads the clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use broker_core::time::{Monotonic, Now, UnixMillis};

/// Both clocks, counted from this process's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose origin is now.
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// A clock whose origin was `elapsed` ago: that of a predecessor in this process.
    pub(crate) fn resume(elapsed: Monotonic) -> Self {
        let since = elapsed.duration_since(Monotonic::default());
        let now = Instant::now();
        Self { origin: now.checked_sub(since).unwrap_or(now) }
    }

    pub(crate) fn now(self) -> Now {
        let nanos = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Now::new(Monotonic::from_nanos(nanos), UnixMillis::new(u64::try_from(unix).unwrap_or(u64::MAX)))
    }

    /// The instant that a point in time is.
    pub(crate) fn instant(self, at: Monotonic) -> tokio::time::Instant {
        let since = at.duration_since(Monotonic::default());
        // Beyond what the platform can name lies nothing that anybody waits for.
        self.origin.checked_add(since).unwrap_or(self.origin).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_and_its_instant_are_the_same_moment() {
        let clock = Clock::start();
        let before = Instant::now();
        let at = clock.instant(clock.now().monotonic).into_std();
        assert!(before <= at && at <= Instant::now());
        assert!(clock.now().unix.get() > 1_700_000_000_000);
    }
}
