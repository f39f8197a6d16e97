//! What a broker leaves, and what its successor makes of it.

use super::*;
use crate::hello::Tokens;

const BOTH: Capabilities = Capabilities::HANDLE_PASSING.union(Capabilities::EARLY_DATA);

impl World {
    /// The broker's affairs in the hands of another.
    fn succeed(self) -> (Self, Vec<BackendSlot>) {
        let (estate, bequests) = (self.broker.estate(), self.broker.bequests());
        let mut next = Self { now: self.now, definition: self.definition, ..Self::new() };
        next.broker.take_over(next.now, &estate);
        let slots = bequests.into_iter().map(|(_, backend)| {
            let definition = Definition::new(&next.definition).unwrap();
            let check = DefinitionCheck::Loaded(Arc::new(definition), next.stamp);
            let is_ending = backend.is_ending;
            let slot = next.broker.inherit(next.now, backend, check);
            if is_ending {
                next.broker.end_inherited(next.now, slot);
            }
            slot
        });
        let slots = slots.collect();
        next.collect();
        (next, slots)
    }

    fn id_of_next_hello(&mut self) -> u64 {
        match self.hello_of("1.0.0", 0, BOTH).1 {
            Some(Reply::Negotiated(agreed)) => agreed.connection_id.get(),
            other => panic!("expected an agreement, got {other:?}"),
        }
    }
}

#[test]
fn a_started_backend_is_used_by_the_successor_and_watched_like_its_own() {
    let (world, _) = World::running();
    let (mut next, slots) = world.succeed();
    let (_, reply) = next.hello("1.0.0");
    assert_eq!(endpoint(reply.as_ref()), "/run/be-77.sock");
    assert!(next.starts().is_empty(), "it runs already");
    next.exited(slots[0], Exit::Signal(9));
    assert_eq!(next.events().last(), Some(&EventKind::DiedCrash));
    let (_, reply) = next.hello("1.0.0");
    assert!(reply.is_none());
    assert_eq!(next.starts().len(), 1, "the next one is started");
}

#[test]
fn no_connection_id_is_given_out_twice() {
    let (mut world, _) = World::running();
    let last = world.id_of_next_hello();
    let (mut next, _) = world.succeed();
    assert_eq!(next.id_of_next_hello(), last + 1);
}

#[test]
fn events_go_along_and_the_succession_is_one() {
    let (world, _) = World::running();
    let before = world.events();
    let (next, _) = world.succeed();
    let after = next.events();
    assert_eq!(after[..before.len()], before);
    assert_eq!(after[before.len()], EventKind::ReplacedByNewer);
}

#[test]
fn an_idle_backend_is_idle_for_as_long_as_it_was() {
    let world = World::new().with_label("idle.timeout_secs", "60");
    let (mut world, _) = world.run();
    world.pass(Duration::from_secs(50));
    let (mut next, slots) = world.succeed();
    // It is looked at a whole timeout after the succession at the latest, and is overdue by then.
    next.pass(Duration::from_secs(61));
    assert_eq!(next.looks(), slots);
}

#[test]
fn a_backend_that_was_told_to_end_is_told_again() {
    let world = World::new().with_label("idle.timeout_secs", "60");
    let (mut world, slot) = world.run();
    world.pass(Duration::from_secs(61));
    world.looked(slot, 77, false);
    assert_eq!(world.signals(), [StopSignal::Terminate]);
    let (mut next, _) = world.succeed();
    assert_eq!(next.signals(), [StopSignal::Terminate]);
    let (waiting, reply) = next.hello("1.0.0");
    assert!(reply.is_none() && next.reply_to(waiting).is_none(), "it is not used any more");
    next.pass(KILL_AFTER);
    assert_eq!(next.signals(), [StopSignal::Terminate, StopSignal::Kill]);
}

#[test]
fn a_start_and_a_pending_handoff_are_what_has_to_settle_first() {
    let mut world = World::new();
    assert!(world.broker.is_settled());
    world.hello("1.0.0");
    assert!(!world.broker.is_settled(), "a backend is being started");
    assert!(world.broker.bequests().is_empty());
    let slot = world.starts()[0].slot;
    world.started(slot, 77);
    assert!(world.broker.is_settled());
    world.open_control(slot);
    world.id_of_next_hello();
    assert!(!world.broker.is_settled(), "a token is out");
    world.pass(Duration::from_secs(30));
    assert!(world.broker.is_settled(), "and has expired");
}

#[test]
fn withheld_tokens_keep_nobody_from_the_backend() {
    let (mut world, slot) = World::running();
    world.open_control(slot);
    world.broker.set_tokens(Tokens::Withheld);
    for (tokens, issued) in [(Tokens::Withheld, false), (Tokens::Issued, true)] {
        world.broker.set_tokens(tokens);
        match world.hello_of("1.0.0", 0, BOTH).1 {
            Some(Reply::Negotiated(agreed)) => assert_eq!(agreed.token.is_some(), issued, "{tokens:?}"),
            other => panic!("expected an agreement, got {other:?}"),
        }
    }
}

#[test]
fn a_backend_whose_definition_is_gone_lives_on_without_clients() {
    let (world, _) = World::running();
    let (estate, mut bequests) = (world.broker.estate(), world.broker.bequests());
    let mut next = World::new();
    next.broker.take_over(next.now, &estate);
    let (_, backend) = bequests.remove(0);
    let slot = next.broker.inherit(next.now, backend, DefinitionCheck::Absent);
    assert_eq!(next.broker.backend(slot).unwrap().state().as_str(), "running");
    // When the definition is back, so is the way there.
    let (_, reply) = next.hello("1.0.0");
    assert_eq!(endpoint(reply.as_ref()), "/run/be-77.sock");
}
