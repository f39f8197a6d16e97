//! One connection, from accept to close: read one frame, ask the broker, write one frame.
//!
//! It decides nothing. Invariants: no byte behind the first frame is read, so early data stays in the
//! socket; the read has a deadline counted from accept and the write one of its own, so no peer holds a
//! connection longer than the sum of both and a backend's start.

use std::cell::Cell;
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
use broker_protocol::prost::Message;
use broker_protocol::wire::{AdminReply, AdminRequest, AdminVerb, Frame, FrameKind};
use broker_protocol::{Echo, Header, PayloadProtocol, Refusal, frame_bytes};
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
use super::succession;
use crate::config::keys;

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

impl Open {
    /// One that was admitted elsewhere.
    pub(super) fn new(shell: &Rc<Shell>, key: ConnectionKey) -> Self {
        Self { shell: Rc::clone(shell), key }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shell.forget(self.key);
    }
}

/// A connection that is not answered yet, and what has come on it. Where the broker goes on as another program
/// it goes along, and is dealt with from the beginning there.
struct Unanswered<'a> {
    shell: &'a Rc<Shell>,
    accepted: Monotonic,
    client: Option<(Stream, FrameReader)>,
    /// The request, once it is read.
    body: Bytes,
    asks: Cell<Asks>,
}

/// What a request is to the succession of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// One as any other.
    Anything,
    /// It has asked for it, and is told of it by the successor.
    ForSuccession,
}

/// A connection on its way to the broker's successor.
pub(super) struct Moved {
    pub(super) stream: Stream,
    pub(super) accepted: Monotonic,
    /// All that was read of it.
    pub(super) received: Vec<u8>,
    pub(super) asks: Asks,
}

impl<'a> Unanswered<'a> {
    const fn new(shell: &'a Rc<Shell>, client: (Stream, FrameReader), accepted: Monotonic) -> Self {
        Self { shell, accepted, client: Some(client), body: Bytes::new(), asks: Cell::new(Asks::Anything) }
    }

    /// Takes the request; the connection is as unanswered as before.
    fn take_body(&mut self) -> Bytes {
        if let Some((_, reader)) = &mut self.client {
            self.body = reader.take_body();
        }
        self.body.clone()
    }

    const fn stream(&self) -> Option<&Stream> {
        match &self.client {
            Some((stream, _)) => Some(stream),
            None => None,
        }
    }

    /// It is about to be answered here.
    fn into_stream(mut self) -> Option<Stream> {
        self.client.take().map(|(stream, _)| stream)
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.shell.moves().is_moving()
            && let Some((stream, reader)) = self.client.take()
        {
            let received = match Header::of(&self.body) {
                Ok(header) if !self.body.is_empty() => [&header.to_bytes(), &self.body[..]].concat(),
                Ok(_) | Err(_) => reader.into_received(),
            };
            let (accepted, asks) = (self.accepted, self.asks.get());
            self.shell.moves().add(Moved { stream, accepted, received, asks });
        }
    }
}

/// Serves a connection that was admitted at `accepted`. Until its socket was looked at once it counts as a
/// request in flight: what was sent before a drain ends is answered.
pub(super) async fn serve(
    shell: Rc<Shell>,
    client: (Stream, FrameReader),
    key: ConnectionKey,
    peer: PeerKey,
    accepted: Monotonic,
    in_flight: InFlight,
) {
    let open = Open::new(&shell, key);
    let mut unanswered = Unanswered::new(&shell, client, accepted);
    let patience = shell.settings().hello_timeout.value;
    let deadline = shell.clock().instant(accepted.saturating_add(patience));
    let Some((stream, reader)) = &mut unanswered.client else { return };
    let (read, in_flight) = read_request(&shell, key, stream, reader, deadline, in_flight).await;
    let received = reader.received();
    let answer = match read {
        Ok(Ok(())) => {
            let body = unanswered.take_body();
            Exchange { unanswered: &unanswered, key, peer }.answer(&body).await
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
        Err(_) if received == 0 => None,
        Err(_) => {
            let refusal = Refusal::FrameTooLate { received, deadline: patience };
            Some(malformed(&shell, accepted, key, peer, refusal))
        }
    };
    let Some(Answer { bytes, then }) = answer else { return };
    let answering = shell.moves().hold_back(&shell);
    let Some(stream) = unanswered.into_stream() else { return };
    match then {
        Then::Close => {
            write_counted(&shell, key, &stream, &bytes).await;
        }
        Then::Drain { deadline } => {
            write_counted(&shell, key, &stream, &bytes).await;
            shell.tell(Input::Drain { deadline });
        }
        Then::Register { id, announcement } => {
            drop((in_flight, answering));
            // It is no client's any more, and outlives those.
            shell.exempt(key);
            let shell = Rc::clone(&shell);
            tokio::task::spawn_local(async move {
                control::serve_registered(&shell, stream, peer, id, &announcement).await;
                drop(open);
            });
        }
        Then::Pass(terms) => {
            // Rare enough to be kept out of every other connection's memory.
            Box::pin(handoff::pass(&shell, Held::new(stream, open, in_flight, answering), *terms, bytes))
                .await;
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
    unanswered: &'a Unanswered<'a>,
    key: ConnectionKey,
    peer: PeerKey,
}

impl Exchange<'_> {
    const fn shell(&self) -> &Rc<Shell> {
        self.unanswered.shell
    }

    const fn accepted(&self) -> Monotonic {
        self.unanswered.accepted
    }

    /// The answer; `None` when nobody is left to read it.
    async fn answer(&self, body: &Bytes) -> Option<Answer> {
        let accepted = self.accepted();
        match self.shell().call(|broker, now| broker.first_frame(now, accepted, self.key, self.peer, body)) {
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
                Ok(()) => Box::pin(self.admin(&echo, &request)).await,
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
        self.shell().call(|broker, now| {
            let kept = broker.buffers(self.key, body.len());
            kept.map_err(|over| broker.over_quota(now, self.accepted(), self.key, over))
        })
    }

    async fn hello(&self, admitted: &Admitted<'_>) -> Option<Reply> {
        let service = admitted.service();
        let shell = self.shell();
        let known = shell.look(|broker, _| broker.stamp(service));
        let definition = shell.definitions().check(service, known).await;
        let decision =
            shell.call(|broker, now| broker.hello(now, self.accepted(), self.key, admitted, definition));
        match decision {
            Decision::Reply(reply) => Some(reply),
            Decision::Wait => {
                // Nothing ran since the decision, so the reply cannot have come yet.
                let reply = shell.wait_for_reply(self.key);
                let stream = self.unanswered.stream()?;
                tokio::select! {
                    // A reply may hold a token, which somebody has to give back.
                    biased;
                    reply = reply => reply.ok(),
                    _ = stream.hung_up() => None,
                }
            }
        }
    }

    async fn admin(&self, echo: &Echo<'_>, request: &AdminRequest) -> Answer {
        let shell = self.shell();
        if let Some(program) = succession::asked_for(request) {
            if let Some(reply) = succession::refuse_second(shell, request.json) {
                return Answer { bytes: admin_frame(echo, &reply), then: Then::Close };
            }
            self.unanswered.asks.set(Asks::ForSuccession);
            // Where it comes to a succession, this is as far as it gets.
            let reply = succession::ask(shell, program, request.json).await;
            return Answer { bytes: admin_frame(echo, &reply), then: Then::Close };
        }
        // Some must not be dealt with twice.
        let _held = shell.moves().hold_back(shell);
        let reply = facts::answer(shell, request).await;
        let then = if request.verb == AdminVerb::Shutdown as i32 {
            let asked = Some(request.drain_deadline_ms).filter(|millis| *millis > 0);
            let deadline = asked.map(|millis| Duration::from_millis(millis.min(keys::DRAIN_MS.most)));
            Then::Drain { deadline }
        } else {
            Then::Close
        };
        Answer { bytes: admin_frame(echo, &reply), then }
    }
}

/// Tells whoever has asked for the succession that it has happened.
pub(super) async fn tell_of_succession(
    shell: Rc<Shell>,
    (stream, mut reader): (Stream, FrameReader),
    key: ConnectionKey,
    answer: impl FnOnce(&AdminRequest) -> AdminReply,
) {
    let _open = Open::new(&shell, key);
    let _in_flight = shell.begin_answer();
    let body = reader.take_body();
    if let Ok(broker_core::hello::Request::Admin(echo, request)) = broker_core::hello::Request::decode(&body)
    {
        let bytes = admin_frame(&echo, &answer(&request));
        write_counted(&shell, key, &stream, &bytes).await;
    }
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
