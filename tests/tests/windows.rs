//! What shows on Windows alone: pipes as others open them, and handles.
#![cfg(windows)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::time::Instant;

use broker_protocol::PayloadProtocol;
use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, Hello};
use broker_tests::{PATIENCE, Wire, World, agreed, frame_of, hello, reply_of};

const BIT_0: u64 = 1;

#[test]
fn a_client_that_opens_the_pipe_as_a_file_is_answered_and_finds_the_end() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    let pipe = format!(r"\\.\pipe\{}", world.socket().display());
    let mut file = OpenOptions::new().read(true).write(true).open(pipe).unwrap();
    let request = Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", "1.2.3").encode_to_vec());
    file.write_all(&frame_of(&request.encode_to_vec())).unwrap();
    let mut header = [0; 5];
    file.read_exact(&mut header).unwrap();
    let [version, length @ ..] = header;
    assert_eq!(version, 1, "the framing version");
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    file.read_exact(&mut body).unwrap();
    let reply = Frame::decode(&body[..]).unwrap();
    assert_eq!(reply.request_id, 7);
    let negotiated = agreed(reply_of(&reply));
    assert_eq!(file.read(&mut [0; 1]).unwrap(), 0, "nothing is behind the reply");
    assert_eq!(Wire::connect(negotiated.backend_pipe.as_ref()).tell("hi"), "hi");
}

/// What a broker's runtime opens and closes by itself: threads, timers, the pipe for the next client.
const SLACK: u32 = 20;

#[test]
fn two_hundred_handoffs_leave_no_handle_behind() {
    let world = World::new();
    world.define("cache", &[]);
    let broker = world.serve(&["--hello-burst", "100000", "--hello-refill", "100000"]);
    // Whether it was passed on; a backend's control connection may come a moment after its first agreement.
    let is_passed_on = || {
        let mut client = world.connect();
        let negotiated = agreed(client.say(&Hello { client_capabilities: BIT_0, ..hello("cache", "1.2.3") }));
        let is_passed_on = !negotiated.handle_passed_token.is_empty();
        if is_passed_on {
            client.receive();
            assert_eq!(client.tell("hi"), "hi");
        }
        is_passed_on
    };
    let deadline = Instant::now() + PATIENCE;
    while !is_passed_on() {
        assert!(Instant::now() < deadline, "no control connection");
    }
    // Whatever is opened once is open by then.
    assert!((0..20).all(|_| is_passed_on()));
    let before = broker.handles();
    assert!((0..200).all(|_| is_passed_on()));
    if broker_tests::goes_without("counts of handles") {
        return;
    }
    let deadline = Instant::now() + PATIENCE;
    while broker.handles() > before + SLACK {
        assert!(Instant::now() < deadline, "{before} handles became {}", broker.handles());
        std::thread::yield_now();
    }
}
