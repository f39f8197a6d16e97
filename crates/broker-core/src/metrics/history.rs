//! The Hellos of the last hour, minute by minute.
//!
//! For looking back where nobody has collected the counters. It tells neither services nor versions apart: that
//! would grow with them. Invariants: it holds [`HISTORY_MINUTES`] minutes whatever happens, and counting a Hello
//! is two increments in a slot that the time alone chooses, which the first one of a minute clears.

use std::time::Duration;

use super::{HelloOutcome, LATENCIES, OUTCOMES};
use crate::time::Monotonic;

/// Minutes that are kept, the current one included.
pub const HISTORY_MINUTES: usize = 60;
/// How long each of them is.
pub const MINUTE: Duration = Duration::from_secs(60);

const MINUTE_NANOS: u64 = MINUTE.as_nanos() as u64;

/// The Hellos of one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minute {
    /// Minutes from the clock's origin to its begin.
    number: u64,
    // 71 million a second fill one of these.
    hellos: [u32; OUTCOMES],
    latencies: [u32; LATENCIES],
}

impl Minute {
    /// When it began.
    pub const fn began(&self) -> Monotonic {
        Monotonic::from_nanos(self.number.saturating_mul(MINUTE_NANOS))
    }

    /// Hellos that ended like this.
    pub const fn hellos(&self, outcome: HelloOutcome) -> u32 {
        self.hellos[outcome.index()]
    }

    /// How many took how long, by the [`BUCKETS`](super::BUCKETS) and one more for what is longer. Not cumulative.
    pub const fn latencies(&self) -> &[u32; LATENCIES] {
        &self.latencies
    }

    /// Whether nothing happened in it.
    fn is_empty(&self) -> bool {
        self.hellos == [0; OUTCOMES]
    }
}

/// The minutes that are kept, each in the slot that its number names.
#[derive(Clone, Debug)]
pub struct History(Box<[Minute; HISTORY_MINUTES]>);

impl Default for History {
    fn default() -> Self {
        Self(Box::new([Minute::default(); HISTORY_MINUTES]))
    }
}

impl History {
    /// Counts a Hello that ended now, and whose latency falls into this bucket.
    pub(super) fn count(&mut self, now: Monotonic, outcome: HelloOutcome, bucket: usize) {
        let number = now.as_nanos() / MINUTE_NANOS;
        let slot = &mut self.0[(number % HISTORY_MINUTES as u64) as usize];
        if slot.number != number {
            *slot = Minute { number, ..Minute::default() };
        }
        let (hellos, latencies) = (&mut slot.hellos[outcome.index()], &mut slot.latencies[bucket]);
        *hellos = hellos.saturating_add(1);
        *latencies = latencies.saturating_add(1);
    }

    /// The minutes of the hour that ends now in which anything happened, and how many minutes ago each was; the
    /// oldest first.
    pub fn minutes(&self, now: Monotonic) -> impl Iterator<Item = (u64, &Minute)> {
        let current = now.as_nanos() / MINUTE_NANOS;
        (0..HISTORY_MINUTES as u64).rev().filter_map(move |ago| {
            let number = current.checked_sub(ago)?;
            let slot = &self.0[(number % HISTORY_MINUTES as u64) as usize];
            (slot.number == number && !slot.is_empty()).then_some((ago, slot))
        })
    }
}

#[cfg(test)]
mod tests {
    use broker_protocol::wire::ErrorCode;
    use proptest::prelude::*;

    use super::*;

    const LIMITED: HelloOutcome = HelloOutcome::Refused(ErrorCode::ErrorRateLimited);

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_nanos(seconds * 1_000_000_000)
    }

    /// Minutes ago, negotiated, rate limited.
    fn told(history: &History, now: Monotonic) -> Vec<(u64, u32, u32)> {
        let minutes = history.minutes(now);
        minutes
            .map(|(ago, minute)| (ago, minute.hellos(HelloOutcome::Negotiated), minute.hellos(LIMITED)))
            .collect()
    }

    #[test]
    fn a_minute_ends_to_the_nanosecond_and_the_current_one_is_told_too() {
        let mut history = History::default();
        assert_eq!(told(&history, at(0)), []);
        history.count(at(0), HelloOutcome::Negotiated, 0);
        history.count(Monotonic::from_nanos(MINUTE_NANOS - 1), LIMITED, 0);
        assert_eq!(told(&history, at(59)), [(0, 1, 1)]);
        history.count(at(60), HelloOutcome::Negotiated, 0);
        assert_eq!(told(&history, at(60)), [(1, 1, 1), (0, 1, 0)]);
        assert!(history.minutes(at(60)).map(|(_, minute)| minute.began()).eq([at(0), at(60)]));
    }

    #[test]
    fn a_minute_is_forgotten_when_the_hour_is_over_and_its_slot_begins_at_nothing() {
        let mut history = History::default();
        history.count(at(30), HelloOutcome::Negotiated, 3);
        assert_eq!(told(&history, at(3_599)), [(59, 1, 0)]);
        assert_eq!(told(&history, at(3_600)), []);
        history.count(at(3_600), LIMITED, 0);
        assert_eq!(told(&history, at(3_600)), [(0, 0, 1)]);
        let latencies: Vec<_> = history.minutes(at(3_600)).map(|(_, minute)| *minute.latencies()).collect();
        let mut expected = [0; LATENCIES];
        expected[0] = 1;
        assert_eq!(latencies, [expected]);
    }

    proptest! {
        #[test]
        fn it_tells_what_a_list_of_all_hellos_would(steps in prop::collection::vec((0_u64..400, any::<bool>()), 0..200)) {
            let mut history = History::default();
            let (mut now, mut all) = (0, Vec::new());
            for (seconds, is_limited) in steps {
                now += seconds;
                let outcome = if is_limited { LIMITED } else { HelloOutcome::Negotiated };
                history.count(at(now), outcome, 0);
                all.push((now / 60, is_limited));
            }
            let current = now / 60;
            let expected: Vec<_> = (0..60).rev().filter(|ago| *ago <= current).filter_map(|ago| {
                let count = |limited| all.iter().filter(|hello| **hello == (current - ago, limited)).count() as u32;
                let counts = (ago, count(false), count(true));
                (counts.1 + counts.2 > 0).then_some(counts)
            }).collect();
            prop_assert_eq!(told(&history, at(now)), expected);
        }
    }
}
