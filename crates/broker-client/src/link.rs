//! Bytes to a local process and back: whom they may go to, how many, and for how long.
//!
//! What the bytes mean is read elsewhere. Invariants: nothing is sent to a process of another user, a
//! call ends within its [`Limit`] whatever the other side does, and what the other side sends is held
//! only up to a length.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use broker_protocol::bytes::Bytes;
use broker_protocol::frame_bytes;
use broker_protocol::prost::Message;
use broker_protocol::wire::Frame;
#[cfg(feature = "tokio")]
use broker_transport::frame_io::read_frame_body;
use broker_transport::frame_io::{FrameFault, ReadError, read_frame_body_blocking};
use broker_transport::peer::{PeerCredentials, UserId};
#[cfg(feature = "tokio")]
use broker_transport::stream::Stream;
use broker_transport::stream::{BlockingStream, ConnectError};
use thiserror::Error;

use crate::hello::unix_ms;
use crate::reply::{ProtocolError, ReplyFault};

/// Whom a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// A broker.
    Broker,
    /// A backend, dialled at its own endpoint.
    Backend,
}

impl Display for Party {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broker => "broker",
            Self::Backend => "backend",
        })
    }
}

/// Why there was no exchange, or only half of one.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// The other side would not read the request; nothing was sent.
    #[error("a request to a {party} has at most {limit} bytes here, this one has {actual}; shorten it")]
    RequestTooLong {
        /// Whom it was for.
        party: Party,
        /// Length of the request frame's body in bytes.
        actual: usize,
        /// The longest that is read, in bytes.
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
        "expected a {party} of this user at {}, but a process of user {user} listens there; find out who put it there",
        endpoint.display()
    )]
    ForeignListener {
        /// Who should be there.
        party: Party,
        /// The endpoint.
        endpoint: PathBuf,
        /// The user, by number.
        user: u64,
    },
    /// No whole reply in time.
    #[error(
        "no whole reply from the {party} at {} within {} ms; allow it more time, or see whether it hangs",
        endpoint.display(),
        after.as_millis()
    )]
    TimedOut {
        /// Who is late.
        party: Party,
        /// The endpoint.
        endpoint: PathBuf,
        /// How long it could take.
        after: Duration,
    },
    /// The other side closed the connection before its reply began.
    #[error(
        "the {party} at {} closed the connection without a reply, as it does when it ends{}; try again",
        endpoint.display(),
        match party {
            Party::Broker => " and when a process has too many connections open",
            Party::Backend => " and when it does not take the request",
        }
    )]
    Closed {
        /// Who closed it.
        party: Party,
        /// The endpoint.
        endpoint: PathBuf,
    },
    /// The system failed in the middle.
    #[error("cannot {operation} the {party} at {}: {source}", endpoint.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With whom.
        party: Party,
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

/// How long something may take, counted from when this was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    timeout: Duration,
    /// None where the time is one that no clock reaches.
    deadline: Option<Instant>,
}

impl Limit {
    pub(crate) fn from_now(timeout: Duration) -> Self {
        Self { timeout, deadline: Instant::now().checked_add(timeout) }
    }

    /// A part of it: at most this long, and at most half of what is left.
    pub(crate) fn share(self, at_most: Duration) -> Self {
        Self::from_now(self.left().map_or(at_most, |left| at_most.min(left / 2)))
    }

    /// Its end for somebody with another clock, in milliseconds since the Unix epoch; 0 where it has none
    /// (protocol.md, "Frame").
    pub(crate) fn deadline_unix_ms(self, now: SystemTime) -> u64 {
        self.left().map_or(0, |left| unix_ms(now, left))
    }

    /// Whether it is not over by the end of a pause.
    pub(crate) fn has_room_for(self, pause: Duration) -> bool {
        self.left().is_none_or(|left| pause < left)
    }

    fn left(self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Waits for `work`, but not beyond the limit.
    #[cfg(feature = "tokio")]
    pub(crate) async fn bound<T, E: From<ExchangeError>>(
        self,
        place: Place<'_>,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match self.deadline {
            None => work.await,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), work).await {
                Ok(outcome) => outcome,
                Err(_) => Err(place.timed_out(self).into()),
            },
        }
    }
}

/// An endpoint, and who should be there.
///
/// The async calls wait for ever by themselves: [`Limit::bound`] goes around them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    party: Party,
    endpoint: &'a Path,
}

impl<'a> Place<'a> {
    pub(crate) const fn new(party: Party, endpoint: &'a Path) -> Self {
        Self { party, endpoint }
    }

    /// The bytes of a request whose body has at most `limit` bytes.
    pub(crate) fn request(self, frame: &Frame, limit: usize) -> Result<Bytes, ExchangeError> {
        let actual = frame.encoded_len();
        match frame_bytes(frame) {
            Ok(bytes) if actual <= limit => Ok(bytes),
            Ok(_) | Err(_) => Err(ExchangeError::RequestTooLong { party: self.party, actual, limit }),
        }
    }

    /// Connects, and learns who listens there.
    #[cfg(feature = "tokio")]
    pub(crate) async fn dial(self) -> Result<(Stream, PeerCredentials), ExchangeError> {
        let stream = Stream::connect(self.endpoint).await.map_err(ExchangeError::Connect)?;
        let listener = self.admit(stream.peer())?;
        Ok((stream, listener))
    }

    #[cfg(feature = "tokio")]
    pub(crate) async fn send(
        self,
        stream: &Stream,
        request: &[u8],
        limit: Limit,
    ) -> Result<(), ExchangeError> {
        self.sent(stream.send_all(request).await, limit)
    }

    /// The body of the next frame, which may have `max_body` bytes.
    #[cfg(feature = "tokio")]
    pub(crate) async fn receive<E>(self, stream: &Stream, max_body: usize, limit: Limit) -> Result<Bytes, E>
    where
        E: From<ExchangeError> + From<ProtocolError>,
    {
        self.received(read_frame_body(stream, max_body).await, limit)
    }

    pub(crate) fn dial_blocking(
        self,
        limit: Limit,
    ) -> Result<(BlockingStream, PeerCredentials), ExchangeError> {
        let connected = BlockingStream::connect(self.endpoint, limit.left());
        let stream = connected.map_err(ExchangeError::Connect)?;
        let listener = self.admit(stream.peer())?;
        Ok((stream, listener))
    }

    pub(crate) fn send_blocking(
        self,
        stream: &BlockingStream,
        request: &[u8],
        limit: Limit,
    ) -> Result<(), ExchangeError> {
        self.sent(stream.send_all_before(request, limit.deadline), limit)
    }

    pub(crate) fn receive_blocking<E>(
        self,
        stream: &BlockingStream,
        max_body: usize,
        limit: Limit,
    ) -> Result<Bytes, E>
    where
        E: From<ExchangeError> + From<ProtocolError>,
    {
        self.received(read_frame_body_blocking(stream, max_body, limit.deadline), limit)
    }

    /// The error of a reply that breaks the protocol.
    pub(crate) fn broken(self, fault: ReplyFault) -> ProtocolError {
        ProtocolError { party: self.party, endpoint: self.endpoint.to_path_buf(), fault }
    }

    /// A process of another user may listen where ours once did.
    fn admit(self, peer: io::Result<PeerCredentials>) -> Result<PeerCredentials, ExchangeError> {
        let endpoint = || self.endpoint.to_path_buf();
        let peer = peer.map_err(|source| ExchangeError::UnknownListener { endpoint: endpoint(), source })?;
        if peer.user == UserId::current() {
            return Ok(peer);
        }
        let user = peer.user.key();
        Err(ExchangeError::ForeignListener { party: self.party, endpoint: endpoint(), user })
    }

    fn sent(self, result: io::Result<()>, limit: Limit) -> Result<(), ExchangeError> {
        match result.map_err(|error| (error.kind(), error)) {
            Ok(()) => Ok(()),
            // It may have answered before it read everything: what there is to read tells.
            Err((io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset, _)) => Ok(()),
            Err((io::ErrorKind::TimedOut, _)) => Err(self.timed_out(limit)),
            Err((_, source)) => Err(self.io("write to", source)),
        }
    }

    fn received<E>(self, result: Result<Bytes, ReadError>, limit: Limit) -> Result<Bytes, E>
    where
        E: From<ExchangeError> + From<ProtocolError>,
    {
        match result {
            Ok(body) => Ok(body),
            Err(ReadError::Fault(FrameFault::ClosedBeforeFirstByte)) => {
                let endpoint = self.endpoint.to_path_buf();
                Err(ExchangeError::Closed { party: self.party, endpoint }.into())
            }
            Err(ReadError::Fault(fault)) => Err(self.broken(ReplyFault::Framing(fault)).into()),
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                Err(self.timed_out(limit).into())
            }
            Err(ReadError::Io(source)) => Err(self.io("read from", source).into()),
        }
    }

    fn timed_out(self, limit: Limit) -> ExchangeError {
        let endpoint = self.endpoint.to_path_buf();
        ExchangeError::TimedOut { party: self.party, endpoint, after: limit.timeout }
    }

    fn io(self, operation: &'static str, source: io::Error) -> ExchangeError {
        let endpoint = self.endpoint.to_path_buf();
        ExchangeError::Io { operation, party: self.party, endpoint, source }
    }
}

#[cfg(test)]
mod tests {
    use broker_protocol::PayloadProtocol;
    use broker_protocol::limits::MAX_HELLO_BODY;

    use super::*;

    const LIMIT: Limit = Limit { timeout: Duration::from_secs(1), deadline: None };

    fn place(party: Party) -> Place<'static> {
        Place::new(party, Path::new("/run/broker.sock"))
    }

    #[test]
    fn the_longest_request_is_sent_and_one_more_byte_is_not() {
        let request = |payload: usize| {
            let frame = Frame::request(PayloadProtocol::ADMIN, 1, vec![0; payload]);
            (frame.encoded_len(), place(Party::Broker).request(&frame, MAX_HELLO_BODY))
        };
        let longest = 2 * MAX_HELLO_BODY - request(MAX_HELLO_BODY).0;
        let (length, bytes) = request(longest);
        assert_eq!((length, bytes.unwrap().len()), (MAX_HELLO_BODY, MAX_HELLO_BODY + 5));
        let error = request(longest + 1).1.unwrap_err();
        assert!(
            matches!(error, ExchangeError::RequestTooLong { actual: 65_537, limit: 65_536, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_process_of_another_user_is_not_asked() {
        let listener = |user| Ok(PeerCredentials { user, gid: None, pid: None });
        let own = UserId::current();
        assert_eq!(place(Party::Broker).admit(listener(own)).unwrap().user, own);
        for party in [Party::Broker, Party::Backend] {
            let foreign = own.key() as u32 ^ 1;
            let error = place(party).admit(listener(UserId::from_uid(foreign))).unwrap_err();
            assert!(
                matches!(error, ExchangeError::ForeignListener { user, .. } if user == u64::from(foreign))
            );
            assert!(error.to_string().contains(&format!("expected a {party} of this user")), "{error}");
            let unknown = place(party).admit(Err(io::ErrorKind::Other.into())).unwrap_err();
            assert!(matches!(unknown, ExchangeError::UnknownListener { .. }));
        }
    }

    #[test]
    fn whoever_has_left_may_still_have_answered() {
        let sent = |kind: io::ErrorKind| place(Party::Backend).sent(Err(kind.into()), LIMIT);
        assert!(sent(io::ErrorKind::BrokenPipe).is_ok() && sent(io::ErrorKind::ConnectionReset).is_ok());
        assert!(matches!(sent(io::ErrorKind::TimedOut), Err(ExchangeError::TimedOut { .. })));
        assert!(matches!(sent(io::ErrorKind::OutOfMemory), Err(ExchangeError::Io { .. })));
    }

    #[test]
    fn a_time_that_no_clock_reaches_is_no_limit() {
        assert_eq!(Limit::from_now(Duration::MAX).left(), None);
        assert!(Limit::from_now(Duration::from_secs(60)).left() <= Some(Duration::from_secs(60)));
    }

    #[test]
    fn a_share_leaves_at_least_half_for_the_rest() {
        let second = Duration::from_secs(1);
        assert!(Limit::from_now(second * 60).share(second).left() <= Some(second));
        assert!(Limit::from_now(second).share(second).left() <= Some(second / 2));
        assert!(Limit::from_now(Duration::MAX).share(second).left() <= Some(second));
        assert!(Limit::from_now(second * 60).has_room_for(second) && LIMIT.has_room_for(Duration::MAX));
        assert!(!Limit::from_now(second).has_room_for(second));
    }

    #[test]
    fn request_ids_are_never_zero_and_never_the_same() {
        let (first, second) = (next_request_id(), next_request_id());
        assert!(first > 0 && second > first);
    }
}
