//! The same conversations for programs without an async runtime.
//!
//! Each call waits in the thread that makes it, never beyond its time; none needs the feature `tokio`.

use std::path::Path;
use std::time::Duration;

use broker_protocol::PayloadProtocol;
use broker_protocol::bytes::Bytes;
use broker_protocol::limits::MAX_FRAME_BODY;
use broker_protocol::wire::{AdminReply, AdminRequest};
use broker_transport::stream::BlockingStream;

use crate::admin::{AdminError, Inquiry};
use crate::agreement::Agreement;
use crate::connector::{Connector, SessionError};
use crate::conversation::{Asked, Conversation, Origin, RequestError};
use crate::hello::Hello;
use crate::link::{Limit, Party, Place};
use crate::memory::KNOWN_DIAL_LIMIT;
use crate::negotiation::{HelloError, Negotiation};

/// Says Hello to the broker at `endpoint`; takes at most `timeout` from connecting to the whole reply.
///
/// [`broker_of`](crate::broker_of) finds the endpoint, [`round_trip_timeout`](crate::round_trip_timeout)
/// the usual time. The connection is closed when this returns, so there is no use in offering
/// [`Capabilities::HANDLE_PASSING`](crate::Capabilities::HANDLE_PASSING) here.
///
/// # Errors
/// [`HelloError`].
pub fn say_hello(endpoint: &Path, hello: &Hello, timeout: Duration) -> Result<Agreement, HelloError> {
    Negotiation::new(endpoint, hello)?.run_blocking(Limit::from_now(timeout))
}

/// Asks the broker at `endpoint`; takes at most [`round_trip_timeout`](crate::round_trip_timeout).
///
/// A verb that the broker carries out but not with success is an answer, with an exit code.
///
/// # Errors
/// [`AdminError`].
pub fn admin(endpoint: &Path, request: &AdminRequest) -> Result<AdminReply, AdminError> {
    Inquiry::new(endpoint, request)?.run_blocking()
}

/// An open connection to a backend.
#[derive(Debug)]
pub struct Session {
    stream: BlockingStream,
    conversation: Conversation,
}

impl Session {
    /// Connects to the backend: where it was last time, or where the broker says.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn connect(connector: &Connector) -> Result<Self, SessionError> {
        let mut attempt = connector.begin()?;
        let limit = attempt.limit;
        if let Some(known) = attempt.known() {
            let dialled = known.place().dial_blocking(limit.share(KNOWN_DIAL_LIMIT));
            if let Some((stream, conversation)) = attempt.resume(&known, dialled) {
                return Ok(Self { stream, conversation });
            }
        }
        let broker = attempt.broker()?;
        let agreement = loop {
            let negotiation = Negotiation::new(broker.endpoint(), connector.hello());
            match negotiation.and_then(|negotiation| negotiation.run_blocking(limit)) {
                Ok(agreement) => break agreement,
                Err(error) => attempt.recover(&broker, error)?.carry_out_blocking()?,
            }
        };
        let dialled = Place::new(Party::Backend, &agreement.backend_pipe).dial_blocking(limit);
        let (stream, conversation) = attempt.start(agreement, dialled)?;
        Ok(Self { stream, conversation })
    }

    /// Sends a request and waits for its response, at most for the session's timeout; the request
    /// carries that as its deadline. Request and response have at most 16 MiB each.
    ///
    /// Events that come before the response are passed over. The request is sent whole before anything
    /// is read: a backend that writes much before it has read all of it makes both wait until the time is
    /// over.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn request(
        &mut self,
        lane: PayloadProtocol,
        payload: impl Into<Bytes>,
    ) -> Result<Bytes, RequestError> {
        let mut asked = self.conversation.begin(lane, payload.into())?;
        let answer = exchange(self.conversation.place(), &self.stream, &mut asked)?;
        self.conversation.conclude(asked);
        Ok(answer)
    }

    /// What was agreed upon with the broker; in a session from [memory](Origin::Memory), by an earlier
    /// one.
    pub fn agreement(&self) -> &Agreement {
        self.conversation.agreement()
    }

    /// Where this session learnt of its backend.
    pub const fn origin(&self) -> Origin {
        self.conversation.origin()
    }

    /// How long each request may take from now on.
    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.conversation.set_timeout(timeout);
    }

    /// The connection itself, for a service that speaks another protocol than frames; none where a
    /// request was not answered, as its connection may stand in the middle of a frame. Its reads and
    /// writes wait for as long as it takes.
    pub fn into_stream(self) -> Option<BlockingStream> {
        self.conversation.is_open().then_some(self.stream)
    }
}

fn exchange(place: Place<'_>, stream: &BlockingStream, asked: &mut Asked) -> Result<Bytes, RequestError> {
    place.send_blocking(stream, &asked.take_bytes(), asked.limit)?;
    loop {
        let body = place.receive_blocking::<RequestError>(stream, MAX_FRAME_BODY, asked.limit)?;
        if let Some(answer) = asked.answer(body).map_err(|fault| place.broken(fault))? {
            return Ok(answer);
        }
    }
}
