//! What a service does with a request: the part that is its own.
//!
//! Invariant: a handler sees whole requests that keep the protocol's rules, and never makes a frame:
//! lane, id and trace context of the answer are those of the request, whatever it returns.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker_protocol::PayloadProtocol;
use broker_protocol::bytes::Bytes;
use broker_protocol::wire::Frame;
use broker_transport::peer::PeerCredentials;

/// Answers requests.
///
/// Requests of one connection come one after another, those of several connections at the same time.
/// A request is handled to its end even if the client goes away meanwhile. A panic closes the
/// connection it happened on.
///
/// Every async closure or function from a [`Request`] to something that becomes a [`Response`] is a
/// handler; a type of one's own implements this trait:
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use broker_backend::{Handler, PayloadProtocol, Request, Response};
///
/// #[derive(Default)]
/// struct Counter(AtomicU64);
///
/// impl Handler for Counter {
///     async fn handle(&self, request: Request) -> Response {
///         match request.lane() {
///             PayloadProtocol::ZCCACHE => Response::new(self.0.fetch_add(1, Ordering::Relaxed).to_string()),
///             _ => Response::hang_up(),
///         }
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request) -> impl Future<Output = Response> + Send;

    /// The last open connection has ended: the time for what would only be in the way of requests, such as
    /// writing a cache to disk. Dropped where a client comes meanwhile. Does nothing where it is not
    /// implemented.
    fn idle(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// The broker will end this process soon. No new connection is taken from now on; what has to be
    /// finished or saved is to be, for at most this long. Does nothing where it is not implemented.
    fn quiesce(&self, limit: Duration) -> impl Future<Output = ()> + Send {
        let _ = limit;
        async {}
    }

    /// Somebody is to replace or remove what lies below this path: close every file and directory there
    /// that is held open. An empty path is everything that can be done without. Where it is not
    /// implemented, a service holds nothing open.
    ///
    /// # Errors
    /// Why something stays open, for people.
    fn release_handles(&self, path: &Path) -> impl Future<Output = Result<(), String>> + Send {
        let _ = path;
        async { Ok(()) }
    }
}

impl<F, A> Handler for F
where
    F: Fn(Request) -> A + Send + Sync + 'static,
    A: Future<Output: Into<Response>> + Send,
{
    async fn handle(&self, request: Request) -> Response {
        self(request).await.into()
    }
}

/// One request of a client.
#[derive(Clone, Debug)]
pub struct Request {
    frame: Frame,
    peer: PeerCredentials,
}

impl Request {
    pub(crate) const fn new(frame: Frame, peer: PeerCredentials) -> Self {
        Self { frame, peer }
    }

    /// The lane that the payload belongs to.
    pub const fn lane(&self) -> PayloadProtocol {
        self.frame.lane()
    }

    /// The id that the client chose and that the answer will carry.
    pub const fn id(&self) -> u64 {
        self.frame.request_id
    }

    /// The payload, in the lane's own encoding.
    pub const fn payload(&self) -> &Bytes {
        &self.frame.payload
    }

    /// The payload alone.
    pub fn into_payload(self) -> Bytes {
        self.frame.payload
    }

    /// When the client stops waiting; `None` when it waits for as long as it takes.
    pub fn deadline(&self) -> Option<SystemTime> {
        match self.frame.deadline_unix_ms {
            0 => None,
            since_epoch => UNIX_EPOCH.checked_add(Duration::from_millis(since_epoch)),
        }
    }

    /// W3C `traceparent`, as the client wrote it; empty when it has none.
    pub fn traceparent(&self) -> &str {
        &self.frame.traceparent
    }

    /// W3C `tracestate`, as the client wrote it; empty when it has none.
    pub fn tracestate(&self) -> &str {
        &self.frame.tracestate
    }

    /// The kernel's word on who connected. Its user is the one this process runs as.
    pub const fn peer(&self) -> PeerCredentials {
        self.peer
    }
}

/// What becomes of a request.
///
/// Anything that becomes [`Bytes`] becomes an answer:
///
/// ```
/// use broker_backend::Response;
///
/// let answers: [Response; 3] = ["static".into(), String::from("owned").into(), vec![0xFF, 0x00].into()];
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Response(pub(crate) Outcome);

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answer(Bytes),
    HangUp,
}

impl Response {
    /// An answer with this payload, in the lane's own encoding. The whole frame has at most 16 MiB; an
    /// answer that makes it longer closes the connection.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self(Outcome::Answer(payload.into()))
    }

    /// No answer: the connection is closed. For a lane that the service does not speak and a payload
    /// that it cannot read, as the protocol itself has no word for them.
    pub const fn hang_up() -> Self {
        Self(Outcome::HangUp)
    }
}

impl<P: Into<Bytes>> From<P> for Response {
    fn from(payload: P) -> Self {
        Self::new(payload)
    }
}

/// Without the payload, which is the service's and its client's alone.
impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Outcome::Answer(payload) => write!(f, "Response({} bytes)", payload.len()),
            Outcome::HangUp => f.write_str("Response(hang up)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_transport::peer::UserId;

    use super::*;

    fn request(frame: Frame) -> Request {
        Request::new(frame, PeerCredentials { user: UserId::from_uid(1), gid: None, pid: None })
    }

    #[test]
    fn a_deadline_is_a_time_and_zero_is_none() {
        let with = |deadline_unix_ms| request(Frame { deadline_unix_ms, ..Frame::default() }).deadline();
        assert_eq!(with(0), None);
        assert_eq!(with(1500), Some(UNIX_EPOCH + Duration::from_millis(1500)));
        let _ = with(u64::MAX);
    }

    #[tokio::test]
    async fn closures_and_functions_are_handlers() {
        async fn function(_: Request) -> &'static str {
            "function"
        }
        let closure = async |request: Request| request.into_payload();
        let frame = Frame::request(PayloadProtocol::CLUD, 1, "closure");
        assert_eq!(closure.handle(request(frame.clone())).await, "closure".into());
        assert_eq!(function.handle(request(frame)).await, Response::new("function"));
    }

    #[test]
    fn debug_tells_neither_payload() {
        let frame = Frame::request(PayloadProtocol::CLUD, 1, "secret");
        let text = format!("{:?} {:?}", request(frame), Response::new("secret"));
        assert!(!text.contains("secret"), "{text}");
    }
}
