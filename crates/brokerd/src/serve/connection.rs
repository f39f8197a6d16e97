//! One connection, from accept to close: read one frame, ask the broker, write one frame.
//!
//! It decides nothing. Invariants: no byte behind the first frame is read, so early data stays in the
//! socket; the read has a deadline counted from accept and the write one of its own, so no peer holds a
//! connection longer than the sum of both and a backend's start.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use broker_core::admission::{ConnectionKey, OverQuota, PeerKey};
use broker_core::broker::{Decision, FirstFrame, Input};
use broker_core::hello::{Admitted, Handover, Reply};
use broker_core::time::Monotonic;
use broker_protocol::bytes::Bytes;
use broker_protocol::control::Announcement;
use broker_protocol::limits::MAX_HELLO_BODY;
use broker_protocol::prost::Message;
use broker_protocol::wire::{AdminReply, AdminRequest, AdminVerb, Frame, FrameKind};
use broker_protocol::{Echo, PayloadProtocol, Refusal, frame_bytes};
use broker_transport::frame_io::{FrameFault, FrameReader, ReadError};
use broker_transport::stream::Stream;

use tokio::task::coop::has_budget_remaining;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::control;
use super::facts;
use super::handoff::{self, Terms};
use super::ownership::Held;
use super::shell::{InFlight, Shell};

/// How long a peer may take to read its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that hold nearly every reply, an endpoint of full length and a trace in it.
const USUAL_REPLY: usize = 512;

/// Bytes that hold nearly every request.
const USUAL_REQUEST: usize = 512;

/// Answers of any length that a peer may leave unread, where it keeps nothing else.
const LONG_ANSWERS: usize = 8;

/// What is left to do when an answer is written.
struct Answer {
    bytes: Vec<u8>,
    then: Then,
}

enum Then {
    Close,
    Drain {
        deadline: Option<Duration>,
    },
    /// Pass the connection on; the answer goes with it or before it.
    Pass(Box<Terms>),
    /// Keep it as the control connection of a backend that announces itself.
    Register {
        id: u64,
        announcement: Box<Announcement>,
    },
}

impl From<Vec<u8>> for Answer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, then: Then::Close }
    }
}

/// Tells the broker of the connection's end, however it comes.
pub(super) struct Open {
    shell: Rc<Shell>,
    key: ConnectionKey,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shell.forget(self.key);
    }
}

/// Serves a connection that was admitted at `accepted`. Until its socket was looked at once it counts as a
/// request in flight: what was sent before a drain ends is answered.
pub(super) async fn serve(
    shell: Rc<Shell>,
    stream: Stream,
    key: ConnectionKey,
    peer: PeerKey,
    accepted: Monotonic,
    in_flight: InFlight,
) {
    let open = Open { shell: Rc::clone(&shell), key };
    let patience = shell.settings().hello_timeout.value;
    let deadline = shell.clock().instant(accepted.saturating_add(patience));
    let mut reader = FrameReader::new(MAX_HELLO_BODY);
    let (read, in_flight) = read_request(&shell, key, &stream, &mut reader, deadline, in_flight).await;
    let answer = match read {
        Ok(Ok(())) => {
            let body = reader.take_body();
            Exchange { shell: &shell, stream: &stream, key, peer, accepted }.answer(&body).await
        }
        Ok(Err(NoFrame::OverQuota(over))) => {
            let held = over.held.saturating_add(over.wanted);
            let refusal = Refusal::PeerBytes { limit: over.limit, held };
            Some(malformed(&shell, accepted, key, peer, refusal))
        }
        Ok(Err(NoFrame::Read(ReadError::Fault(fault)))) => {
            refusal_of(fault).map(|refusal| malformed(&shell, accepted, key, peer, refusal))
        }
        Ok(Err(NoFrame::Read(ReadError::Io(error)))) => {
            tracing::debug!(%error, "a connection broke before its request was read");
            None
        }
        Err(_) if reader.received() == 0 => None,
        Err(_) => {
            let refusal = Refusal::FrameTooLate { received: reader.received(), deadline: patience };
            Some(malformed(&shell, accepted, key, peer, refusal))
        }
    };
    let Some(Answer { bytes, then }) = answer else { return };
    match then {
        Then::Close => {
            write_counted(&shell, key, &stream, &bytes).await;
        }
        Then::Drain { deadline } => {
            write_counted(&shell, key, &stream, &bytes).await;
            shell.tell(Input::Drain { deadline });
        }
        Then::Register { id, announcement } => {
            drop(in_flight);
            Box::pin(control::serve_registered(&shell, stream, peer, id, &announcement)).await;
        }
        Then::Pass(terms) => {
            // Rare enough to be kept out of every other connection's memory.
            Box::pin(handoff::pass(&shell, Held::new(stream, open, in_flight), *terms, bytes)).await;
        }
    }
}

/// Why there is no first frame.
enum NoFrame {
    Read(ReadError),
    /// Its peer's connections keep too much.
    OverQuota(OverQuota),
}

impl From<ReadError> for NoFrame {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// Reads the first frame, or what comes of it by the deadline. The request is in flight while the socket is
/// looked at for the first time, and from when the frame is there; not while nothing comes.
async fn read_request(
    shell: &Rc<Shell>,
    key: ConnectionKey,
    stream: &Stream,
    reader: &mut FrameReader,
    deadline: Instant,
    in_flight: InFlight,
) -> (Result<Result<(), NoFrame>, Elapsed>, InFlight) {
    let first_look = {
        let mut read = pin!(reader.read_from(stream));
        poll_fn(|context| match read.as_mut().poll(context) {
            // Not looked at yet: others have their turn first.
            Poll::Pending if !has_budget_remaining() => Poll::Pending,
            looked => Poll::Ready(looked),
        })
        .await
    };
    match first_look {
        Poll::Ready(read) => (Ok(read.map_err(NoFrame::from)), in_flight),
        Poll::Pending => {
            drop(in_flight);
            let read = tokio::time::timeout_at(deadline, read_counted(shell, key, stream, reader)).await;
            (read, shell.begin_answer())
        }
    }
}

/// Reads the rest of a frame; what is kept of it meanwhile counts for its peer.
async fn read_counted(
    shell: &Rc<Shell>,
    key: ConnectionKey,
    stream: &Stream,
    reader: &mut FrameReader,
) -> Result<(), NoFrame> {
    while !reader.is_complete() {
        shell.call(|broker, _| broker.buffers(key, reader.keeps())).map_err(NoFrame::OverQuota)?;
        reader.read_part_from(stream).await?;
    }
    Ok(())
}

/// Writes an answer; what of it has to wait counts for its peer, whose connection is closed where that is too
/// much. However long it is, it counts for no more than its share: who reads may ask for several at a time.
async fn write_counted(shell: &Rc<Shell>, key: ConnectionKey, stream: &Stream, bytes: &[u8]) -> bool {
    let mut write = pin!(write(stream, bytes));
    let first_try = poll_fn(|context| Poll::Ready(write.as_mut().poll(context))).await;
    if let Poll::Ready(written) = first_try {
        return written;
    }
    let kept = shell.call(|broker, _| {
        let share = broker.config().connections.buffered_per_peer() / LONG_ANSWERS;
        broker.buffers(key, bytes.len().min(share))
    });
    match kept {
        Ok(()) => write.await,
        Err(over) => {
            tracing::debug!(%over, "a peer leaves too many answers unread");
            false
        }
    }
}

/// Writes an answer; whether the peer has all of it.
pub(super) async fn write(stream: &Stream, bytes: &[u8]) -> bool {
    match tokio::time::timeout(WRITE_TIMEOUT, stream.send_all(bytes)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a peer left before its answer was written");
            false
        }
        Err(_) => {
            tracing::debug!("a peer does not read its answer");
            false
        }
    }
}

/// What a fault of the first frame means (rows 1 to 3); `None` where the peer asked nothing.
const fn refusal_of(fault: FrameFault) -> Option<Refusal> {
    match fault {
        FrameFault::FramingVersion(actual) => Some(Refusal::FramingVersion { actual }),
        FrameFault::TooLong { declared, limit } => Some(Refusal::FrameTooLong { declared, limit }),
        FrameFault::Truncated { received } => Some(Refusal::FrameCutShort { received }),
        FrameFault::ClosedBeforeFirstByte => None,
    }
}

fn malformed(
    shell: &Rc<Shell>,
    accepted: Monotonic,
    key: ConnectionKey,
    peer: PeerKey,
    refusal: Refusal,
) -> Answer {
    let reply = shell.call(|broker, now| broker.malformed(now, accepted, key, peer, refusal));
    encode(&Echo::default(), &reply).into()
}

/// The whole response frame.
pub(super) fn encode(echo: &Echo<'_>, reply: &Reply) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_REPLY);
    reply.encode(echo, &mut bytes);
    bytes
}

/// A connection whose first frame is there.
struct Exchange<'a> {
    shell: &'a Rc<Shell>,
    stream: &'a Stream,
    key: ConnectionKey,
    peer: PeerKey,
    accepted: Monotonic,
}

impl Exchange<'_> {
    /// The answer; `None` when nobody is left to read it.
    async fn answer(&self, body: &Bytes) -> Option<Answer> {
        match self.shell.call(|broker, now| broker.first_frame(now, self.accepted, self.key, self.peer, body))
        {
            FirstFrame::Hello(admitted) => {
                let reply = match self.keep(body) {
                    Ok(()) => self.hello(&admitted).await?,
                    Err(reply) => reply,
                };
                let bytes = encode(admitted.echo(), &reply);
                Some(match reply {
                    Reply::Negotiated(agreed) if agreed.handover() != Handover::None => {
                        Answer { bytes, then: Then::Pass(Box::new(Terms::new(agreed, body.clone()))) }
                    }
                    Reply::Negotiated(_) | Reply::Refused(_) => bytes.into(),
                })
            }
            FirstFrame::Admin(echo, request) => Some(match self.keep(body) {
                Ok(()) => Box::pin(admin(self.shell, &echo, &request)).await,
                Err(reply) => encode(&echo, &reply).into(),
            }),
            FirstFrame::Announcement(echo, announcement) => Some(Answer {
                bytes: Vec::new(),
                then: Then::Register { id: echo.request_id, announcement: Box::new(announcement) },
            }),
            FirstFrame::Refused(echo, reply) => Some(encode(&echo, &reply).into()),
        }
    }

    /// Keeps a request for as long as its answer takes, and its connection is on offer; or refuses it. Those of
    /// the usual length are not worth counting: there are no more of them than a peer may have connections.
    fn keep(&self, body: &Bytes) -> Result<(), Reply> {
        if body.len() <= USUAL_REQUEST {
            return Ok(());
        }
        self.shell.call(|broker, now| {
            let kept = broker.buffers(self.key, body.len());
            kept.map_err(|over| broker.over_quota(now, self.accepted, self.key, over))
        })
    }

    async fn hello(&self, admitted: &Admitted<'_>) -> Option<Reply> {
        let service = admitted.service();
        let known = self.shell.look(|broker, _| broker.stamp(service));
        let definition = self.shell.definitions().check(service, known).await;
        let decision =
            self.shell.call(|broker, now| broker.hello(now, self.accepted, self.key, admitted, definition));
        match decision {
            Decision::Reply(reply) => Some(reply),
            Decision::Wait => {
                // Nothing ran since the decision, so the reply cannot have come yet.
                let reply = self.shell.wait_for_reply(self.key);
                tokio::select! {
                    // A reply may hold a token, which somebody has to give back.
                    biased;
                    reply = reply => reply.ok(),
                    _ = self.stream.hung_up() => None,
                }
            }
        }
    }
}

async fn admin(shell: &Rc<Shell>, echo: &Echo<'_>, request: &AdminRequest) -> Answer {
    let reply = facts::answer(shell, request).await;
    let then = if request.verb == AdminVerb::Shutdown as i32 {
        let deadline =
            (request.drain_deadline_ms > 0).then(|| Duration::from_millis(request.drain_deadline_ms));
        Then::Drain { deadline }
    } else {
        Then::Close
    };
    Answer { bytes: admin_frame(echo, &reply), then }
}

fn admin_frame(echo: &Echo<'_>, reply: &AdminReply) -> Vec<u8> {
    let frame = Frame {
        kind: FrameKind::Response.into(),
        traceparent: echo.traceparent.to_owned(),
        tracestate: echo.tracestate.to_owned(),
        ..Frame::request(PayloadProtocol::ADMIN, echo.request_id, reply.encode_to_vec())
    };
    match frame_bytes(&frame) {
        Ok(bytes) => bytes.to_vec(),
        Err(error) => {
            tracing::error!(%error, "an admin answer is too long for a frame");
            Vec::new()
        }
    }
}
