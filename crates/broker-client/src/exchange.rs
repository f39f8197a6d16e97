//! One request to a broker and its reply, on a connection of their own (protocol.md, "Conversations" 1
//! and 2).
//!
//! It carries bytes; what a reply means is read elsewhere. Invariant: not a byte behind the reply is read, so
//! the connection may be its backend's from there on; where nobody wants it, it ends with the exchange.

use std::path::Path;

use broker_protocol::bytes::Bytes;
use broker_protocol::limits::MAX_HELLO_BODY;
use broker_protocol::wire::Frame;
use broker_transport::stream::BlockingStream;
#[cfg(feature = "tokio")]
use broker_transport::stream::Stream;

use crate::link::{ExchangeError, Limit, Party, Place};
use crate::reply::{ProtocolError, ReplyFault};

/// What is sent where, and how much may come back.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    place: Place<'a>,
    request: Bytes,
    max_reply: usize,
}

impl<'a> Exchange<'a> {
    /// Prepares to send `frame`; the reply's body may have `max_reply` bytes.
    pub(crate) fn new(endpoint: &'a Path, frame: &Frame, max_reply: usize) -> Result<Self, ExchangeError> {
        let place = Place::new(Party::Broker, endpoint);
        Ok(Self { place, request: place.request(frame, MAX_HELLO_BODY)?, max_reply })
    }

    /// Sends these bytes right behind the request, in the same write: they are not for the broker.
    pub(crate) fn with_early_data(mut self, bytes: &[u8]) -> Self {
        self.request = [&self.request, bytes].concat().into();
        self
    }

    /// Connects, sends the request and reads the reply's body.
    #[cfg(feature = "tokio")]
    pub(crate) async fn run<E>(&self, limit: Limit) -> Result<(Bytes, Stream), E>
    where
        E: From<ExchangeError> + From<ProtocolError>,
    {
        let ask = async {
            let (stream, _) = self.place.dial().await?;
            self.place.send(&stream, &self.request, limit).await?;
            let reply = self.place.receive::<E>(&stream, self.max_reply, limit).await?;
            Ok((reply, stream))
        };
        limit.bound(self.place, ask).await
    }

    /// The blocking twin of `run`.
    pub(crate) fn run_blocking<E>(&self, limit: Limit) -> Result<(Bytes, BlockingStream), E>
    where
        E: From<ExchangeError> + From<ProtocolError>,
    {
        let (stream, _) = self.place.dial_blocking(limit)?;
        self.place.send_blocking(&stream, &self.request, limit)?;
        let reply = self.place.receive_blocking::<E>(&stream, self.max_reply, limit)?;
        Ok((reply, stream))
    }

    /// The error of a reply that breaks the protocol.
    pub(crate) fn broken(&self, fault: ReplyFault) -> ProtocolError {
        self.place.broken(fault)
    }
}
