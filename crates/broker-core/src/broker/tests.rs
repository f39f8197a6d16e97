//! The state machine, driven through time by hand.

mod accounts;
mod adoption;
mod handoffs;
mod reconfiguration;
mod registration;
mod succession;

use std::sync::Arc;
use std::time::Duration;

use broker_protocol::prost::Message;
use broker_protocol::wire::{ErrorCode, EventKind, Frame, Hello, ServiceDefinition};
use broker_protocol::{
    BrokerInstance, Capabilities, PayloadProtocol, Refusal, SpawnFailure, SpawnStage, Version,
};

use super::*;
use crate::admission::{ConnectionLimits, PeerKey};
use crate::entropy::SeededEntropy;
use crate::metrics::HelloOutcome;
use crate::services::{FileStamp, absolute_path};
use crate::time::UnixMillis;

/// A broker, its clock and everything it asked for so far.
struct World {
    broker: Broker<SeededEntropy>,
    now: Now,
    /// Who connects next.
    peer: PeerKey,
    next_connection: u64,
    definition: ServiceDefinition,
    stamp: FileStamp,
    acted: Vec<Action>,
}

const PEER: u32 = 4242;

fn peer() -> PeerKey {
    PeerKey::new(1000, Some(PEER))
}

impl World {
    fn new() -> Self {
        Self::with(BrokerConfig::new(BrokerInstance::Named("test".parse().unwrap())))
    }

    fn with(mut config: BrokerConfig) -> Self {
        config.hello.domain = crate::services::TrustDomain::Every;
        Self {
            broker: Broker::new(config, SeededEntropy::new(3)),
            now: Now { monotonic: Monotonic::from_nanos(1), unix: UnixMillis::new(1_700_000_000_000) },
            peer: peer(),
            next_connection: 0,
            definition: ServiceDefinition {
                service_name: "cache".into(),
                binary_path: absolute_path("/bin/cached"),
                ..ServiceDefinition::default()
            },
            stamp: FileStamp { modified_ns: 1, size: 1, inode: 1 },
            acted: Vec::new(),
        }
    }

    fn with_label(mut self, label: &str, value: &str) -> Self {
        self.definition.labels.insert(label.into(), value.into());
        self
    }

    fn pass(&mut self, duration: Duration) {
        let target = self.now.monotonic.saturating_add(duration);
        while let Some(due) = self.broker.next_timeout().filter(|due| *due <= target) {
            self.set_clock(due);
            self.broker.handle_timeout(self.now);
            self.collect();
        }
        self.set_clock(target);
    }

    fn set_clock(&mut self, target: Monotonic) {
        let passed = target.duration_since(self.now.monotonic);
        self.now.unix = UnixMillis::new(self.now.unix.get() + passed.as_millis() as u64);
        self.now.monotonic = target;
    }

    fn collect(&mut self) {
        while let Some(action) = self.broker.poll_action() {
            self.acted.push(action);
        }
    }

    fn tell(&mut self, input: Input) {
        self.broker.handle(self.now, input);
        self.collect();
    }

    fn connect(&mut self) -> ConnectionKey {
        self.next_connection += 1;
        let connection = ConnectionKey::new(self.next_connection);
        assert_eq!(self.broker.connected(self.now, connection, PeerIdentity::Own(self.peer)), Arrival::Serve);
        connection
    }

    /// Connects and says Hello; the reply, unless it has to wait.
    fn hello(&mut self, version: &str) -> (ConnectionKey, Option<Reply>) {
        self.hello_until(version, 0)
    }

    fn hello_until(&mut self, version: &str, deadline_unix_ms: u64) -> (ConnectionKey, Option<Reply>) {
        self.hello_of(version, deadline_unix_ms, Capabilities::empty())
    }

    fn hello_of(
        &mut self,
        version: &str,
        deadline_unix_ms: u64,
        capabilities: Capabilities,
    ) -> (ConnectionKey, Option<Reply>) {
        let connection = self.connect();
        let hello = Hello {
            client_min_protocol: 1,
            client_max_protocol: 1,
            service_name: "cache".into(),
            wanted_version: version.into(),
            client_capabilities: capabilities.bits(),
            ..Hello::default()
        };
        let frame = Frame {
            deadline_unix_ms,
            traceparent: "00-trace".into(),
            ..Frame::request(PayloadProtocol::CONTROL, 5, hello.encode_to_vec())
        };
        let body = frame.encode_to_vec();
        let admitted =
            match self.broker.first_frame(self.now, self.now.monotonic, connection, self.peer, &body) {
                FirstFrame::Hello(admitted) => admitted,
                FirstFrame::Refused(_, reply) => {
                    self.collect();
                    return (connection, Some(reply));
                }
                FirstFrame::Admin(..) | FirstFrame::Announcement(..) => panic!("a Hello is neither"),
            };
        let check = if self.broker.stamp("cache") == Some(self.stamp) {
            DefinitionCheck::Unchanged
        } else {
            DefinitionCheck::Loaded(Arc::new(Definition::new(&self.definition).unwrap()), self.stamp)
        };
        let decision = self.broker.hello(self.now, self.now.monotonic, connection, &admitted, check);
        self.collect();
        match decision {
            Decision::Reply(reply) => (connection, Some(reply)),
            Decision::Wait => (connection, None),
        }
    }

    /// Says Hello with this definition; `meanwhile` happens while it is looked at.
    fn hello_with(
        &mut self,
        check: DefinitionCheck,
        meanwhile: impl FnOnce(&mut Broker<SeededEntropy>, Now),
    ) -> Decision {
        let connection = self.connect();
        let hello = Hello {
            client_min_protocol: 1,
            client_max_protocol: 1,
            service_name: "cache".into(),
            wanted_version: "1.0.0".into(),
            ..Hello::default()
        };
        let body = Frame::request(PayloadProtocol::CONTROL, 5, hello.encode_to_vec()).encode_to_vec();
        let now = self.now;
        let FirstFrame::Hello(admitted) =
            self.broker.first_frame(now, now.monotonic, connection, self.peer, &body)
        else {
            panic!("a good Hello is admitted");
        };
        meanwhile(&mut self.broker, now);
        let decision = self.broker.hello(now, now.monotonic, connection, &admitted, check);
        self.collect();
        decision
    }

    fn starts(&mut self) -> Vec<StartOrder> {
        self.acted
            .iter()
            .filter_map(|action| if let Action::Start(order) = action { Some(order.clone()) } else { None })
            .collect()
    }

    fn started(&mut self, slot: BackendSlot, pid: u32) {
        self.tell(Input::Started { slot, pid, endpoint: format!("/run/be-{pid}.sock") });
    }

    fn reply_to(&self, connection: ConnectionKey) -> Option<&Reply> {
        let mut replies = self.acted.iter().filter_map(|action| match action {
            Action::Reply { connection: to, reply } if *to == connection => Some(reply),
            _ => None,
        });
        let reply = replies.next();
        assert!(replies.next().is_none(), "one reply for one Hello");
        reply
    }

    /// The backends whose connections were to be looked for.
    fn looks(&self) -> Vec<BackendSlot> {
        let looks = self.acted.iter().filter_map(|action| match action {
            Action::Look { slot, endpoint } => Some((*slot, endpoint)),
            _ => None,
        });
        looks
            .inspect(|(_, endpoint)| assert!(endpoint.starts_with("/run/be-")))
            .map(|(slot, _)| slot)
            .collect()
    }

    /// The process in a slot has ended.
    fn exited(&mut self, slot: BackendSlot, exit: Exit) {
        let live = self.broker.backend(slot).and_then(|backend| backend.state().live());
        let (pid, origin) = live.map_or((0, Origin::Started), |live| (live.pid.unwrap_or(0), live.origin));
        self.tell(Input::Exited { slot, pid, origin, exit });
    }

    fn looked(&mut self, slot: BackendSlot, pid: u32, is_in_use: bool) {
        self.tell(Input::Looked { slot, endpoint: format!("/run/be-{pid}.sock"), is_in_use });
    }

    fn signals(&self) -> Vec<StopSignal> {
        self.acted
            .iter()
            .filter_map(
                |action| if let Action::Signal { signal, .. } = action { Some(*signal) } else { None },
            )
            .collect()
    }

    fn events(&self) -> Vec<EventKind> {
        self.broker.recent_events().map(|event| event.get().kind()).collect()
    }

    fn stopped(&self) -> bool {
        self.acted.iter().any(|action| matches!(action, Action::Stop))
    }

    /// A running backend of 1.0.0.
    fn running() -> (Self, BackendSlot) {
        Self::new().run()
    }

    fn run(mut self) -> (Self, BackendSlot) {
        self.hello("1.0.0");
        let slot = self.starts()[0].slot;
        self.started(slot, 77);
        (self, slot)
    }
}

fn endpoint(reply: Option<&Reply>) -> String {
    match reply {
        Some(Reply::Negotiated(negotiation)) => negotiation.route.endpoint().to_owned(),
        other => panic!("expected an agreement, got {other:?}"),
    }
}

fn refusal(reply: Option<&Reply>) -> Refusal {
    match reply {
        Some(Reply::Refused(refusal)) => refusal.clone(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn failure() -> SpawnFailure {
    SpawnFailure { exit_status: Some(1), ..SpawnFailure::new(SpawnStage::Ready, "it exited with status 1") }
}

#[test]
fn a_hello_starts_a_backend_and_the_next_one_uses_it() {
    let mut world = World::new();
    let (first, reply) = world.hello("1.0.0");
    assert!(reply.is_none(), "it waits");
    let order = &world.starts()[0];
    assert_eq!((order.version.to_string(), &order.traceparent[..]), ("1.0.0".into(), "00-trace"));

    let slot = order.slot;
    world.started(slot, 77);
    assert_eq!(endpoint(world.reply_to(first)), "/run/be-77.sock");
    let (_, second) = world.hello("1.0.0");
    assert_eq!(endpoint(second.as_ref()), "/run/be-77.sock");
    assert_eq!(world.starts().len(), 1);
    assert_eq!(
        world.events(),
        [
            EventKind::ServiceDefLoaded,
            EventKind::SpawnAttempt,
            EventKind::Spawn,
            EventKind::HelloAccepted,
            EventKind::HelloAccepted
        ]
    );
}

#[test]
fn a_backend_that_listens_from_the_start_is_used_at_once_and_pays_for_its_start_until_it_answers() {
    let mut world = World::new();
    let (first, _) = world.hello("1.0.0");
    let slot = world.starts()[0].slot;
    world.tell(Input::Listening { slot, pid: 77, endpoint: "/run/be-77.sock".into() });
    assert_eq!(endpoint(world.reply_to(first)), "/run/be-77.sock");
    assert_eq!(world.broker.backends()[0].budget().remaining(world.now.monotonic), 2);
    assert!(!world.events().contains(&EventKind::Spawn));
    world.started(slot, 77);
    assert_eq!(world.broker.backends()[0].budget().remaining(world.now.monotonic), 3);
    assert!(world.events().contains(&EventKind::Spawn));
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/be-77.sock");
}

#[test]
fn a_backend_that_listened_and_never_answered_is_a_failed_start_that_is_tried_three_times() {
    let mut world = World::new();
    for attempt in 0..3 {
        let (connection, _) = world.hello("1.0.0");
        let slot = world.starts()[attempt].slot;
        world.tell(Input::Listening { slot, pid: 77, endpoint: "/run/be-77.sock".into() });
        assert_eq!(endpoint(world.reply_to(connection)), "/run/be-77.sock");
        world.tell(Input::StartFailed { slot, failure: failure() });
    }
    assert_eq!(refusal(world.hello("1.0.0").1.as_ref()).code(), ErrorCode::ErrorRateLimited);
    assert_eq!(world.broker.backends()[0].state().as_str(), "failed");
}

#[test]
fn a_drain_ends_with_a_backend_that_listened_and_never_answered() {
    let mut world = World::new();
    world.hello("1.0.0");
    let slot = world.starts()[0].slot;
    world.tell(Input::Listening { slot, pid: 77, endpoint: "/run/be-77.sock".into() });
    world.tell(Input::Drain { deadline: None });
    assert_eq!(world.signals(), [StopSignal::Terminate]);
    world.tell(Input::StartFailed { slot, failure: failure() });
    assert!(world.stopped());
}

#[test]
fn a_drain_that_begins_while_the_definition_is_looked_at_starts_nothing() {
    let mut world = World::new();
    let check = DefinitionCheck::Loaded(Arc::new(Definition::new(&world.definition).unwrap()), world.stamp);
    let decision = world.hello_with(check, |broker, now| broker.handle(now, Input::Drain { deadline: None }));
    assert!(matches!(&decision, Decision::Reply(Reply::Refused(Refusal::Draining { .. }))), "{decision:?}");
    assert_eq!(world.starts().len(), 0);
}

#[test]
fn a_registered_backend_is_probed_again_after_a_start_in_its_place_failed() {
    let mut world = World::new();
    world.broker.register(registration());
    world.hello("1.0.0");
    let slot = world.broker.backends()[0].slot();
    world.tell(Input::Probed { slot, outcome: Err("connection refused".into()) });
    assert_eq!(world.starts()[0].traceparent, "00-trace", "the Hello that waits is the start's cause");
    world.tell(Input::StartFailed { slot, failure: failure() });
    let (connection, _) = world.hello("1.0.0");
    let probes = world.acted.iter().filter(|action| matches!(action, Action::Probe { .. })).count();
    assert_eq!(probes, 2);
    world.tell(Input::Probed { slot, outcome: Ok(99) });
    assert_eq!(endpoint(world.reply_to(connection)), "/run/registered.sock");
}

#[test]
fn the_executable_of_another_broker_s_service_is_that_broker_s_to_judge() {
    let mut config = BrokerConfig::new(BrokerInstance::Shared);
    config.hello.domain = crate::services::TrustDomain::Only(BrokerInstance::Shared);
    let mut world = World::new();
    world.broker = Broker::new(config, SeededEntropy::new(3));
    let definition = Arc::new(Definition::new(&world.definition).unwrap());
    let error = crate::services::DefinitionError::Isolation { actual: 7 };
    let decision = world.hello_with(DefinitionCheck::Unusable(definition, error), |_, _| {});
    assert!(
        matches!(&decision, Decision::Reply(Reply::Refused(Refusal::OtherTrustDomain { .. }))),
        "{decision:?}"
    );
}

#[test]
fn however_many_wait_there_is_one_start_and_they_share_its_outcome() {
    let mut world = World::new();
    let waiting: Vec<_> = (0..100).map(|_| world.hello("1.0.0").0).collect();
    assert_eq!(world.starts().len(), 1);
    assert_eq!(world.broker.hellos_waiting(), 100);
    let slot = world.starts()[0].slot;
    world.started(slot, 77);
    assert!(waiting.iter().all(|connection| endpoint(world.reply_to(*connection)) == "/run/be-77.sock"));
    assert_eq!(world.broker.hellos_waiting(), 0);

    let failing: Vec<_> = (0..100).map(|_| world.hello("2.0.0").0).collect();
    assert_eq!(world.starts().len(), 2, "another version is another backend");
    let slot = world.starts()[1].slot;
    world.tell(Input::StartFailed { slot, failure: failure() });
    for connection in failing {
        assert!(matches!(refusal(world.reply_to(connection)), Refusal::SpawnFailed { .. }));
    }
}

#[test]
fn row_17_the_fourth_start_in_thirty_seconds_waits_for_the_window_s_end() {
    let mut world = World::new();
    for attempt in 0..3 {
        let (connection, reply) = world.hello("1.0.0");
        assert!(reply.is_none(), "attempt {attempt} is made");
        let slot = world.starts()[attempt].slot;
        world.tell(Input::StartFailed { slot, failure: failure() });
        assert_eq!(refusal(world.reply_to(connection)).code(), ErrorCode::ErrorBackendSpawnFailed);
        world.pass(Duration::from_secs(1));
    }
    let spent = refusal(world.hello("1.0.0").1.as_ref());
    assert_eq!(spent.code(), ErrorCode::ErrorRateLimited);
    assert_eq!(spent.retry_after(), Duration::from_secs(27));

    world.pass(Duration::from_secs(27) - Duration::from_nanos(1));
    assert_eq!(refusal(world.hello("1.0.0").1.as_ref()).code(), ErrorCode::ErrorRateLimited);
    world.pass(Duration::from_nanos(1));
    assert!(world.hello("1.0.0").1.is_none(), "the window is over");
}

#[test]
fn success_restores_the_spawn_budget() {
    let mut world = World::new();
    for attempt in 0..10 {
        world.hello("1.0.0");
        let slot = world.starts()[attempt].slot;
        world.started(slot, 77);
        world.exited(slot, Exit::Signal(9));
    }
    assert_eq!(world.starts().len(), 10);
}

#[test]
fn a_wait_ends_after_ten_seconds_or_at_the_frame_s_own_deadline() {
    let mut world = World::new();
    let (by_default, _) = world.hello("1.0.0");
    let (by_frame, _) = world.hello_until("1.0.0", world.now.unix.get() + 250);
    let (past, _) = world.hello_until("1.0.0", 1);

    world.pass(Duration::ZERO);
    assert!(
        matches!(refusal(world.reply_to(past)), Refusal::SpawnFailed { failure, .. } if failure.stage == SpawnStage::Deadline)
    );
    world.pass(Duration::from_millis(250) - Duration::from_nanos(1));
    assert!(world.reply_to(by_frame).is_none());
    world.pass(Duration::from_nanos(1));
    assert_eq!(refusal(world.reply_to(by_frame)).code(), ErrorCode::ErrorBackendSpawnFailed);
    world.pass(Duration::from_millis(9_750) - Duration::from_nanos(1));
    assert!(world.reply_to(by_default).is_none());
    world.pass(Duration::from_nanos(1));
    assert_eq!(refusal(world.reply_to(by_default)).code(), ErrorCode::ErrorBackendSpawnFailed);

    // The start goes on, and whoever comes next has the use of it.
    let slot = world.starts()[0].slot;
    world.started(slot, 77);
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/be-77.sock");
}

#[test]
fn a_client_that_leaves_while_it_waits_gets_no_reply() {
    let mut world = World::new();
    let (gone, _) = world.hello("1.0.0");
    world.broker.disconnected(world.now, gone);
    let slot = world.starts()[0].slot;
    world.started(slot, 77);
    assert!(world.reply_to(gone).is_none());
    assert_eq!((world.broker.connections_open(), world.broker.hellos_waiting()), (0, 0));
    world.pass(Duration::from_secs(20));
    assert!(world.reply_to(gone).is_none());
}

#[test]
fn a_dead_backend_is_not_routed_to_and_the_next_hello_starts_another() {
    let (mut world, slot) = World::running();
    world.exited(slot, Exit::Signal(9));
    assert!(world.events().contains(&EventKind::DiedCrash));
    let (connection, reply) = world.hello("1.0.0");
    assert!(reply.is_none());
    let slot = world.starts()[1].slot;
    world.started(slot, 78);
    assert_eq!(endpoint(world.reply_to(connection)), "/run/be-78.sock");
}

#[test]
fn a_backend_that_ends_with_status_zero_did_not_crash() {
    let (mut world, slot) = World::running();
    world.exited(slot, Exit::Status(0));
    assert!(world.events().contains(&EventKind::DiedShutdown));
    assert!(!world.events().contains(&EventKind::DiedCrash));
}

#[test]
fn an_idle_backend_is_asked_to_end_and_killed_five_seconds_later() {
    let (mut world, slot) = World::new().with_label("idle.timeout_secs", "60").run();
    world.pass(Duration::from_secs(59));
    world.hello("1.0.0");
    world.pass(Duration::from_secs(60) - Duration::from_nanos(1));
    assert_eq!(world.signals(), [], "the Hello made it busy again");
    world.pass(Duration::from_nanos(1));
    assert_eq!(world.looks(), [slot], "it may have connections");
    assert_eq!(world.signals(), []);
    world.looked(slot, 77, false);
    assert_eq!(world.signals(), [StopSignal::Terminate]);
    world.pass(KILL_AFTER - Duration::from_nanos(1));
    assert_eq!(world.signals(), [StopSignal::Terminate]);
    world.pass(Duration::from_nanos(1));
    assert_eq!(world.signals(), [StopSignal::Terminate, StopSignal::Kill]);
    world.exited(slot, Exit::Signal(9));
    assert!(world.events().contains(&EventKind::DiedIdle));
}

#[test]
fn a_backend_with_a_connection_is_left_for_another_idle_timeout() {
    let (mut world, slot) = World::new().with_label("idle.timeout_secs", "60").run();
    world.pass(Duration::from_secs(60));
    // The look takes its time.
    world.pass(Duration::from_secs(1));
    world.looked(slot, 77, true);
    world.pass(Duration::from_secs(60) - Duration::from_nanos(1));
    assert_eq!(world.looks(), [slot]);
    world.pass(Duration::from_nanos(1));
    assert_eq!(world.looks(), [slot, slot]);
    assert_eq!(world.signals(), []);
    world.looked(slot, 77, false);
    assert_eq!(world.signals(), [StopSignal::Terminate]);
}

#[test]
fn a_hello_while_the_broker_looks_for_connections_keeps_the_backend() {
    let (mut world, slot) = World::new().with_label("idle.timeout_secs", "60").run();
    world.pass(Duration::from_secs(60));
    assert!(world.hello("1.0.0").1.is_some());
    world.looked(slot, 77, false);
    assert_eq!(world.signals(), []);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.looks(), [slot, slot]);
}

#[test]
fn a_look_that_ends_in_a_drain_stops_nothing_twice() {
    let (mut world, slot) = World::new().with_label("idle.timeout_secs", "60").run();
    world.pass(Duration::from_secs(60));
    world.tell(Input::Drain { deadline: None });
    assert_eq!(world.signals(), [StopSignal::Terminate]);
    world.looked(slot, 77, false);
    assert_eq!(world.signals(), [StopSignal::Terminate]);
}

#[test]
fn what_was_seen_of_a_backend_is_not_said_of_its_successor() {
    let (mut world, slot) = World::new().with_label("idle.timeout_secs", "60").run();
    world.pass(Duration::from_secs(60));
    world.exited(slot, Exit::Signal(9));
    world.hello("1.0.0");
    let successor = world.starts()[1].slot;
    world.started(successor, 78);
    world.looked(slot, 77, false);
    assert_eq!(world.signals(), [], "it is not even a second old");
    world.pass(Duration::from_secs(60));
    assert_eq!(world.looks(), [slot, successor]);
    world.looked(slot, 77, false);
    assert_eq!(world.signals(), [], "and its own connections are still being looked for");
    world.looked(successor, 78, false);
    assert_eq!(world.signals(), [StopSignal::Terminate]);
}

#[test]
fn a_hello_for_a_backend_that_is_ending_waits_for_its_successor() {
    let (mut world, slot) = World::new().with_label("idle.timeout_secs", "1").run();
    world.pass(Duration::from_secs(1));
    world.looked(slot, 77, false);
    let (connection, reply) = world.hello("1.0.0");
    assert!(reply.is_none());
    assert_eq!(world.starts().len(), 1, "one live backend per key");
    world.exited(slot, Exit::Status(0));
    assert_eq!(world.starts().len(), 2);
    world.started(slot, 78);
    assert_eq!(endpoint(world.reply_to(connection)), "/run/be-78.sock");
    // The old one's kill would lie in this stretch.
    world.pass(KILL_AFTER);
    assert_eq!(world.signals(), [StopSignal::Terminate], "the old kill never hits the new one");
}

#[test]
fn without_an_idle_timeout_nothing_is_ever_stopped() {
    let (mut world, _) = World::running();
    world.pass(Duration::from_secs(1_000_000));
    assert_eq!(world.signals(), []);
}

fn registration() -> Registration {
    Registration {
        service: "cache".parse().unwrap(),
        version: Version::parse("1.0.0").unwrap(),
        endpoint: "/run/registered.sock".into(),
        handoff_endpoint: None,
    }
}

#[test]
fn a_registered_backend_is_probed_before_its_first_use_and_after_its_end() {
    let mut world = World::new();
    world.broker.register(registration());
    let (first, reply) = world.hello("1.0.0");
    assert!(reply.is_none());
    let Some(Action::Probe { slot, endpoint: probed }) =
        world.acted.iter().find(|action| matches!(action, Action::Probe { .. })).cloned()
    else {
        panic!("expected a probe, got {:?}", world.acted);
    };
    assert_eq!(probed, "/run/registered.sock");
    world.tell(Input::Probed { slot, outcome: Ok(99) });
    assert_eq!(endpoint(world.reply_to(first)), "/run/registered.sock");
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/registered.sock");

    world.exited(slot, Exit::Unknown);
    world.hello("1.0.0");
    let probes = world.acted.iter().filter(|action| matches!(action, Action::Probe { .. })).count();
    assert_eq!((probes, world.starts().len()), (2, 0));
}

#[test]
fn a_registered_backend_that_does_not_answer_is_started_instead() {
    let mut world = World::new();
    world.broker.register(registration());
    let (connection, _) = world.hello("1.0.0");
    let slot = world.broker.backends()[0].slot();
    world.tell(Input::Probed { slot, outcome: Err("connection refused".into()) });
    assert_eq!(world.starts().len(), 1);
    world.started(slot, 77);
    assert_eq!(endpoint(world.reply_to(connection)), "/run/be-77.sock");
}

#[test]
fn a_registered_backend_is_never_signalled() {
    let mut world = World::new().with_label("idle.timeout_secs", "1");
    world.broker.register(registration());
    world.hello("1.0.0");
    let slot = world.broker.backends()[0].slot();
    world.tell(Input::Probed { slot, outcome: Ok(99) });
    world.pass(Duration::from_secs(100));
    world.tell(Input::Drain { deadline: None });
    assert_eq!(world.signals(), []);
    assert!(world.stopped());
}

#[test]
fn row_8_a_draining_broker_refuses_and_says_how_long_it_takes() {
    let mut world = World::new();
    let (waiting, _) = world.hello("1.0.0");
    world.tell(Input::Drain { deadline: None });
    assert!(!world.broker.is_serving());
    let draining = refusal(world.hello("1.0.0").1.as_ref());
    assert_eq!(
        (draining.code(), draining.retry_after()),
        (ErrorCode::ErrorShuttingDown, Duration::from_secs(10))
    );
    world.pass(Duration::from_millis(9_500));
    assert_eq!(
        refusal(world.hello("1.0.0").1.as_ref()).retry_after(),
        Duration::from_secs(1),
        "at least a second"
    );
    assert!(!world.stopped(), "one Hello still waits");

    let slot = world.starts()[0].slot;
    world.started(slot, 77);
    assert_eq!(endpoint(world.reply_to(waiting)), "/run/be-77.sock");
    assert_eq!(world.signals(), [StopSignal::Terminate]);
    assert!(!world.stopped(), "its backend still runs");
    world.exited(slot, Exit::Status(0));
    assert!(world.stopped());
}

#[test]
fn a_drain_ends_at_its_deadline_whatever_is_left() {
    let (mut world, _) = World::running();
    let (waiting, _) = world.hello("2.0.0");
    world.tell(Input::Drain { deadline: Some(Duration::from_secs(2)) });
    world.pass(Duration::from_secs(2) - Duration::from_nanos(1));
    assert!(!world.stopped());
    world.pass(Duration::from_nanos(1));
    assert!(world.stopped());
    assert_eq!(refusal(world.reply_to(waiting)).code(), ErrorCode::ErrorShuttingDown);
    assert_eq!(world.signals(), [StopSignal::Kill, StopSignal::Kill]);
}

#[test]
fn a_drain_that_is_told_again_ends_sooner_and_never_later() {
    let hour = Some(Duration::from_secs(3_600));
    for is_waited_for in [false, true] {
        let (mut world, _) = World::running();
        if is_waited_for {
            world.hello("2.0.0");
        }
        for deadline in [hour, Some(Duration::from_secs(2)), hour] {
            world.tell(Input::Drain { deadline });
        }
        world.pass(Duration::from_secs(2) - Duration::from_nanos(1));
        assert!(!world.stopped());
        world.pass(Duration::from_nanos(1));
        assert!(world.stopped());
    }
}

#[test]
fn a_drain_kills_a_start_that_nobody_waits_for() {
    let mut world = World::new();
    let (gone, _) = world.hello("1.0.0");
    world.broker.disconnected(world.now, gone);
    world.tell(Input::Drain { deadline: None });
    assert_eq!(world.signals(), [StopSignal::Kill]);
    let slot = world.starts()[0].slot;
    world.tell(Input::StartFailed { slot, failure: failure() });
    assert!(world.stopped());
}

#[test]
fn a_second_drain_changes_nothing() {
    let (mut world, slot) = World::running();
    world.tell(Input::Drain { deadline: None });
    world.tell(Input::Drain { deadline: Some(Duration::ZERO) });
    assert_eq!(world.signals(), [StopSignal::Terminate]);
    world.exited(slot, Exit::Status(0));
    assert_eq!(world.acted.iter().filter(|action| matches!(action, Action::Stop)).count(), 1);
}

#[test]
fn backends_that_are_to_be_kept_are_left_alone() {
    let mut config = BrokerConfig::new(BrokerInstance::Shared);
    config.on_exit = BackendsOnExit::Keep;
    let (mut world, _) = World::with(config).run();
    world.tell(Input::Drain { deadline: None });
    assert!(world.stopped());
    assert_eq!(world.signals(), []);
}

#[test]
fn row_9_descriptor_pressure_refuses_hellos_and_recovers_by_itself() {
    let (mut world, _) = World::running();
    world.tell(Input::DescriptorPressure);
    let pressed = refusal(world.hello("1.0.0").1.as_ref());
    assert_eq!((pressed.code(), pressed.retry_after()), (ErrorCode::ErrorFdPressure, Duration::from_secs(1)));
    world.tell(Input::DescriptorPressure);
    let count = world.events().iter().filter(|kind| **kind == EventKind::ResourcePressure).count();
    assert_eq!(count, 1, "one event for one episode");
    world.pass(Duration::from_secs(1));
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/be-77.sock");
}

#[test]
fn row_15_an_invalid_definition_is_an_internal_error_that_names_the_rule() {
    let mut world = World::new();
    let check = DefinitionCheck::Invalid(crate::services::DefinitionError::Isolation { actual: 7 });
    let Decision::Reply(reply) = world.hello_with(check, |_, _| {}) else { panic!("nothing to wait for") };
    let refusal = refusal(Some(&reply));
    assert_eq!((refusal.code(), &refusal.details()["rule"][..]), (ErrorCode::ErrorInternal, "isolation"));
}

#[test]
fn a_definition_that_comes_back_finds_its_running_backend() {
    let (mut world, _) = World::running();
    world.broker.handler.undefine("cache");
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/be-77.sock");
    assert_eq!(world.starts().len(), 1);
}

#[test]
fn a_changed_definition_is_taken_up_by_the_next_hello() {
    let (mut world, _) = World::running();
    world.definition.min_version = "2.0.0".into();
    world.stamp.size += 1;
    assert_eq!(refusal(world.hello("1.0.0").1.as_ref()).code(), ErrorCode::ErrorVersionBlocked);
    assert!(world.events().contains(&EventKind::ServiceDefChanged));
}

#[test]
fn a_foreign_or_unreadable_peer_is_dropped_with_an_event() {
    let mut world = World::new();
    let foreign = PeerIdentity::Foreign(PeerKey::new(65_534, Some(1)));
    assert_eq!(world.broker.connected(world.now, ConnectionKey::new(1), foreign), Arrival::Drop);
    assert_eq!(
        world.broker.connected(world.now, ConnectionKey::new(2), PeerIdentity::Unreadable),
        Arrival::Drop
    );
    assert_eq!(world.events(), [EventKind::SecurityViolation, EventKind::SecurityViolation]);
    assert_eq!(world.broker.connections_open(), 0);
}

#[test]
fn a_full_broker_makes_room_for_a_newcomer() {
    let mut config = BrokerConfig::new(BrokerInstance::Shared);
    config.connections = ConnectionLimits::new(4, 2);
    let mut world = World::with(config);
    for (connection, pid) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
        let peer = PeerIdentity::Own(PeerKey::new(1000, Some(pid)));
        assert_eq!(world.broker.connected(world.now, ConnectionKey::new(connection), peer), Arrival::Serve);
    }
    let newcomer = PeerIdentity::Own(PeerKey::new(1000, Some(9)));
    assert_eq!(world.broker.connected(world.now, ConnectionKey::new(5), newcomer), Arrival::Serve);
    world.collect();
    let evicted = world
        .acted
        .iter()
        .find_map(|action| if let Action::Evict { connection } = action { Some(*connection) } else { None });
    assert_eq!(evicted, Some(ConnectionKey::new(2)), "the youngest of the peer that holds most");
}

#[test]
fn a_peer_over_its_share_is_dropped_and_counted() {
    let mut config = BrokerConfig::new(BrokerInstance::Shared);
    config.connections = ConnectionLimits::new(4, 2);
    let mut world = World::with(config);
    for _ in 0..2 {
        world.connect();
    }
    let one_more = world.broker.connected(world.now, ConnectionKey::new(3), PeerIdentity::Own(peer()));
    assert_eq!(one_more, Arrival::Drop);
    assert_eq!(world.broker.metrics().peer_rejected_total().collect::<Vec<_>>(), [("over-share", 1)]);
}

#[test]
fn versions_that_failed_are_forgotten_when_their_window_is_over() {
    let mut world = World::new();
    for patch in 0..50 {
        world.hello(&format!("1.0.{patch}"));
        let slot = world.starts()[patch].slot;
        world.tell(Input::StartFailed { slot, failure: failure() });
    }
    assert_eq!(world.broker.backends().len(), 50);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.broker.backends().len(), 0);
}

#[test]
fn every_hello_is_counted_once_under_a_bounded_label() {
    let mut world = World::new();
    world.definition.min_version = "1.0.0".into();
    let (mut world, _) = world.run();
    world.hello("1.0.0");
    world.hello("1.0.1");
    let made_up = world.starts()[1].slot;
    world.started(made_up, 78);
    for patch in 0..10 {
        world.hello(&format!("0.0.{patch}"));
    }
    let blocked = HelloOutcome::Refused(ErrorCode::ErrorVersionBlocked);
    let counts: Vec<_> = world
        .broker
        .metrics()
        .series()
        .iter()
        .map(|series| (series.version(), series.hellos(HelloOutcome::Negotiated), series.hellos(blocked)))
        .collect();
    assert_eq!(counts, [("other", 0, 0), ("1.0.0", 2, 0), ("other", 1, 10)]);
    let mut hour = (0, 0);
    for (_, minute) in world.broker.metrics().history().minutes(world.now.monotonic) {
        hour.0 += minute.hellos(HelloOutcome::Negotiated);
        hour.1 += minute.hellos(blocked);
    }
    assert_eq!(hour, (3, 10), "and once in the hour");
}
