//! Noticing that a peer is gone, without reading what it left.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may end at any surprise")]

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use broker_transport::stream::Stream;

#[tokio::test]
async fn a_peer_that_has_closed_has_hung_up_and_its_bytes_stay() {
    let (near, far) = Stream::pair().unwrap();
    near.send_all(b"early").await.unwrap();
    let mut hung_up = pin!(far.hung_up());
    let is_pending = poll_fn(|context| Poll::Ready(hung_up.as_mut().poll(context).is_pending())).await;
    assert!(is_pending, "data is no hang-up");

    drop(near);
    hung_up.await.unwrap();
    let mut left = [0; 16];
    assert_eq!(far.try_read(&mut left).unwrap(), 5);
    assert_eq!(&left[..5], b"early");
}

#[cfg(unix)] // A pipe does not end in one direction.
#[tokio::test]
async fn a_peer_that_has_said_all_it_has_to_say_still_listens() {
    let (near, far) = Stream::pair().unwrap();
    near.shutdown(std::net::Shutdown::Write).unwrap();
    let mut hung_up = pin!(far.hung_up());
    let is_pending = poll_fn(|context| Poll::Ready(hung_up.as_mut().poll(context).is_pending())).await;
    assert!(is_pending);
    drop(near);
    hung_up.await.unwrap();
}
