//! Named pipes: the promises of the streams and listeners, where they are kept in another way than on a socket.
#![cfg(all(windows, feature = "tokio"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[path = "common/wine.rs"]
mod wine;

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::os::windows::io::AsRawHandle;
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use broker_transport::listener::{BindError, BindOptions, BoundSocket, Listener};
use broker_transport::passing::{Carrier, ClaimError, Recipient, claim};
use broker_transport::stream::{BlockingStream, ConnectErrorKind, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// More than the system holds for a reader.
const MORE_THAN_FITS: usize = 300_000;

/// A name that no other test has.
fn name(test: &str) -> PathBuf {
    PathBuf::from(format!("rpb-test-{}-{test}", std::process::id()))
}

fn bind(path: &PathBuf) -> Result<BoundSocket, BindError> {
    BoundSocket::bind(path, &BindOptions::default())
}

/// Whether a future has to wait, asked once.
async fn waits<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())).await
}

#[tokio::test]
async fn a_connection_comes_with_the_systems_word_on_its_peer() {
    let path = name("peer");
    let listener = Listener::bind(&path, &BindOptions::default()).unwrap();
    assert!(listener.try_accept().unwrap().is_none());
    let client = Stream::connect(&path).await.unwrap();
    let accepted = listener.accept().await.unwrap();
    let peer = accepted.peer.unwrap();
    assert!(peer.user.is_self());
    assert_eq!(peer.pid.unwrap().get(), std::process::id());
    assert_eq!(accepted.stream.peer().unwrap(), peer);
    assert_eq!(client.peer().unwrap(), peer);
}

#[tokio::test]
async fn a_name_is_served_by_one_listener_and_free_after_it() {
    let path = name("alone");
    let first = bind(&path).unwrap();
    assert!(matches!(bind(&path), Err(BindError::InUse { .. })));
    let full = PathBuf::from(format!(r"\\.\pipe\{}", path.display()));
    assert!(matches!(bind(&full), Err(BindError::InUse { .. })), "either form is the same name");
    let listener = Listener::from_bound(first).unwrap();
    assert!(matches!(bind(&path), Err(BindError::InUse { .. })));
    let _client = Stream::connect(&full).await.unwrap();
    let _accepted = listener.accept().await.unwrap();
    drop(listener);
    // A connection that was passed on outlives who accepted it, and nobody listens with it.
    let alone = BlockingStream::connect(&path, None).unwrap_err();
    assert_eq!(alone.kind, ConnectErrorKind::Refused);
    bind(&path).unwrap();
}

#[tokio::test]
async fn whoever_binds_the_pipe_to_a_port_hears_nothing_of_our_calls() {
    use windows_sys::Win32::System::IO::{CreateIoCompletionPort, GetQueuedCompletionStatus};
    let (near, far) = Stream::pair().unwrap();
    let copy = near.try_clone_descriptor().unwrap();
    // SAFETY: the handle is open, and a port of its own is made.
    let port = unsafe { CreateIoCompletionPort(copy.as_raw_handle(), std::ptr::null_mut(), 7, 0) };
    assert!(!port.is_null());
    let mut heard = [0; 16];
    {
        let mut read = pin!(near.read_some(&mut heard));
        assert!(waits(&mut read).await);
        far.send_all(b"hello").await.unwrap();
        assert_eq!(read.await.unwrap(), 5);
    }
    near.send_all(b"and back").await.unwrap();
    let (mut count, mut key, mut call) = (0, 0, std::ptr::null_mut());
    // SAFETY: the port is open, and the results have room; it does not wait.
    let came = unsafe { GetQueuedCompletionStatus(port, &raw mut count, &raw mut key, &raw mut call, 0) };
    assert_eq!((came, call), (0, std::ptr::null_mut()), "a call of ours came to a port of theirs");
}

#[tokio::test]
async fn many_clients_at_once_are_all_accepted() {
    const CLIENTS: usize = 64;
    let path = name("many");
    let listener = Listener::bind(&path, &BindOptions::default()).unwrap();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let path = path.clone();
            tokio::spawn(async move {
                let client = Stream::connect(&path).await.unwrap();
                client.send_all(&[number as u8]).await.unwrap();
                let mut answer = [0];
                assert_eq!(client.read_some(&mut answer).await.unwrap(), 1);
                assert_eq!(answer[0], number as u8);
            })
        })
        .collect();
    let mut served = 0;
    while served < CLIENTS {
        let mut taken = Vec::new();
        listener.accept_waiting(CLIENTS, |accepted| taken.push(accepted)).await.unwrap();
        for accepted in taken {
            served += 1;
            tokio::spawn(async move {
                let mut byte = [0];
                assert_eq!(accepted.stream.read_some(&mut byte).await.unwrap(), 1);
                accepted.stream.send_all(&byte).await.unwrap();
            });
        }
    }
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_has_gone_again_is_passed_over() {
    let path = name("gone");
    let listener = Listener::bind(&path, &BindOptions::default()).unwrap();
    for _ in 0..3 {
        let client = Stream::connect(&path).await.unwrap();
        client.send_all(b"and gone").await.unwrap();
    }
    assert!(listener.try_accept().unwrap().is_none());
    let client = Stream::connect(&path).await.unwrap();
    let accepted = listener.accept().await.unwrap();
    assert_eq!(accepted.peer.unwrap().pid.unwrap().get(), std::process::id());
    client.send_all(b"still here").await.unwrap();
    assert_eq!(accepted.stream.read_some(&mut [0; 16]).await.unwrap(), 10);
}

#[tokio::test]
async fn a_server_that_has_said_its_last_word_and_is_gone_is_known_still() {
    let path = name("last-word");
    let listener = Listener::bind(&path, &BindOptions::default()).unwrap();
    let client = Stream::connect(&path).await.unwrap();
    let server = listener.accept().await.unwrap().stream;
    server.send_all(b"refused").await.unwrap();
    drop(server);
    assert!(client.peer().unwrap().user.is_self());
    assert_eq!(client.read_some(&mut [0; 16]).await.unwrap(), 7);
}

#[tokio::test]
async fn a_failed_connect_says_why() {
    let absent = Stream::connect(name("absent")).await.unwrap_err();
    assert_eq!(absent.kind, ConnectErrorKind::NotFound);
    assert!(absent.to_string().contains("absent"), "{absent}");
    let too_long = BlockingStream::connect("x".repeat(260), None).unwrap_err();
    assert_eq!(too_long.kind, ConnectErrorKind::TooLong);
    let path = name("busy");
    let _bound = bind(&path).unwrap();
    let _only = BlockingStream::connect(&path, None).unwrap();
    let busy = BlockingStream::connect(&path, Some(Duration::from_millis(1))).unwrap_err();
    assert_eq!(busy.kind, ConnectErrorKind::Busy);
}

#[test]
fn the_longest_name_is_bound_and_one_more_character_is_refused() {
    let longest = PathBuf::from("x".repeat(260 - r"\\.\pipe\".len()));
    let too_long = PathBuf::from(format!("{}x", longest.display()));
    let error = bind(&too_long).unwrap_err();
    assert!(matches!(error, BindError::TooLong { actual: 261, limit: 260, .. }), "{error}");
    if wine::goes_without("a name of 260 characters: its longest has 259") {
        return;
    }
    bind(&longest).unwrap();
}

#[tokio::test]
async fn no_byte_is_taken_that_was_not_asked_for() {
    let path = name("exact");
    let listener = Listener::bind(&path, &BindOptions::default()).unwrap();
    let client = Stream::connect(&path).await.unwrap();
    let server = listener.accept().await.unwrap().stream;
    let mut first = [0; 3];
    {
        let mut read = pin!(server.read_some(&mut first));
        assert!(waits(&mut read).await);
        client.send_all(b"onetwo").await.unwrap();
        assert_eq!(read.await.unwrap(), 3);
    }
    assert_eq!(&first, b"one");
    // Whoever gets the handle next finds the rest.
    let mut rest = [0; 16];
    let mut taken_over = server.into_blocking().unwrap();
    assert_eq!(taken_over.read(&mut rest).unwrap(), 3);
    assert_eq!(&rest[..3], b"two");
}

#[tokio::test]
async fn a_read_that_is_given_up_while_it_waits_loses_nothing() {
    let (near, far) = Stream::pair().unwrap();
    let mut seen = [0; 16];
    {
        let mut read = pin!(far.read_some(&mut seen));
        assert!(waits(&mut read).await);
    }
    near.send_all(b"late").await.unwrap();
    assert_eq!(far.read_some(&mut seen).await.unwrap(), 4);
    assert_eq!(far.try_read(&mut seen).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(near);
    assert_eq!(far.read_some(&mut seen).await.unwrap(), 0);
    assert_eq!(far.try_read(&mut seen).unwrap(), 0);
}

#[tokio::test]
async fn a_look_takes_nothing_and_waits_for_more() {
    let (near, mut far) = Stream::pair().unwrap();
    near.send_all(b"half").await.unwrap();
    let mut seen = [0; 16];
    assert_eq!(far.peek(&mut seen).await.unwrap(), 4);
    {
        let mut look = pin!(far.peek_beyond(4, &mut seen));
        assert!(waits(&mut look).await);
        near.send_all(b" and half").await.unwrap();
        assert_eq!(look.await.unwrap(), 13);
    }
    drop(near);
    assert_eq!(far.peek_beyond(13, &mut seen).await.unwrap(), 13, "the end is news");
    assert_eq!(far.read_some(&mut seen).await.unwrap(), 13);
    assert_eq!(far.peek(&mut seen).await.unwrap(), 0);
}

#[tokio::test]
async fn a_peer_that_has_closed_has_hung_up_and_its_bytes_stay() {
    let (near, far) = Stream::pair().unwrap();
    near.send_all(b"early").await.unwrap();
    {
        let mut hung_up = pin!(far.hung_up());
        assert!(waits(&mut hung_up).await, "data is no hang-up");
        drop(near);
        hung_up.await.unwrap();
    }
    let mut left = [0; 16];
    assert_eq!(far.try_read(&mut left).unwrap(), 5);
    let (near, far) = Stream::pair().unwrap();
    let mut hung_up = pin!(far.hung_up());
    assert!(waits(&mut hung_up).await);
    drop(near);
    hung_up.await.unwrap();
}

#[tokio::test]
async fn what_the_reader_has_no_room_for_waits_and_comes_in_order() {
    let (near, mut far) = Stream::pair().unwrap();
    let bytes: Vec<u8> = (0..MORE_THAN_FITS).map(|index| index as u8).collect();
    let sent = bytes.clone();
    let writer = tokio::spawn(async move {
        near.send_all(&sent).await.unwrap();
        near
    });
    let mut came = vec![0; MORE_THAN_FITS];
    far.read_exact(&mut came).await.unwrap();
    assert_eq!(came, bytes);
    writer.await.unwrap();
}

#[tokio::test]
async fn a_write_without_room_does_not_wait_and_goes_on_later() {
    let (near, far) = Stream::pair().unwrap();
    let mut sent = 0;
    let error = loop {
        match near.try_write(&[7; 50_000]) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let mut write = pin!(near.write_some(b"x"));
    assert!(waits(&mut write).await);
    let mut came = 0;
    let mut buffer = vec![0; 70_000];
    while came < sent {
        came += far.read_some(&mut buffer).await.unwrap();
    }
    assert_eq!(write.await.unwrap(), 1);
    assert_eq!(far.read_some(&mut buffer).await.unwrap(), 1);
}

#[tokio::test]
async fn what_was_written_comes_although_the_writer_is_gone() {
    let (mut near, mut far) = Stream::pair().unwrap();
    near.write_all(&[1; 50_000]).await.unwrap();
    near.write_all(&[2; 50_000]).await.unwrap();
    drop(near);
    let mut came = Vec::new();
    far.read_to_end(&mut came).await.unwrap();
    assert_eq!(came.len(), 100_000);
    assert_eq!((came[0], came[99_999]), (1, 2));
}

#[tokio::test]
async fn writing_to_a_peer_that_is_gone_fails() {
    let (near, far) = Stream::pair().unwrap();
    drop(far);
    assert!(near.send_all(b"anybody?").await.is_err());
    assert!(near.try_write(b"anybody?").is_err());
}

#[test]
fn a_blocking_read_and_write_end_with_their_deadlines() {
    let (near, mut far) = BlockingStream::pair().unwrap();
    let soon = || Some(Instant::now() + Duration::from_millis(1));
    let error = near.read_before(&mut [0; 1], soon()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let error = near.send_all_before(&[0; MORE_THAN_FITS], soon()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    far.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    far.write_all(b"still there").unwrap();
    let mut heard = [0; 16];
    assert_eq!(near.read_before(&mut heard, None).unwrap(), 11);
    // A clone has the same timeout.
    drop(near);
    let mut rest = Vec::new();
    far.try_clone().unwrap().read_to_end(&mut rest).unwrap();
}

#[tokio::test]
async fn a_connection_that_was_passed_is_served_by_its_new_owner_with_what_came_early() {
    assert_eq!(broker_transport::passing::CARRIER, Carrier::Table);
    let path = name("passing");
    let listener = Listener::bind(&path, &BindOptions::default()).unwrap();
    let client = Stream::connect(&path).await.unwrap();
    let held = listener.accept().await.unwrap().stream;
    client.send_all(b"early").await.unwrap();
    let (broker, backend) = Stream::pair().unwrap();

    let passage = Recipient::peer_of(&broker).unwrap().prepare(held.descriptor()).unwrap();
    let value = passage.handle_value();
    assert_ne!(value, 0);
    assert_eq!(passage.send(&broker, b"offer", held.descriptor()).await.unwrap(), 5);
    drop(held);

    let mut told = [0; 5];
    assert_eq!(backend.read_some(&mut told).await.unwrap(), 5);
    let passed = Stream::from_owned_fd(claim(None, value, &backend).unwrap()).unwrap();
    assert!(passed.peer().unwrap().user.is_self());
    let mut early = [0; 5];
    assert_eq!(passed.read_some(&mut early).await.unwrap(), 5);
    passed.send_all(b"served").await.unwrap();
    let mut answer = [0; 6];
    assert_eq!(client.read_some(&mut answer).await.unwrap(), 6);
    drop(passed);
    assert_eq!(client.read_some(&mut answer).await.unwrap(), 0, "no copy is left");
}

#[tokio::test]
async fn a_passage_that_is_not_sent_leaves_nothing_behind() {
    let path = name("unsent");
    let listener = Listener::bind(&path, &BindOptions::default()).unwrap();
    let client = Stream::connect(&path).await.unwrap();
    let held = listener.accept().await.unwrap().stream;
    let (broker, backend) = Stream::pair().unwrap();
    let passage = Recipient::peer_of(&broker).unwrap().prepare(held.descriptor()).unwrap();
    let value = passage.handle_value();
    drop(passage);
    assert!(claim(None, value, &backend).is_err());
    drop(held);
    assert_eq!(client.read_some(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn only_a_connection_that_the_sender_has_accepted_is_claimed() {
    let (broker, backend) = Stream::pair().unwrap();
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let value = |handle: &dyn AsRawHandle| handle.as_raw_handle().addr() as u64;
    assert!(matches!(claim(None, 0, &backend), Err(ClaimError::Missing)));
    assert!(matches!(claim(None, u64::MAX, &backend), Err(ClaimError::Missing)));
    for wrong in [value(&file), 0x7FFF_FFF0] {
        assert!(matches!(claim(None, wrong, &backend), Err(ClaimError::NotTheirs { found: "no pipe", .. })));
    }
    let clients = backend.try_clone_descriptor().unwrap();
    let error = claim(None, value(&clients), &backend).unwrap_err();
    assert!(matches!(error, ClaimError::NotTheirs { found: "a client's end of a pipe", .. }), "{error}");
    drop(broker);
}
