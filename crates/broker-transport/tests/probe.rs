//! Identity probes and readiness, against backends made for the occasion.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod common;
#[path = "common/place.rs"]
mod place;

use std::path::Path;
use std::time::Duration;

use broker_protocol::bytes::Bytes;
use broker_protocol::prost::Message;
use broker_protocol::wire::{DaemonProcess, Frame};
use broker_protocol::{frame_bytes, probe};
use broker_transport::frame_io::{FrameFault, ReadError, read_frame_body};
use broker_transport::listener::{BindOptions, Listener};
use broker_transport::probe::{
    Expectation, MAX_ANSWER, Mismatch, NotReady, ProbeFailure, ProbeFault, probe_identity,
    probe_identity_blocking, probe_identity_within, wait_ready,
};
use broker_transport::process::{Exit, StopSignal};
use broker_transport::stream::ConnectErrorKind;

use common::{helper, spawn};
use place::Place;

fn process(pid: u32) -> DaemonProcess {
    DaemonProcess { pid, boot_id: "boot".into(), ..DaemonProcess::default() }
}

/// Serves probes at `path` for ever, each answered with what `answer` makes of it.
fn serve(path: &Path, answer: impl Fn(&Frame) -> Bytes + Send + 'static) {
    let listener = Listener::bind(path, &BindOptions::default()).unwrap();
    tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().stream;
            if let Ok(body) = read_frame_body(&stream, 1024).await {
                let request = Frame::decode(body).unwrap();
                assert_eq!((request.payload_protocol, request.payload.len()), (0xB232, 32));
                // A prober that has heard enough may be gone.
                let _ = stream.send_all(&answer(&request)).await;
            }
        }
    });
}

fn honest(pid: u32) -> impl Fn(&Frame) -> Bytes {
    move |request| frame_bytes(&probe::answer(request, &process(pid)).unwrap()).unwrap()
}

#[tokio::test]
async fn an_honest_backend_is_identified_async_and_blocking() {
    let place = Place::new();
    let path = place.endpoint("socket");
    serve(&path, honest(7));
    assert_eq!(probe_identity(&path).await.unwrap(), process(7));
    let blocking = tokio::task::spawn_blocking(move || probe_identity_blocking(path));
    assert_eq!(blocking.await.unwrap().unwrap(), process(7));
}

#[tokio::test]
async fn an_answer_to_another_nonce_is_none() {
    let place = Place::new();
    let path = place.endpoint("socket");
    serve(&path, |_| {
        let other = probe::request(&[0; 32], 1);
        frame_bytes(&probe::answer(&other, &process(7)).unwrap()).unwrap()
    });
    let error = probe_identity(&path).await.unwrap_err();
    assert!(matches!(error.cause, ProbeFailure::Fault(ProbeFault::Nonce)), "{error}");
}

#[tokio::test]
async fn the_longest_answer_is_taken_and_one_more_byte_is_not() {
    let place = Place::new();
    for (excess, is_taken) in [(0, true), (1, false)] {
        let path = place.endpoint(&excess.to_string());
        serve(&path, move |request| {
            let mut answer = probe::answer(request, &process(7)).unwrap();
            answer.tracestate = "x".repeat(MAX_ANSWER / 2);
            let missing = MAX_ANSWER - answer.encoded_len() + excess;
            answer.tracestate.push_str(&"x".repeat(missing));
            frame_bytes(&answer).unwrap()
        });
        match probe_identity(&path).await {
            Ok(identity) => assert!(is_taken && identity == process(7)),
            Err(error) => {
                let too_long = matches!(
                    &error.cause,
                    ProbeFailure::Read(ReadError::Fault(FrameFault::TooLong { limit: MAX_ANSWER, .. }))
                );
                assert!(!is_taken && too_long, "{error}");
            }
        }
    }
}

#[tokio::test]
async fn nobody_a_silent_one_and_one_who_hangs_up_are_told_apart() {
    let place = Place::new();
    let path = place.endpoint("socket");
    let error = probe_identity(place.endpoint("absent")).await.unwrap_err();
    assert!(matches!(&error.cause, ProbeFailure::Connect(error) if error.kind == ConnectErrorKind::NotFound));
    assert!(error.to_string().contains("absent"));

    let silent = Listener::bind(&path, &BindOptions::default()).unwrap();
    let error = probe_identity_within(&path, Duration::from_millis(1)).await.unwrap_err();
    assert!(matches!(error.cause, ProbeFailure::TimedOut { .. }), "{error}");
    drop(silent);

    serve(&path, |_| Bytes::new());
    let error = probe_identity(&path).await.unwrap_err();
    let hung_up = ReadError::Fault(FrameFault::ClosedBeforeFirstByte);
    assert!(
        matches!(&error.cause, ProbeFailure::Read(cause) if cause.to_string() == hung_up.to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn a_child_is_ready_once_it_answers_as_expected() {
    let place = Place::new();
    let path = place.endpoint("socket");
    let child = spawn(helper("sleep")).await;
    let expectation = Expectation { pid: Some(child.pid()), ..Expectation::default() };
    let limit = Duration::from_secs(60);
    let pid = child.pid();
    let late = async {
        // Some probes find nobody first.
        tokio::time::sleep(Duration::from_millis(3)).await;
        serve(&path, honest(pid));
    };
    let (ready, ()) = tokio::join!(wait_ready(&path, &child, &expectation, limit), late);
    assert_eq!(ready.unwrap().pid, pid);

    let other = Expectation { pid: Some(pid + 1), ..Expectation::default() };
    let error = wait_ready(&path, &child, &other, limit).await.unwrap_err();
    assert!(matches!(error, NotReady::Mismatch(Mismatch::Pid { actual, .. }) if actual == pid), "{error}");
    child.signal(StopSignal::Kill).unwrap();
    child.wait().await.unwrap();
}

#[tokio::test]
async fn waiting_ends_with_the_child_long_before_its_time() {
    let place = Place::new();
    let path = place.endpoint("socket");
    let child = spawn(helper("say no such database; exit 7")).await;
    let limit = Duration::from_secs(3600);
    let error = wait_ready(&path, &child, &Expectation::default(), limit).await.unwrap_err();
    assert!(matches!(error, NotReady::Died { exit: Exit::Code(7) }), "{error}");
    assert_eq!(child.stderr().last_lines(1), ["no such database"]);
}

#[tokio::test]
async fn a_child_that_never_answers_is_given_up_and_the_last_failure_told() {
    let place = Place::new();
    let path = place.endpoint("socket");
    let child = spawn(helper("sleep")).await;
    let limit = Duration::from_millis(20);
    let error = wait_ready(&path, &child, &Expectation::default(), limit).await.unwrap_err();
    assert!(matches!(error, NotReady::TimedOut { .. }), "{error}");
    assert!(error.to_string().contains("no such endpoint"), "{error}");
    assert_eq!(child.try_wait().unwrap(), None);
    child.signal(StopSignal::Kill).unwrap();
    child.wait().await.unwrap();
}
