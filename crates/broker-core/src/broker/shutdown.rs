//! The end of a broker (behaviour.md 5).
//!
//! First the Hellos that wait for a start are answered, then the backends are asked to end, then the
//! broker stops. Invariant: at the deadline it stops whatever is left, so a drain always ends.

use std::time::Duration;

use broker_protocol::Refusal;

use super::planted::Bug;
use super::{Action, BackendsOnExit, Broker, KILL_AFTER, StopSignal};
use crate::backends::{BackendState, StopReason};
use crate::entropy::Entropy;
use crate::time::{Monotonic, Now};
use crate::timers::Timer;

/// How far a broker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It accepts Hellos.
    Serving,
    /// It answers those who wait, until then.
    Finishing { until: Monotonic },
    /// It waits for its backends to end, until then.
    Stopping { until: Monotonic },
    /// It told its shell to end.
    Stopped,
}

impl<E: Entropy> Broker<E> {
    /// Whether new Hellos are accepted: what `readyz` tells.
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Begins to drain; or, where it drains already, ends that sooner.
    pub(super) fn drain(&mut self, now: Now, deadline: Option<Duration>) {
        let wanted = now.monotonic.saturating_add(deadline.unwrap_or(self.config.drain));
        self.phase = match self.phase {
            Phase::Serving => Phase::Finishing { until: wanted },
            Phase::Finishing { until } if wanted < until => Phase::Finishing { until: wanted },
            Phase::Stopping { until } if wanted < until => Phase::Stopping { until: wanted },
            Phase::Finishing { .. } | Phase::Stopping { .. } | Phase::Stopped => return,
        };
        self.timers.set(wanted, Timer::Drain);
        self.advance_drain(now);
    }

    pub(super) fn drain_left(&self, now: Now) -> Duration {
        match self.phase {
            Phase::Finishing { until } | Phase::Stopping { until } => until.duration_since(now.monotonic),
            Phase::Serving | Phase::Stopped => Duration::ZERO,
        }
    }

    pub(super) fn refuse_while_draining(&self, now: Now) -> Result<(), Refusal> {
        if self.is_serving() { Ok(()) } else { Err(Refusal::Draining { remaining: self.drain_left(now) }) }
    }

    /// Goes as far as what still runs allows.
    pub(super) fn advance_drain(&mut self, now: Now) {
        if let Phase::Finishing { until } = self.phase
            && self.waiting.is_empty()
        {
            self.phase = Phase::Stopping { until };
            self.stop_backends(now, until);
        }
        if matches!(self.phase, Phase::Stopping { .. }) && self.nothing_left_to_stop() {
            self.finish();
        }
    }

    fn nothing_left_to_stop(&self) -> bool {
        self.config.on_exit == BackendsOnExit::Keep || self.backends.ours_to_stop().is_empty()
    }

    fn stop_backends(&mut self, now: Now, until: Monotonic) {
        if self.config.on_exit == BackendsOnExit::Keep {
            return;
        }
        let patience = until.duration_since(now.monotonic).min(KILL_AFTER);
        for slot in self.backends.ours_to_stop() {
            match self.backends.get(slot).map(|backend| &backend.state) {
                Some(BackendState::Spawning) => self.kill(slot),
                Some(_) => self.stop(now, slot, StopReason::Shutdown, patience),
                None => {}
            }
        }
    }

    /// The deadline: nobody waits any longer, and what still runs is killed.
    pub(super) fn drain_over(&mut self, now: Now) {
        if !matches!(self.phase, Phase::Finishing { .. } | Phase::Stopping { .. })
            || self.has_bug(Bug::EndlessDrain)
        {
            return;
        }
        let mut waiting: Vec<_> = self.waiting.values().copied().collect();
        waiting.sort_unstable();
        waiting.dedup();
        for slot in waiting {
            self.refuse_waiters(now, slot, &Refusal::Draining { remaining: Duration::ZERO });
        }
        if self.config.on_exit == BackendsOnExit::Stop {
            for slot in self.backends.ours_to_stop() {
                self.actions.push_back(Action::Signal { slot, signal: StopSignal::Kill });
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.phase = Phase::Stopped;
        self.actions.push_back(Action::Stop);
    }
}
