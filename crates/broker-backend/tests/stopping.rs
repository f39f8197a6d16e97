//! What becomes of connections when a backend stops.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod common;

use broker_backend::bytes::Bytes;
use broker_backend::{Backend, Handler, Request};
use broker_transport::endpoint::Platform;
use broker_transport::stream::{ConnectErrorKind, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use common::{Place, Served, closes, read_body, request, response};

/// What somebody meets who comes while a last request is answered. On Windows a connection keeps its pipe's
/// name.
const WHILE_STOPPING: ConnectErrorKind = match Platform::CURRENT {
    Platform::Linux | Platform::MacOs => ConnectErrorKind::NotFound,
    Platform::Windows => ConnectErrorKind::Refused,
};

async fn echo(request: Request) -> Bytes {
    request.into_payload()
}

/// An echo that tells of every request and answers it once it is allowed to.
fn gated() -> (impl Handler, mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
    let (tell, begun) = mpsc::unbounded_channel();
    let handler = move |request: Request| {
        let (allow, allowed) = oneshot::channel();
        tell.send(allow).unwrap();
        async move {
            allowed.await.unwrap();
            request.into_payload()
        }
    };
    (handler, begun)
}

#[tokio::test]
async fn a_request_at_hand_is_answered_before_the_connection_ends() {
    let (handler, mut begun) = gated();
    let served = Served::start(handler);
    let endpoint = served.endpoint.clone();
    let (busy, idle) = (served.connect().await, served.connect().await);
    busy.send_all(&request(b"at hand")).await.unwrap();
    let allow = begun.recv().await.unwrap();
    let (serving, place) = served.ask_to_stop();
    closes(&idle).await;
    let refused = Stream::connect(&endpoint).await.unwrap_err();
    assert_eq!(refused.kind, WHILE_STOPPING);
    place.assert_left_empty();
    allow.send(()).unwrap();
    assert_eq!(read_body(&busy).await, response(b"at hand"));
    closes(&busy).await;
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_is_still_on_its_way_in_is_awaited() {
    let served = Served::start(echo);
    let client = served.connect().await;
    client.send_all(&request(b"first")).await.unwrap();
    assert_eq!(read_body(&client).await, response(b"first"));
    let wire = request(b"second");
    client.send_all(&wire[..9]).await.unwrap();
    let (witness, endpoint) = (served.connect().await, served.endpoint.clone());
    let (serving, _place) = served.ask_to_stop();
    closes(&witness).await;
    assert_eq!(Stream::connect(&endpoint).await.unwrap_err().kind, WHILE_STOPPING);
    client.send_all(&wire[9..]).await.unwrap();
    assert_eq!(read_body(&client).await, response(b"second"));
    closes(&client).await;
    serving.await.unwrap().unwrap();
}

/// With tokio's clock stopped, time passes only when nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn neither_a_handler_nor_a_client_can_hold_up_a_stop() {
    let (handler, mut begun) = gated();
    let served = Served::start(handler);
    let (endless, stalling) = (served.connect().await, served.connect().await);
    endless.send_all(&request(b"endless")).await.unwrap();
    let _never = begun.recv().await.unwrap();
    stalling.send_all(&request(b"stalling")[..9]).await.unwrap();
    let before = Instant::now();
    served.stop().await;
    assert!(before.elapsed() >= broker_backend::DRAIN_LIMIT);
    closes(&endless).await;
    closes(&stalling).await;
}

#[tokio::test]
async fn a_client_that_never_pauses_does_not_hold_up_a_stop() {
    let (handler, mut begun) = gated();
    let served = Served::start(handler);
    let client = served.connect().await;
    let wire = [request(b"first"), request(b"second"), request(b"third")].concat();
    client.send_all(&wire).await.unwrap();
    let first = begun.recv().await.unwrap();
    let witness = served.connect().await;
    let (serving, _place) = served.ask_to_stop();
    closes(&witness).await;
    first.send(()).unwrap();
    assert_eq!(read_body(&client).await, response(b"first"));
    begun.recv().await.unwrap().send(()).unwrap();
    assert_eq!(read_body(&client).await, response(b"second"));
    closes(&client).await;
    assert!(begun.recv().await.is_none(), "the third request was taken");
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_the_future_ends_everything_at_once() {
    let place = Place::new();
    let backend = Backend::bind(place.endpoint("be.sock")).unwrap();
    let client = Stream::connect(backend.endpoint()).await.unwrap();
    client.send_all(&request(b"before")).await.unwrap();
    tokio::select! {
        result = backend.serve(echo) => panic!("{result:?}"),
        body = read_body(&client) => assert_eq!(body, response(b"before")),
    }
    closes(&client).await;
    place.assert_left_empty();
}
