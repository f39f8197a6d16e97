//! Backends coming and going (behaviour.md 4).

use std::sync::Arc;
use std::time::Duration;

use broker_protocol::wire::EventKind;
use broker_protocol::{Refusal, ServiceName, Severity, SpawnFailure, SpawnStage};

use super::planted::Bug;
use super::{Action, Broker, Exit, KILL_AFTER, QUIESCE_LIMIT, StartOrder, StopSignal};
use crate::admission::{ConnectionKey, PeerKey};
use crate::backends::{
    Backend, BackendState, ControlState, LiveBackend, Origin, SPAWN_ATTEMPTS, StopReason, TraceContext,
    Waiter,
};
use crate::entropy::Entropy;
use crate::events::EventDraft;
use crate::handoff::BackendSlot;
use crate::hello::{Admitted, Reply, Route};
use crate::metrics::HelloOutcome;
use crate::services::Definition;
use crate::time::{Monotonic, Now};
use crate::timers::Timer;

impl<E: Entropy> Broker<E> {
    /// Makes sure that a backend without a process is on its way to one.
    pub(super) fn bring_up(
        &mut self,
        now: Now,
        slot: BackendSlot,
        definition: Arc<Definition>,
        admitted: &Admitted<'_>,
    ) -> Result<(), Refusal> {
        let Some(backend) = self.backends.get_mut(slot) else {
            return Err(Refusal::Internal { cause: "a backend vanished while it was looked up" });
        };
        backend.definition = Some(definition);
        if backend.waiters.is_empty() {
            let echo = admitted.echo();
            backend.trace =
                TraceContext { parent: echo.traceparent.to_owned(), state: echo.tracestate.to_owned() };
        }
        if matches!(backend.state, BackendState::Spawning) && self.has_bug(Bug::SecondStart) {
            return self.start(now, slot, &[admitted.peer()]);
        }
        let Some(backend) = self.backends.get_mut(slot) else { return Ok(()) };
        match (&backend.state, &backend.registration) {
            (BackendState::Probing | BackendState::Spawning | BackendState::Draining(..), _) => Ok(()),
            (BackendState::Running(_), _) => {
                // Its route went with a definition that was taken away and has come back since.
                Err(Refusal::Internal { cause: "a running backend has no route" })
            }
            (BackendState::Absent | BackendState::Failed(_), Some(registration)) => {
                let endpoint = registration.endpoint.clone();
                self.probe(slot, endpoint);
                Ok(())
            }
            (BackendState::Absent | BackendState::Failed(_), None) => {
                self.start(now, slot, &[admitted.peer()])
            }
        }
    }

    pub(super) fn probe(&mut self, slot: BackendSlot, endpoint: String) {
        let Some(backend) = self.backends.get_mut(slot) else { return };
        backend.state = BackendState::Probing;
        backend.probed = Some(endpoint.clone());
        self.actions.push_back(Action::Probe { slot, endpoint });
    }

    /// Starts a backend for the first of those who want it that may have one more start under way, if its
    /// budget allows (rows 17 and 18).
    fn start(&mut self, now: Now, slot: BackendSlot, wanted_by: &[PeerKey]) -> Result<(), Refusal> {
        let Some(backend) = self.backends.get_mut(slot) else { return Ok(()) };
        let Some(starts_for) = wanted_by.iter().find(|peer| self.starts.has_room(**peer)) else {
            return Err(Refusal::PeerStarts {
                service: backend.service.to_string(),
                version: backend.version.clone(),
                limit: self.starts.limit(),
            });
        };
        let Some(definition) = backend.definition.clone() else {
            return Err(Refusal::Internal { cause: "a backend without a definition was to be started" });
        };
        if let Err(retry_after) = backend.budget.try_spend(now.monotonic) {
            return Err(Refusal::SpawnBudget {
                service: backend.service.to_string(),
                version: backend.version.clone(),
                attempts: SPAWN_ATTEMPTS,
                retry_after,
            });
        }
        backend.state = BackendState::Spawning;
        let _ = self.starts.charge(*starts_for, 1);
        backend.started_for = Some(*starts_for);
        let version = backend.version.clone();
        let trace = std::mem::take(&mut backend.trace);
        let draft = EventDraft::new(now, EventKind::SpawnAttempt, Severity::Info, &self.instance)
            .service(backend.service.as_str())
            .extra("version", &version)
            .extra("attempt", backend.budget.attempts_used(now.monotonic));
        self.emit(draft);
        self.actions.push_back(Action::Start(StartOrder {
            slot,
            definition,
            version,
            traceparent: trace.parent,
            tracestate: trace.state,
        }));
        Ok(())
    }

    /// A started backend takes connections, but has not said yet who it is. Its budget stays spent until
    /// then, so one that dies at once is not started for ever.
    pub(super) fn listening(&mut self, now: Now, slot: BackendSlot, pid: u32, endpoint: String) {
        let Some(backend) = self.backends.get(slot) else { return };
        if backend.state == BackendState::Spawning {
            let live = started_process(pid, endpoint);
            self.now_running(now, slot, live);
        }
    }

    /// A started backend answered its probe.
    pub(super) fn started(&mut self, now: Now, slot: BackendSlot, pid: u32, endpoint: String) {
        self.release_start(slot);
        let Some(backend) = self.backends.get_mut(slot) else { return };
        backend.budget.reset();
        let live = started_process(pid, endpoint);
        let draft = EventDraft::new(now, EventKind::Spawn, Severity::Info, &self.instance)
            .service(backend.service.as_str())
            .pid(Some(pid))
            .extra("version", &backend.version);
        let is_spawning = backend.state == BackendState::Spawning;
        self.metrics.spawned(backend.series);
        self.emit(draft);
        // One that listened from the start is in use, or ending, already.
        if is_spawning {
            self.now_running(now, slot, live);
        }
    }

    /// A registered endpoint was probed: use it, or start a process as if it had never been there.
    pub(super) fn probed(&mut self, now: Now, slot: BackendSlot, outcome: Result<u32, String>) {
        let Some(backend) = self.backends.get_mut(slot) else { return };
        if backend.state != BackendState::Probing {
            return;
        }
        // Another may have announced itself since, in the place of one that has withdrawn.
        let probed = backend.probed.take();
        let registered = backend.registration.as_ref().map(|registration| &registration.endpoint);
        if let Some(other) = registered.filter(|registered| Some(*registered) != probed.as_ref()) {
            let other = other.clone();
            self.probe(slot, other);
            return;
        }
        let outcome = outcome.and_then(|pid| match (&backend.registration, backend.announced_by) {
            (None, _) => Err("it is not registered any more".to_owned()),
            (Some(_), Some(announced)) if announced != pid => {
                Err(format!("process {pid} answers there, but process {announced} has announced itself"))
            }
            (Some(_), _) => Ok(pid),
        });
        match (outcome, &backend.registration) {
            (Ok(pid), Some(registration)) => {
                let live = LiveBackend {
                    pid: Some(pid),
                    endpoint: registration.endpoint.clone(),
                    origin: Origin::Registered,
                };
                self.now_running(now, slot, live);
            }
            (Ok(_), None) => {}
            (Err(cause), _) => {
                let draft = EventDraft::new(now, EventKind::SpawnAttempt, Severity::Warn, &self.instance)
                    .service(backend.service.as_str())
                    .reason(format!("the registered backend is not used: {cause}"))
                    .extra("version", &backend.version);
                backend.last_error = Some(cause);
                backend.state = BackendState::Absent;
                let nobody_waits = backend.waiters.is_empty();
                self.emit(draft);
                self.end_control(slot);
                if nobody_waits {
                    self.forget(now, slot);
                    return;
                }
                self.start_for_waiters(now, slot);
            }
        }
        self.advance_drain(now);
    }

    pub(super) fn now_running(&mut self, now: Now, slot: BackendSlot, live: LiveBackend) {
        let Some(backend) = self.backends.get_mut(slot) else { return };
        backend.last_error = None;
        backend.last_hello = Some((now.monotonic, now.unix));
        backend.state = BackendState::Running(live);
        let idle_timeout =
            backend.definition.as_ref().and_then(|definition| definition.settings().idle_timeout);
        if let Some(idle_timeout) = idle_timeout.filter(|_| backend.is_ours_to_stop()) {
            let due = now.monotonic.saturating_add(idle_timeout);
            backend.idle_check = Some(due);
            self.timers.set(due, Timer::Idle(slot));
        }
        let service = backend.service.clone();
        self.restore_routes(&service);
        self.answer_waiters(now, slot);
        self.advance_drain(now);
    }

    /// A start is not under way any more. One that listens from the start is until it has answered its probe.
    fn release_start(&mut self, slot: BackendSlot) {
        let charged = self.backends.get_mut(slot).and_then(|backend| backend.started_for.take());
        if let Some(peer) = charged {
            self.starts.release(peer, 1);
        }
    }

    /// Routes every running backend of a service that has a definition.
    pub(super) fn restore_routes(&mut self, service: &ServiceName) {
        let Some(definition) = self.handler.definition(service.as_str()) else { return };
        let warnings = definition.settings().warnings.clone();
        for backend in self.backends.iter().filter(|backend| backend.service == *service) {
            if let BackendState::Running(live) = &backend.state {
                let version = backend.version.clone();
                let route =
                    Route::new(version, live.endpoint.clone(), backend.handoff(), backend.slot, &warnings);
                self.handler.add_route(service.as_str(), Arc::new(route));
            }
        }
    }

    fn answer_waiters(&mut self, now: Now, slot: BackendSlot) {
        let waiters = self.take_waiters(slot);
        self.expire_offers(now);
        let Some(backend) = self.backends.get(slot) else { return };
        let Some(live) = backend.state.live() else { return };
        let (service, version, series) = (backend.service.clone(), backend.version.clone(), backend.series);
        let definition = self.handler.definition(service.as_str()).or(backend.definition.as_ref());
        let settings = definition.map(|definition| definition.settings());
        let policy_allows = settings.is_some_and(|settings| settings.handoff_enabled);
        let warnings = settings.map_or(&[][..], |settings| &settings.warnings);
        let route = Arc::new(Route::new(version, live.endpoint.clone(), backend.handoff(), slot, warnings));
        for waiter in waiters {
            let Waiter { connection, asker, accepted, request_id, .. } = waiter;
            let reply = self.handler.agree(now, Arc::clone(&route), policy_allows, &asker);
            match &reply {
                Reply::Negotiated(negotiation) => {
                    self.count_negotiated(now, accepted, &request_id, negotiation);
                }
                Reply::Refused(refusal) => {
                    let outcome = HelloOutcome::Refused(refusal.code());
                    self.metrics.hello(series, outcome, accepted, now.monotonic);
                }
            }
            self.actions.push_back(Action::Reply { connection, reply });
        }
    }

    fn take_waiters(&mut self, slot: BackendSlot) -> Vec<Waiter> {
        let Some(backend) = self.backends.get_mut(slot) else { return Vec::new() };
        let waiters = std::mem::take(&mut backend.waiters);
        for waiter in &waiters {
            self.waiting.remove(&waiter.connection);
            self.timers.cancel(waiter.deadline, Timer::Wait(slot, waiter.connection));
        }
        waiters
    }

    pub(super) fn refuse_waiters(&mut self, now: Now, slot: BackendSlot, refusal: &Refusal) {
        for waiter in self.take_waiters(slot) {
            let reply = self.refuse(now, waiter.accepted, &waiter.request_id, refusal.clone());
            self.actions.push_back(Action::Reply { connection: waiter.connection, reply });
        }
    }

    /// A start came to nothing: everybody who waits shares that.
    pub(super) fn start_failed(&mut self, now: Now, slot: BackendSlot, failure: SpawnFailure) {
        self.release_start(slot);
        if self.retire(slot).is_some_and(|(_, stop)| stop.is_some()) {
            // It was told to end before it was ready.
            self.succeed(now, slot);
            self.advance_drain(now);
            return;
        }
        let Some(backend) = self.backends.get_mut(slot) else { return };
        backend.last_error = Some(failure.to_string());
        backend.state = BackendState::Failed(failure.clone());
        self.metrics.spawn_failed(backend.series);
        let forget = backend.budget.window_end().unwrap_or(now.monotonic);
        self.timers.set(forget, Timer::Forget(slot));
        let kind = if failure.exit_status.is_some() || failure.signal.is_some() {
            EventKind::DiedCrash
        } else {
            EventKind::SpawnAttempt
        };
        let (service, version) = (backend.service.to_string(), backend.version.clone());
        let draft = EventDraft::new(now, kind, Severity::Error, &self.instance)
            .service(&service)
            .reason(failure.to_string())
            .extra("version", &version)
            .extra("stage", failure.stage.as_str());
        self.emit(draft);
        let refusal = Refusal::SpawnFailed { service, version, failure: Box::new(failure) };
        self.refuse_waiters(now, slot, &refusal);
        self.advance_drain(now);
    }

    /// A backend's process ended: its route goes, and whoever waits for its end gets a new one.
    pub(super) fn exited(&mut self, now: Now, slot: BackendSlot, (pid, origin): (u32, Origin), exit: Exit) {
        let live = self.backends.get(slot).and_then(|backend| backend.state.live());
        // News of a process that is only watched may come late.
        if live.is_some_and(|live| live.pid != Some(pid) || live.origin != origin) {
            return;
        }
        let Some((live, stop)) = self.retire(slot) else { return };
        let Some(backend) = self.backends.get_mut(slot) else { return };
        let (kind, severity, reason) = obituary(exit, stop);
        if kind == EventKind::DiedCrash {
            backend.last_error = Some(reason.clone());
        }
        let draft = EventDraft::new(now, kind, severity, &self.instance)
            .service(backend.service.as_str())
            .pid(live.pid)
            .reason(reason)
            .extra("version", &backend.version);
        self.emit(draft);
        self.succeed(now, slot);
        self.advance_drain(now);
    }

    /// Takes a live backend out of use: its route, its timers, its offers. `None` where none lives: its end
    /// was told as a failed start, or it has none to tell.
    pub(super) fn retire(&mut self, slot: BackendSlot) -> Option<(LiveBackend, Option<StopReason>)> {
        let backend = self.backends.get_mut(slot)?;
        let ended = match std::mem::replace(&mut backend.state, BackendState::Absent) {
            BackendState::Running(live) => (live, None),
            BackendState::Draining(live, reason) => (live, Some(reason)),
            other => {
                backend.state = other;
                return None;
            }
        };
        let timers =
            [(backend.idle_check.take(), Timer::Idle(slot)), (backend.kill_at.take(), Timer::Kill(slot))];
        for (due, timer) in timers {
            if let Some(due) = due {
                self.timers.cancel(due, timer);
            }
        }
        self.handler.unregister(backend.service.as_str(), &backend.version);
        self.end_control(slot);
        Some(ended)
    }

    /// Ends the control connection to a process that is not the backend any more, if it ever was, and with it
    /// what that process has registered and what was offered to it.
    pub(super) fn end_control(&mut self, slot: BackendSlot) {
        let Some(backend) = self.backends.get_mut(slot) else { return };
        backend.control = ControlState::None;
        backend.announced_by = None;
        if std::mem::take(&mut backend.is_self_registered) {
            backend.registration = None;
        }
        if let Some(control) = backend.control_key.take() {
            self.actions.push_back(Action::EndControl { slot, control });
        }
        self.offers_lost(slot);
    }

    /// What comes after a backend's end: a new start for those who wait, or nothing.
    pub(super) fn succeed(&mut self, now: Now, slot: BackendSlot) {
        let Some(backend) = self.backends.get(slot) else { return };
        if backend.waiters.is_empty() {
            self.timers.set(now.monotonic, Timer::Forget(slot));
            return;
        }
        self.start_for_waiters(now, slot);
    }

    /// Starts a backend because somebody waits for it.
    pub(super) fn start_for_waiters(&mut self, now: Now, slot: BackendSlot) {
        let Some(backend) = self.backends.get(slot) else { return };
        let wanted_by: Vec<_> = backend.waiters.iter().map(|waiter| waiter.asker.peer).collect();
        let outcome = if self.is_serving() {
            self.start(now, slot, &wanted_by)
        } else {
            Err(Refusal::Draining { remaining: self.drain_left(now) })
        };
        if let Err(refusal) = outcome {
            self.refuse_waiters(now, slot, &refusal);
            self.forget(now, slot);
        }
    }

    /// A client's patience is over; the start goes on for the next one.
    pub(super) fn wait_over(&mut self, now: Now, slot: BackendSlot, connection: ConnectionKey) {
        let is_answered_again = self.has_bug(Bug::SecondReply);
        let Some(backend) = self.backends.get_mut(slot) else { return };
        let Some(at) = backend.waiters.iter().position(|waiter| waiter.connection == connection) else {
            return;
        };
        let waiter = backend.waiters.swap_remove(at);
        if is_answered_again {
            backend.waiters.push(waiter.clone());
        }
        let waited = waiter.deadline.duration_since(waiter.arrived);
        let cause =
            format!("it is still being started after the {} ms that the client waits", waited.as_millis());
        let refusal = Refusal::SpawnFailed {
            service: backend.service.to_string(),
            version: backend.version.clone(),
            failure: Box::new(SpawnFailure::new(SpawnStage::Deadline, cause)),
        };
        self.waiting.remove(&connection);
        let reply = self.refuse(now, waiter.accepted, &waiter.request_id, refusal);
        self.actions.push_back(Action::Reply { connection, reply });
        self.advance_drain(now);
    }

    /// Nobody may have asked for a backend for long enough; whether it is idle, its connections tell.
    pub(super) fn idle_check(&mut self, now: Now, slot: BackendSlot) {
        if self.is_unasked(now, slot)
            && let Some(live) = self.backends.get(slot).and_then(|backend| backend.state.live())
        {
            self.actions.push_back(Action::Look { slot, endpoint: live.endpoint.clone() });
        }
    }

    /// The connections of a backend that nobody asked for were looked for.
    pub(super) fn looked(&mut self, now: Now, slot: BackendSlot, endpoint: &str, is_in_use: bool) {
        let Some(backend) = self.backends.get_mut(slot) else { return };
        if backend.state.live().is_none_or(|live| live.endpoint != endpoint) {
            return;
        }
        if is_in_use {
            backend.last_use = Some(now.monotonic);
        }
        if self.is_unasked(now, slot) {
            self.stop(now, slot, StopReason::Idle, KILL_AFTER);
        }
    }

    /// Whether a running backend's idle timeout is over; where it is not, sets the next check.
    fn is_unasked(&mut self, now: Now, slot: BackendSlot) -> bool {
        let Some(backend) = self.backends.get_mut(slot) else { return false };
        backend.idle_check = idle_until(backend).filter(|due| *due > now.monotonic);
        match backend.idle_check {
            Some(due) => {
                self.timers.set(due, Timer::Idle(slot));
                false
            }
            None => idle_until(backend).is_some(),
        }
    }

    /// Asks a running backend to end, and kills it `patience` later. One with a control connection has a
    /// while before that to finish what is at hand.
    pub(super) fn stop(&mut self, now: Now, slot: BackendSlot, reason: StopReason, patience: Duration) {
        let Some(backend) = self.backends.get_mut(slot) else { return };
        match std::mem::replace(&mut backend.state, BackendState::Absent) {
            BackendState::Running(live) if live.origin.is_ours() => {
                backend.state = BackendState::Draining(live, reason);
            }
            other => {
                backend.state = other;
                return;
            }
        }
        if let Some(due) = backend.idle_check.take() {
            self.timers.cancel(due, Timer::Idle(slot));
        }
        self.handler.unregister(backend.service.as_str(), &backend.version);
        match backend.control {
            ControlState::Open => {
                let pid = backend.state.live().and_then(|live| live.pid);
                let limit = QUIESCE_LIMIT.min(patience / 2);
                let until_kill = match reason {
                    StopReason::Idle => limit + patience,
                    // A drain has an end.
                    StopReason::Shutdown => patience,
                };
                self.kill_after(now, slot, until_kill);
                self.actions.push_back(Action::Quiesce { slot, pid, limit });
            }
            ControlState::None | ControlState::Silent => self.terminate(now, slot, patience),
        }
    }

    /// A backend has nothing at hand any more, or does not say so in time.
    pub(super) fn quiesced(&mut self, now: Now, slot: BackendSlot, pid: Option<u32>) {
        let Some(backend) = self.backends.get_mut(slot) else { return };
        if let BackendState::Draining(live, reason) = &backend.state
            && live.pid == pid
            && let Some(due) = backend.kill_at
        {
            let patience = match reason {
                StopReason::Idle => KILL_AFTER,
                StopReason::Shutdown => due.duration_since(now.monotonic),
            };
            self.terminate(now, slot, patience);
        }
    }

    fn terminate(&mut self, now: Now, slot: BackendSlot, patience: Duration) {
        self.kill_after(now, slot, patience);
        self.actions.push_back(Action::Signal { slot, signal: StopSignal::Terminate });
    }

    fn kill_after(&mut self, now: Now, slot: BackendSlot, patience: Duration) {
        let Some(backend) = self.backends.get_mut(slot) else { return };
        let due = now.monotonic.saturating_add(patience);
        if let Some(former) = backend.kill_at.replace(due) {
            self.timers.cancel(former, Timer::Kill(slot));
        }
        self.timers.set(due, Timer::Kill(slot));
    }

    pub(super) fn kill(&mut self, slot: BackendSlot) {
        if let Some(backend) = self.backends.get_mut(slot).filter(|backend| backend.is_ours_to_stop()) {
            backend.kill_at = None;
            self.actions.push_back(Action::Signal { slot, signal: StopSignal::Kill });
        }
    }

    /// Drops an entry that remembers nothing any more, so that made-up versions leave nothing behind.
    pub(super) fn forget(&mut self, now: Now, slot: BackendSlot) {
        let Some(backend) = self.backends.get(slot) else { return };
        let remembers = backend.registration.is_some() || backend.budget.attempts_used(now.monotonic) > 0;
        if Self::is_idle_entry(&backend.state) && backend.waiters.is_empty() && !remembers {
            self.backends.remove(slot);
        }
    }
}

/// The process that a start has made.
const fn started_process(pid: u32, endpoint: String) -> LiveBackend {
    LiveBackend { pid: Some(pid), endpoint, origin: Origin::Started }
}

/// When a running backend will have been idle for long enough.
fn idle_until(backend: &Backend) -> Option<Monotonic> {
    let timeout = backend.definition.as_ref()?.settings().idle_timeout?;
    let (hello, _) = backend.last_hello?;
    let last = backend.last_use.map_or(hello, |used| used.max(hello));
    matches!(backend.state, BackendState::Running(_)).then(|| last.saturating_add(timeout))
}

/// The event of a backend's end.
fn obituary(exit: Exit, stop: Option<StopReason>) -> (EventKind, Severity, String) {
    let how = match exit {
        Exit::Status(status) => format!("exited with status {status}"),
        Exit::Signal(signal) => format!("ended by signal {signal}"),
        Exit::Unknown => "ended".to_owned(),
    };
    match (stop, exit) {
        (Some(StopReason::Idle), _) => (EventKind::DiedIdle, Severity::Info, format!("idle; {how}")),
        (Some(StopReason::Shutdown), _) => {
            (EventKind::DiedShutdown, Severity::Info, format!("told to stop; {how}"))
        }
        (None, Exit::Status(0)) => (EventKind::DiedShutdown, Severity::Info, how),
        (None, Exit::Status(_) | Exit::Signal(_) | Exit::Unknown) => {
            (EventKind::DiedCrash, Severity::Error, how)
        }
    }
}
