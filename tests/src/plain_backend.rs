//! A backend of plain v1, in the test's own process, that knows only bytes: it answers probes, echoes
//! requests, and leaves it to the test what becomes of each offer.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use broker_protocol::prost::Message;
use broker_protocol::wire::{DaemonProcess, Endpoint, Frame, FrameKind, HandoffOffer};

use crate::sys::{self, Listener, Stream};
use crate::{Wire, World, frame_of};

/// A registered backend and where it takes offers.
pub struct PlainBackend {
    endpoint: PathBuf,
    offers: Listener,
    offers_at: PathBuf,
}

/// A connection on which an offer is being made.
pub struct OfferConnection(Stream);

/// A whole offer, with the client's connection.
pub struct ReceivedOffer {
    /// The broker's connection, which the answer goes to.
    pub broker: OfferConnection,
    /// The client's connection.
    pub client: Stream,
    /// The bytes that the descriptor came with, or those of the offer where it comes by a value.
    pub token: Vec<u8>,
    /// The offer.
    pub offer: HandoffOffer,
}

impl PlainBackend {
    /// Listens in the world's own directory.
    pub fn bind(world: &World) -> Self {
        std::fs::create_dir_all(world.path("own")).unwrap();
        let (endpoint, offers_at) = (world.endpoint("own/b.sock"), world.endpoint("own/h.sock"));
        let listener = Listener::bind(&endpoint);
        let told = endpoint.clone();
        std::thread::spawn(move || {
            loop {
                let (stream, told) = (listener.next(), told.clone());
                std::thread::spawn(move || serve(stream, &told));
            }
        });
        Self { endpoint, offers: Listener::bind(&offers_at), offers_at }
    }

    /// The option that registers it, as this version of `cache`.
    pub fn option(&self, version: &str) -> String {
        format!(
            "service=cache,version={version},endpoint={},handoff={}",
            self.endpoint.display(),
            self.offers_at.display()
        )
    }

    /// Where clients dial it.
    pub fn endpoint(&self) -> &Path {
        &self.endpoint
    }

    /// Where it takes offers.
    pub fn offers_at(&self) -> &Path {
        &self.offers_at
    }

    /// Nobody listens where it took offers.
    pub fn take_no_more_offers(&self) {
        self.offers.close(&self.offers_at);
    }

    /// The next connection for an offer.
    pub fn accept(&self) -> OfferConnection {
        OfferConnection(self.offers.accept())
    }

    /// The next offer.
    pub fn next_offer(&self) -> ReceivedOffer {
        // A broker may dial and find that its client has left.
        OfferConnection(self.offers.accept_talking()).receive()
    }

    /// Whether nobody makes an offer at this moment.
    pub fn is_left_alone(&self) -> bool {
        self.offers.is_left_alone()
    }
}

impl OfferConnection {
    /// Receives the descriptor and the bytes it came with, and nothing behind them; none where it comes by a
    /// value.
    pub fn receive_carried(&self) -> Option<(Stream, Vec<u8>)> {
        sys::receive_carried(&self.0)
    }

    /// Receives a whole offer.
    pub fn receive(mut self) -> ReceivedOffer {
        let carried = self.receive_carried();
        let frame = read_frame(&mut self.0).unwrap();
        assert_eq!((frame.envelope_version, frame.kind, frame.payload_protocol), (1, 0, 0xD0FF));
        let offer = HandoffOffer::decode(frame.payload).unwrap();
        let by_value = || (sys::passed_as(offer.handle_value), offer.token.clone());
        let (client, token) = carried.unwrap_or_else(by_value);
        ReceivedOffer { broker: self, client, token, offer }
    }

    /// Writes these very bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Writes these very bytes, if it can.
    ///
    /// # Errors
    /// The broker has closed it.
    pub fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Waits until the broker has closed it; nothing more comes.
    pub fn wait_for_end(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(rest, [0; 0]),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }

    /// Whether the broker still holds its end.
    pub fn is_open(&self) -> bool {
        sys::is_open(&self.0)
    }
}

impl ReceivedOffer {
    /// Answers with this token and id.
    pub fn answer(&mut self, token: &[u8], accepted: bool, correlation_id: u64) {
        let answer = acknowledgement(token, accepted, correlation_id);
        self.broker.write(&answer);
    }

    /// Answers as an offer is answered.
    pub fn accept(&mut self) {
        let (token, id) = (self.offer.token.clone(), self.offer.correlation_id);
        self.answer(&token, true, id);
    }

    /// Closes the client's connection and says no.
    pub fn reject(self) -> OfferConnection {
        let Self { mut broker, client, offer, .. } = self;
        drop(client);
        broker.write(&acknowledgement(&offer.token, false, offer.correlation_id));
        broker
    }

    /// The client's connection, for talking.
    pub fn client(&self) -> Wire {
        Wire::of(self.client.try_clone().unwrap())
    }
}

/// The bytes of a framed `HandoffAck`, written field by field.
pub fn acknowledgement(token: &[u8], accepted: bool, correlation_id: u64) -> Vec<u8> {
    let mut ack = vec![0x0A, u8::try_from(token.len()).unwrap()];
    ack.extend(token);
    if accepted {
        ack.extend([0x10, 1]);
    } else {
        ack.extend([0x1A, 4]);
        ack.extend(b"full");
    }
    ack.push(0x20);
    ack.extend(varint(correlation_id));
    let mut body = vec![0x08, 1, 0x10, 1, 0x18];
    body.extend(varint(0xD0FF));
    body.extend([0x22, u8::try_from(ack.len()).unwrap()]);
    body.extend(ack);
    frame_of(&body)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Answers probes, and every other request with its own payload, until the peer has enough.
fn serve(mut stream: Stream, endpoint: &Path) {
    while let Some(request) = read_frame(&mut stream) {
        let mut payload = request.payload.to_vec();
        if request.payload_protocol == 0xB232 {
            payload.extend(identity(endpoint).encode_to_vec());
        }
        let answer = Frame { kind: FrameKind::Response.into(), payload: payload.into(), ..request };
        if stream.write_all(&frame_of(&answer.encode_to_vec())).is_err() {
            break;
        }
    }
}

fn identity(endpoint: &Path) -> DaemonProcess {
    DaemonProcess {
        pid: std::process::id(),
        ipc_endpoint: Some(Endpoint { path: endpoint.to_str().unwrap().into(), ..Endpoint::default() }),
        boot_id: broker_transport::identity::boot_id().unwrap(),
        exe_hash_algorithm: "blake3".into(),
        exe_hash: vec![0; 32],
        ..DaemonProcess::default()
    }
}

fn read_frame(stream: &mut Stream) -> Option<Frame> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).ok()?;
    assert_eq!(header[0], 1, "the framing version");
    let mut body = vec![0; u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(Frame::decode(&body[..]).unwrap())
}
