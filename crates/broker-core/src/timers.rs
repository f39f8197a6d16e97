//! What is due when.
//!
//! Only rare things have a timer here (a wait, a stop, an idle check), never a Hello that is answered
//! at once, so an ordered set is fast enough and simple to inspect.

use std::collections::BTreeSet;

use crate::admission::ConnectionKey;
use crate::handoff::BackendSlot;
use crate::time::Monotonic;

/// Something that becomes due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A client's patience with a start ends.
    Wait(BackendSlot, ConnectionKey),
    /// A backend may have been idle for long enough.
    Idle(BackendSlot),
    /// A backend was told to stop and had its time.
    Kill(BackendSlot),
    /// A failed backend's budget window is over; nothing of it needs remembering.
    Forget(BackendSlot),
    /// A drain's deadline.
    Drain,
}

/// The timers in the order in which they become due.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Monotonic, Timer)>);

impl Timers {
    pub(crate) fn set(&mut self, due: Monotonic, timer: Timer) {
        self.0.insert((due, timer));
    }

    pub(crate) fn cancel(&mut self, due: Monotonic, timer: Timer) {
        self.0.remove(&(due, timer));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn next(&self) -> Option<Monotonic> {
        self.0.first().map(|(due, _)| *due)
    }

    /// Takes the next timer that is due at `now`; one due exactly now is due.
    pub(crate) fn take_due(&mut self, now: Monotonic) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, timer)| timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_order_and_not_a_nanosecond_early() {
        let at = Monotonic::from_nanos;
        let mut timers = Timers::default();
        timers.set(at(20), Timer::Drain);
        timers.set(at(10), Timer::Idle(BackendSlot::new(1)));
        timers.set(at(15), Timer::Kill(BackendSlot::new(1)));
        timers.cancel(at(15), Timer::Kill(BackendSlot::new(1)));
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.take_due(at(9)), None);
        assert_eq!(timers.take_due(at(10)), Some(Timer::Idle(BackendSlot::new(1))));
        assert_eq!(timers.take_due(at(19)), None);
        assert_eq!(timers.take_due(at(100)), Some(Timer::Drain));
        assert_eq!(timers.next(), None);
    }
}
