//! Hostile peers, each a process that does one thing to a broker while a client of another process is served.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod siege;

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
    siege.serve_during(siege.peer(&["half-frames", "--connections", "256", "--round", "256"]), 3);
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
fn who_says_hello_is_served_while_a_peer_reads_no_answer() {
    let siege = Siege::begin(&[]);
    siege.serve_during(siege.peer(&["never-read", "--connections", "1024", "--round", "1024"]), 4);
    siege.lift();
}

#[test]
fn who_says_hello_is_served_while_a_peer_connects_and_is_gone() {
    let siege = Siege::begin(&[]);
    siege.serve_during(siege.peer(&["vanish", "--round", "1000"]), 5);
    siege.lift();
}
