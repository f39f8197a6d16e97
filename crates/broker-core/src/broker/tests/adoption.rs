//! What a former broker has left running.

use super::*;
use crate::backends::{ControlKey, Origin, Registration};

impl World {
    fn expect(&mut self) -> Option<BackendSlot> {
        let check = DefinitionCheck::Loaded(Arc::new(Definition::new(&self.definition).unwrap()), self.stamp);
        let service = "cache".parse().unwrap();
        let slot = self.broker.expect_adoption(self.now, &service, &"1.0.0".parse().unwrap(), check);
        self.collect();
        slot
    }

    fn adopted(&mut self, slot: BackendSlot, outcome: Result<u32, &str>) {
        let outcome = outcome.map(|pid| (pid, format!("/run/be-{pid}.sock"))).map_err(str::to_owned);
        self.tell(Input::Adopted { slot, outcome });
    }
}

#[test]
fn who_asks_meanwhile_waits_and_gets_what_was_left() {
    let mut world = World::new();
    let slot = world.expect().unwrap();
    let (waiting, reply) = world.hello("1.0.0");
    assert!(reply.is_none());
    assert!(world.starts().is_empty());
    world.adopted(slot, Ok(77));
    assert_eq!(endpoint(world.reply_to(waiting)), "/run/be-77.sock");
    let (_, reply) = world.hello("1.0.0");
    assert_eq!(endpoint(reply.as_ref()), "/run/be-77.sock");
    assert!(world.starts().is_empty());
    assert_eq!(world.broker.backend(slot).unwrap().state().live().unwrap().origin, Origin::Adopted);
}

#[test]
fn what_is_not_used_is_forgotten_and_another_one_started_where_somebody_waits() {
    let mut world = World::new();
    let slot = world.expect().unwrap();
    let (waiting, _) = world.hello("1.0.0");
    world.adopted(slot, Err("it has ended"));
    assert_eq!(world.starts().len(), 1);
    world.started(slot, 78);
    assert_eq!(endpoint(world.reply_to(waiting)), "/run/be-78.sock");
    assert!(world.signals().is_empty(), "it is not ended either: nobody knows whose it is");

    let mut unasked = World::new();
    let slot = unasked.expect().unwrap();
    unasked.adopted(slot, Err("it has ended"));
    assert!(unasked.broker.backend(slot).is_none() && unasked.starts().is_empty());
}

#[test]
fn an_adopted_backend_is_ours_it_is_ended_when_idle_and_with_the_broker() {
    let mut world = World::new().with_label("idle.timeout_secs", "60");
    let slot = world.expect().unwrap();
    world.adopted(slot, Ok(77));
    world.pass(Duration::from_secs(61));
    assert_eq!(world.looks(), [slot]);
    world.looked(slot, 77, false);
    assert_eq!(world.signals(), [StopSignal::Terminate]);
    world.exited(slot, Exit::Unknown);
    assert_eq!(world.events().last(), Some(&EventKind::DiedIdle));

    let mut ending = World::new();
    let slot = ending.expect().unwrap();
    ending.adopted(slot, Ok(77));
    ending.tell(Input::Drain { deadline: None });
    assert_eq!(ending.signals(), [StopSignal::Terminate]);
    assert!(!ending.stopped());
    ending.exited(slot, Exit::Unknown);
    assert!(ending.stopped());
}

#[test]
fn a_place_that_is_taken_is_not_given_to_what_was_left() {
    let (mut world, _) = World::running();
    assert_eq!(world.expect(), None);
    let mut registered = World::new();
    registered.broker.register(Registration {
        service: "cache".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        endpoint: "/run/own.sock".into(),
        handoff_endpoint: None,
    });
    assert_eq!(registered.expect(), None);
    let slot = registered.broker.backends()[0].slot();
    registered.adopted(slot, Ok(77));
    assert_eq!(registered.broker.backend(slot).unwrap().state().as_str(), "absent", "it was not expected");
}

#[test]
fn one_whose_end_is_seen_is_replaced_by_the_next_hello() {
    let mut world = World::new();
    let slot = world.expect().unwrap();
    world.adopted(slot, Ok(77));
    world.exited(slot, Exit::Unknown);
    assert_eq!(world.events().last(), Some(&EventKind::DiedCrash));
    let (_, reply) = world.hello("1.0.0");
    assert!(reply.is_none());
    assert_eq!(world.starts().len(), 1);
}

/// What the operator's configuration says of the backend.
fn named(endpoint: &str) -> Registration {
    Registration {
        service: "cache".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        endpoint: endpoint.to_owned(),
        handoff_endpoint: None,
    }
}

#[test]
fn a_configuration_that_names_and_forgets_it_leaves_an_adopted_backend_alone() {
    for announces in [false, true] {
        let mut world = World::new();
        let slot = world.expect().unwrap();
        world.adopted(slot, Ok(77));
        world.name(&[named("/run/be-77.sock")]);
        if announces {
            assert_eq!(world.announce(77, "/run/be-77.sock").unwrap(), slot);
        }
        for names in [&[named("/run/elsewhere.sock")][..], &[]] {
            world.name(names);
            assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/be-77.sock");
        }
        if announces {
            world.close(slot, 77);
            assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/be-77.sock", "it is ours");
        }
        assert!(world.starts().is_empty());
    }
}

#[test]
fn who_has_announced_itself_meanwhile_and_is_another_is_not_taken_for_the_one_that_was_left() {
    let mut world = World::new();
    let slot = world.expect().unwrap();
    assert_eq!(world.announce(99, "/run/own.sock").unwrap(), slot);
    world.adopted(slot, Ok(77));
    assert_eq!(
        world.ended_controls(),
        [ControlKey::new(99)],
        "nothing is passed to it as if it were the other"
    );
    world.close(slot, 99);
    // The very one may come with a connection of its own.
    assert_eq!(world.announce(77, "/run/be-77.sock").unwrap(), slot);
}

#[test]
fn what_the_operator_names_while_it_is_looked_at_is_used_when_it_ends() {
    let mut world = World::new();
    let slot = world.expect().unwrap();
    world.name(&[named("/run/registered.sock")]);
    world.adopted(slot, Ok(77));
    assert_eq!(endpoint(world.hello("1.0.0").1.as_ref()), "/run/be-77.sock");
    assert_eq!(world.announce(77, "/run/be-77.sock").unwrap(), slot, "it may announce itself beside that");
    world.close(slot, 77);
    world.exited(slot, Exit::Unknown);
    world.hello_at("/run/registered.sock");
}
