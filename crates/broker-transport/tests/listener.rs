//! Endpoints on every platform: connecting, accepting, and deadlines.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[path = "common/place.rs"]
mod place;

use std::io::{self, Read, Write};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use broker_transport::listener::{BindOptions, Listener};
use broker_transport::stream::{BlockingStream, ConnectErrorKind, Stream};

use place::Place;

#[tokio::test]
async fn a_connection_comes_with_the_kernels_word_on_its_peer() {
    let place = Place::new();
    let path = place.endpoint("socket");
    let listener = Listener::bind(&path, &BindOptions::default()).unwrap();
    assert!(listener.try_accept().unwrap().is_none());
    let client = Stream::connect(&path).await.unwrap();
    let accepted = listener.accept().await.unwrap();
    let peer = accepted.peer.unwrap();
    assert!(peer.user.is_self());
    assert_eq!(peer.pid.unwrap().get(), std::process::id());
    assert_eq!(accepted.stream.peer().unwrap(), peer);
    assert!(client.peer().unwrap().user.is_self());
    let _second = Stream::connect(&path).await.unwrap();
    assert!(listener.try_accept().unwrap().is_some());
}

#[tokio::test]
async fn a_connect_waits_for_room_in_a_full_queue() {
    let place = Place::new();
    let path = place.endpoint("socket");
    let listener = Listener::bind(&path, &BindOptions { backlog: 0, mode: 0o600 }).unwrap();
    let _first = Stream::connect(&path).await.unwrap();
    let mut second = Box::pin(Stream::connect(&path));
    tokio::select! {
        biased;
        connected = &mut second => panic!("there was room: {connected:?}"),
        () = std::future::ready(()) => {}
    }
    listener.accept().await.unwrap();
    second.await.unwrap();
}

#[test]
fn a_blocking_read_ends_with_its_deadline() {
    let (near, _far) = BlockingStream::pair().unwrap();
    let deadline = Some(Instant::now() + Duration::from_millis(1));
    let error = near.read_before(&mut [0; 1], deadline).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_blocking_send_ends_with_its_deadline_though_the_peer_reads_on_slowly() {
    const PAUSE: Duration = Duration::from_millis(50);
    let (near, mut far) = BlockingStream::pair().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 70_000];
        // All of it would take it ten seconds, of which no single pause is as long as the limit.
        while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
            let _ = far.read(&mut buffer).unwrap();
        }
    });
    let outcome = near.send_all_before(&vec![0; 200 * 70_000], Some(Instant::now() + 4 * PAUSE));
    assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop((near, stop));
    reader.join().unwrap();
}

#[tokio::test]
async fn where_nobody_listens_a_connect_says_where_that_is() {
    let place = Place::new();
    let error = Stream::connect(place.endpoint("absent")).await.unwrap_err();
    assert_eq!(error.kind, ConnectErrorKind::NotFound);
    assert!(error.to_string().contains("absent"), "{error}");
}

#[test]
fn a_deadline_ends_reading_from_a_peer_that_never_pauses() {
    let (near, mut far) = BlockingStream::pair().unwrap();
    far.write_all(b"more and more").unwrap();
    let passed = Some(Instant::now());
    for outcome in [near.read_before(&mut [0; 4], passed).map(drop), near.send_all_before(b"x", passed)] {
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
    assert_eq!(near.read_before(&mut [0; 16], None).unwrap(), 13);
}
