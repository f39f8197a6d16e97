//! One connection: frame in, frame out, until one side has enough (protocol.md, "Framing" and
//! "Conversations" 3).
//!
//! Dialled and adopted connections are served alike; where a stream came from makes no difference to a
//! handler. Invariants: answers leave in the order of the requests; a peer's bytes end at most the
//! connection they came on; no more is buffered than the one frame at hand and what came with its last bytes;
//! what a client is sent first is sent before anything is waited for.

use std::io;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;

use broker_protocol::bytes::Bytes;
use broker_protocol::limits::MAX_FRAME_BODY;
use broker_protocol::prost::{DecodeError, Message};
use broker_protocol::wire::{Frame, FrameKind, PayloadEncoding};
use broker_protocol::{ENVELOPE_VERSION, FramingError, PayloadProtocol, frame_bytes, probe};
use broker_transport::frame_io::{FrameBuffer, FrameFault, ReadError};
use broker_transport::peer::PeerCredentials;
use broker_transport::stream::Stream;
use thiserror::Error;
use tokio::sync::watch;

use crate::handler::{Handler, Outcome, Request};
use crate::identity::{Identity, Unidentified};
use crate::look::caught_look;

/// Longest answer that is copied behind what the client is sent first, in bytes.
const LONGEST_TOGETHER: usize = 4 * 1024;

/// What all connections share.
pub(crate) struct Service<H> {
    handler: H,
    identity: Identity,
}

impl<H> Service<H> {
    pub(crate) const fn new(handler: H, identity: Identity) -> Self {
        Self { handler, identity }
    }

    pub(crate) const fn handler(&self) -> &H {
        &self.handler
    }
}

/// A connection to a peer that may be served.
pub(crate) struct Connection<H> {
    pub(crate) stream: Stream,
    pub(crate) peer: PeerCredentials,
    frames: FrameBuffer,
    service: Arc<Service<H>>,
    pub(crate) is_stopping: watch::Receiver<bool>,
    /// What the client is sent before anything else.
    greeting: Bytes,
    ended_by: EndedBy,
}

/// Who has ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndedBy {
    /// Its peer, in a place where that is no fault.
    Peer,
    /// This side, whose end the peer waits for.
    Us,
}

/// Why a connection was closed in the middle of the conversation.
#[derive(Debug, Error)]
enum Fault {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the body is not a Frame: {0}")]
    NotAFrame(#[from] DecodeError),
    #[error("expected envelope version {ENVELOPE_VERSION}, got {0}")]
    EnvelopeVersion(u32),
    #[error("expected a payload without encoding, got encoding {0}")]
    Encoding(i32),
    #[error("expected a request, got a frame of kind {0}")]
    Kind(i32),
    #[error(transparent)]
    Probe(#[from] probe::ProbeFault),
    #[error(transparent)]
    Unidentified(#[from] Arc<Unidentified>),
    #[error("the handler's answer cannot be sent: {0}")]
    Answer(#[from] FramingError),
    #[error("cannot write to the connection: {0}")]
    Write(#[source] io::Error),
}

impl<H: Handler> Connection<H> {
    pub(crate) fn new(
        stream: Stream,
        peer: PeerCredentials,
        service: Arc<Service<H>>,
        is_stopping: watch::Receiver<bool>,
    ) -> Self {
        let frames = FrameBuffer::new(MAX_FRAME_BODY);
        Self { stream, peer, frames, service, is_stopping, greeting: Bytes::new(), ended_by: EndedBy::Us }
    }

    /// Sends the client this before anything else.
    pub(crate) fn greet(mut self, greeting: Bytes) -> Self {
        self.greeting = greeting;
        self
    }

    /// Serves until the peer closes, breaks a rule, or the backend stops.
    pub(crate) async fn serve(mut self) -> EndedBy {
        let outcome = self.converse().await;
        let greeted = self.send_greeting().await;
        match outcome.and_then(|end| greeted.map(|()| end)) {
            Ok(end) => {
                tracing::trace!(?end, "ended");
                return end;
            }
            // The service's own mistake, which its author should hear about.
            Err(fault @ Fault::Answer(_)) => tracing::error!(%fault, "closed"),
            Err(fault) => tracing::debug!(%fault, "closed"),
        }
        EndedBy::Us
    }

    async fn converse(&mut self) -> Result<EndedBy, Fault> {
        while let Some(body) = self.next_body().await? {
            // A request that lay in the socket when the stop came is taken, but only one.
            let is_last = *self.is_stopping.borrow();
            let frame = check(Frame::decode(body)?)?;
            match kind(&frame)? {
                Expects::Answer => {
                    let Some(answer) = self.answer(frame).await? else { return Ok(EndedBy::Us) };
                    self.send(answer).await?;
                }
                Expects::Nothing => {}
            }
            if is_last {
                return Ok(EndedBy::Us);
            }
        }
        Ok(self.ended_by)
    }

    /// Sends an answer; with what the client is sent before it, in one piece where both are short.
    async fn send(&mut self, answer: Bytes) -> Result<(), Fault> {
        if self.greeting.is_empty() || answer.len() > LONGEST_TOGETHER {
            self.send_greeting().await?;
            return self.stream.send_all(&answer).await.map_err(Fault::Write);
        }
        let together = [std::mem::take(&mut self.greeting), answer].concat();
        self.stream.send_all(&together).await.map_err(Fault::Write)
    }

    /// Sends what the client is sent first, before anything is waited for.
    async fn send_greeting(&mut self) -> Result<(), Fault> {
        let greeting = std::mem::take(&mut self.greeting);
        if greeting.is_empty() {
            return Ok(());
        }
        self.stream.send_all(&greeting).await.map_err(Fault::Write)
    }

    /// The next frame's body; `None` when there is none before the peer closes or the backend stops.
    async fn next_body(&mut self) -> Result<Option<Bytes>, Fault> {
        if !self.greeting.is_empty() {
            if let Some(body) = self.body_that_is_there()? {
                return Ok(Some(body));
            }
            self.send_greeting().await?;
        }
        let read = tokio::select! {
            biased;
            read = self.frames.read_from(&self.stream) => read,
            () = stop_of(&mut self.is_stopping) => match self.has_begun() {
                Ok(true) => self.frames.read_from(&self.stream).await,
                Ok(false) => return Ok(None),
                Err(error) => Err(error),
            },
        };
        match read {
            Ok(body) => Ok(Some(body)),
            Err(ReadError::Fault(FrameFault::ClosedBeforeFirstByte)) => {
                self.ended_by = EndedBy::Peer;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The next frame's body, if nothing has to be waited for.
    fn body_that_is_there(&mut self) -> Result<Option<Bytes>, Fault> {
        if let Some(body) = self.frames.next_body().map_err(ReadError::from)? {
            return Ok(Some(body));
        }
        match self.stream.try_read(self.frames.space()) {
            // The end is met again by whoever waits for more.
            Ok(0) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            read => {
                self.frames.take(read)?;
                Ok(self.frames.next_body().map_err(ReadError::from)?)
            }
        }
    }

    /// Whether a frame has begun to arrive. Its first bytes may lie in the socket without the runtime
    /// having had the time to notice.
    fn has_begun(&mut self) -> Result<bool, ReadError> {
        if self.frames.received() > 0 {
            return Ok(true);
        }
        match self.stream.try_read(self.frames.space()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            read => self.frames.take(read).map(|()| true),
        }
    }

    /// The whole answer frame; `None` when the handler has none.
    async fn answer(&mut self, request: Frame) -> Result<Option<Bytes>, Fault> {
        let service = Arc::clone(&self.service);
        let answer = match request.lane() {
            PayloadProtocol::IDENTITY_PROBE => {
                self.send_greeting().await?;
                probe::answer(&request, &*service.identity.known().await?)?
            }
            _ => {
                let echoed = Frame { payload: Bytes::new(), ..request.clone() };
                let mut handling = pin!(service.handler.handle(Request::new(request, self.peer)));
                // One that answers at once has its answer sent along.
                let response = match caught_look(handling.as_mut()).await {
                    Ok(Some(response)) => response,
                    Ok(None) => {
                        self.send_greeting().await?;
                        handling.await
                    }
                    // Without its reply the client would take it that nothing was carried out.
                    Err(panic) => {
                        self.send_greeting().await?;
                        resume_unwind(panic)
                    }
                };
                match response.0 {
                    Outcome::Answer(payload) => Frame::response_to(&echoed, payload),
                    Outcome::HangUp => return Ok(None),
                }
            }
        };
        Ok(Some(frame_bytes(&answer)?))
    }
}

/// Returns when the backend stops.
pub(crate) async fn stop_of(is_stopping: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say so, which is a stop too.
    let _ = is_stopping.wait_for(|is_stopping| *is_stopping).await;
}

/// Checks what holds for every frame of this protocol.
fn check(frame: Frame) -> Result<Frame, Fault> {
    if frame.envelope_version != ENVELOPE_VERSION {
        return Err(Fault::EnvelopeVersion(frame.envelope_version));
    }
    if frame.payload_encoding != i32::from(PayloadEncoding::None) {
        return Err(Fault::Encoding(frame.payload_encoding));
    }
    Ok(frame)
}

/// What a peer expects in return for a frame.
enum Expects {
    Answer,
    Nothing,
}

fn kind(frame: &Frame) -> Result<Expects, Fault> {
    match FrameKind::try_from(frame.kind) {
        Ok(FrameKind::Request) => Ok(Expects::Answer),
        // Answers leave in order, so when a cancellation is read, what it is about has been answered.
        Ok(FrameKind::Cancel | FrameKind::Event) => Ok(Expects::Nothing),
        Ok(FrameKind::Response) | Err(_) => Err(Fault::Kind(frame.kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame::request(PayloadProtocol::CLUD, 1, "payload")
    }

    #[test]
    fn only_plain_envelopes_of_version_one_pass() {
        assert!(check(frame()).is_ok());
        for envelope_version in [0, 2, u32::MAX] {
            let fault = check(Frame { envelope_version, ..frame() });
            assert!(matches!(fault, Err(Fault::EnvelopeVersion(version)) if version == envelope_version));
        }
        for payload_encoding in [1, 2, 3, 4, -1] {
            let fault = check(Frame { payload_encoding, ..frame() });
            assert!(matches!(fault, Err(Fault::Encoding(encoding)) if encoding == payload_encoding));
        }
    }

    #[test]
    fn requests_are_answered_and_what_nobody_answers_is_passed_over() {
        let of = |number| kind(&Frame { kind: number, ..frame() });
        assert!(matches!(of(0), Ok(Expects::Answer)));
        assert!(matches!(of(2), Ok(Expects::Nothing)));
        assert!(matches!(of(3), Ok(Expects::Nothing)));
        for number in [1, 4, -1] {
            assert!(matches!(of(number), Err(Fault::Kind(kind)) if kind == number));
        }
    }
}
