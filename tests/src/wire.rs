//! A peer that knows only bytes.

use std::io::{Read, Write};
use std::path::Path;

use broker_protocol::PayloadProtocol;
use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, Hello, HelloReply, Negotiated, Refused, hello_reply};

use crate::sys::{self, Stream};

/// A connection.
pub struct Wire(Stream);

impl Wire {
    /// Connects to a socket.
    pub fn connect(path: &Path) -> Self {
        let stream = sys::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::of(stream)
    }

    /// Connects, if somebody listens.
    ///
    /// # Errors
    /// Nobody does.
    pub fn try_connect(path: &Path) -> std::io::Result<Self> {
        sys::connect(path).map(Self::of)
    }

    /// Takes over a connection.
    pub fn of(stream: Stream) -> Self {
        sys::patient(&stream);
        Self(stream)
    }

    /// Writes these very bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// The stream's.
    pub fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Writes a frame.
    pub fn send(&mut self, frame: &Frame) {
        self.write(&frame_of(&frame.encode_to_vec()));
    }

    /// Writes a frame, if it can.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn try_send(&mut self, frame: &Frame) -> std::io::Result<()> {
        self.0.write_all(&frame_of(&frame.encode_to_vec()))
    }

    /// Reads a frame, if there is one.
    ///
    /// # Errors
    /// The stream ends before, or nothing comes.
    pub fn try_receive(&mut self) -> std::io::Result<Frame> {
        let mut header = [0; 5];
        self.0.read_exact(&mut header)?;
        assert_eq!(header[0], 1, "the framing version");
        let mut body = vec![0; u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize];
        self.0.read_exact(&mut body)?;
        Ok(Frame::decode(&body[..]).unwrap())
    }

    /// Reads a frame, if one comes in time.
    ///
    /// # Errors
    /// None comes.
    #[cfg(unix)]
    pub fn try_receive_within(&mut self, limit: std::time::Duration) -> std::io::Result<Frame> {
        self.0.set_read_timeout(Some(limit))?;
        let received = self.try_receive();
        sys::patient(&self.0);
        received
    }

    /// Says that nothing more will be written, which a pipe cannot.
    #[cfg(unix)]
    pub fn finish(&mut self) {
        sys::finish(&self.0);
    }

    /// Reads a frame.
    pub fn receive(&mut self) -> Frame {
        self.try_receive().unwrap()
    }

    /// Reads to the end of the stream; a reset is an end.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends a Hello and returns the result in the reply.
    pub fn say(&mut self, hello: &Hello) -> hello_reply::Result {
        self.send(&Frame::request(PayloadProtocol::CONTROL, 7, hello.encode_to_vec()));
        let frame = self.receive();
        assert_eq!(frame.request_id, 7);
        reply_of(&frame)
    }

    /// Sends a text to a backend and returns its answer.
    pub fn tell(&mut self, text: &str) -> String {
        self.send(&Frame::request(PayloadProtocol::new(0xF001), 9, text.to_owned()));
        String::from_utf8(self.receive().payload.to_vec()).unwrap()
    }
}

/// Whether somebody takes connections there.
pub fn is_listening(path: &Path) -> bool {
    Wire::try_connect(path).is_ok()
}

/// A body with its header.
pub fn frame_of(body: &[u8]) -> Vec<u8> {
    [&[1][..], &u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}

/// A Hello as any v1 client sends it.
pub fn hello(service: &str, version: &str) -> Hello {
    Hello {
        client_min_protocol: 1,
        client_max_protocol: 1,
        service_name: service.to_owned(),
        wanted_version: version.to_owned(),
        client_version: "1.0.0".to_owned(),
        peer_pid: std::process::id(),
        client_lib_name: "by-hand".to_owned(),
        client_lib_version: "1.0.0".to_owned(),
        ..Hello::default()
    }
}

/// What a reply frame says.
pub fn reply_of(frame: &Frame) -> hello_reply::Result {
    assert_eq!((frame.envelope_version, frame.kind, frame.payload_protocol), (1, 1, 0), "a control response");
    HelloReply::decode(frame.payload.clone()).unwrap().result.expect("a reply has a result")
}

/// The agreement in a reply.
pub fn agreed(result: hello_reply::Result) -> Negotiated {
    match result {
        hello_reply::Result::Negotiated(negotiated) => negotiated,
        hello_reply::Result::Refused(refused) => panic!("refused: {refused:?}"),
    }
}

/// The refusal in a reply.
pub fn refused(result: hello_reply::Result) -> Refused {
    match result {
        hello_reply::Result::Refused(refused) => {
            assert_eq!((refused.daemon_min_protocol, refused.daemon_max_protocol), (1, 1));
            refused
        }
        hello_reply::Result::Negotiated(negotiated) => panic!("agreed: {negotiated:?}"),
    }
}
