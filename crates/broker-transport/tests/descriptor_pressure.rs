//! A want of descriptors. Alone in its process, because the limit is the process's.
#![cfg(all(unix, feature = "tokio"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use broker_transport::listener::{AcceptError, BindOptions, Listener};
use broker_transport::stream::Stream;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[tokio::test]
async fn a_want_of_descriptors_is_told_apart_and_the_connection_waits_for_it_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = Listener::bind(&path, &BindOptions::default()).unwrap();
    let _client = Stream::connect(&path).await.unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), maximum: limit.maximum }).unwrap();
    let starved = listener.accept().await;
    let starved_again = listener.try_accept();
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(matches!(starved, Err(AcceptError::DescriptorPressure(_))), "{starved:?}");
    assert!(matches!(starved_again, Err(AcceptError::DescriptorPressure(_))), "{starved_again:?}");
    assert!(listener.accept().await.unwrap().peer.unwrap().user.is_self());
}
