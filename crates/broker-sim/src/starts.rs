//! Starting backends, and their ends, as the daemon carries them out.

use std::sync::Arc;
use std::time::Duration;

use broker_core::backends::Origin;
use broker_core::broker::{BackendsOnExit, Exit, Input, StartOrder, StopSignal};
use broker_core::handoff::BackendSlot;
use broker_core::services::Activation;
use broker_protocol::{SpawnFailure, SpawnStage};

use crate::disk::{service_name, version_name};
use crate::history::Violation;
use crate::kernel::{Incarnation, Parent, Process};
use crate::world::{Event, WAY, World};

/// Longest that a backend takes to be ready where nothing goes wrong.
const USUAL_START: Duration = Duration::from_millis(60);
/// Longest that a backend takes to end once it was asked to.
const USUAL_END: Duration = Duration::from_millis(500);
/// Longest that a backend lives where it does not live for ever.
const SHORT_LIFE: Duration = Duration::from_secs(20);

/// A start, unlike any other there ever was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StartNumber(u64);

/// What comes next in a start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Its executable is found, or not.
    Resolve,
    /// The process is made, or not.
    Exec,
    /// The process answers its probe.
    Ready,
    /// It should have answered by now.
    Overdue,
}

/// A start that is under way, and its process until its end is told.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) order: StartOrder,
    /// Told to die before it was born.
    is_doomed: bool,
    /// Whether its process outlives the broker, as it was configured when that began.
    pub(crate) survives: bool,
    pub(crate) process: Option<Incarnation>,
    pub(crate) told_ready: bool,
}

impl World<'_> {
    pub(crate) fn start(&mut self, order: StartOrder) -> Result<(), Violation> {
        self.check_start(&order)?;
        let number = StartNumber(self.number());
        let survives = self.plan.config.on_exit == BackendsOnExit::Keep;
        self.starts
            .insert(number, Start { order, is_doomed: false, survives, process: None, told_ready: false });
        self.enter_within(WAY, Event::Start(number, Step::Resolve));
        Ok(())
    }

    pub(crate) fn start_step(&mut self, number: StartNumber, step: Step) {
        match step {
            Step::Resolve => {
                if self.fails() {
                    self.start_failed(number, SpawnFailure::new(SpawnStage::Resolve, "it is not there"));
                } else {
                    self.enter_within(WAY, Event::Start(number, Step::Exec));
                }
            }
            Step::Exec => self.exec(number),
            Step::Ready => self.ready(number),
            Step::Overdue => {
                if let Some(start) = self.starts.get(&number)
                    && !start.told_ready
                    && let Some(process) = start.process
                {
                    self.process_dies(process, Exit::Signal(9));
                }
            }
        }
    }

    fn fails(&mut self) -> bool {
        // Each start can fail in three places.
        self.chance.percent(self.plan.faults.failing_starts / 3)
    }

    fn exec(&mut self, number: StartNumber) {
        let Some(start) = self.starts.get(&number) else { return };
        let (order, is_doomed, survives) = (start.order.clone(), start.is_doomed, start.survives);
        if self.chance.percent(self.plan.faults.descriptor_shortage) {
            self.tell(Input::DescriptorPressure);
            return self.start_failed(number, SpawnFailure::new(SpawnStage::Exec, "too many open files"));
        }
        if self.fails() {
            return self.start_failed(number, SpawnFailure::new(SpawnStage::Exec, "no memory"));
        }
        let endpoint = format!("/run/backend-{}", self.number());
        let incarnation = self.fork(Parent::Broker(number), &order, endpoint.clone());
        if let Some(start) = self.starts.get_mut(&number) {
            start.process = Some(incarnation);
        }
        let pid = self.kernel.get(incarnation).map_or(0, |process| process.pid);
        if is_doomed {
            self.process_dies(incarnation, Exit::Signal(9));
        }
        match order.definition.settings().activation {
            Activation::Bind => {}
            // Nobody is told of it before it is written down.
            Activation::ListenFds if survives => {}
            Activation::ListenFds => {
                self.tell(Input::Listening { slot: order.slot, pid, endpoint });
            }
        }
        let hangs = self.chance.percent(self.plan.faults.hanging_starts);
        let takes = if hangs { order.definition.settings().spawn_timeout * 2 } else { USUAL_START };
        self.enter_within(takes, Event::Start(number, Step::Ready));
        self.enter_after(order.definition.settings().spawn_timeout, Event::Start(number, Step::Overdue));
        if self.chance.percent(70) {
            self.enter_within(takes * 2, Event::Announce(incarnation));
        }
        if self.fails() {
            self.enter_within(USUAL_START, Event::Death(incarnation, Exit::Status(1)));
        } else if self.chance.percent(self.plan.faults.deaths) {
            self.enter_within(SHORT_LIFE, Event::Death(incarnation, Exit::Signal(11)));
        }
    }

    fn fork(&mut self, parent: Parent, order: &StartOrder, endpoint: String) -> Incarnation {
        let is_stubborn = self.chance.percent(self.plan.faults.stubbornness);
        let service =
            (0..=self.plan.services).find(|at| service_name(*at) == order.definition.service().as_str());
        let version = (0..=self.plan.versions).find(|at| version_name(*at) == order.version.to_string());
        self.kernel.fork(|pid| Process {
            pid,
            parent,
            service: service.unwrap_or(usize::MAX),
            version: version.unwrap_or(usize::MAX),
            endpoint,
            control: None,
            watched_in: Vec::new(),
            is_stubborn,
        })
    }

    fn ready(&mut self, number: StartNumber) {
        let Some(start) = self.starts.get_mut(&number) else { return };
        let Some(process) = start.process.and_then(|process| self.kernel.get(process)) else { return };
        if !std::mem::replace(&mut start.told_ready, true) {
            let (slot, pid, endpoint) = (start.order.slot, process.pid, process.endpoint.clone());
            self.tell(Input::Started { slot, pid, endpoint });
        }
    }

    fn start_failed(&mut self, number: StartNumber, failure: SpawnFailure) {
        if let Some(start) = self.starts.remove(&number) {
            self.tell(Input::StartFailed { slot: start.order.slot, failure });
        }
    }

    /// A process ends; whoever made it, or watches it, is told a moment later.
    pub(crate) fn process_dies(&mut self, incarnation: Incarnation, exit: Exit) {
        let Some(process) = self.kernel.end(incarnation) else { return };
        if let Some((control, _)) = process.control {
            self.enter_within(WAY, Event::ControlEnds(control));
        }
        self.enter_within(WAY, Event::Reaped(incarnation, exit));
    }

    /// The broker hears of a process's end, wherever it watches it.
    pub(crate) fn reaped(&mut self, incarnation: Incarnation, exit: Exit) {
        let Some(process) = self.kernel.reap(incarnation) else { return };
        let was_adopted = self.adopted.values().any(|adopted| *adopted == incarnation);
        self.adopted.retain(|_, adopted| *adopted != incarnation);
        if let Parent::Broker(number) = process.parent {
            if let Some((control, _)) = process.control {
                self.control_ends(control);
            }
            if let Some(start) = self.starts.remove(&number) {
                let slot = start.order.slot;
                self.tell(if start.told_ready {
                    Input::Exited { slot, pid: process.pid, origin: Origin::Started, exit }
                } else {
                    let failure = SpawnFailure::new(SpawnStage::Ready, "it ended");
                    Input::StartFailed { slot, failure }
                });
            }
        }
        for slot in process.watched_in {
            let origin = if was_adopted { Origin::Adopted } else { Origin::Registered };
            self.tell_within(WAY, Input::Exited { slot, pid: process.pid, origin, exit: Exit::Unknown });
        }
    }

    /// The broker signals a backend that it has started.
    pub(crate) fn signal(&mut self, slot: BackendSlot, signal: StopSignal) {
        let started = self.starts.values_mut().find(|start| start.order.slot == slot);
        let incarnation = match (started, self.adopted.get(&slot)) {
            (Some(Start { process: Some(process), .. }), _) => *process,
            (None, Some(process)) => *process,
            (Some(start), _) => {
                start.is_doomed = true;
                return;
            }
            (None, None) => return,
        };
        let is_stubborn = self.kernel.get(incarnation).is_some_and(|process| process.is_stubborn);
        match signal {
            StopSignal::Kill => self.enter_within(WAY, Event::Death(incarnation, Exit::Signal(9))),
            StopSignal::Terminate if is_stubborn => {}
            StopSignal::Terminate => self.enter_within(USUAL_END, Event::Death(incarnation, Exit::Status(0))),
        }
    }

    /// A backend that nobody has started runs, and will announce itself.
    pub(crate) fn daemon_appears(&mut self) {
        let (service, version) =
            (self.chance.below(self.plan.services), self.chance.below(self.plan.versions));
        let endpoint = format!("/run/daemon-{}", self.number());
        let is_stubborn = false;
        let incarnation = self.kernel.fork(|pid| Process {
            pid,
            parent: Parent::Nobody,
            service,
            version,
            endpoint,
            control: None,
            watched_in: Vec::new(),
            is_stubborn,
        });
        self.enter_within(self.plan.gap * 4, Event::DaemonConnects(incarnation));
        if self.chance.percent(self.plan.faults.deaths) {
            self.enter_within(SHORT_LIFE, Event::Death(incarnation, Exit::Unknown));
        }
    }

    /// A registered endpoint was asked who serves it; from now on that process is watched.
    pub(crate) fn probe_answered(&mut self, slot: BackendSlot, endpoint: &str) {
        let serving = self.kernel.serving(endpoint);
        let outcome = match serving.and_then(|incarnation| self.kernel.get_mut(incarnation)) {
            Some(process) => {
                process.watched_in.push(slot);
                Ok(process.pid)
            }
            None => Err("nobody listens there".to_owned()),
        };
        self.tell(Input::Probed { slot, outcome });
    }
}

/// Whether two orders are for the same backend.
pub(crate) fn is_same_backend(left: &StartOrder, right: &StartOrder) -> bool {
    Arc::ptr_eq(&left.definition, &right.definition) && left.version == right.version
        || (left.definition.service(), &left.version) == (right.definition.service(), &right.version)
}
