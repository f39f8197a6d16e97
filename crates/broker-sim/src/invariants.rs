//! What must hold after everything that happens, whatever it was.

use std::fmt::Display;

use broker_core::admission::PeerKey;
use broker_core::backends::BackendState;
use broker_core::broker::{Footprint, StartOrder};
use broker_core::hello::{Admitted, Negotiation};

use crate::clients::Stage;
use crate::disk::{service_name, version_name};
use crate::history::Violation;
use crate::kernel::{Incarnation, Parent};
use crate::starts::is_same_backend;
use crate::world::World;

/// Timers that one backend may have besides those of the Hellos that wait: idle, kill, and one to be forgotten for
/// each attempt of its budget and for its end.
const TIMERS_PER_BACKEND: usize = 6;

/// What the broker counted when it was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    connections: usize,
    by_peer: Vec<(PeerKey, [usize; 4])>,
}

impl Counted {
    fn of(&self, peer: PeerKey) -> Option<[usize; 4]> {
        self.by_peer.iter().find(|(of, _)| *of == peer).map(|(_, held)| *held)
    }
}

impl World<'_> {
    pub(crate) fn violated(&self, invariant: &'static str, what: impl Display) -> Violation {
        self.history.violation(invariant, what)
    }

    /// Holds, after every step.
    pub(crate) fn check(&mut self) -> Result<(), Violation> {
        let kept = self.broker.footprint();
        self.check_accounts(kept)?;
        self.check_backends()?;
        if self.ledger.is_over_rate(self.now) {
            return Err(
                self.violated("budgets are never exceeded", "a peer has had more Hellos than permits")
            );
        }
        Ok(())
    }

    /// Whatever is counted is there, and no more of it than may be.
    fn check_accounts(&mut self, kept: Footprint) -> Result<(), Violation> {
        let waiting =
            self.connections.values().filter(|connection| connection.stage == Stage::Waiting).count();
        if kept.connections != self.connections.len() {
            let what = format!("{} are counted, {} are open", kept.connections, self.connections.len());
            return Err(self.violated("memory is linear in live things", format!("of connections {what}")));
        }
        if kept.hellos_waiting != waiting {
            let what = format!("{} Hellos are counted as waiting, {waiting} are", kept.hellos_waiting);
            return Err(self.violated("memory is linear in live things", what));
        }
        if kept.actions != 0 {
            return Err(self.violated("memory is linear in live things", "actions are left"));
        }
        let limits = self.plan.config.connections;
        let handoffs = self.plan.config.hello.handoff;
        // Lower limits evict nobody: what was there before they came may stay, and not grow.
        let most = limits.total().max(self.counted.connections);
        if kept.connections > most || kept.handoffs > handoffs.capacity {
            return Err(self.violated("bounds are never exceeded", format_args!("{kept:?}")));
        }
        let most = [
            limits.per_peer(),
            limits.buffered_per_peer(),
            self.plan.config.starts_per_peer,
            handoffs.per_peer,
        ];
        let before = std::mem::take(&mut self.counted);
        self.counted.connections = kept.connections;
        for peer in self.connections.values().map(|connection| connection.peer) {
            if self.counted.of(peer).is_some() {
                continue;
            }
            let held = self.broker.held_by(peer);
            let before = before.of(peer).unwrap_or_default();
            self.counted.by_peer.push((peer, held));
            let is_over = |at: usize| held[at] > most[at].max(before[at]);
            if (0..held.len()).any(is_over) {
                return Err(self.violated(
                    "bounds are never exceeded",
                    format_args!("{peer:?} holds {held:?} of {most:?}"),
                ));
            }
        }
        Ok(())
    }

    /// Each backend is what the broker was told of it.
    fn check_backends(&mut self) -> Result<(), Violation> {
        for start in self.starts.values().filter(|start| start.told_ready) {
            let Some(pid) =
                start.process.and_then(|process| self.kernel.get(process)).map(|process| process.pid)
            else {
                continue;
            };
            let state = self.broker.backend(start.order.slot).map(|backend| backend.state().clone());
            let is_known =
                state.as_ref().and_then(BackendState::live).is_some_and(|live| live.pid == Some(pid));
            if !is_known {
                let what = format!(
                    "{:?} was started and lives, and the broker takes it for {state:?}",
                    start.order.slot
                );
                return Err(self.violated("one live backend per key", what));
            }
        }
        for (slot, incarnation) in &self.adopted {
            let Some(process) = self.kernel.get(*incarnation) else { continue };
            let live = self.broker.backend(*slot).and_then(|backend| backend.state().live());
            if live.is_none_or(|live| live.pid != Some(process.pid)) {
                let what = format!("{slot:?} was adopted and lives, and the broker takes it for {live:?}");
                return Err(self.violated("one live backend per key", what));
            }
        }
        let mut slots = Vec::new();
        let mut idle = None;
        for backend in self.broker.backends() {
            let is_remembered = !matches!(backend.state(), BackendState::Absent | BackendState::Failed(_))
                || backend.waiting() > 0
                || backend.is_registered()
                || backend.budget().window_end().is_some();
            if !is_remembered {
                idle = Some(backend.slot());
            }
            slots.push(backend.slot());
        }
        // One that has just ended is forgotten by a timer that is due now.
        if let Some(slot) = idle
            && self.broker.next_timeout().is_none_or(|due| due > self.now.monotonic)
        {
            return Err(self.violated(
                "memory is linear in live things",
                format_args!("{slot:?} is remembered for nothing"),
            ));
        }
        for slot in slots {
            let outstanding = self.broker.handoffs_to(slot);
            if outstanding > self.plan.config.hello.handoff.per_backend {
                return Err(self.violated(
                    "bounds are never exceeded",
                    format_args!("{slot:?} has {outstanding} offers"),
                ));
            }
        }
        Ok(())
    }

    /// A start is ordered: within its budget, and where nothing of that backend runs.
    pub(crate) fn check_start(&mut self, order: &StartOrder) -> Result<(), Violation> {
        self.ledger
            .start_ordered(self.now, order.slot)
            .map_err(|what| self.violated("budgets are never exceeded", what))?;
        let is_adopted = |incarnation: &Incarnation| {
            self.kernel.get(*incarnation).is_some_and(|process| {
                let (service, version) = (service_name(process.service), version_name(process.version));
                order.definition.service().as_str() == service && order.version.to_string() == version
            })
        };
        if self.adopted.values().any(is_adopted) {
            let what = format!("{:?} is started while one that was adopted lives", order.slot);
            return Err(self.violated("one live backend per key", what));
        }
        let other = self.starts.values().find(|start| is_same_backend(&start.order, order));
        match other {
            None => Ok(()),
            Some(other) => {
                let what = format!("{:?} is started while {:?} is", order.slot, other.order.slot);
                Err(self.violated("one live backend per key", what))
            }
        }
    }

    /// An agreement is what the client has asked for, and leads to who lives.
    pub(crate) fn check_agreement(
        &mut self,
        admitted: &Admitted<'_>,
        agreed: &Negotiation,
    ) -> Result<(), Violation> {
        let invariant = "a client is sent to a live backend of the version it wants";
        if agreed.route.version() != admitted.version() {
            return Err(self.violated(invariant, format_args!("it is {}", agreed.route.version())));
        }
        let Some(definition) = self.ledger.definitions.get(admitted.service()) else {
            return Err(self.violated(invariant, "its service has no definition"));
        };
        if definition.policy().check(admitted.version()).is_err() {
            return Err(self.violated(invariant, format_args!("{} is not allowed", admitted.version())));
        }
        let endpoint = agreed.route.endpoint();
        let slot = agreed.route.slot();
        let told = self.ledger.live.get(&slot).map(|told| (told.endpoint.clone(), told.pid));
        let backend = self.broker.backend(slot).and_then(|backend| backend.state().live().cloned());
        match backend {
            Some(live) if live.endpoint == endpoint => match told {
                Some((told, pid))
                    if endpoint.starts_with("/run/backend-")
                        && (told != endpoint || live.pid != Some(pid)) =>
                {
                    Err(self.violated(invariant, format_args!("{endpoint} was told to have ended")))
                }
                _ => Ok(()),
            },
            other => Err(self.violated(invariant, format_args!("{endpoint} is where {other:?} is"))),
        }
    }

    /// After a timer nothing is due any more, and a drain whose deadline is over has ended.
    pub(crate) fn check_timers(&mut self) -> Result<(), Violation> {
        if self.drains_by.is_some_and(|by| by <= self.now.monotonic) && !self.has_stopped {
            return Err(self.violated("a drain ends", "its deadline has come, and it has not stopped"));
        }
        match self.broker.next_timeout() {
            Some(due) if due <= self.now.monotonic => {
                Err(self.violated("time goes on", "what was due is due again at once"))
            }
            _ => Ok(()),
        }
    }

    /// Nothing happens any more, and nobody is left: the broker keeps what lives, and no more.
    pub(crate) fn check_rest(&mut self) -> Result<(), Violation> {
        let kept = self.broker.footprint();
        let invariant = "every Hello ends in exactly one reply or a close";
        if let Some((number, connection)) = self.connections.first_key_value() {
            return Err(
                self.violated(invariant, format_args!("{number:?} is {:?} for ever", connection.stage))
            );
        }
        if kept.handoffs != 0 || kept.starters != 0 {
            return Err(
                self.violated("memory is linear in live things", format_args!("at rest it is {kept:?}"))
            );
        }
        if kept.timers > kept.backends * TIMERS_PER_BACKEND {
            return Err(
                self.violated("memory is linear in live things", format_args!("at rest it is {kept:?}"))
            );
        }
        let live =
            self.kernel.all().filter(|(_, process)| matches!(process.parent, Parent::Broker(_))).count();
        if self.starts.len() != live {
            let what = format!("{} starts are known of, {live} processes of them live", self.starts.len());
            return Err(self.violated("one live backend per key", what));
        }
        Ok(())
    }

    /// The broker has stopped: nobody waits for it.
    pub(crate) fn check_end(&mut self) -> Result<(), Violation> {
        let waiting = self.connections.iter().find(|(_, connection)| connection.stage == Stage::Waiting);
        match waiting {
            None => Ok(()),
            Some((number, _)) => Err(self.violated(
                "every Hello ends in exactly one reply or a close",
                format_args!("{number:?} waits, and the broker has stopped"),
            )),
        }
    }
}
