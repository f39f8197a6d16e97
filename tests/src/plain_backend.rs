//! A backend of plain v1, in the test's own process, that knows only bytes: it answers probes, echoes
//! requests, and leaves it to the test what becomes of each offer.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use broker_protocol::prost::Message;
use broker_protocol::wire::{DaemonProcess, Endpoint, Frame, FrameKind, HandoffOffer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::{PATIENCE, Wire, World, frame_of};

/// A registered backend and where it takes offers.
pub struct PlainBackend {
    endpoint: PathBuf,
    offers: UnixListener,
    offers_at: PathBuf,
}

/// A connection on which an offer is being made.
pub struct OfferConnection(UnixStream);

/// A whole offer, with the client's connection.
pub struct ReceivedOffer {
    /// The broker's connection, which the answer goes to.
    pub broker: OfferConnection,
    /// The client's connection.
    pub client: UnixStream,
    /// The bytes that the descriptor came with.
    pub token: Vec<u8>,
    /// The offer.
    pub offer: HandoffOffer,
}

impl PlainBackend {
    /// Listens in the world's own directory.
    pub fn bind(world: &World) -> Self {
        std::fs::create_dir_all(world.path("own")).unwrap();
        let (endpoint, offers_at) = (world.path("own/b.sock"), world.path("own/h.sock"));
        let listener = UnixListener::bind(&endpoint).unwrap();
        let told = endpoint.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let told = told.clone();
                std::thread::spawn(move || serve(stream, &told));
            }
        });
        Self { endpoint, offers: UnixListener::bind(&offers_at).unwrap(), offers_at }
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

    /// The next connection for an offer.
    pub fn accept(&self) -> OfferConnection {
        wait_readable(&self.offers);
        let (stream, _) = self.offers.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        OfferConnection(stream)
    }

    /// The next offer.
    pub fn next_offer(&self) -> ReceivedOffer {
        loop {
            let connection = self.accept();
            // A broker may dial and find that its client has left.
            wait_readable(&connection.0);
            if rustix::net::recv(&connection.0, &mut [0; 1], RecvFlags::PEEK).is_ok_and(|(_, got)| got > 0) {
                return connection.receive();
            }
        }
    }

    /// Whether nobody makes an offer at this moment.
    pub fn is_left_alone(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.offers, PollFlags::IN)], Some(&now)).unwrap() == 0
    }
}

impl OfferConnection {
    /// Receives the descriptor and the bytes it came with, and nothing behind them.
    pub fn receive_descriptor(&self) -> (UnixStream, Vec<u8>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 4096];
        let got = recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty());
        let got = got.unwrap().bytes;
        let descriptors: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        let [client] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
        assert!(!rustix::fs::fcntl_getfl(&client).unwrap().contains(OFlags::NONBLOCK), "as from accept()");
        let client = UnixStream::from(client);
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, bytes[..got].to_vec())
    }

    /// Receives a whole offer.
    pub fn receive(mut self) -> ReceivedOffer {
        let (client, token) = self.receive_descriptor();
        let frame = read_frame(&mut self.0).unwrap();
        assert_eq!((frame.envelope_version, frame.kind, frame.payload_protocol), (1, 0, 0xD0FF));
        let offer = HandoffOffer::decode(frame.payload).unwrap();
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
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&now)).unwrap() == 0
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
fn serve(mut stream: UnixStream, endpoint: &Path) {
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
    let _ = stream.shutdown(Shutdown::Both);
}

fn identity(endpoint: &Path) -> DaemonProcess {
    DaemonProcess {
        pid: std::process::id(),
        ipc_endpoint: Some(Endpoint { path: endpoint.to_str().unwrap().into(), ..Endpoint::default() }),
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned(),
        exe_hash_algorithm: "blake3".into(),
        exe_hash: vec![0; 32],
        ..DaemonProcess::default()
    }
}

fn read_frame(stream: &mut UnixStream) -> Option<Frame> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).ok()?;
    assert_eq!(header[0], 1, "the framing version");
    let mut body = vec![0; u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(Frame::decode(&body[..]).unwrap())
}

fn wait_readable(descriptor: &impl AsFd) {
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let came = poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(came, 1, "nothing came");
}
