//! What a hostile peer does, each for ever.
//!
//! A broker may cut any of these connections off at any time, so an error on one is no failure: what was to
//! be done there is done. Invariant: nothing here depends on how fast anybody is.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use broker_protocol::PayloadProtocol;
use broker_protocol::limits::{MAX_FRAME_BODY, MAX_HELLO_BODY};
use broker_protocol::prost::Message;
use broker_protocol::wire::{AdminRequest, AdminVerb, Frame};
use broker_tests::{frame_of, hello};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::progress::Progress;

/// Most descriptors that a message carries (unix(7), `SCM_MAX_FD`).
const MOST_DESCRIPTORS: usize = 253;
/// Descriptors that are not connections, and to spare.
const OTHER_DESCRIPTORS: u64 = 64;

/// Who does it, to whom.
pub(crate) struct Peer {
    pub(crate) socket: PathBuf,
    pub(crate) connections: usize,
    pub(crate) progress: &'static Progress,
}

impl Peer {
    fn connect(&self) -> UnixStream {
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => return stream,
                // The queue of a listener that has no descriptor left is full, or so many are on their way.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => panic!("{}: {error}", self.socket.display()),
            }
        }
    }

    /// As many as are wanted at once.
    fn connect_all(&self) -> Vec<UnixStream> {
        (0..self.connections).map(|_| self.connect()).collect()
    }
}

/// The Hello of a client that knows its manners.
pub(crate) fn hello_frame() -> Vec<u8> {
    let hello = hello("cache", "1.0.0").encode_to_vec();
    frame_of(&Frame::request(PayloadProtocol::CONTROL, 7, hello).encode_to_vec())
}

/// A request for everything that a broker tells about itself.
pub(crate) fn dump_frame() -> Vec<u8> {
    let dump = AdminRequest { verb: AdminVerb::Dump.into(), json: true, ..AdminRequest::default() };
    frame_of(&Frame::request(PayloadProtocol::ADMIN, 7, dump.encode_to_vec()).encode_to_vec())
}

/// Opens connections and keeps them, whether or not the other end is still there.
pub(crate) fn hold(peer: &Peer) {
    let room = descriptors_at_most(peer.connections as u64 + OTHER_DESCRIPTORS) - OTHER_DESCRIPTORS;
    let mut held = Vec::new();
    let in_flight = UnixStream::pair().unwrap();
    for _ in 0..peer.connections {
        held.push(peer.connect());
        if held.len() as u64 == room {
            // Those on their way from this process to itself are open without a descriptor here.
            let leaving = held.split_off(held.len() - MOST_DESCRIPTORS.min(held.len()));
            attach(&in_flight.0, b"!", &leaving.iter().map(AsFd::as_fd).collect::<Vec<_>>()).unwrap();
        }
    }
    peer.progress.step();
    peer.progress.keep();
}

/// Raises this process's limit of descriptors, and returns how many it then may have.
fn descriptors_at_most(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = wanted.min(maximum.unwrap_or(u64::MAX));
    if current.is_some_and(|current| current < most) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }).unwrap();
    }
    most
}

/// Sends bytes with descriptors on the first of them.
fn attach(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
}

/// Sends the bytes of a frame one by one; whoever is cut off begins anew.
pub(crate) fn trickle(peer: &Peer, tick: Duration) {
    let frame = frame_of(&vec![0; MAX_HELLO_BODY]);
    let connect = || {
        let stream = peer.connect();
        (stream, frame.iter())
    };
    let mut connections: Vec<_> = (0..peer.connections).map(|_| connect()).collect();
    loop {
        for connection in &mut connections {
            let (stream, bytes) = connection;
            let byte = bytes.next().map_or(0, |byte| *byte);
            let is_cut_off = stream.write_all(&[byte]).is_err();
            if is_cut_off {
                *connection = connect();
                peer.progress.step();
            }
        }
        std::thread::sleep(tick);
    }
}

/// Sends all but the last byte of the longest frame that a broker reads from a stranger, and waits for what
/// comes of it.
pub(crate) fn half_frames(peer: &Peer) {
    let mut frame = frame_of(&vec![0; MAX_HELLO_BODY]);
    frame.pop();
    loop {
        let mut connections = peer.connect_all();
        for stream in &mut connections {
            let _ = stream.write_all(&frame);
        }
        for stream in connections {
            to_its_end(stream);
            peer.progress.step();
        }
    }
}

/// Declares the longest frame of the protocol, and sends as much of it as is taken.
pub(crate) fn declare(peer: &Peer) {
    let frame = frame_of(&vec![0; MAX_FRAME_BODY]);
    loop {
        let mut stream = peer.connect();
        let _ = stream.write_all(&frame);
        to_its_end(stream);
        peer.progress.step();
    }
}

/// Sends frames whose bodies nobody has agreed upon.
pub(crate) fn garbage(peer: &Peer) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut body = [0; 64];
    loop {
        for chunk in body.chunks_mut(8) {
            // xorshift64: the same garbage each time.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        let length = body[0] as usize % body.len();
        let mut stream = peer.connect();
        let _ = stream.write_all(&frame_of(&body[..length]));
        to_its_end(stream);
        peer.progress.step();
    }
}

/// Attaches as many descriptors as a message carries: to the header of its Hello, to the body, and to a byte
/// behind it, in turn. Waits until the other end has none of them open.
pub(crate) fn attach_descriptors(peer: &Peer) {
    let frame = hello_frame();
    let (header, body) = frame.split_at(5);
    for turn in 0.. {
        let mut stream = peer.connect();
        let (mut read, write) = std::io::pipe().unwrap();
        let descriptors = [write.as_fd(); MOST_DESCRIPTORS];
        // What cannot be sent is not there to be closed.
        match turn % 3 {
            0 => {
                let _ = attach(&stream, header, &descriptors);
                let _ = stream.write_all(body);
            }
            1 => {
                let _ = stream.write_all(header);
                let _ = attach(&stream, body, &descriptors);
            }
            _ => {
                let _ = stream.write_all(&frame);
                let _ = attach(&stream, b"!", &descriptors);
            }
        }
        drop(write);
        to_its_end(stream);
        assert_eq!(read.read(&mut [0]).unwrap(), 0, "nobody writes there");
        peer.progress.step();
    }
}

/// Asks on one connection after another, and keeps them open without reading an answer.
pub(crate) fn never_read(peer: &Peer, request: &[u8]) {
    let mut held = VecDeque::new();
    loop {
        let mut stream = peer.connect();
        let _ = stream.write_all(request);
        held.push_back(stream);
        if held.len() > peer.connections {
            held.pop_front();
        }
        peer.progress.step();
    }
}

/// Connects and is gone: before it has said anything, in the middle of its Hello, or behind it.
pub(crate) fn vanish(peer: &Peer) {
    let frame = hello_frame();
    for turn in 0.. {
        let mut stream = peer.connect();
        let _ = stream.write_all(&frame[..frame.len() * (turn % 3) / 2]);
        drop(stream);
        peer.progress.step();
    }
}

/// Reads whatever comes, until the other end has closed.
fn to_its_end(mut stream: UnixStream) {
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut Vec::new());
}
