//! The async session.

use std::time::Duration;

use broker_protocol::PayloadProtocol;
use broker_protocol::bytes::Bytes;
use broker_protocol::limits::MAX_FRAME_BODY;
use broker_transport::stream::Stream;

use crate::agreement::Agreement;
use crate::connector::{Connector, SessionError};
use crate::conversation::{Conversation, Origin, RequestError};
use crate::link::{Party, Place};
use crate::memory::KNOWN_DIAL_LIMIT;
use crate::negotiation::Negotiation;

/// An open connection to a backend, on tokio; [`blocking::Session`](crate::blocking::Session) is its
/// blocking twin.
///
/// # Panics
/// Its async methods, outside of a tokio runtime with I/O and time enabled.
#[derive(Debug)]
pub struct Session {
    stream: Stream,
    conversation: Conversation,
}

impl Session {
    /// Connects to the backend: where it was last time, or where the broker says.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn connect(connector: &Connector) -> Result<Self, SessionError> {
        let mut attempt = connector.begin()?;
        let limit = attempt.limit;
        if let Some(known) = attempt.known() {
            let dialled = limit.share(KNOWN_DIAL_LIMIT).bound(known.place(), known.place().dial()).await;
            if let Some((stream, conversation)) = attempt.resume(&known, dialled) {
                return Ok(Self { stream, conversation });
            }
        }
        let broker = attempt.broker()?;
        let agreement = loop {
            let agreement = match Negotiation::new(broker.endpoint(), connector.hello()) {
                Ok(negotiation) => negotiation.run(limit).await,
                Err(error) => Err(error),
            };
            match agreement {
                Ok(agreement) => break agreement,
                Err(error) => attempt.recover(&broker, error)?.carry_out(&broker, limit).await?,
            }
        };
        let place = Place::new(Party::Backend, &agreement.backend_pipe);
        let dialled = limit.bound(place, place.dial()).await;
        let (stream, conversation) = attempt.start(agreement, dialled)?;
        Ok(Self { stream, conversation })
    }

    /// Sends a request and waits for its response, at most for the session's timeout; the request
    /// carries that as its deadline. Request and response have at most 16 MiB each.
    ///
    /// Events that come before the response are passed over. The request is sent whole before anything
    /// is read: a backend that writes much before it has read all of it makes both wait until the time is
    /// over. Not cancel-safe: a session whose request was dropped half-way is over.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request(
        &mut self,
        lane: PayloadProtocol,
        payload: impl Into<Bytes>,
    ) -> Result<Bytes, RequestError> {
        let mut asked = self.conversation.begin(lane, payload.into())?;
        let (stream, place, limit) = (&self.stream, self.conversation.place(), asked.limit);
        let ask = async {
            place.send(stream, &asked.take_bytes(), limit).await?;
            loop {
                let body = place.receive::<RequestError>(stream, MAX_FRAME_BODY, limit).await?;
                if let Some(answer) = asked.answer(body).map_err(|fault| place.broken(fault))? {
                    return Ok(answer);
                }
            }
        };
        let answer = limit.bound::<Bytes, RequestError>(place, ask).await?;
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
    /// request was not answered, as its connection may stand in the middle of a frame.
    pub fn into_stream(self) -> Option<Stream> {
        self.conversation.is_open().then_some(self.stream)
    }
}
