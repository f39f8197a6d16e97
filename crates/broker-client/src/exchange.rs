//! One request and its reply, on a connection of their own (protocol.md, "Conversations" 1 and 2).
//!
//! It carries bytes; what a reply means is read elsewhere. Invariants: nothing is sent to a process of
//! another user, an exchange ends within its time whatever the broker does, and what the broker sends
//! is held only up to the limit.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use broker_protocol::bytes::Bytes;
use broker_protocol::frame_bytes;
use broker_protocol::limits::MAX_HELLO_BODY;
use broker_protocol::prost::Message;
use broker_protocol::wire::Frame;
use broker_transport::frame_io::{FrameFault, ReadError, read_frame_body_blocking};
use broker_transport::peer::{PeerCredentials, UserId};
use broker_transport::stream::{BlockingStream, ConnectError};
use thiserror::Error;

use crate::reply::{ProtocolError, ReplyFault};

/// Why there was no exchange, or only half of one.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// The broker would not read the request.
    #[error(
        "the first frame on a connection has at most {limit} bytes, this request has {actual}; shorten its texts"
    )]
    RequestTooLong {
        /// Length of the request's body in bytes.
        actual: usize,
        /// The longest that a broker reads, in bytes.
        limit: usize,
    },
    /// Nobody to ask.
    #[error(transparent)]
    Connect(ConnectError),
    /// The kernel does not say who listens there; nothing was sent.
    #[error("the kernel does not say who listens at {}: {source}", endpoint.display())]
    UnknownListener {
        /// The endpoint.
        endpoint: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Somebody else's process listens there; nothing was sent.
    #[error(
        "expected a broker of this user at {}, but a process of user {user} listens there; find out who put it there",
        endpoint.display()
    )]
    ForeignListener {
        /// The endpoint.
        endpoint: PathBuf,
        /// The user, by number.
        user: u64,
    },
    /// No whole reply in time.
    #[error(
        "no whole reply from the broker at {} within {} ms; allow it more time, or see whether it hangs",
        endpoint.display(),
        after.as_millis()
    )]
    TimedOut {
        /// The endpoint.
        endpoint: PathBuf,
        /// How long the exchange could take.
        after: Duration,
    },
    /// The broker closed the connection before its reply began.
    #[error(
        "the broker at {} closed the connection without a reply, as it does when it ends and when a process has \
         too many connections open; try again",
        endpoint.display()
    )]
    Closed {
        /// The endpoint.
        endpoint: PathBuf,
    },
    /// The system failed in the middle.
    #[error("cannot {operation} the broker at {}: {source}", endpoint.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The endpoint.
        endpoint: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// An id for a request frame, unlike any other of this process and never 0.
pub(crate) fn next_request_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What is sent where, and how much may come back how fast.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    endpoint: &'a Path,
    request: Bytes,
    max_reply: usize,
    timeout: Duration,
}

impl<'a> Exchange<'a> {
    /// Prepares to send `frame`; the reply's body may have `max_reply` bytes.
    pub(crate) fn new(
        endpoint: &'a Path,
        frame: &Frame,
        max_reply: usize,
        timeout: Duration,
    ) -> Result<Self, ExchangeError> {
        let actual = frame.encoded_len();
        match frame_bytes(frame) {
            Ok(request) if actual <= MAX_HELLO_BODY => Ok(Self { endpoint, request, max_reply, timeout }),
            Ok(_) | Err(_) => Err(ExchangeError::RequestTooLong { actual, limit: MAX_HELLO_BODY }),
        }
    }

    /// Connects, sends the request and reads the reply's body.
    #[cfg(feature = "tokio")]
    pub(crate) async fn run<E>(&self) -> Result<Bytes, E>
    where
        E: From<ExchangeError> + From<ProtocolError>,
    {
        match tokio::time::timeout(self.timeout, self.ask()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.timed_out().into()),
        }
    }

    #[cfg(feature = "tokio")]
    async fn ask<E>(&self) -> Result<Bytes, E>
    where
        E: From<ExchangeError> + From<ProtocolError>,
    {
        let connected = broker_transport::stream::Stream::connect(self.endpoint).await;
        let stream = connected.map_err(ExchangeError::Connect)?;
        self.check_listener(stream.peer())?;
        self.sent(stream.send_all(&self.request).await)?;
        self.received(broker_transport::frame_io::read_frame_body(&stream, self.max_reply).await)
    }

    /// The blocking twin of `run`.
    pub(crate) fn run_blocking<E>(&self) -> Result<Bytes, E>
    where
        E: From<ExchangeError> + From<ProtocolError>,
    {
        // A time that no clock reaches is none.
        let deadline = Instant::now().checked_add(self.timeout);
        let connected = BlockingStream::connect(self.endpoint, deadline.map(|_| self.timeout));
        let stream = connected.map_err(ExchangeError::Connect)?;
        self.check_listener(stream.peer())?;
        self.sent(stream.send_all_before(&self.request, deadline))?;
        self.received(read_frame_body_blocking(&stream, self.max_reply, deadline))
    }

    /// A process of another user may listen where ours once did.
    fn check_listener(&self, peer: io::Result<PeerCredentials>) -> Result<(), ExchangeError> {
        let endpoint = self.endpoint.to_path_buf();
        match peer {
            Ok(peer) => self.check_user(peer.user),
            Err(source) => Err(ExchangeError::UnknownListener { endpoint, source }),
        }
    }

    fn check_user(&self, user: UserId) -> Result<(), ExchangeError> {
        if user.is_self() {
            return Ok(());
        }
        Err(ExchangeError::ForeignListener { endpoint: self.endpoint.to_path_buf(), user: user.key() })
    }

    fn sent(&self, result: io::Result<()>) -> Result<(), ExchangeError> {
        match result.map_err(|error| (error.kind(), error)) {
            Ok(()) => Ok(()),
            // It may have refused before it read everything: what there is to read tells.
            Err((io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset, _)) => Ok(()),
            Err((io::ErrorKind::TimedOut, _)) => Err(self.timed_out()),
            Err((_, source)) => Err(self.io("write to", source)),
        }
    }

    fn received<E>(&self, result: Result<Bytes, ReadError>) -> Result<Bytes, E>
    where
        E: From<ExchangeError> + From<ProtocolError>,
    {
        match result {
            Ok(body) => Ok(body),
            Err(ReadError::Fault(FrameFault::ClosedBeforeFirstByte)) => {
                Err(ExchangeError::Closed { endpoint: self.endpoint.to_path_buf() }.into())
            }
            Err(ReadError::Fault(fault)) => Err(self.broken(ReplyFault::Framing(fault)).into()),
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                Err(self.timed_out().into())
            }
            Err(ReadError::Io(source)) => Err(self.io("read from", source).into()),
        }
    }

    /// The error of a reply that breaks the protocol.
    pub(crate) fn broken(&self, fault: ReplyFault) -> ProtocolError {
        ProtocolError { endpoint: self.endpoint.to_path_buf(), fault }
    }

    fn timed_out(&self) -> ExchangeError {
        ExchangeError::TimedOut { endpoint: self.endpoint.to_path_buf(), after: self.timeout }
    }

    fn io(&self, operation: &'static str, source: io::Error) -> ExchangeError {
        ExchangeError::Io { operation, endpoint: self.endpoint.to_path_buf(), source }
    }
}

#[cfg(test)]
mod tests {
    use broker_protocol::PayloadProtocol;

    use super::*;

    fn frame(payload: usize) -> Frame {
        Frame::request(PayloadProtocol::ADMIN, 1, vec![0; payload])
    }

    fn exchange(frame: &Frame) -> Result<Exchange<'static>, ExchangeError> {
        Exchange::new(Path::new("/run/broker.sock"), frame, 1024, Duration::from_secs(1))
    }

    #[test]
    fn the_longest_request_is_sent_and_one_more_byte_is_not() {
        let overhead = frame(MAX_HELLO_BODY).encoded_len() - MAX_HELLO_BODY;
        assert!(exchange(&frame(MAX_HELLO_BODY - overhead)).is_ok());
        let error = exchange(&frame(MAX_HELLO_BODY - overhead + 1)).unwrap_err();
        assert!(matches!(error, ExchangeError::RequestTooLong { actual: 65_537, limit: 65_536 }), "{error}");
    }

    #[test]
    fn a_process_of_another_user_is_not_asked() {
        let exchange = exchange(&frame(0)).unwrap();
        assert!(exchange.check_user(UserId::current()).is_ok());
        let own = u32::try_from(UserId::current().key()).unwrap();
        let error = exchange.check_user(UserId::from_uid(own ^ 1)).unwrap_err();
        assert!(matches!(error, ExchangeError::ForeignListener { user, .. } if user == u64::from(own ^ 1)));
        let unknown = exchange.check_listener(Err(io::ErrorKind::Other.into())).unwrap_err();
        assert!(matches!(unknown, ExchangeError::UnknownListener { .. }));
    }

    #[test]
    fn a_broker_that_has_left_may_still_have_answered() {
        let exchange = exchange(&frame(0)).unwrap();
        let sent = |kind: io::ErrorKind| exchange.sent(Err(kind.into()));
        assert!(sent(io::ErrorKind::BrokenPipe).is_ok() && sent(io::ErrorKind::ConnectionReset).is_ok());
        assert!(matches!(sent(io::ErrorKind::TimedOut), Err(ExchangeError::TimedOut { .. })));
        assert!(matches!(sent(io::ErrorKind::OutOfMemory), Err(ExchangeError::Io { .. })));
    }

    #[test]
    fn request_ids_are_never_zero_and_never_the_same() {
        let (first, second) = (next_request_id(), next_request_id());
        assert!(first > 0 && second > first);
    }
}
