//! One Hello, and what becomes of it (protocol.md, "Conversations" 1).
//!
//! The connection to the broker lives as long as the Hello: whoever got an [`Agreement`] dials the
//! backend next. Invariant: a Hello ends in an agreement, a refusal or an error that says which of the
//! two sides is at fault.

use std::path::Path;
#[cfg(feature = "tokio")]
use std::time::Duration;
use std::time::SystemTime;

use broker_protocol::bytes::Bytes;
use broker_protocol::limits::MAX_HELLO_BODY;
use broker_transport::stream::BlockingStream;
#[cfg(feature = "tokio")]
use broker_transport::stream::Stream;
use thiserror::Error;

use crate::agreement::Agreement;
use crate::exchange::Exchange;
use crate::hello::Hello;
use crate::link::{ExchangeError, Limit, next_request_id};
use crate::refused::Refused;
use crate::reply::{self, ProtocolError};

/// Why a Hello did not end in an agreement.
#[derive(Debug, Error)]
pub enum HelloError {
    /// A text is longer than the protocol allows; nothing was sent.
    #[error("{field} has at most {limit} bytes, this one has {actual}; shorten it")]
    FieldTooLong {
        /// The field of `Hello`.
        field: &'static str,
        /// Bytes allowed.
        limit: usize,
        /// Bytes it has.
        actual: usize,
    },
    /// There was no exchange, or only half of one.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// What came is no reply to the Hello.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The broker refuses.
    #[error(transparent)]
    Refused(#[from] Box<Refused>),
}

/// Says Hello to the broker at `endpoint`; takes at most `timeout` from connecting to the whole reply.
///
/// [`broker_of`](crate::broker_of) finds the endpoint, [`round_trip_timeout`](crate::round_trip_timeout)
/// the usual time. The connection is closed when this returns, so there is no use in offering
/// [`Capabilities::HANDLE_PASSING`](crate::Capabilities::HANDLE_PASSING) here.
///
/// # Errors
/// [`HelloError`].
///
/// # Panics
/// Outside of a tokio runtime with I/O and time enabled.
#[cfg(feature = "tokio")]
pub async fn say_hello(endpoint: &Path, hello: &Hello, timeout: Duration) -> Result<Agreement, HelloError> {
    Ok(Negotiation::new(endpoint, hello)?.run(Limit::from_now(timeout)).await?.0)
}

/// A Hello that is about to be said.
pub(crate) struct Negotiation<'a> {
    hello: &'a Hello,
    request_id: u64,
    exchange: Exchange<'a>,
}

impl<'a> Negotiation<'a> {
    pub(crate) fn new(endpoint: &'a Path, hello: &'a Hello) -> Result<Self, HelloError> {
        let request_id = next_request_id();
        let frame = hello.frame(request_id, SystemTime::now())?;
        let exchange = Exchange::new(endpoint, &frame, MAX_HELLO_BODY)?;
        Ok(Self { hello, request_id, exchange })
    }

    /// Sends a request to the backend right behind the Hello.
    pub(crate) fn with_early_data(self, bytes: &[u8]) -> Self {
        Self { exchange: self.exchange.with_early_data(bytes), ..self }
    }

    /// Says it. The connection is the backend's now where the agreement says so.
    #[cfg(feature = "tokio")]
    pub(crate) async fn run(&self, limit: Limit) -> Result<(Agreement, Stream), HelloError> {
        let (reply, stream) = self.exchange.run::<HelloError>(limit).await?;
        Ok((self.conclude(reply)?, stream))
    }

    /// Says it, and waits in this thread.
    pub(crate) fn run_blocking(&self, limit: Limit) -> Result<(Agreement, BlockingStream), HelloError> {
        let (reply, stream) = self.exchange.run_blocking::<HelloError>(limit)?;
        Ok((self.conclude(reply)?, stream))
    }

    fn conclude(&self, reply: Bytes) -> Result<Agreement, HelloError> {
        let broken = |fault| self.exchange.broken(fault);
        let negotiated = reply::to_hello(reply, self.request_id).map_err(broken)??;
        Ok(Agreement::new(negotiated, self.hello.offered()).map_err(broken)?)
    }
}
