//! Another configuration while the broker runs.

use super::*;
use crate::admission::RateLimit;
use crate::backends::Registration;

const HERE: &str = "/run/registered.sock";
const THERE: &str = "/run/other.sock";
const REGISTERED: u32 = 77;

fn registration(endpoint: &str) -> Registration {
    Registration {
        service: "cache".parse().unwrap(),
        version: Version::parse("1.0.0").unwrap(),
        endpoint: endpoint.to_owned(),
        handoff_endpoint: None,
    }
}

impl World {
    fn reconfigure(&mut self, change: impl FnOnce(&mut Reconfiguration)) {
        let config = self.broker.config();
        let mut new = Reconfiguration {
            rate_limit: config.hello.rate_limit,
            connections: config.connections,
            drain: config.drain,
            on_exit: config.on_exit,
            registrations: Vec::new(),
        };
        change(&mut new);
        self.tell(Input::Reconfigured(new));
    }

    pub(super) fn name(&mut self, registrations: &[Registration]) {
        self.reconfigure(|new| new.registrations = registrations.to_vec());
    }

    /// The endpoint that was last to be probed, and of which backend.
    fn last_probe(&self) -> Option<(BackendSlot, &str)> {
        self.acted.iter().rev().find_map(|action| match action {
            Action::Probe { slot, endpoint } => Some((*slot, endpoint.as_str())),
            _ => None,
        })
    }

    /// Says Hello, and lets the endpoint that is probed then answer.
    pub(super) fn hello_at(&mut self, expected: &str) {
        let (waiting, reply) = self.hello("1.0.0");
        assert!(reply.is_none());
        let (slot, probed) = self.last_probe().unwrap();
        assert_eq!(probed, expected);
        self.tell(Input::Probed { slot, outcome: Ok(REGISTERED) });
        assert_eq!(endpoint(self.reply_to(waiting)), expected);
    }
}

#[test]
fn a_new_rate_holds_for_the_next_hello_and_debts_stay() {
    let mut world = World::new();
    world.reconfigure(|new| new.rate_limit = RateLimit::new(2, 1));
    let (_, reply) = world.hello("1.0.0");
    assert!(reply.is_none());
    world.reconfigure(|new| new.rate_limit = RateLimit::new(1, 1));
    let (_, reply) = world.hello("1.0.0");
    let refusal = reply.unwrap();
    assert!(matches!(refusal, Reply::Refused(Refusal::RateLimited { .. })), "{refusal:?}");
    world.reconfigure(|new| new.rate_limit = RateLimit::new(2, 1));
    assert!(world.hello("1.0.0").1.is_none());
    assert_eq!(world.broker.config().hello.rate_limit, RateLimit::new(2, 1));
}

#[test]
fn fewer_connections_evict_nobody_and_hold_for_whoever_comes() {
    let mut world = World::new();
    let all: Vec<_> = (0..6).map(|_| world.connect()).collect();
    world.reconfigure(|new| new.connections = ConnectionLimits::of_total(4));
    assert_eq!(world.broker.connections_open(), 6);
    assert!(!world.acted.iter().any(|action| matches!(action, Action::Evict { .. })));
    let next = ConnectionKey::new(1_000);
    assert_eq!(world.broker.connected(world.now, next, PeerIdentity::Own(peer())), Arrival::Drop);
    for connection in all {
        world.broker.disconnected(world.now, connection);
    }
    assert_eq!(world.broker.connected(world.now, next, PeerIdentity::Own(peer())), Arrival::Serve);
}

#[test]
fn a_new_drain_deadline_holds_for_the_next_drain() {
    let mut world = World::new();
    world.hello("1.0.0");
    world.reconfigure(|new| new.drain = Duration::from_secs(2));
    world.tell(Input::Drain { deadline: None });
    world.pass(Duration::from_secs(1));
    assert!(!world.acted.iter().any(|action| matches!(action, Action::Stop)));
    world.pass(Duration::from_secs(1));
    assert!(world.acted.iter().any(|action| matches!(action, Action::Stop)));
}

#[test]
fn a_broker_that_ends_does_so_as_it_was_told_to_before() {
    let mut world = World::new();
    world.hello("1.0.0");
    world.tell(Input::Drain { deadline: Some(Duration::from_secs(5)) });
    let before = world.broker.config().connections;
    world.reconfigure(|new| {
        new.connections = ConnectionLimits::of_total(2);
        new.on_exit = BackendsOnExit::Keep;
    });
    assert_eq!(world.broker.config().connections, before);
    assert_eq!(world.broker.config().on_exit, BackendsOnExit::Stop);
}

#[test]
fn a_backend_that_is_named_is_probed_with_the_next_hello() {
    let mut world = World::new();
    world.name(&[registration(HERE)]);
    assert!(world.last_probe().is_none(), "not before its first use");
    world.hello_at(HERE);
    world.name(&[registration(HERE)]);
    let (_, reply) = world.hello("1.0.0");
    assert_eq!(endpoint(reply.as_ref()), HERE, "naming it again changes nothing");
}

#[test]
fn one_that_is_named_no_more_is_sent_nobody_and_another_is_started() {
    let mut world = World::new();
    world.name(&[registration(HERE)]);
    world.hello_at(HERE);
    world.name(&[]);
    let (_, reply) = world.hello("1.0.0");
    assert!(reply.is_none());
    assert_eq!(world.starts().len(), 1);
}

#[test]
fn one_that_is_named_no_more_before_it_was_used_leaves_nothing_behind() {
    let mut world = World::new();
    world.name(&[registration(HERE)]);
    world.name(&[]);
    assert_eq!(world.broker.backends().len(), 0);
}

#[test]
fn whoever_waits_for_one_that_is_named_no_more_gets_one_that_is_started() {
    let mut world = World::new();
    world.name(&[registration(HERE)]);
    world.hello("1.0.0");
    let (slot, _) = world.last_probe().unwrap();
    world.name(&[]);
    world.tell(Input::Probed { slot, outcome: Ok(REGISTERED) });
    assert_eq!(world.starts().len(), 1);
}

#[test]
fn another_endpoint_is_probed_and_used_from_the_next_hello_on() {
    let mut world = World::new();
    world.name(&[registration(HERE)]);
    world.hello_at(HERE);
    world.name(&[registration(THERE)]);
    world.hello_at(THERE);
    // The news of the former one's end is not about this one.
    let slot = world.last_probe().unwrap().0;
    world.tell(Input::Exited { slot, pid: REGISTERED + 1, origin: Origin::Registered, exit: Exit::Unknown });
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), THERE);
}

#[test]
fn where_it_takes_passed_connections_can_change_without_a_probe() {
    let mut world = World::new();
    world.name(&[registration(HERE)]);
    world.hello_at(HERE);
    let token = |reply: Option<Reply>| match reply {
        Some(Reply::Negotiated(agreed)) => agreed.token.is_some(),
        other => panic!("{other:?}"),
    };
    let wanted = Capabilities::HANDLE_PASSING;
    assert!(!token(world.hello_of("1.0.0", 0, wanted).1));
    let passing = Registration { handoff_endpoint: Some(THERE.to_owned()), ..registration(HERE) };
    world.name(&[passing]);
    assert!(token(world.hello_of("1.0.0", 0, wanted).1));
    assert_eq!(world.starts().len(), 0);
}

#[test]
fn a_process_that_was_started_here_stays_whatever_is_named() {
    let mut world = World::new();
    world.hello("1.0.0");
    let slot = world.starts()[0].slot;
    world.started(slot, 9);
    world.name(&[registration(HERE)]);
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/be-9.sock");
    world.name(&[]);
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/be-9.sock");
    assert!(!world.acted.iter().any(|action| matches!(action, Action::Signal { .. })));
}

#[test]
fn one_that_has_announced_itself_stays_when_it_is_named_no_more() {
    let mut world = World::new();
    world.name(&[registration(HERE)]);
    let slot = world.announce(REGISTERED, HERE).unwrap();
    world.hello_at(HERE);
    world.name(&[]);
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), HERE);
    world.close(slot, REGISTERED);
    assert!(world.hello("1.0.0").1.is_none());
    assert_eq!(world.starts().len(), 1, "it has gone with its connection");
}

#[test]
fn one_that_has_announced_itself_makes_way_for_what_is_named() {
    let mut world = World::new();
    world.announce(REGISTERED, HERE).unwrap();
    world.hello_at(HERE);
    world.name(&[registration(THERE)]);
    assert_eq!(world.ended_controls().len(), 1);
    world.hello_at(THERE);
}
