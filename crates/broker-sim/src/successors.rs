//! Other limits for the broker, and other brokers: one that goes on as another program, one that is killed.
//!
//! What goes along is moved by hand, in the daemon's order: backends first, then those that announced themselves,
//! then the clients that have no answer yet.

use std::time::Duration;

use broker_core::backends::Registration;
use broker_core::broker::{Arrival, DefinitionCheck, InheritedBackend, Input, PeerIdentity, Reconfiguration};
use broker_core::handoff::BackendSlot;
use broker_core::hello::Tokens;
use broker_core::time::Monotonic;

use crate::clients::{Number, Speech, Stage};
use crate::disk::{Look, service_name, version_name};
use crate::history::Violation;
use crate::kernel::{Incarnation, Parent, Process};
use crate::offers::announcement_of;
use crate::plan;
use crate::starts::{Start, StartNumber};
use crate::world::{Event, WAY, World};

/// How long a broker waits until nothing is under way that cannot go along.
const SETTLES_WITHIN: Duration = Duration::from_secs(15);
/// How long a backend takes at most to notice that its broker is gone, and to look for the next one.
const COMES_BACK: Duration = Duration::from_secs(2);

impl World<'_> {
    /// Somebody edits the limits, and the broker is told.
    pub(crate) fn reconfigure(&mut self) {
        if self.drains_by.is_some() {
            return;
        }
        let keep = self.chance.percent(50);
        let drawn = plan::config(&mut self.chance, keep);
        let config = &mut self.plan.config;
        config.hello.rate_limit = drawn.hello.rate_limit;
        config.connections = drawn.connections;
        config.on_exit = drawn.on_exit;
        config.drain = Duration::from_millis(self.chance.between(0, 20_000));
        self.ledger.limited_to(config.hello.rate_limit);
        self.registrations = self.named();
        let config = &self.plan.config;
        let new = Reconfiguration {
            rate_limit: config.hello.rate_limit,
            connections: config.connections,
            drain: config.drain,
            on_exit: config.on_exit,
            registrations: self.registrations.clone(),
        };
        self.tell(Input::Reconfigured(new));
    }

    /// Some of the backends that nobody has started are named in the file, and some that are not there.
    fn named(&mut self) -> Vec<Registration> {
        let mut named: Vec<Registration> = Vec::new();
        let processes: Vec<Process> = self.kernel.all().map(|(_, process)| process.clone()).collect();
        for process in processes.into_iter().filter(|process| matches!(process.parent, Parent::Nobody)) {
            if !self.chance.percent(30) {
                continue;
            }
            let is_there = self.chance.percent(80);
            let endpoint = if is_there { process.endpoint } else { "/run/nobody".to_owned() };
            let names = (service_name(process.service).parse(), version_name(process.version).parse());
            if let (Ok(service), Ok(version)) = names
                && named.iter().all(|other| (&other.service, &other.version) != (&service, &version))
            {
                named.push(Registration { service, version, endpoint, handoff_endpoint: None });
            }
        }
        named
    }

    /// The broker is asked to go on as another program: it waits until nothing is under way that cannot go along.
    pub(crate) fn upgrade(&mut self) {
        if self.drains_by.is_none() && !std::mem::replace(&mut self.is_upgrading, true) {
            self.broker.set_tokens(Tokens::Withheld);
            let gives_up = self.now.monotonic.saturating_add(SETTLES_WITHIN);
            self.enter_within(WAY, Event::Succeed(self.reign, gives_up));
        }
    }

    /// It does, or waits a little longer, or gives up.
    pub(crate) fn succeed(&mut self, gives_up: Monotonic) -> Result<(), Violation> {
        if self.drains_by.is_some() || self.now.monotonic >= gives_up {
            self.broker.set_tokens(Tokens::Issued);
            self.is_upgrading = false;
            return Ok(());
        }
        if !self.broker.is_settled() || !self.parked.is_empty() {
            self.enter_after(WAY, Event::Succeed(self.reign, gives_up));
            return Ok(());
        }
        let estate = self.broker.estate();
        let bequests = self.broker.bequests();
        self.nobody_is_forgotten(&bequests)?;
        self.history.succeeded();
        self.enthrone();
        self.ledger.begins_anew(self.now);
        self.kernel.nobody_watches();
        let controls = std::mem::take(&mut self.controls);
        self.broker.take_over(self.now, &estate);
        // By the slots of the former broker, before the first one has a new one.
        let start_of = |slot| self.starts.iter().find(|(_, start)| start.order.slot == slot);
        let bequests = bequests.into_iter().filter_map(|(slot, left)| Some((*start_of(slot)?.0, left)));
        for (number, inherited) in bequests.collect::<Vec<_>>() {
            self.inherit(number, inherited);
        }
        // What was adopted before is adopted again: it is written down.
        let adopted = std::mem::take(&mut self.adopted).into_values().collect();
        self.look_for_what_was_left(adopted);
        for incarnation in controls.into_values().map(|(_, incarnation)| incarnation) {
            self.resume_registered(incarnation);
        }
        self.clients_again()
    }

    /// Every process that the broker has made and that lives goes along.
    fn nobody_is_forgotten(&self, bequests: &[(BackendSlot, InheritedBackend)]) -> Result<(), Violation> {
        let is_left = |start: &&Start| {
            let lives = start.process.is_some_and(|process| self.kernel.get(process).is_some());
            lives && bequests.iter().all(|(slot, _)| *slot != start.order.slot)
        };
        match self.starts.values().find(is_left) {
            None => Ok(()),
            Some(start) => {
                let what = format!("{:?} lives and is not handed over", start.order.slot);
                Err(self.violated("one live backend per key", what))
            }
        }
    }

    fn inherit(&mut self, number: StartNumber, inherited: InheritedBackend) {
        let service = inherited.service.clone();
        let (pid, endpoint, is_ending) = (inherited.pid, inherited.endpoint.clone(), inherited.is_ending);
        let definition = self.definition_of(service.as_str());
        let slot = self.broker.inherit(self.now, inherited, definition);
        self.ledger.runs(slot, pid, endpoint);
        if let Some(start) = self.starts.get_mut(&number) {
            start.order.slot = slot;
            if let Some(incarnation) = start.process {
                self.resume_control(slot, incarnation);
            }
        }
        if is_ending {
            self.broker.end_inherited(self.now, slot);
        }
    }

    /// The control connection of a backend was never closed.
    fn resume_control(&mut self, slot: BackendSlot, incarnation: Incarnation) {
        let control = self.kernel.get(incarnation).and_then(|process| process.control);
        if let Some((control, announced)) = control {
            self.controls.insert(slot, (control, incarnation));
            self.tell(Input::ControlOpened { slot, control, announced });
        }
    }

    /// So that of a backend which has announced itself, which says again what it is.
    fn resume_registered(&mut self, incarnation: Incarnation) {
        let Some(process) = self.kernel.get(incarnation).cloned() else { return };
        if matches!(process.parent, Parent::Broker(_)) || process.control.is_none() {
            return;
        }
        let (peer, announcement) = announcement_of(&process);
        match self.broker.announced_before(peer, &announcement) {
            Ok(slot) => self.resume_control(slot, incarnation),
            Err(why) => {
                self.history.note(self.now, &why);
                self.loses_its_broker(incarnation);
            }
        }
    }

    /// A backend sees the end of its control connection, and looks for a broker again.
    fn loses_its_broker(&mut self, incarnation: Incarnation) {
        if let Some(process) = self.kernel.get_mut(incarnation) {
            process.control = None;
            if self.clients_to_come > 0 {
                self.enter_within(COMES_BACK, Event::DaemonConnects(incarnation));
            }
        }
    }

    /// Clients without an answer are let in again, and what they have said is read again.
    fn clients_again(&mut self) -> Result<(), Violation> {
        let numbers: Vec<Number> = self.connections.keys().copied().collect();
        for number in numbers {
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            let (peer, stage) = (connection.peer, std::mem::replace(&mut connection.stage, Stage::Reading));
            let (accepted, speech) = (connection.accepted, connection.speech.clone());
            if self.broker.connected(self.now, number.key(), PeerIdentity::Own(peer)) == Arrival::Drop {
                // There are more than may be, by now.
                if let Some(dropped) = self.connections.remove(&number) {
                    self.history.closed(dropped.replies);
                }
                continue;
            }
            // Whoever makes room for it is gone before the next one comes.
            self.carry_out_all()?;
            match (stage, speech) {
                (Stage::Checking | Stage::Waiting, _) => self.request(number)?,
                (Stage::Reading | Stage::Lent, Speech::Half(bytes)) => {
                    if let Err(over) = self.broker.buffers(number.key(), bytes) {
                        let reply = self.broker.over_quota(self.now, accepted, number.key(), over);
                        self.reply(number, reply)?;
                    }
                }
                (Stage::Reading | Stage::Lent, _) => {}
            }
        }
        Ok(())
    }

    /// The broker is killed. What it has started goes with it, or stays; another broker is there at once.
    pub(crate) fn crash(&mut self) -> Result<(), Violation> {
        if self.drains_by.is_some() {
            return Ok(());
        }
        self.enthrone();
        self.history.crashed();
        for connection in std::mem::take(&mut self.connections).into_values() {
            self.history.closed(connection.replies);
        }
        self.parked.clear();
        self.controls.clear();
        self.ledger.forgets_everything(self.now);
        let mut left: Vec<Incarnation> = std::mem::take(&mut self.adopted).into_values().collect();
        for start in std::mem::take(&mut self.starts).into_values() {
            let Some(incarnation) = start.process else { continue };
            match self.kernel.get_mut(incarnation).filter(|_| start.survives) {
                Some(process) => {
                    process.parent = Parent::Nobody;
                    // One that was not ready was not written down either; it lives, and nobody was told of it.
                    if start.told_ready {
                        left.push(incarnation);
                    }
                }
                // Nobody is there to be told.
                None => {
                    self.kernel.end(incarnation);
                    self.kernel.reap(incarnation);
                }
            }
        }
        self.kernel.nobody_watches();
        let orphans: Vec<Incarnation> = self.kernel.all().map(|(incarnation, _)| incarnation).collect();
        self.look_for_what_was_left(left);
        for incarnation in orphans {
            self.loses_its_broker(incarnation);
        }
        Ok(())
    }

    /// Backends that are written down: where they may be is known before anybody asks, and what is there a moment
    /// later.
    fn look_for_what_was_left(&mut self, left: Vec<Incarnation>) {
        for incarnation in left {
            let Some(process) = self.kernel.get(incarnation).cloned() else { continue };
            let definition = self.definition_of(&service_name(process.service));
            if let Some(slot) = self.expect(&process, definition) {
                self.enter_within(WAY, Event::LeftLookedAt(self.reign, slot, incarnation));
            }
        }
    }

    fn expect(&mut self, process: &Process, definition: DefinitionCheck) -> Option<BackendSlot> {
        let service = service_name(process.service).parse().ok()?;
        let version = version_name(process.version).parse().ok()?;
        self.broker.expect_adoption(self.now, &service, &version, definition)
    }

    /// What was left is there, and is taken over, or is gone.
    pub(crate) fn left_looked_at(&mut self, slot: BackendSlot, incarnation: Incarnation) {
        let outcome = match self.kernel.get_mut(incarnation) {
            Some(process) => {
                process.watched_in.push(slot);
                Ok((process.pid, process.endpoint.clone()))
            }
            None => Err("it has ended".to_owned()),
        };
        if outcome.is_ok() {
            self.adopted.insert(slot, incarnation);
        }
        self.tell(Input::Adopted { slot, outcome });
    }

    /// A definition as a broker that has none yet reads it.
    fn definition_of(&mut self, service: &str) -> DefinitionCheck {
        let at = (0..self.plan.services).find(|at| service_name(*at) == service).unwrap_or(usize::MAX);
        let (Look::Done(check) | Look::Reading(check)) = self.disk.look(at, None);
        self.ledger.definition_read(service, &check);
        check
    }
}
