//! What the tests over real sockets share: a backend to talk to, and bytes written by hand.
#![allow(dead_code, reason = "each test binary uses its part")]

mod place;
pub(crate) mod wine;

use std::path::PathBuf;

use broker_backend::{Backend, Handler, Identity, ServeError};
use broker_protocol::bytes::Bytes;
use broker_transport::frame_io::read_frame_body;
use broker_transport::stream::Stream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) use place::Place;

/// A backend that serves in the background.
pub(crate) struct Served {
    pub(crate) endpoint: PathBuf,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServeError>>,
    place: Place,
}

impl Served {
    pub(crate) fn start(handler: impl Handler) -> Self {
        Self::start_as(handler, None)
    }

    pub(crate) fn start_as(handler: impl Handler, identity: Option<Identity>) -> Self {
        Self::start_with(handler, |backend| match identity {
            Some(identity) => backend.with_identity(identity),
            None => backend,
        })
    }

    /// Starts what `with` makes of the plain backend.
    pub(crate) fn start_with(handler: impl Handler, with: impl FnOnce(Backend) -> Backend) -> Self {
        let place = Place::new();
        let backend = with(Backend::bind(place.endpoint("be.sock")).unwrap());
        let endpoint = backend.endpoint().to_owned();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(backend.serve_until(handler, async { stopped.await.unwrap_or_default() }));
        Self { endpoint, stop, serving, place }
    }

    pub(crate) async fn connect(&self) -> Stream {
        Stream::connect(&self.endpoint).await.unwrap()
    }

    /// Asks it to stop, without waiting until it has.
    pub(crate) fn ask_to_stop(self) -> (JoinHandle<Result<(), ServeError>>, Place) {
        let _ = self.stop.send(());
        (self.serving, self.place)
    }

    /// Stops it, and checks that nothing stays behind.
    pub(crate) async fn stop(self) {
        let (serving, place) = self.ask_to_stop();
        serving.await.unwrap().unwrap();
        place.assert_left_empty();
    }
}

/// A body with the header that makes it a frame on the wire.
pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    [&[1][..], &u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}

/// A request on the private lane 0xF001 with id 7 and a payload of less than 128 bytes.
pub(crate) fn request(payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    // envelope_version 1, payload_protocol 0xF001, payload, request_id 7.
    framed(&[&[0x08, 1, 0x18, 0x81, 0xE0, 0x03, 0x22, length][..], payload, &[0x28, 7]].concat())
}

/// The body of the answer to such a request: the same with kind 1.
pub(crate) fn response(payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0x08, 1, 0x10, 1, 0x18, 0x81, 0xE0, 0x03, 0x22, length][..], payload, &[0x28, 7]].concat()
}

pub(crate) async fn read_body(stream: &Stream) -> Bytes {
    read_frame_body(stream, 16 * 1024 * 1024).await.unwrap()
}

/// Checks that the other side closes without another byte.
pub(crate) async fn closes(stream: &Stream) {
    match stream.read_some(&mut [0; 64]).await {
        Ok(count) => assert_eq!(count, 0, "there came bytes"),
        // What it had not read any more is what it resets the connection for.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
}
