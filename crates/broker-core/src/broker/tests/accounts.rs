//! What one peer may make the broker do and keep at once; over that, only it is turned away.

use super::*;
use crate::admission::BUFFERED_PER_PEER;

/// A broker where a peer may have two starts under way.
fn world() -> World {
    World::with(BrokerConfig {
        starts_per_peer: 2,
        ..BrokerConfig::new(BrokerInstance::Named("test".parse().unwrap()))
    })
}

fn other_peer() -> PeerKey {
    PeerKey::new(1000, Some(PEER + 1))
}

#[test]
fn a_peer_may_have_its_starts_under_way_and_not_one_more_and_nobody_else_notices() {
    let mut world = world();
    assert!(world.hello("1.0.0").1.is_none());
    assert!(world.hello("2.0.0").1.is_none());
    let (_, over) = world.hello("3.0.0");
    let refused = refusal(over.as_ref()).to_wire();
    assert_eq!((refused.code(), refused.retry_after_ms), (ErrorCode::ErrorRateLimited, 1_000));
    assert_eq!(refused.details["field"], "pending_starts");
    assert_eq!(refused.details["limit"], "2");
    world.peer = other_peer();
    assert!(world.hello("3.0.0").1.is_none());
    assert_eq!(world.starts().len(), 3);
}

#[test]
fn a_start_that_is_done_makes_room_for_the_next_whatever_came_of_it() {
    let mut world = world();
    world.hello("1.0.0");
    world.hello("2.0.0");
    let slots: Vec<_> = world.starts().iter().map(|order| order.slot).collect();
    world.started(slots[0], 1);
    assert!(world.hello("3.0.0").1.is_none());
    assert!(world.hello("4.0.0").1.is_some());
    world.tell(Input::StartFailed { slot: slots[1], failure: failure() });
    assert!(world.hello("4.0.0").1.is_none());
    assert!(world.hello("5.0.0").1.is_some());
}

#[test]
fn joining_a_start_costs_nothing() {
    let mut world = world();
    world.hello("1.0.0");
    world.hello("2.0.0");
    assert!(world.hello("1.0.0").1.is_none());
    assert_eq!(world.starts().len(), 2);
}

#[test]
fn a_start_is_its_peer_s_until_it_is_done_also_where_the_peer_has_left() {
    let mut world = world();
    for version in ["1.0.0", "2.0.0"] {
        let (connection, _) = world.hello(version);
        world.broker.disconnected(world.now, connection);
    }
    assert!(world.hello("3.0.0").1.is_some());
}

#[test]
fn a_version_whose_start_was_refused_leaves_nothing_behind() {
    let mut world = world();
    for version in ["1.0.0", "2.0.0", "3.0.0", "4.0.0"] {
        world.hello(version);
    }
    assert_eq!(world.broker.backends().len(), 2);
}

#[test]
fn a_successor_is_started_for_whoever_of_those_who_wait_has_room() {
    let mut world = world();
    world = world.with_label("idle.timeout_secs", "60");
    let (mut world, slot) = world.run();
    world.pass(Duration::from_secs(60));
    world.looked(slot, 77, false);
    // It ends; one who has no room and one who has wait for its successor.
    world.hello("1.0.0");
    world.hello("2.0.0");
    world.hello("3.0.0");
    world.peer = other_peer();
    world.hello("1.0.0");
    let before = world.starts().len();
    world.exited(slot, Exit::Status(0));
    assert_eq!(world.starts().len(), before + 1);
}

#[test]
fn what_a_peer_s_connections_keep_is_refused_beyond_its_bound() {
    let mut world = world();
    let connection = world.connect();
    assert_eq!(world.broker.buffers(connection, BUFFERED_PER_PEER), Ok(()));
    let next = world.connect();
    let over = world.broker.buffers(next, 1).unwrap_err();
    let reply = world.broker.over_quota(world.now, world.now.monotonic, next, over);
    let refused = refusal(Some(&reply)).to_wire();
    assert_eq!(refused.code(), ErrorCode::ErrorPeerRejected);
    assert_eq!(refused.details["field"], "buffered_bytes");
    assert_eq!(refused.details["limit"], BUFFERED_PER_PEER.to_string());
    assert_eq!(refused.details["actual"], (BUFFERED_PER_PEER + 1).to_string());
    world.broker.disconnected(world.now, connection);
    assert_eq!(world.broker.buffers(next, 1), Ok(()));
}

#[test]
fn a_hello_that_waits_and_cannot_be_kept_is_answered_once() {
    let mut world = world();
    let (waiting, none) = world.hello("1.0.0");
    assert!(none.is_none());
    let over = world.broker.buffers(waiting, BUFFERED_PER_PEER + 1).unwrap_err();
    world.broker.over_quota(world.now, world.now.monotonic, waiting, over);
    let slot = world.starts()[0].slot;
    world.started(slot, 1);
    assert!(world.reply_to(waiting).is_none());
    assert_eq!(world.broker.hellos_waiting(), 0);
}

#[test]
fn a_shortage_of_descriptors_closes_a_silent_connection_and_none_that_has_spoken() {
    let mut world = world();
    let silent = world.connect();
    world.hello("1.0.0");
    world.tell(Input::DescriptorPressure);
    world.tell(Input::DescriptorPressure);
    let evicted = world.acted.iter().filter_map(|action| match action {
        Action::Evict { connection } => Some(*connection),
        _ => None,
    });
    assert_eq!(evicted.collect::<Vec<_>>(), [silent]);
    assert_eq!(world.broker.connections_open(), 1);
}

#[test]
fn a_start_that_listens_at_once_is_under_way_until_it_has_answered() {
    let mut world = world();
    for (version, pid) in [("1.0.0", 1), ("2.0.0", 2)] {
        world.hello(version);
        let slot = world.starts().last().unwrap().slot;
        world.tell(Input::Listening { slot, pid, endpoint: format!("/run/{pid}") });
    }
    assert!(matches!(refusal(world.hello("3.0.0").1.as_ref()), Refusal::PeerStarts { .. }));
    let slots: Vec<_> = world.starts().iter().map(|order| order.slot).collect();
    world.started(slots[0], 1);
    assert!(world.hello("3.0.0").1.is_none());
    world.tell(Input::StartFailed { slot: slots[1], failure: failure() });
    assert!(world.hello("4.0.0").1.is_none());
}
