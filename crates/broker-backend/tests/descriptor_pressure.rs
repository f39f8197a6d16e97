//! A want of descriptors while serving. Alone in its process, because the limit is the process's.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod common;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use broker_backend::{DaemonProcess, Identity, Request};
use broker_transport::stream::Stream;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use common::{Served, closes, read_body, request, response};

async fn echo(request: Request) -> broker_backend::bytes::Bytes {
    request.into_payload()
}

/// With tokio's clock stopped, time passes only when nothing is busy.
#[tokio::test(start_paused = true)]
async fn a_want_of_descriptors_delays_connections_loses_none_and_keeps_nobody_busy() {
    // A fixed identity: finding out the real one takes a descriptor, too, at a moment of its own.
    let served = Served::start_as(echo, Some(Identity::fixed(DaemonProcess::default())));
    let established = served.connect().await;
    established.send_all(&request(b"before")).await.unwrap();
    assert_eq!(read_body(&established).await, response(b"before"));

    // Nothing is awaited from here to the limit: the connection stays in the queue.
    let waiting = UnixStream::connect(&served.endpoint).unwrap();
    let waiting = Stream::from_owned_fd(waiting.into()).unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), maximum: limit.maximum }).unwrap();

    // Who is connected is served meanwhile, and one who leaves is seen off.
    established.send_all(&request(b"meanwhile")).await.unwrap();
    assert_eq!(read_body(&established).await, response(b"meanwhile"));
    established.send_all(&[2]).await.unwrap();
    closes(&established).await;

    // A loop that spins would never let this end.
    tokio::time::sleep(Duration::from_secs(60)).await;

    setrlimit(Resource::Nofile, limit).unwrap();
    waiting.send_all(&request(b"after")).await.unwrap();
    assert_eq!(read_body(&waiting).await, response(b"after"));
    served.stop().await;
}
