//! Backends that announce themselves.

use broker_protocol::control::Announcement;

use super::*;
use crate::backends::{ControlKey, ControlState};

const OWN: u32 = 99;

fn announcement(version: &str, endpoint: &str) -> Announcement {
    Announcement {
        service_name: "cache".into(),
        service_version: version.into(),
        endpoint: endpoint.into(),
        capabilities: 1,
    }
}

impl World {
    pub(super) fn announce(&mut self, pid: u32, endpoint: &str) -> Result<BackendSlot, NotRegistered> {
        let peer = PeerKey::new(1000, Some(pid));
        let slot = self.broker.announced(self.now, peer, &announcement("1.0.0", endpoint))?;
        let control = ControlKey::new(pid.into());
        self.tell(Input::ControlOpened { slot, control, announced: Capabilities::all() });
        Ok(slot)
    }

    /// The control connection of this process ends.
    pub(super) fn close(&mut self, slot: BackendSlot, pid: u32) {
        self.tell(Input::ControlClosed { slot, control: ControlKey::new(pid.into()) });
    }

    pub(super) fn ended_controls(&self) -> Vec<ControlKey> {
        let ended = self.acted.iter().filter_map(|action| match action {
            Action::EndControl { control, .. } => Some(*control),
            _ => None,
        });
        ended.collect()
    }

    fn probes(&self) -> usize {
        self.acted.iter().filter(|action| matches!(action, Action::Probe { .. })).count()
    }
}

#[test]
fn an_announced_backend_is_probed_used_and_gone_with_its_connection() {
    let mut world = World::new();
    let slot = world.announce(OWN, "/run/own.sock").unwrap();
    assert_eq!(world.probes(), 0, "not before its first use");
    let (first, reply) = world.hello("1.0.0");
    assert!(reply.is_none());
    world.tell(Input::Probed { slot, outcome: Ok(OWN) });
    assert_eq!(endpoint(world.reply_to(first)), "/run/own.sock");
    assert_eq!(world.broker.backend(slot).unwrap().control(), ControlState::Open);

    world.close(slot, OWN);
    world.exited(slot, Exit::Unknown);
    let (_, reply) = world.hello("1.0.0");
    assert!(reply.is_none());
    assert_eq!((world.probes(), world.starts().len()), (1, 1), "one is started instead");
}

#[test]
fn an_endpoint_that_another_process_answers_at_is_not_used() {
    let mut world = World::new();
    let slot = world.announce(OWN, "/run/own.sock").unwrap();
    world.hello("1.0.0");
    world.tell(Input::Probed { slot, outcome: Ok(OWN + 1) });
    assert_eq!(world.starts().len(), 1);
    let error = world.broker.backend(slot).unwrap().last_error().unwrap();
    assert!(error.contains("process 100 answers there, but process 99"), "{error}");
}

#[test]
fn one_that_withdraws_while_it_is_probed_leaves_nobody_waiting() {
    let mut world = World::new();
    let slot = world.announce(OWN, "/run/own.sock").unwrap();
    let (waiting, _) = world.hello("1.0.0");
    world.close(slot, OWN);
    world.tell(Input::Probed { slot, outcome: Ok(OWN) });
    assert_eq!(world.starts().len(), 1);
    world.started(slot, 77);
    assert_eq!(endpoint(world.reply_to(waiting)), "/run/be-77.sock");
}

#[test]
fn who_lives_is_not_pushed_aside() {
    let (mut world, slot) = World::running();
    let error = world.announce(OWN, "/run/own.sock").unwrap_err();
    assert_eq!(error, NotRegistered::Taken { pid: Some(77) });
    assert_eq!(world.announce(77, "/run/other.sock").unwrap_err(), NotRegistered::Taken { pid: Some(77) });
    // The very one may come back with a connection of its own.
    assert_eq!(world.announce(77, "/run/be-77.sock").unwrap(), slot);
    assert_eq!(world.announce(77, "/run/be-77.sock").unwrap_err(), NotRegistered::Taken { pid: Some(77) });
    world.close(slot, 77);
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/be-77.sock", "it was not registered by that");

    let mut starting = World::new();
    starting.hello("1.0.0");
    assert_eq!(starting.announce(OWN, "/run/own.sock").unwrap_err(), NotRegistered::Taken { pid: None });
}

#[test]
fn what_the_operator_registered_stays_when_the_backend_s_own_connection_goes() {
    let mut world = World::new();
    world.broker.register(registration());
    let error = world.announce(OWN, "/run/own.sock").unwrap_err();
    assert_eq!(error, NotRegistered::Taken { pid: None });
    let slot = world.announce(OWN, "/run/registered.sock").unwrap();
    world.hello("1.0.0");
    world.tell(Input::Probed { slot, outcome: Ok(OWN) });
    world.close(slot, OWN);
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/registered.sock");
}

#[test]
fn the_end_of_a_process_that_was_there_before_means_nothing() {
    let (mut world, slot) = World::running();
    world.tell(Input::Exited { slot, pid: 76, origin: Origin::Registered, exit: Exit::Unknown });
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/be-77.sock");
}

#[test]
fn nor_does_it_when_the_backend_has_got_its_number() {
    let (mut world, slot) = World::running();
    world.tell(Input::Exited { slot, pid: 77, origin: Origin::Registered, exit: Exit::Unknown });
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/be-77.sock");
    world.exited(slot, Exit::Status(0));
    assert!(world.hello("1.0.0").1.is_none(), "its own end is one");
}

#[test]
fn an_announcement_needs_a_permit_a_process_an_endpoint_and_a_broker_that_stays() {
    let mut world = World::new();
    let peer = PeerKey::new(1000, Some(OWN));
    let announce = |world: &mut World, peer, announcement: &Announcement| {
        world.broker.announced(world.now, peer, announcement).map(drop)
    };
    let good = announcement("1.0.0", "/run/own.sock");
    let nobody = PeerKey::new(1000, None);
    assert_eq!(announce(&mut world, nobody, &good), Err(NotRegistered::UnknownProcess));
    assert_eq!(announce(&mut world, peer, &announcement("1.0.0", "")), Err(NotRegistered::NoEndpoint));
    let bad = announce(&mut world, peer, &announcement("1", "/run/own.sock"));
    assert!(matches!(bad, Err(NotRegistered::Announcement(_))));
    while announce(&mut world, peer, &announcement("1", "/x")) != Err(NotRegistered::RateLimited) {}
    world.tell(Input::Drain { deadline: None });
    assert_eq!(announce(&mut world, PeerKey::new(1000, Some(7)), &good), Err(NotRegistered::Draining));
}

#[test]
fn a_control_connection_that_outlives_its_process_does_not_end_the_next_one() {
    let mut world = World::new();
    let slot = world.announce(OWN, "/run/own.sock").unwrap();
    world.hello("1.0.0");
    world.tell(Input::Probed { slot, outcome: Ok(OWN) });
    world.exited(slot, Exit::Unknown);
    let ended = |action: &Action| matches!(action, Action::EndControl { control, .. } if *control == ControlKey::new(OWN.into()));
    assert!(world.acted.iter().any(ended), "a child may hold it open for ever");
    assert_eq!(world.announce(OWN + 1, "/run/own.sock").unwrap(), slot);
    world.hello("1.0.0");
    world.tell(Input::Probed { slot, outcome: Ok(OWN + 1) });
    world.close(slot, OWN);
    assert!(world.broker.backend(slot).unwrap().state().live().is_some());
    assert_eq!(world.broker.backend(slot).unwrap().control(), ControlState::Open);
}

#[test]
fn one_that_withdraws_while_it_is_probed_for_nobody_leaves_no_entry() {
    let mut world = World::new();
    let slot = world.announce(OWN, "/run/own.sock").unwrap();
    let (waiting, _) = world.hello("1.0.0");
    world.broker.disconnected(world.now, waiting);
    world.close(slot, OWN);
    world.tell(Input::Probed { slot, outcome: Ok(OWN) });
    assert_eq!(world.broker.backends().len(), 0);
}

#[test]
fn one_that_withdraws_has_not_crashed() {
    let mut world = World::new();
    let slot = world.announce(OWN, "/run/own.sock").unwrap();
    world.hello("1.0.0");
    world.tell(Input::Probed { slot, outcome: Ok(OWN) });
    world.close(slot, OWN);
    let events = world.events();
    assert!(
        events.contains(&EventKind::DiedShutdown) && !events.contains(&EventKind::DiedCrash),
        "{events:?}"
    );
}

#[test]
fn one_that_does_not_answer_loses_its_connection_and_what_it_registered() {
    let mut world = World::new();
    let slot = world.announce(OWN, "/run/own.sock").unwrap();
    world.hello("1.0.0");
    world.tell(Input::Probed { slot, outcome: Err("nobody listens there".into()) });
    assert_eq!(world.ended_controls(), [ControlKey::new(OWN.into())]);
    // No connection is offered to it any more, as clients are sent to another process.
    assert_eq!(world.broker.backend(slot).unwrap().control(), ControlState::None);
    world.started(slot, 77);
    world.close(slot, OWN);
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/be-77.sock", "that one has not gone");
}

#[test]
fn nothing_is_remembered_of_one_that_withdrew_where_no_other_may_be_started() {
    let mut world = World::with(BrokerConfig {
        starts_per_peer: 1,
        ..BrokerConfig::new(BrokerInstance::Named("test".parse().unwrap()))
    });
    let slot = world.announce(OWN, "/run/own.sock").unwrap();
    world.hello("2.0.0");
    let (waiting, _) = world.hello("1.0.0");
    world.close(slot, OWN);
    world.tell(Input::Probed { slot, outcome: Ok(OWN) });
    assert!(matches!(refusal(world.reply_to(waiting)), Refusal::PeerStarts { .. }));
    assert!(world.broker.backend(slot).is_none());
}

#[test]
fn what_was_found_where_one_was_is_not_said_of_its_successor() {
    let mut world = World::new();
    let slot = world.announce(OWN, "/run/own.sock").unwrap();
    let (waiting, _) = world.hello("1.0.0");
    world.close(slot, OWN);
    assert_eq!(world.announce(OWN + 1, "/run/next.sock").unwrap(), slot);
    world.tell(Input::Probed { slot, outcome: Err("nobody listens there".into()) });
    assert_eq!((world.probes(), world.starts().len()), (2, 0));
    world.tell(Input::Probed { slot, outcome: Ok(OWN + 1) });
    assert_eq!(endpoint(world.reply_to(waiting)), "/run/next.sock");
}
