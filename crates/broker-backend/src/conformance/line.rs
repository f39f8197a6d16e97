//! A connection as a check sees it: bytes go out, and what comes back is a frame, an end, or neither.
//!
//! It knows frames and no lane. Invariants: nothing here waits longer than its patience, whatever the other
//! side does; and no byte behind the frame at hand is read.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::Shutdown;
use std::path::Path;
use std::time::Duration;

use broker_protocol::limits::MAX_FRAME_BODY;
use broker_protocol::prost::Message;
use broker_protocol::wire::Frame;
use broker_transport::frame_io::{FrameFault, FrameReader, ReadError};
use broker_transport::passing::Passage;
use broker_transport::stream::Stream;
use tokio::time::{sleep, timeout};

use super::report::{Outcome, failed, skipped};

/// Pause between two pieces of what is sent in pieces. A verdict does not hang on it: it makes it likelier
/// that the other side meets each piece by itself.
const PIECE_PAUSE: Duration = Duration::from_millis(1);

/// What came next.
#[derive(Debug, PartialEq)]
pub(super) enum Came {
    /// A whole frame.
    Frame(Box<Frame>),
    /// The end, and nothing before it.
    End,
    /// Nothing, or not enough, for as long as the wait lasted.
    Silence { received: usize },
    /// Bytes that are no frame.
    Broken(String),
}

/// What came where the end was waited for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Ended,
    Bytes(usize),
    Silence,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) stream: Stream,
    reader: FrameReader,
    patience: Duration,
}

impl Line {
    pub(super) fn over(stream: Stream, patience: Duration) -> Self {
        Self { stream, reader: FrameReader::new(MAX_FRAME_BODY), patience }
    }

    pub(super) async fn dial(endpoint: &Path, patience: Duration) -> Outcome<Self> {
        match timeout(patience, Stream::connect(endpoint)).await {
            Ok(Ok(stream)) => Ok(Self::over(stream, patience)),
            Ok(Err(error)) => Err(failed(format_args!("a connection to {}", endpoint.display()), error)),
            Err(_) => Err(failed(
                format_args!("a connection to {}", endpoint.display()),
                format_args!("none within {} ms", patience.as_millis()),
            )),
        }
    }

    /// Sends it. What the other side does not take shows in what comes.
    pub(super) async fn send(&self, bytes: &[u8]) {
        let _ = timeout(self.patience, self.stream.send_all(bytes)).await;
    }

    /// Sends a part of something, and leaves the other side the time to meet it by itself.
    pub(super) async fn send_piece(&self, bytes: &[u8]) {
        self.send(bytes).await;
        sleep(PIECE_PAUSE).await;
    }

    /// Sends it byte by byte.
    pub(super) async fn send_in_pieces(&self, bytes: &[u8]) {
        for byte in bytes {
            self.send_piece(std::slice::from_ref(byte)).await;
        }
    }

    /// Sends the message that passes a connection, and drops the kit's own copy of that connection.
    pub(super) async fn send_with(&self, bytes: &[u8], (passage, passed): (Passage, Stream)) -> Outcome {
        const EXPECTED: &str = "a connection that takes another one with the bytes it comes with";
        match timeout(self.patience, passage.send(&self.stream, bytes, passed.descriptor())).await {
            Ok(Ok(sent)) => {
                self.send(&bytes[sent..]).await;
                Ok(())
            }
            Ok(Err(error)) => Err(failed(EXPECTED, error)),
            Err(_) => Err(failed(EXPECTED, "one that has no room for them")),
        }
    }

    /// Says that nothing more will be sent, where that can be said without closing the connection.
    pub(super) fn finish(&self) -> Outcome {
        match self.stream.shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(skipped(error)),
            // One that has ended already needs no other end.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// What comes next.
    pub(super) async fn next(&mut self) -> Came {
        self.next_within(self.patience).await
    }

    /// What comes next, if it does within this time.
    pub(super) async fn next_within(&mut self, limit: Duration) -> Came {
        match timeout(limit, self.reader.read_from(&self.stream)).await {
            Err(_) => Came::Silence { received: self.reader.received() },
            Ok(Ok(())) => match Frame::decode(self.reader.take_body()) {
                Ok(frame) => Came::Frame(Box::new(frame)),
                Err(error) => Came::Broken(format!("a body that is no Frame: {error}")),
            },
            Ok(Err(ReadError::Fault(FrameFault::ClosedBeforeFirstByte))) => Came::End,
            Ok(Err(error)) if is_end(&error) => Came::End,
            Ok(Err(error)) => Came::Broken(error.to_string()),
        }
    }

    /// These many bytes, or those that come before the end or the silence.
    pub(super) async fn bytes(&self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match timeout(self.patience, self.stream.read_some(&mut bytes[filled..])).await {
                Ok(Ok(read)) if read > 0 => filled += read,
                _ => break,
            }
        }
        bytes.truncate(filled);
        bytes
    }

    /// Waits for the end.
    pub(super) async fn ending(&self) -> Ending {
        self.ending_within(self.patience).await
    }

    pub(super) async fn ending_within(&self, limit: Duration) -> Ending {
        match timeout(limit, self.stream.read_some(&mut [0; 256])).await {
            Ok(Ok(0) | Err(_)) => Ending::Ended,
            Ok(Ok(count)) => Ending::Bytes(count),
            Err(_) => Ending::Silence,
        }
    }

    /// That it ends without another byte.
    pub(super) async fn must_end(&self, expected: &str) -> Outcome {
        match self.ending().await {
            Ending::Ended => Ok(()),
            came @ (Ending::Bytes(_) | Ending::Silence) => Err(failed(expected, came)),
        }
    }
}

/// Whoever closes with bytes unread resets the connection.
fn is_end(error: &ReadError) -> bool {
    matches!(error, ReadError::Io(error)
        if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

impl Display for Came {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(frame) => write!(
                f,
                "a frame of kind {} on lane {} with {} bytes of payload",
                frame.kind,
                frame.lane(),
                frame.payload.len()
            ),
            Self::End => f.write_str("the end of the connection"),
            Self::Silence { received: 0 } => f.write_str("nothing"),
            Self::Silence { received } => write!(f, "{received} bytes of a frame, and no more"),
            Self::Broken(what) => f.write_str(what),
        }
    }
}

impl Display for Ending {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the end of the connection"),
            Self::Bytes(count) => write!(f, "{count} bytes"),
            Self::Silence => f.write_str("nothing: it is still open"),
        }
    }
}
