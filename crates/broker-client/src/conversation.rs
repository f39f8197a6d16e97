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
use crate::hello::unix_ms;
use crate::link::{ExchangeError, Limit, Party, Place, next_request_id};
use crate::memory::Memory;
use crate::reply::{self, ProtocolError, ReplyFault};

/// Why a request has no answer.
///
/// After [`ExchangeError::RequestTooLong`] the session goes on, as nothing was sent. After every other
/// it is over, and whether the backend did what was asked is not known.
#[derive(Debug, Error)]
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

/// Where a session learnt of its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It said Hello to the broker.
    Broker,
    /// From an earlier session: it said none.
    Memory,
}

/// Whether the next frame can be the answer to the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Over,
}

/// The state of a session.
#[derive(Debug)]
pub(crate) struct Conversation {
    agreement: Arc<Agreement>,
    origin: Origin,
    memory: Memory,
    timeout: Duration,
    state: State,
}

impl Conversation {
    pub(crate) const fn new(
        agreement: Arc<Agreement>,
        origin: Origin,
        memory: Memory,
        timeout: Duration,
    ) -> Self {
        Self { agreement, origin, memory, timeout, state: State::Open }
    }

    pub(crate) fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    pub(crate) const fn origin(&self) -> Origin {
        self.origin
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
        if self.state == State::Over {
            return Err(RequestError::Over);
        }
        let request_id = next_request_id();
        let frame = Frame {
            deadline_unix_ms: unix_ms(SystemTime::now(), self.timeout),
            ..Frame::request(lane, request_id, payload)
        };
        let bytes = self.place().request(&frame, MAX_FRAME_BODY)?;
        self.state = State::Over;
        Ok(Asked { lane, request_id, bytes, limit: Limit::from_now(self.timeout) })
    }

    /// Ends a request.
    pub(crate) fn conclude(&mut self, answer: Result<Bytes, RequestError>) -> Result<Bytes, RequestError> {
        match answer {
            Ok(_) => self.state = State::Open,
            // The next session should hear from the broker.
            Err(_) => self.memory.forget(&self.agreement),
        }
        answer
    }
}

/// A request that is to be sent.
pub(crate) struct Asked {
    lane: PayloadProtocol,
    request_id: u64,
    pub(crate) bytes: Bytes,
    pub(crate) limit: Limit,
}

impl Asked {
    /// The answer in a frame's body; none yet where the frame is one that answers nothing.
    pub(crate) fn answer(&self, body: Bytes) -> Result<Option<Bytes>, ReplyFault> {
        reply::to_service(body, self.lane, self.request_id)
    }
}
