//! Backends as a shell knows them: processes it started, endpoints it was told of, control connections.

use std::collections::HashMap;

use broker_core::admission::PeerKey;
use broker_core::backends::{
    Backend, ControlKey, ControlState, Origin, Registration, SPAWN_ATTEMPTS, SPAWN_WINDOW,
};
use broker_core::broker::{Action, Broker, Exit, Input, StartOrder};
use broker_core::handoff::BackendSlot;
use broker_core::time::{Monotonic, Now};
use broker_protocol::control::Announcement;
use broker_protocol::{Capabilities, ServiceName, SpawnFailure, SpawnStage, Version};

use super::script::{Event, Hello, Index};
use super::world::{Flaky, peer_of};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It was started, and nothing is known of it yet.
    Starting,
    /// It takes connections, and has not said who it is.
    Listening,
    Running,
    /// It was not started here.
    Registered,
}

#[derive(Clone, Debug)]
struct Process {
    slot: BackendSlot,
    pid: u32,
    endpoint: String,
    stage: Stage,
}

/// Starts of one version of a service since the last that succeeded, in one window.
#[derive(Debug)]
struct Attempts {
    began: Monotonic,
    count: u32,
}

/// Offers to a backend that may never be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    pub(super) slot: BackendSlot,
    /// Whether the broker has given them up for sure.
    pub(super) is_certain: bool,
}

/// What a shell knows.
#[derive(Debug, Default)]
pub(super) struct Processes {
    alive: Vec<Process>,
    next_pid: u32,
    next_control: u64,
    probes: Vec<(BackendSlot, String)>,
    looks: Vec<(BackendSlot, String)>,
    quiesces: Vec<(BackendSlot, Option<u32>)>,
    controls: Vec<(BackendSlot, ControlKey)>,
    attempts: HashMap<(ServiceName, Version), Attempts>,
}

fn nth<T>(all: &[T], index: Index) -> Option<usize> {
    (!all.is_empty()).then(|| usize::from(index) % all.len())
}

impl Processes {
    /// An operator tells of a backend that runs already.
    pub(super) fn register(&mut self, broker: &mut Broker<Flaky>, takes_offers: bool) {
        broker.register(Registration {
            service: Hello::SERVICES[1].parse().expect("a name"),
            version: Hello::VERSIONS[0].parse().expect("a version"),
            endpoint: "/run/registered.sock".to_owned(),
            handoff_endpoint: takes_offers.then(|| "/run/offers.sock".to_owned()),
        });
    }

    /// Tells the broker of an event, and says whose offers may be lost by it.
    pub(super) fn happens(
        &mut self,
        event: &Event<'_>,
        broker: &mut Broker<Flaky>,
        now: Now,
    ) -> Option<Lost> {
        match *event {
            Event::Listens { process } => {
                if let Some(process) = self.nth_in(process, &[Stage::Starting]) {
                    process.stage = Stage::Listening;
                    let Process { slot, pid, endpoint, .. } = process.clone();
                    broker.handle(now, Input::Listening { slot, pid, endpoint });
                }
            }
            Event::Starts { process } => {
                if let Some(process) = self.nth_in(process, &[Stage::Starting, Stage::Listening]) {
                    process.stage = Stage::Running;
                    let Process { slot, pid, endpoint, .. } = process.clone();
                    if let Some(backend) = broker.backend(slot) {
                        self.attempts.remove(&(backend.service().clone(), backend.version().clone()));
                    }
                    broker.handle(now, Input::Started { slot, pid, endpoint });
                }
            }
            Event::FailsToStart { process } => {
                if let Some(process) = self.take(process, &[Stage::Starting, Stage::Listening]) {
                    let failure = SpawnFailure {
                        exit_status: Some(1),
                        ..SpawnFailure::new(SpawnStage::Ready, "it exited with status 1")
                    };
                    broker.handle(now, Input::StartFailed { slot: process.slot, failure });
                    return Some(Lost { slot: process.slot, is_certain: false });
                }
            }
            Event::Exits { process, exit } => {
                if let Some(Process { slot, pid, stage, .. }) =
                    self.take(process, &[Stage::Running, Stage::Registered])
                {
                    let is_registered = stage == Stage::Registered;
                    let origin = if is_registered { Origin::Registered } else { Origin::Started };
                    broker.handle(now, Input::Exited { slot, pid, origin, exit });
                    return Some(Lost { slot, is_certain: true });
                }
            }
            Event::ExitsAgain { slot } => {
                let slot = BackendSlot::new(u32::from(slot % 4));
                broker.handle(
                    now,
                    Input::Exited { slot, pid: u32::MAX, origin: Origin::Registered, exit: Exit::Unknown },
                );
            }
            Event::Probed { probe, is_there } => self.probed(probe, is_there, broker, now),
            Event::Looked { look, is_in_use } => {
                if let Some(at) = nth(&self.looks, look) {
                    let (slot, endpoint) = self.looks.swap_remove(at);
                    broker.handle(now, Input::Looked { slot, endpoint, is_in_use });
                }
            }
            Event::Quiesced { quiesce } => {
                if let Some(at) = nth(&self.quiesces, quiesce) {
                    let (slot, pid) = self.quiesces.swap_remove(at);
                    broker.handle(now, Input::Quiesced { slot, pid });
                }
            }
            Event::OpensControl { process, announced } => {
                let ours = [Stage::Starting, Stage::Listening, Stage::Running];
                if let Some(slot) = self.nth_in(process, &ours).map(|process| process.slot)
                    && self.controls.iter().all(|(other, _)| *other != slot)
                {
                    self.open_control(slot, announced, broker, now);
                }
            }
            Event::Announces { peer, version, announced } => {
                let announcement = Announcement {
                    service_name: Hello::SERVICES[usize::from(version >> 2 & 1)].to_owned(),
                    service_version: Hello::VERSIONS[usize::from(version & 3)].to_owned(),
                    endpoint: format!("/run/announced-{}.sock", peer % 4),
                    capabilities: announced.bits(),
                };
                self.announce(broker, now, peer_of(peer), &announcement);
            }
            Event::ClosesControl { control } => {
                if let Some(at) = nth(&self.controls, control) {
                    let (slot, control) = self.controls.swap_remove(at);
                    let state = |broker: &Broker<Flaky>| broker.backend(slot).map(Backend::control);
                    let had_one = state(broker).is_some_and(|state| state != ControlState::None);
                    broker.handle(now, Input::ControlClosed { slot, control });
                    self.forget_registered(slot, broker);
                    let is_certain = had_one && state(broker).is_none_or(|state| state == ControlState::None);
                    return Some(Lost { slot, is_certain });
                }
            }
            Event::FallsSilent { control } => {
                if let Some(at) = nth(&self.controls, control) {
                    broker.handle(now, Input::ControlSilent { slot: self.controls[at].0 });
                }
            }
            Event::Speaks { control } => {
                if let Some(at) = nth(&self.controls, control) {
                    broker.spoke(self.controls[at].0);
                }
            }
            _ => {}
        }
        None
    }

    fn at(&self, index: Index, stages: &[Stage]) -> Option<usize> {
        let found = self.alive.iter().enumerate().filter(|(_, process)| stages.contains(&process.stage));
        let found: Vec<_> = found.map(|(at, _)| at).collect();
        Some(found[nth(&found, index)?])
    }

    fn nth_in(&mut self, index: Index, stages: &[Stage]) -> Option<&mut Process> {
        let at = self.at(index, stages)?;
        self.alive.get_mut(at)
    }

    fn take(&mut self, index: Index, stages: &[Stage]) -> Option<Process> {
        let at = self.at(index, stages)?;
        Some(self.alive.remove(at))
    }

    fn probed(&mut self, probe: Index, is_there: bool, broker: &mut Broker<Flaky>, now: Now) {
        let Some(at) = nth(&self.probes, probe) else { return };
        let (slot, endpoint) = self.probes.swap_remove(at);
        // Who announces itself is one of the peers, and answers there; others have pids of their own.
        let announced = endpoint.strip_prefix("/run/announced-").and_then(|rest| rest.strip_suffix(".sock"));
        let announced =
            announced.and_then(|number| number.parse::<u8>().ok()).and_then(|peer| peer_of(peer).pid());
        self.next_pid += 1;
        let pid = announced.map_or(self.next_pid + 1_000, std::num::NonZeroU32::get);
        let outcome = if is_there { Ok(pid) } else { Err("nobody answers".to_owned()) };
        // It is there before the broker says so to those who wait.
        self.alive.push(Process { slot, pid, endpoint: endpoint.clone(), stage: Stage::Registered });
        broker.handle(now, Input::Probed { slot, outcome });
        let live = broker.backend(slot).and_then(|backend| backend.state().live());
        if !live.is_some_and(|live| live.pid == Some(pid) && live.endpoint == endpoint) {
            self.alive.pop();
        }
    }

    fn open_control(
        &mut self,
        slot: BackendSlot,
        announced: Capabilities,
        broker: &mut Broker<Flaky>,
        now: Now,
    ) {
        self.next_control += 1;
        let control = ControlKey::new(self.next_control);
        self.controls.push((slot, control));
        broker.handle(now, Input::ControlOpened { slot, control, announced });
    }

    /// A backend that runs already announces itself.
    pub(super) fn announce(
        &mut self,
        broker: &mut Broker<Flaky>,
        now: Now,
        peer: PeerKey,
        announcement: &Announcement,
    ) {
        if let Ok(slot) = broker.announced(now, peer, announcement) {
            assert!(broker.is_serving() && peer.pid().is_some() && announcement.key().is_ok());
            let taken = self.controls.iter().any(|(other, _)| *other == slot);
            assert!(!taken, "a backend that lives is not pushed aside");
            self.open_control(slot, Capabilities::from_bits_retain(announcement.capabilities), broker, now);
        }
    }

    /// What a process has registered itself goes with its control connection.
    fn forget_registered(&mut self, slot: BackendSlot, broker: &Broker<Flaky>) {
        let lives = broker.backend(slot).is_some_and(|backend| backend.state().live().is_some());
        self.alive.retain(|process| process.slot != slot || process.stage != Stage::Registered || lives);
    }

    /// The broker wants something done about a backend.
    pub(super) fn is_wanted(&mut self, action: Action, broker: &Broker<Flaky>, now: Now) {
        match action {
            Action::Start(order) => self.start(&order, broker, now),
            Action::Probe { slot, endpoint } => self.probes.push((slot, endpoint)),
            Action::Look { slot, endpoint } => {
                let is_it = |process: &Process| process.slot == slot && process.endpoint == endpoint;
                assert!(self.alive.iter().any(is_it), "a backend that lives is looked at");
                self.looks.push((slot, endpoint));
            }
            Action::Quiesce { slot, pid, .. } => {
                self.is_ours(slot);
                self.quiesces.push((slot, pid));
            }
            Action::Signal { slot, .. } => self.is_ours(slot),
            Action::EndControl { slot, control } => {
                let at = self.controls.iter().position(|open| *open == (slot, control));
                self.controls.swap_remove(at.expect("a control connection that is open is ended"));
            }
            Action::Reply { .. }
            | Action::Evict { .. }
            | Action::Abandon { .. }
            | Action::Emit(_)
            | Action::Stop => {}
        }
    }

    fn start(&mut self, order: &StartOrder, broker: &Broker<Flaky>, now: Now) {
        let slot = order.slot;
        assert!(broker.is_serving(), "nothing is started by a broker that ends");
        let other = self.alive.iter().find(|process| process.slot == slot);
        assert!(other.is_none(), "there is one already: {other:?}");
        assert!(order.definition.policy().check(&order.version).is_ok() || broker.backend(slot).is_some());
        let key = (order.definition.service().clone(), order.version.clone());
        let attempts = self.attempts.entry(key).or_insert(Attempts { began: now.monotonic, count: 0 });
        if now.monotonic.duration_since(attempts.began) >= SPAWN_WINDOW {
            *attempts = Attempts { began: now.monotonic, count: 0 };
        }
        attempts.count += 1;
        assert!(attempts.count <= SPAWN_ATTEMPTS, "its budget is spent");
        self.next_pid += 1;
        let pid = self.next_pid + 1_000;
        let endpoint = format!("/run/be-{pid}.sock");
        self.alive.push(Process { slot, pid, endpoint, stage: Stage::Starting });
    }

    fn is_ours(&self, slot: BackendSlot) {
        let is_it = |process: &Process| process.slot == slot && process.stage != Stage::Registered;
        assert!(self.alive.iter().any(is_it), "what was started here is told to end, and nothing else");
    }

    /// A client was sent to this endpoint.
    pub(super) fn is_there(&self, endpoint: &str) {
        let found = self.alive.iter().find(|process| process.endpoint == endpoint);
        let stage = found.map(|process| process.stage);
        assert!(
            stage.is_some_and(|stage| stage != Stage::Starting),
            "a client is sent to {endpoint}: {stage:?}"
        );
    }
}
