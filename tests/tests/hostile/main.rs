//! Hostile peers, each a process that does one thing to a broker while a client of another process is served.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod siege;

use std::os::fd::AsFd;
use std::time::Instant;

use broker_protocol::PayloadProtocol;
use broker_protocol::limits::MAX_FRAME_BODY;
use broker_protocol::prost::Message;
use broker_protocol::wire::{AdminReply, AdminRequest, AdminVerb, Frame};
use broker_tests::{PATIENCE, Signal, World, agreed, frame_of, hello, reply_of};
use broker_transport::fd_passing::send_with_fds_blocking;
use broker_transport::frame_io::read_frame_body_blocking;
use broker_transport::stream::BlockingStream;

use crate::siege::Siege;

/// Silent or unfinished connections end soon enough for a test.
const SHORT_PATIENCE: [&str; 2] = ["--hello-timeout-ms", "300"];

#[test]
fn who_says_hello_is_served_while_a_peer_holds_20_000_connections() {
    let siege = Siege::begin(&[]);
    let mut peer = siege.peer(&["hold", "--connections", "20000"]);
    peer.wait_for_round();
    siege.serve(100);
    assert_eq!(peer.stop(), 1);
    siege.lift();
}

#[test]
fn who_says_hello_is_served_while_a_peer_says_one_byte_at_a_time() {
    let siege = Siege::begin(&SHORT_PATIENCE);
    let options = ["trickle", "--connections", "64", "--tick-ms", "10", "--round", "64"];
    siege.serve_during(siege.peer(&options), 3);
    assert!(siege.counted("peer_rejected_total{reason=\"frame-too-late\"}") >= 3 * 64);
    siege.lift();
}

#[test]
fn who_says_hello_is_served_while_a_peer_sends_half_frames() {
    let siege = Siege::begin(&SHORT_PATIENCE);
    siege.serve_during(siege.peer(&["half-frames", "--connections", "512", "--round", "512"]), 3);
    assert!(siege.counted("peer_rejected_total{reason=\"peer-bytes\"}") > 0);
    siege.lift();
}

#[test]
fn who_says_hello_is_served_while_a_peer_sends_frames_of_16_mib() {
    let siege = Siege::begin(&[]);
    siege.serve_during(siege.peer(&["declare-16-mib", "--round", "100"]), 20);
    siege.lift();
}

#[test]
fn who_says_hello_is_served_while_a_peer_sends_garbage() {
    let siege = Siege::begin(&[]);
    let peer = siege.peer(&["garbage", "--round", "1000", "--count", "50000"]);
    assert_eq!(siege.serve_to_the_end(peer, 49), 50_000);
    siege.lift();
}

#[test]
fn who_says_hello_is_served_while_a_peer_attaches_descriptors_which_are_closed_and_counted() {
    let siege = Siege::begin(&[]);
    let peer = siege.peer(&["attach-descriptors", "--round", "30", "--count", "300"]);
    // It has seen to it that each of them is closed.
    assert_eq!(siege.serve_to_the_end(peer, 9), 300);
    // Those behind every third Hello nobody read up to.
    assert_eq!(siege.counted("descriptors_discarded_total"), 200);
    siege.lift();
}

#[test]
fn a_hello_with_a_descriptor_attached_is_answered_as_any_other() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    let stream = BlockingStream::connect(world.socket(), Some(PATIENCE)).unwrap();
    let request = Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", "1.0.0").encode_to_vec());
    let request = frame_of(&request.encode_to_vec());
    send_with_fds_blocking(&stream, &request, &[std::io::stdin().as_fd()]).unwrap();
    let answer = read_frame_body_blocking(&stream, MAX_FRAME_BODY, Some(Instant::now() + PATIENCE));
    agreed(reply_of(&Frame::decode(answer.unwrap()).unwrap()));
}

#[test]
fn who_says_hello_is_served_while_a_peer_reads_no_answer() {
    let siege = Siege::begin(&[]);
    siege.serve_during(siege.peer(&["never-read", "--connections", "1024", "--round", "1024"]), 4);
    siege.lift();
}

#[test]
fn who_says_hello_is_served_while_a_peer_reads_no_long_answer() {
    let siege = Siege::begin(&[]);
    siege.serve_during(siege.peer(&["never-read-dump", "--connections", "1024", "--round", "256"]), 2);
    siege.lift();
}

#[test]
fn who_says_hello_is_served_while_a_peer_connects_and_is_gone() {
    let siege = Siege::begin(&[]);
    siege.serve_during(siege.peer(&["vanish", "--round", "1000"]), 5);
    siege.lift();
}

#[test]
fn with_64_descriptors_who_says_hello_is_served_while_several_peers_hold_what_they_get() {
    let siege = Siege::begin_with_descriptors(64);
    let peers = [(); 3].map(|()| {
        let mut peer = siege.peer(&["hold", "--connections", "500"]);
        peer.wait_for_round();
        peer
    });
    siege.serve(100);
    for peer in peers {
        assert_eq!(peer.stop(), 1);
    }
    siege.lift();
}

#[test]
fn with_64_descriptors_a_client_may_have_several_connections() {
    let siege = Siege::begin_with_descriptors(64);
    let mut several: Vec<_> = (0..16).map(|_| siege.connect()).collect();
    // Who connected last is taken in last: when it is answered, the others are in, too.
    several.iter_mut().rev().for_each(|wire| drop(agreed(wire.say(&hello("cache", "1.0.0")))));
    drop(several);
    siege.lift();
}

#[test]
fn with_64_descriptors_who_says_hello_is_served_while_a_peer_connects_and_is_gone() {
    let siege = Siege::begin_with_descriptors(64);
    siege.serve_during(siege.peer(&["vanish", "--round", "1000"]), 1);
    siege.lift();
}

#[test]
fn a_hello_waits_for_few_of_the_admin_answers_that_were_asked_for_before_it() {
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&[]);
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    // All of them are there at once, the Hello behind the others.
    broker.signal(Signal::STOP);
    let request = AdminRequest { verb: AdminVerb::Metrics.into(), ..AdminRequest::default() };
    let request = Frame::request(PayloadProtocol::ADMIN, 7, request.encode_to_vec());
    let mut asked: Vec<_> = (0..400).map(|_| world.connect()).collect();
    asked.iter_mut().for_each(|wire| wire.send(&request));
    let mut client = world.connect();
    client.send(&Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", "1.0.0").encode_to_vec()));
    broker.signal(Signal::CONT);
    // Each answer tells how many Hellos were answered before it.
    let answers = asked.iter_mut().map(|wire| AdminReply::decode(wire.receive().payload).unwrap().body);
    let negotiated = "outcome=\"negotiated\"} 2\n";
    let behind = answers.filter(|metrics| metrics.contains(negotiated)).count();
    assert!(behind >= 300, "only {behind} of 400 answers came after it");
    agreed(reply_of(&client.receive()));
}
