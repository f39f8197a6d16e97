//! Looking at what a peer has sent, and leaving it where it is.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may end at any surprise")]

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use broker_transport::stream::Stream;
use tokio::io::AsyncReadExt;

/// Whether a future has to wait, asked once.
async fn waits<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())).await
}

#[tokio::test]
async fn a_look_takes_nothing_however_often() {
    let (near, far) = Stream::pair().unwrap();
    near.send_all(b"early").await.unwrap();
    let mut seen = [0; 16];
    for _ in 0..3 {
        assert_eq!(far.peek(&mut seen).await.unwrap(), 5);
        assert_eq!(far.try_peek(&mut seen[..2]).unwrap(), 2);
    }
    assert_eq!(&seen[..5], b"early");
    assert_eq!(far.read_some(&mut seen).await.unwrap(), 5);
    assert_eq!(far.try_peek(&mut seen).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_look_that_is_given_up_while_it_waits_loses_nothing() {
    let (near, far) = Stream::pair().unwrap();
    let mut seen = [0; 16];
    {
        let mut look = pin!(far.peek(&mut seen));
        assert!(waits(&mut look).await);
    }
    near.send_all(b"late").await.unwrap();
    assert_eq!(far.peek(&mut seen).await.unwrap(), 4);
    assert_eq!(far.read_some(&mut seen).await.unwrap(), 4);
    assert_eq!(&seen[..4], b"late");
}

#[tokio::test]
async fn the_end_of_the_stream_is_seen_as_zero_bytes_and_behind_bytes_as_no_more() {
    let (near, mut far) = Stream::pair().unwrap();
    near.send_all(b"last").await.unwrap();
    let mut seen = [0; 16];
    assert_eq!(far.peek_beyond(0, &mut seen).await.unwrap(), 4);
    drop(near);
    assert_eq!(far.peek_beyond(4, &mut seen).await.unwrap(), 4);
    assert_eq!(far.read_some(&mut seen).await.unwrap(), 4);
    assert_eq!(far.peek(&mut seen).await.unwrap(), 0);
    assert_eq!(far.peek_beyond(4, &mut seen).await.unwrap(), 0);
}

#[cfg(unix)] // A pipe does not end in one direction.
#[tokio::test]
async fn the_end_of_one_direction_is_that_of_what_can_be_seen() {
    let (near, mut far) = Stream::pair().unwrap();
    near.send_all(b"last").await.unwrap();
    near.shutdown(std::net::Shutdown::Write).unwrap();
    let mut seen = [0; 16];
    assert_eq!(far.peek_beyond(0, &mut seen).await.unwrap(), 4);
    assert_eq!(far.peek_beyond(4, &mut seen).await.unwrap(), 4);
}

#[tokio::test]
async fn more_is_awaited_byte_by_byte_until_the_buffer_has_no_room() {
    let (near, mut far) = Stream::pair().unwrap();
    let mut seen = [0; 3];
    for count in 0..3 {
        {
            let mut look = pin!(far.peek_beyond(count, &mut seen));
            assert!(waits(&mut look).await, "{count} bytes are no news");
            near.send_all(&[count as u8]).await.unwrap();
            assert_eq!(look.await.unwrap(), count + 1);
        }
        assert_eq!(far.try_peek(&mut seen).unwrap(), count + 1);
    }
    assert_eq!(far.peek_beyond(3, &mut seen).await.unwrap(), 3);
    assert_eq!(seen, [0, 1, 2]);
}

#[tokio::test]
async fn an_end_is_news_to_who_waits_for_more() {
    let (near, mut far) = Stream::pair().unwrap();
    near.send_all(b"unfinished").await.unwrap();
    let mut seen = [0; 16];
    let mut look = pin!(far.peek_beyond(10, &mut seen));
    assert!(waits(&mut look).await);
    drop(near);
    assert_eq!(look.await.unwrap(), 10);
}

#[cfg(unix)] // A pipe has no news of more bytes, so there it looks again and again.
/// With tokio's clock stopped, time passes only when nothing is busy: a wait that spins would end neither.
#[tokio::test(start_paused = true)]
async fn waiting_for_more_keeps_nobody_busy() {
    let (near, mut far) = Stream::pair().unwrap();
    near.send_all(b"half").await.unwrap();
    let mut seen = [0; 16];
    let mut polls = 0;
    let mut look = pin!(far.peek_beyond(4, &mut seen));
    let counted = poll_fn(|context| {
        polls += 1;
        look.as_mut().poll(context)
    });
    assert!(tokio::time::timeout(std::time::Duration::from_secs(60), counted).await.is_err());
    // Once to begin, once for the bytes that were there, once for the end of the time.
    assert!(polls <= 3, "{polls}");
}

#[tokio::test]
async fn who_reads_after_a_wait_for_more_gets_every_byte_without_another_event() {
    let (near, mut far) = Stream::pair().unwrap();
    near.send_all(b"half").await.unwrap();
    let mut seen = [0; 16];
    {
        let mut look = pin!(far.peek_beyond(4, &mut seen));
        assert!(waits(&mut look).await);
        // The reactor tells it of the bytes that it knows, and that event is spent.
        tokio::task::yield_now().await;
        assert!(waits(&mut look).await);
    }
    assert_eq!(far.read(&mut seen).await.unwrap(), 4);
    assert_eq!(&seen[..4], b"half");
}

#[cfg(unix)] // Nothing rides on the bytes of a pipe.
#[tokio::test]
async fn descriptors_stay_with_the_bytes_they_ride_on_and_end_a_look() {
    use broker_transport::fd_passing::{recv_with_fds, send_with_fds};

    let (near, far) = Stream::pair().unwrap();
    let (passed, _) = Stream::pair().unwrap();
    send_with_fds(&near, b"fd", &[std::os::fd::AsFd::as_fd(&passed)]).await.unwrap();
    near.send_all(b"behind").await.unwrap();
    let mut seen = [0; 16];
    assert_eq!(far.peek(&mut seen).await.unwrap(), 2);
    assert_eq!(far.peek(&mut seen).await.unwrap(), 2);
    let received = recv_with_fds(&far, &mut seen, 1).await.unwrap();
    assert_eq!((received.len, received.descriptors.len()), (2, 1));
    assert_eq!(far.peek(&mut seen).await.unwrap(), 6);
}
