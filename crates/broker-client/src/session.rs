//! The async session.

use std::time::Duration;

use broker_protocol::PayloadProtocol;
use broker_protocol::bytes::Bytes;
use broker_protocol::limits::MAX_FRAME_BODY;
use broker_transport::stream::Stream;

use crate::agreement::Agreement;
use crate::attempt::{Attempt, Broker};
use crate::connector::{Connector, SessionError};
use crate::conversation::{Asked, Conversation, FirstRequestError, Origin, Question, RequestError};
use crate::handover::{ADOPTION_LIMIT, Handover, MAX_EVENT_BODY};
use crate::link::{Party, Place};
use crate::memory::KNOWN_DIAL_LIMIT;
use crate::negotiation::Negotiation;
use crate::reply::ReplyFault;

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
        if let Some(session) = Self::resume(&attempt).await {
            return Ok(session);
        }
        let broker = attempt.broker()?;
        Self::reach(&mut attempt, &broker).await
    }

    /// Connects, and sends a first request, which where the connector has a [handoff](Connector::with_handoff)
    /// travels with the Hello: its answer is there after one round trip. A broker is trusted with that once it
    /// has passed on a connection of this connector or a clone of it.
    ///
    /// The request is sent once. Where it may have reached a backend and no answer comes, that is an error.
    ///
    /// # Errors
    /// [`FirstRequestError`].
    pub async fn connect_with_request(
        connector: &Connector,
        lane: PayloadProtocol,
        payload: impl Into<Bytes>,
    ) -> Result<(Self, Bytes), FirstRequestError> {
        let payload = payload.into();
        let mut attempt = connector.begin()?;
        if let Some(mut session) = Self::resume(&attempt).await {
            let answer = session.request(lane, payload).await?;
            return Ok((session, answer));
        }
        let broker = attempt.broker()?;
        let limit = attempt.limit;
        if !attempt.may_send_early_data() {
            let mut session = Self::reach(&mut attempt, &broker).await?;
            let answer = session.request(lane, payload).await?;
            return Ok((session, answer));
        }
        let question = attempt.question(&broker, lane, payload.clone()).map_err(RequestError::from)?;
        let (agreement, stream) = Self::agree_with(&mut attempt, &broker, &question).await?;
        match agreement.handover() {
            Handover::Done => {
                let (stream, conversation) = attempt.adopt(agreement, stream);
                let mut session = Self { stream, conversation };
                let asked = session.conversation.asked_already(question, limit);
                let answer = session.answer(asked).await?;
                Ok((session, answer))
            }
            // The broker has answered, so nobody has read the request.
            Handover::None => {
                let mut session = match Self::open(&attempt, agreement, stream).await {
                    Err(SessionError::Backend(error)) => {
                        let pause = attempt.pause_before_next(error)?;
                        tokio::time::sleep(pause).await;
                        Self::reach(&mut attempt, &broker).await?
                    }
                    opened => opened?,
                };
                let answer = session.request(lane, payload).await?;
                Ok((session, answer))
            }
            Handover::ToBeTold => {
                Err(RequestError::Protocol(broker.place().broken(ReplyFault::EarlyDataUntold)).into())
            }
        }
    }

    /// Connects to where the backend was last time, if that is known and true.
    async fn resume(attempt: &Attempt<'_>) -> Option<Self> {
        let known = attempt.known()?;
        let limit = attempt.limit.share(KNOWN_DIAL_LIMIT);
        let dialled = limit.bound(known.place(), known.place().dial()).await;
        let (stream, conversation) = attempt.resume(&known, dialled)?;
        Some(Self { stream, conversation })
    }

    /// Agrees with the broker on a backend, and goes there.
    async fn reach(attempt: &mut Attempt<'_>, broker: &Broker) -> Result<Self, SessionError> {
        loop {
            let (agreement, stream) = Self::agree(attempt, broker).await?;
            match Self::open(attempt, agreement, stream).await {
                Err(SessionError::Backend(error)) => {
                    let pause = attempt.pause_before_next(error)?;
                    tokio::time::sleep(pause).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Agrees with the broker on a backend.
    async fn agree(attempt: &mut Attempt<'_>, broker: &Broker) -> Result<(Agreement, Stream), SessionError> {
        let limit = attempt.limit;
        loop {
            let agreed = match Negotiation::new(broker.endpoint(), attempt.hello()) {
                Ok(negotiation) => negotiation.run(attempt.limit_of_hello()).await,
                Err(error) => Err(error),
            };
            match agreed {
                Ok((agreement, stream)) => {
                    attempt.note(&agreement);
                    return Ok((agreement, stream));
                }
                Err(error) => attempt.recover(broker, error)?.carry_out(broker, limit).await?,
            }
        }
    }

    /// Agrees with the broker on a backend, with a question to it right behind the Hello.
    async fn agree_with(
        attempt: &mut Attempt<'_>,
        broker: &Broker,
        question: &Question,
    ) -> Result<(Agreement, Stream), FirstRequestError> {
        let limit = attempt.limit;
        loop {
            let agreed = match Negotiation::new(broker.endpoint(), attempt.hello()) {
                Ok(negotiation) => negotiation.with_early_data(question.bytes()).run(limit).await,
                Err(error) => Err(error),
            };
            match agreed {
                Ok((agreement, stream)) => {
                    attempt.note(&agreement);
                    return Ok((agreement, stream));
                }
                Err(error) => {
                    let error = attempt.unasked(error)?;
                    attempt.recover(broker, error)?.carry_out(broker, limit).await?;
                }
            }
        }
    }

    /// Goes on with the connection to the broker where that is the backend's, or dials the backend.
    async fn open(attempt: &Attempt<'_>, agreement: Agreement, stream: Stream) -> Result<Self, SessionError> {
        let is_adopted = match agreement.handover() {
            Handover::Done => true,
            Handover::ToBeTold => Self::is_told(attempt, &agreement, &stream).await,
            Handover::None => false,
        };
        if is_adopted {
            let (stream, conversation) = attempt.adopt(agreement, stream);
            return Ok(Self { stream, conversation });
        }
        drop(stream);
        let place = Place::new(Party::Backend, &agreement.backend_pipe);
        let dialled = attempt.limit.bound(place, place.dial()).await;
        let (stream, conversation) = attempt.start(agreement, dialled)?;
        Ok(Self { stream, conversation })
    }

    /// Whether the news of the handoff comes in time.
    async fn is_told(attempt: &Attempt<'_>, agreement: &Agreement, stream: &Stream) -> bool {
        let limit = attempt.limit.share(ADOPTION_LIMIT);
        let place = Place::new(Party::Backend, &agreement.backend_pipe);
        let event = limit.bound::<Bytes, RequestError>(place, place.receive(stream, MAX_EVENT_BODY, limit));
        event.await.is_ok_and(|body| agreement.is_adopted_by(body))
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
        let asked = self.conversation.begin(lane, payload.into())?;
        self.answer(asked).await
    }

    /// Sends what is still to be sent, and waits for the answer.
    async fn answer(&mut self, mut asked: Asked) -> Result<Bytes, RequestError> {
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
