//! Conversations with a backend over real sockets, in bytes written by hand.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod common;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use broker_backend::{DaemonProcess, Identity, PayloadProtocol, Request, Response};
use broker_protocol::bytes::Bytes;
use broker_protocol::prost::Message;
use broker_transport::identity;
use broker_transport::probe::probe_identity;
use tokio::sync::{Semaphore, mpsc};

use common::{Served, closes, framed, read_body, request, response};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn echo(request: Request) -> Bytes {
    request.into_payload()
}

fn text_field(tag: u8, text: &[u8]) -> Vec<u8> {
    [&[tag << 3 | 2, u8::try_from(text.len()).unwrap()], text].concat()
}

/// A probe with request id 300 and a trace context.
fn probe(nonce: &[u8]) -> Vec<u8> {
    let lane = [0x18, 0xB2, 0xE4, 0x02];
    framed(
        &[
            &[0x08, 1][..],
            &lane,
            &text_field(4, nonce),
            &[0x28, 0xAC, 0x02],
            &text_field(8, TRACEPARENT.as_bytes()),
            &text_field(9, b"rp=1"),
        ]
        .concat(),
    )
}

/// The rest of `bytes` behind `head`, or else what came instead.
#[track_caller]
fn behind<'a>(head: &[u8], bytes: &'a [u8]) -> &'a [u8] {
    bytes.strip_prefix(head).unwrap_or_else(|| panic!("expected {head:02x?} at the front of {bytes:02x?}"))
}

fn varint(bytes: &[u8]) -> (usize, &[u8]) {
    let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let value = bytes[..=length].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7F));
    (value, &bytes[length + 1..])
}

#[tokio::test]
async fn a_probe_is_answered_with_its_own_ids_and_the_truth_about_the_process() {
    let served = Served::start(echo);
    let client = served.connect().await;
    client.send_all(&probe(&[0xA5; 32])).await.unwrap();
    let body = read_body(&client).await;

    let rest = behind(&[0x08, 1, 0x10, 1, 0x18, 0xB2, 0xE4, 0x02, 0x22], &body);
    let (length, rest) = varint(rest);
    let (payload, rest) = rest.split_at(length);
    let rest = behind(&[0x28, 0xAC, 0x02], rest);
    let rest = behind(&text_field(8, TRACEPARENT.as_bytes()), rest);
    assert_eq!(rest, text_field(9, b"rp=1"));

    let process = DaemonProcess::decode(behind(&[0xA5; 32], payload)).unwrap();
    let own = std::process::id();
    assert_eq!(process.pid, own);
    assert_eq!(process.boot_id, identity::boot_id().unwrap());
    assert_eq!(process.exe_hash_algorithm, "blake3");
    assert_eq!(process.exe_hash, identity::hash_process_executable(own).unwrap());
    assert_eq!(process.exe_path, std::env::current_exe().unwrap().to_str().unwrap());
    let endpoint = process.ipc_endpoint.unwrap();
    assert_eq!(endpoint.path, served.endpoint.to_str().unwrap());
    assert_eq!(endpoint.namespace_id.len(), 16, "the user's hash");
    assert!(UNIX_EPOCH + Duration::from_millis(process.started_at_unix_ms) <= std::time::SystemTime::now());

    // The connection goes on.
    client.send_all(&request(b"and more")).await.unwrap();
    assert_eq!(read_body(&client).await, response(b"and more"));
    served.stop().await;
}

#[tokio::test]
async fn a_nonce_of_another_length_closes_the_connection() {
    let served = Served::start(echo);
    for length in [0, 31, 33] {
        let client = served.connect().await;
        client.send_all(&probe(&vec![1; length])).await.unwrap();
        closes(&client).await;
    }
    served.stop().await;
}

#[tokio::test]
async fn requests_of_one_connection_are_answered_in_order_however_they_come() {
    let served = Served::start(echo);
    let client = served.connect().await;
    let wire = [request(b"first"), probe(&[7; 32]), request(b""), request(b"third")].concat();
    client.send_all(&wire[..3]).await.unwrap();
    client.send_all(&wire[3..]).await.unwrap();
    assert_eq!(read_body(&client).await, response(b"first"));
    behind(&[0x08, 1, 0x10, 1, 0x18, 0xB2, 0xE4, 0x02], &read_body(&client).await);
    // An empty payload is not on the wire, as proto3 leaves out what is default.
    assert_eq!(read_body(&client).await, [0x08, 1, 0x10, 1, 0x18, 0x81, 0xE0, 0x03, 0x28, 7][..]);
    assert_eq!(read_body(&client).await, response(b"third"));
    served.stop().await;
}

#[cfg(unix)] // A pipe does not end in one direction.
#[tokio::test]
async fn what_was_sent_is_answered_even_if_the_client_has_no_more_to_say() {
    let served = Served::start(echo);
    let client = served.connect().await;
    client.send_all(&request(b"last")).await.unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_body(&client).await, response(b"last"));
    closes(&client).await;
    served.stop().await;
}

#[tokio::test]
async fn a_broken_rule_closes_the_connection_it_came_on_and_no_other() {
    let served = Served::start(echo);
    let witness = served.connect().await;
    let too_long = [&[1][..], &(16 * 1024 * 1024 + 1u32).to_le_bytes()].concat();
    let cases: [(&str, Vec<u8>); 10] = [
        ("another framing version", vec![2]),
        ("an over-long body", too_long),
        ("a body that is no message", framed(&[0xFF; 40])),
        ("an empty frame, which has envelope version 0", framed(&[])),
        ("envelope version 2", framed(&[0x08, 2, 0x18, 0x81, 0xE0, 0x03])),
        ("a response to nothing", framed(&[0x08, 1, 0x10, 1, 0x18, 0x81, 0xE0, 0x03])),
        ("a kind that does not exist", framed(&[0x08, 1, 0x10, 9])),
        ("a compressed payload", framed(&[0x08, 1, 0x18, 0x81, 0xE0, 0x03, 0x30, 1])),
        ("an encoding that does not exist", framed(&[0x08, 1, 0x30, 9])),
        ("text of another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in cases {
        let client = served.connect().await;
        client.send_all(&bytes).await.unwrap();
        closes(&client).await;
        witness.send_all(&request(what.as_bytes())).await.unwrap();
        assert_eq!(read_body(&witness).await, response(what.as_bytes()));
    }
    served.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_inside_a_frame_leaves_the_others_alone() {
    let served = Served::start(echo);
    let wire = request(b"never finished");
    for end in [0, 1, 4, 5, wire.len() - 1] {
        let client = served.connect().await;
        client.send_all(&wire[..end]).await.unwrap();
    }
    let witness = served.connect().await;
    witness.send_all(&request(b"still here")).await.unwrap();
    assert_eq!(read_body(&witness).await, response(b"still here"));
    served.stop().await;
}

#[tokio::test]
async fn a_client_that_stalls_delays_nobody() {
    let served = Served::start(echo);
    let wire = request(b"slow");
    let slow = served.connect().await;
    slow.send_all(&wire[..8]).await.unwrap();
    for _ in 0..3 {
        let quick = served.connect().await;
        quick.send_all(&request(b"quick")).await.unwrap();
        assert_eq!(read_body(&quick).await, response(b"quick"));
    }
    slow.send_all(&wire[8..]).await.unwrap();
    assert_eq!(read_body(&slow).await, response(b"slow"));
    served.stop().await;
}

#[tokio::test]
async fn a_handler_that_takes_its_time_delays_neither_others_nor_a_probe() {
    let gate = Arc::new(Semaphore::new(0));
    let handler = {
        let gate = Arc::clone(&gate);
        move |request: Request| {
            let gate = Arc::clone(&gate);
            async move {
                if request.payload() == "slow" {
                    gate.acquire().await.unwrap().forget();
                }
                request.into_payload()
            }
        }
    };
    let served = Served::start(handler);
    let (slow, quick) = (served.connect().await, served.connect().await);
    slow.send_all(&request(b"slow")).await.unwrap();
    quick.send_all(&request(b"quick")).await.unwrap();
    assert_eq!(read_body(&quick).await, response(b"quick"));
    assert_eq!(probe_identity(&served.endpoint).await.unwrap().pid, std::process::id());
    gate.add_permits(1);
    assert_eq!(read_body(&slow).await, response(b"slow"));
    served.stop().await;
}

#[tokio::test]
async fn a_handler_sees_the_request_and_its_client() {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let served = Served::start(move |request: Request| {
        seen.send(request).unwrap();
        async { "seen" }
    });
    let client = served.connect().await;
    let body = [
        &[0x08, 1, 0x18, 0x81, 0xE0, 0x03, 0x22, 2, b'h', b'i', 0x28, 0xAC, 0x02, 0x38, 0xDC, 0x0B][..],
        &text_field(8, b"parent"),
        &text_field(9, b"state"),
    ];
    client.send_all(&framed(&body.concat())).await.unwrap();
    read_body(&client).await;
    let request = requests.recv().await.unwrap();
    assert_eq!(request.lane(), PayloadProtocol::new(0xF001));
    assert_eq!((request.id(), request.payload().as_ref()), (300, &b"hi"[..]));
    assert_eq!((request.traceparent(), request.tracestate()), ("parent", "state"));
    assert_eq!(request.deadline(), Some(UNIX_EPOCH + Duration::from_millis(1500)));
    assert!(request.peer().user.is_self());
    assert_eq!(request.peer().pid.unwrap().get(), std::process::id());
    served.stop().await;
}

#[tokio::test]
async fn cancellations_and_events_are_passed_over() {
    let served = Served::start(echo);
    let client = served.connect().await;
    for kind in [2, 3] {
        client.send_all(&framed(&[0x08, 1, 0x10, kind, 0x18, 0x81, 0xE0, 0x03, 0x28, 7])).await.unwrap();
    }
    client.send_all(&request(b"answered")).await.unwrap();
    assert_eq!(read_body(&client).await, response(b"answered"));
    served.stop().await;
}

#[tokio::test]
async fn a_handler_may_hang_up_panic_or_say_too_much_and_only_its_connection_ends() {
    let served = Served::start(async |request: Request| match &request.payload()[..] {
        b"hang up" => Response::hang_up(),
        b"panic" => panic!("as asked"),
        b"too much" => Response::new(vec![0; 16 * 1024 * 1024]),
        _ => Response::new("fine"),
    });
    for payload in ["hang up", "panic", "too much"] {
        let client = served.connect().await;
        client.send_all(&request(payload.as_bytes())).await.unwrap();
        closes(&client).await;
    }
    let client = served.connect().await;
    client.send_all(&request(b"?")).await.unwrap();
    assert_eq!(read_body(&client).await, response(b"fine"));
    served.stop().await;
}

#[tokio::test]
async fn a_large_request_and_its_answer_pass_whole() {
    let served = Served::start(echo);
    let client = served.connect().await;
    let payload: Vec<u8> = (0..8 * 1024 * 1024).map(|index: u32| (index >> 8) as u8).collect();
    // payload of 2^23 bytes.
    let wire = framed(&[&[0x08, 1, 0x22, 0x80, 0x80, 0x80, 0x04][..], &payload].concat());
    let (sent, body) = tokio::join!(client.send_all(&wire), read_body(&client));
    sent.unwrap();
    assert_eq!(behind(&[0x08, 1, 0x10, 1, 0x22, 0x80, 0x80, 0x80, 0x04], &body), payload);
    served.stop().await;
}

#[tokio::test]
async fn probes_are_answered_with_the_identity_that_was_chosen() {
    let process = DaemonProcess { pid: 7, ..DaemonProcess::default() };
    let served = Served::start_as(echo, Some(Identity::fixed(process.clone())));
    assert_eq!(probe_identity(&served.endpoint).await.unwrap(), process);
    served.stop().await;
}
