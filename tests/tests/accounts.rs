//! What one process may make the broker keep and do at once, over the wire; over that, only it is turned away.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::sync::mpsc;

use broker_protocol::prost::Message;
use broker_protocol::wire::{ErrorCode, Frame, Refused};
use broker_tests::{Daemon, PATIENCE, Wire, World, agreed, hello, refused, reply_of};

/// The greatest body of a first frame, in bytes.
const LONGEST_BODY: usize = 64 * 1024;
/// How many of them one process's connections may keep unfinished: a mebibyte.
const UNFINISHED: usize = 16;
/// How many starts one process may have under way.
const STARTS: usize = 32;

/// A broker whose service `cache` works, and `slow` never gets ready.
fn world() -> (World, Daemon) {
    let world = World::new();
    world.define("cache", &[]);
    let slow = world.script("slow", "exec sleep 1000");
    let options = ["--binary", slow.to_str().unwrap(), "--label", "spawn.timeout_ms=600000"];
    let added = world.run(&[&["service", "add", "slow"], &options[..]].concat());
    assert!(added.is_success(), "{added:?}");
    let broker = world.serve(&["--hello-timeout-ms", "600000"]);
    (world, broker)
}

/// Whether a process of its own is served.
fn is_another_process_served(world: &World) -> bool {
    let socket = world.socket();
    world.run(&["hello", "cache", "1.0.0", "--socket", socket.to_str().unwrap()]).is_success()
}

/// A connection with all but the last byte of the longest frame on it.
fn unfinished(world: &World) -> Wire {
    let mut wire = world.connect();
    let mut bytes = vec![1];
    bytes.extend(u32::try_from(LONGEST_BODY).unwrap().to_le_bytes());
    bytes.resize(bytes.len() + LONGEST_BODY - 1, 0xFF);
    wire.write(&bytes);
    wire
}

fn refusal_in(bytes: &[u8]) -> Refused {
    refused(reply_of(&Frame::decode(&bytes[5..]).unwrap()))
}

#[test]
fn a_process_may_leave_a_mebibyte_unfinished() {
    let (world, _broker) = world();
    let mut wires: Vec<_> = (0..UNFINISHED).map(|_| unfinished(&world)).collect();
    for wire in &mut wires {
        wire.write(&[0xFF]);
        let refusal = refused(reply_of(&wire.receive()));
        assert_eq!(refusal.details["field"], "frame", "it is looked at once it is whole: {refusal:?}");
    }
}

#[test]
fn one_frame_more_is_refused_and_nobody_else_notices() {
    let (world, _broker) = world();
    let (refusals, refused) = mpsc::channel();
    for _ in 0..=UNFINISHED {
        let mut wire = unfinished(&world);
        let refusals = refusals.clone();
        // The broker's end ends those that are not refused.
        std::thread::spawn(move || refusals.send(wire.rest()));
    }
    let refusal = refusal_in(&refused.recv_timeout(PATIENCE).unwrap());
    assert_eq!(refusal.code(), ErrorCode::ErrorPeerRejected);
    assert_eq!(refusal.details["field"], "buffered_bytes");
    assert_eq!(refusal.details["limit"], (UNFINISHED * LONGEST_BODY).to_string());
    assert!(is_another_process_served(&world));
}

#[test]
fn a_process_may_have_32_starts_under_way_and_nobody_else_notices() {
    let (world, _broker) = world();
    let slow = |version: usize| Frame {
        deadline_unix_ms: u64::MAX,
        ..Frame::request(
            broker_protocol::PayloadProtocol::CONTROL,
            7,
            hello("slow", &format!("{version}.0.0")).encode_to_vec(),
        )
    };
    let _waiting: Vec<_> = (0..STARTS)
        .map(|version| {
            let mut wire = world.connect();
            wire.send(&slow(version));
            wire
        })
        .collect();
    // Requests may overtake each other; the one that is refused is answered at once, the others are not.
    while world.backends_in("spawning") < STARTS {
        std::thread::yield_now();
    }
    let mut wire = world.connect();
    wire.send(&slow(STARTS));
    let refusal = refused(reply_of(&wire.receive()));
    assert_eq!((refusal.code(), refusal.retry_after_ms), (ErrorCode::ErrorRateLimited, 1_000));
    assert_eq!((&refusal.details["field"][..], &refusal.details["limit"][..]), ("pending_starts", "32"));
    assert!(is_another_process_served(&world));
    // What runs is no start.
    agreed(world.connect().say(&hello("cache", "1.0.0")));
}
