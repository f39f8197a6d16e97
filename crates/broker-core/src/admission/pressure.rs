//! Whether the process has lately run out of file descriptors (behaviour.md 2, row 9).
//!
//! It counts no descriptors: the operating system's refusal (EMFILE, ENFILE) is the only evidence.
//! Invariant: the pressure is off again exactly [`DESCRIPTOR_QUIET_PERIOD`] after the last hit, without
//! anybody having to do anything.

use std::time::Duration;

use crate::time::Monotonic;

/// How long after the last hit new Hellos are still turned away.
pub const DESCRIPTOR_QUIET_PERIOD: Duration = Duration::from_secs(1);

/// Remembers the last time the operating system had no descriptor to give.
#[derive(Clone, Debug, Default)]
pub struct DescriptorPressure {
    /// When the pressure is off.
    over_at: Option<Monotonic>,
}

impl DescriptorPressure {
    /// Notes that an accept or open failed for want of a descriptor. Begins the quiet period anew.
    pub fn hit(&mut self, now: Monotonic) {
        self.over_at = self.over_at.max(Some(now.saturating_add(DESCRIPTOR_QUIET_PERIOD)));
    }

    /// Whether new Hellos should be turned away: the last hit is less than a quiet period ago.
    pub fn is_demoted(&self, now: Monotonic) -> bool {
        self.over_at.is_some_and(|over_at| now < over_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NANOSECOND: Duration = Duration::from_nanos(1);

    fn at(offset: Duration) -> Monotonic {
        Monotonic::from_nanos(5_000_000_000).saturating_add(offset)
    }

    #[test]
    fn without_a_hit_there_is_no_pressure() {
        assert!(!DescriptorPressure::default().is_demoted(Monotonic::default()));
        assert!(!DescriptorPressure::default().is_demoted(at(Duration::ZERO)));
    }

    #[test]
    fn a_hit_demotes_at_once_and_for_exactly_the_quiet_period() {
        let mut pressure = DescriptorPressure::default();
        pressure.hit(at(Duration::ZERO));
        assert!(pressure.is_demoted(at(Duration::ZERO)));
        assert!(pressure.is_demoted(at(DESCRIPTOR_QUIET_PERIOD - NANOSECOND)));
        assert!(!pressure.is_demoted(at(DESCRIPTOR_QUIET_PERIOD)));
    }

    #[test]
    fn a_repeated_hit_begins_the_quiet_period_anew() {
        let half = DESCRIPTOR_QUIET_PERIOD / 2;
        let mut pressure = DescriptorPressure::default();
        pressure.hit(at(Duration::ZERO));
        pressure.hit(at(half));
        assert!(pressure.is_demoted(at(half + DESCRIPTOR_QUIET_PERIOD - NANOSECOND)));
        assert!(!pressure.is_demoted(at(half + DESCRIPTOR_QUIET_PERIOD)));
    }

    #[test]
    fn a_hit_reported_late_does_not_shorten_the_quiet_period() {
        let mut pressure = DescriptorPressure::default();
        pressure.hit(at(Duration::from_millis(10)));
        pressure.hit(at(Duration::ZERO));
        assert!(pressure.is_demoted(at(DESCRIPTOR_QUIET_PERIOD)));
    }
}
