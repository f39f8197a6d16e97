//! Requests to a backend and their responses, one after another on one connection (protocol.md,
//! "Frame").
//!
//! What both kinds of session share; the bytes are carried by them. Invariant: a request that was not
//! answered, for whatever reason, is the last one: what comes on the connection after it could be the
//! answer to it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use broker_protocol::PayloadProtocol;
use broker_protocol::bytes::Bytes;
use broker_protocol::limits::MAX_FRAME_BODY;
use broker_protocol::wire::Frame;
use thiserror::Error;

use crate::agreement::Agreement;
use crate::connector::SessionError;
use crate::link::{ExchangeError, Limit, Party, Place, next_request_id};
use crate::memory::Memory;
use crate::reply::{self, ProtocolError, ReplyFault};

/// Why a request has no answer.
///
/// After [`ExchangeError::RequestTooLong`] the session goes on, as nothing was sent. After every other
/// it is over, and, but for [`RequestError::Over`], whether the backend did what was asked is not known.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There was no exchange, or only half of one.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// What came is no response to the request.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// An earlier request had no answer; nothing was sent.
    #[error("this session ended with a request that was not answered; connect again")]
    Over,
}

/// Why [connecting with a request](crate::Session::connect_with_request) brought no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FirstRequestError {
    /// There is no session, and the request was not carried out.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The request has no answer; whether it was carried out is not known, but for the errors that say that
    /// nothing was sent.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Where a session learnt of its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// It said Hello to the broker, and dialled where that said.
    Broker,
    /// It said Hello to the broker, which passed its connection on: nothing was dialled.
    Handoff,
    /// From an earlier session: it said none.
    Memory,
    /// From a session of an earlier process, through the
    /// [cache on disk](crate::Connector::with_disk_cache): it said none.
    Disk,
}

/// The trace that a session's requests belong to.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceContext {
    pub(crate) parent: String,
    pub(crate) state: String,
}

/// The state of a session.
#[derive(Debug)]
pub(crate) struct Conversation {
    agreement: Arc<Agreement>,
    origin: Origin,
    memory: Memory,
    timeout: Duration,
    trace: TraceContext,
    /// Whether the next frame can be the answer to the next request.
    is_open: bool,
}

impl Conversation {
    pub(crate) const fn new(
        agreement: Arc<Agreement>,
        origin: Origin,
        memory: Memory,
        timeout: Duration,
        trace: TraceContext,
    ) -> Self {
        Self { agreement, origin, memory, timeout, trace, is_open: true }
    }

    pub(crate) fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    pub(crate) const fn origin(&self) -> Origin {
        self.origin
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.is_open
    }

    pub(crate) const fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The backend.
    pub(crate) fn place(&self) -> Place<'_> {
        Place::new(Party::Backend, &self.agreement.backend_pipe)
    }

    /// Begins a request. The conversation counts as over until the request is
    /// [concluded](Self::conclude), so it stays over where that never happens.
    pub(crate) fn begin(&mut self, lane: PayloadProtocol, payload: Bytes) -> Result<Asked, RequestError> {
        if !self.is_open {
            return Err(RequestError::Over);
        }
        let limit = Limit::from_now(self.timeout);
        let question = Question::new(self.place(), lane, payload, &self.trace, limit)?;
        Ok(self.asked(question, limit))
    }

    fn asked(&mut self, question: Question, limit: Limit) -> Asked {
        let Question { lane, request_id, bytes } = question;
        self.is_open = false;
        let (memory, agreement) = (self.memory.clone(), Arc::clone(&self.agreement));
        Asked { lane, request_id, bytes, limit, memory, agreement, is_answered: false }
    }

    /// Goes on with a question that was sent before there was a conversation.
    pub(crate) fn asked_already(&mut self, question: Question, limit: Limit) -> Asked {
        self.asked(Question { bytes: Bytes::new(), ..question }, limit)
    }

    /// Ends a request that was answered.
    pub(crate) fn conclude(&mut self, mut asked: Asked) {
        asked.is_answered = true;
        self.is_open = true;
    }
}

/// A request in its frame.
pub(crate) struct Question {
    lane: PayloadProtocol,
    request_id: u64,
    bytes: Bytes,
}

impl Question {
    pub(crate) fn new(
        place: Place<'_>,
        lane: PayloadProtocol,
        payload: Bytes,
        trace: &TraceContext,
        limit: Limit,
    ) -> Result<Self, ExchangeError> {
        let request_id = next_request_id();
        let deadline_unix_ms = limit.deadline_unix_ms(SystemTime::now());
        let frame = Frame {
            deadline_unix_ms,
            traceparent: trace.parent.clone(),
            tracestate: trace.state.clone(),
            ..Frame::request(lane, request_id, payload)
        };
        Ok(Self { lane, request_id, bytes: place.request(&frame, MAX_FRAME_BODY)? })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A request that is to be sent. Where it is dropped without having been
/// [concluded](Conversation::conclude), the next session hears from the broker.
pub(crate) struct Asked {
    lane: PayloadProtocol,
    request_id: u64,
    bytes: Bytes,
    pub(crate) limit: Limit,
    memory: Memory,
    agreement: Arc<Agreement>,
    is_answered: bool,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_answered {
            self.memory.forget(&self.agreement);
        }
    }
}

impl Asked {
    /// The bytes to send, once: they may be many, and nobody needs them while the answer is waited for.
    pub(crate) fn take_bytes(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }

    /// The answer in a frame's body; none yet where the frame is one that answers nothing.
    pub(crate) fn answer(&self, body: Bytes) -> Result<Option<Bytes>, ReplyFault> {
        reply::to_service(body, self.lane, self.request_id)
    }
}
