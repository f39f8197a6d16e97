//! One admin request (protocol.md, "Conversations" 2; behaviour.md, section 7).
//!
//! What the verbs mean and how an answer is printed is the caller's business. Invariant: an answer is
//! an `AdminReply` to the very request; a refusal is an error, although the broker sends it on another
//! lane.

use std::path::Path;
use std::time::Duration;

use broker_protocol::PayloadProtocol;
use broker_protocol::bytes::Bytes;
use broker_protocol::limits::MAX_FRAME_BODY;
use broker_protocol::prost::Message;
use broker_protocol::wire::{AdminReply, AdminRequest, Frame};
use thiserror::Error;

use crate::config::{ConfigError, round_trip_timeout};
use crate::exchange::Exchange;
use crate::link::{ExchangeError, Limit, next_request_id};
use crate::refused::Refused;
use crate::reply::{self, ProtocolError};

/// Why an admin request was not answered.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The environment asks for a timeout that is none; nothing was sent.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There was no exchange, or only half of one.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// What came is no reply to the request.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The broker refuses.
    #[error(transparent)]
    Refused(#[from] Box<Refused>),
}

/// Asks the broker at `endpoint`; takes at most [`round_trip_timeout`](crate::round_trip_timeout).
///
/// A verb that the broker carries out but not with success is an answer, with an exit code.
///
/// # Errors
/// [`AdminError`].
///
/// # Panics
/// Outside of a tokio runtime with I/O and time enabled.
#[cfg(feature = "tokio")]
pub async fn admin(endpoint: &Path, request: &AdminRequest) -> Result<AdminReply, AdminError> {
    Inquiry::new(endpoint, request)?.run().await
}

/// An admin request that is about to be made.
pub(crate) struct Inquiry<'a> {
    request_id: u64,
    exchange: Exchange<'a>,
    limit: Limit,
}

impl<'a> Inquiry<'a> {
    pub(crate) fn new(endpoint: &'a Path, request: &AdminRequest) -> Result<Self, AdminError> {
        Self::within(endpoint, request, round_trip_timeout()?)
    }

    pub(crate) fn within(
        endpoint: &'a Path,
        request: &AdminRequest,
        timeout: Duration,
    ) -> Result<Self, AdminError> {
        let request_id = next_request_id();
        let frame = Frame::request(PayloadProtocol::ADMIN, request_id, request.encode_to_vec());
        let exchange = Exchange::new(endpoint, &frame, MAX_FRAME_BODY)?;
        Ok(Self { request_id, exchange, limit: Limit::from_now(timeout) })
    }

    /// Makes it.
    #[cfg(feature = "tokio")]
    async fn run(&self) -> Result<AdminReply, AdminError> {
        let (reply, _) = self.exchange.run::<AdminError>(self.limit).await?;
        self.conclude(reply)
    }

    /// Makes it, and waits in this thread.
    pub(crate) fn run_blocking(&self) -> Result<AdminReply, AdminError> {
        let (reply, _) = self.exchange.run_blocking::<AdminError>(self.limit)?;
        self.conclude(reply)
    }

    fn conclude(&self, reply: Bytes) -> Result<AdminReply, AdminError> {
        let broken = |fault| self.exchange.broken(fault);
        Ok(reply::to_admin(reply, self.request_id).map_err(broken)??)
    }
}
