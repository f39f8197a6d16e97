//! Noticing that a peer is gone, without reading what it left.
#![cfg(all(unix, feature = "tokio"))]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may end at any surprise")]

use std::future::poll_fn;
use std::net::Shutdown;
use std::pin::pin;
use std::task::Poll;

use broker_transport::stream::Stream;

#[tokio::test]
async fn only_a_peer_that_has_closed_for_good_has_hung_up_and_its_bytes_stay() {
    let (near, far) = Stream::pair().unwrap();
    near.send_all(b"early").await.unwrap();
    let mut hung_up = pin!(far.hung_up());
    let is_pending = poll_fn(|context| Poll::Ready(hung_up.as_mut().poll(context).is_pending())).await;
    assert!(is_pending, "data is no hang-up");

    near.shutdown(Shutdown::Write).unwrap();
    let is_pending = poll_fn(|context| Poll::Ready(hung_up.as_mut().poll(context).is_pending())).await;
    assert!(is_pending, "a peer that has said all it has to say still listens");

    drop(near);
    hung_up.await.unwrap();
    let mut left = [0; 16];
    assert_eq!(far.try_read(&mut left).unwrap(), 5);
    assert_eq!(&left[..5], b"early");
}
