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
use crate::attempt::{Attempt, Broker};
use crate::connector::{Connector, SessionError};
use crate::conversation::{Asked, Conversation, FirstRequestError, Origin, Question, RequestError};
use crate::handover::{ADOPTION_LIMIT, Handover, MAX_EVENT_BODY};
use crate::hello::Hello;
use crate::link::{Limit, Party, Place};
use crate::memory::KNOWN_DIAL_LIMIT;
use crate::negotiation::{HelloError, Negotiation};
use crate::reply::ReplyFault;

/// Says Hello to the broker at `endpoint`; takes at most `timeout` from connecting to the whole reply.
///
/// [`broker_of`](crate::broker_of) finds the endpoint, [`round_trip_timeout`](crate::round_trip_timeout)
/// the usual time. The connection is closed when this returns, so there is no use in offering
/// [`Capabilities::HANDLE_PASSING`](crate::Capabilities::HANDLE_PASSING) here.
///
/// # Errors
/// [`HelloError`].
pub fn say_hello(endpoint: &Path, hello: &Hello, timeout: Duration) -> Result<Agreement, HelloError> {
    Ok(Negotiation::new(endpoint, hello)?.run_blocking(Limit::from_now(timeout))?.0)
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

/// Asks the broker at `endpoint`; takes at most `timeout`, whatever the environment says.
///
/// # Errors
/// [`AdminError`], and never [`AdminError::Config`].
pub fn admin_within(
    endpoint: &Path,
    request: &AdminRequest,
    timeout: Duration,
) -> Result<AdminReply, AdminError> {
    Inquiry::within(endpoint, request, timeout)?.run_blocking()
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
        if let Some(session) = Self::resume(&attempt) {
            return Ok(session);
        }
        let broker = attempt.broker()?;
        Self::reach(&mut attempt, &broker)
    }

    /// Connects, and sends a first request, which where the connector has a [handoff](Connector::with_handoff)
    /// travels with the Hello: its answer is there after one round trip. A broker is trusted with that once it
    /// has passed on a connection of this connector or a clone of it.
    ///
    /// The request is sent once. Where it may have reached a backend and no answer comes, that is an error.
    ///
    /// # Errors
    /// [`FirstRequestError`].
    pub fn connect_with_request(
        connector: &Connector,
        lane: PayloadProtocol,
        payload: impl Into<Bytes>,
    ) -> Result<(Self, Bytes), FirstRequestError> {
        let payload = payload.into();
        let mut attempt = connector.begin()?;
        if let Some(mut session) = Self::resume(&attempt) {
            let answer = session.request(lane, payload)?;
            return Ok((session, answer));
        }
        let broker = attempt.broker()?;
        let limit = attempt.limit;
        if !attempt.may_send_early_data() {
            let mut session = Self::reach(&mut attempt, &broker)?;
            let answer = session.request(lane, payload)?;
            return Ok((session, answer));
        }
        let question = attempt.question(&broker, lane, payload.clone()).map_err(RequestError::from)?;
        let (agreement, stream) = Self::agree_with(&mut attempt, &broker, &question)?;
        match agreement.handover() {
            Handover::Done => {
                let (stream, conversation) = attempt.adopt(agreement, stream);
                let mut session = Self { stream, conversation };
                let asked = session.conversation.asked_already(question, limit);
                let answer = session.answer(asked)?;
                Ok((session, answer))
            }
            // The broker has answered, so nobody has read the request.
            Handover::None => {
                let mut session = match Self::open(&attempt, agreement, stream) {
                    Err(SessionError::Backend(error)) => {
                        let pause = attempt.pause_before_next(error)?;
                        std::thread::sleep(pause);
                        Self::reach(&mut attempt, &broker)?
                    }
                    opened => opened?,
                };
                let answer = session.request(lane, payload)?;
                Ok((session, answer))
            }
            Handover::ToBeTold => {
                Err(RequestError::Protocol(broker.place().broken(ReplyFault::EarlyDataUntold)).into())
            }
        }
    }

    fn resume(attempt: &Attempt<'_>) -> Option<Self> {
        let known = attempt.known()?;
        let dialled = known.place().dial_blocking(attempt.limit.share(KNOWN_DIAL_LIMIT));
        let (stream, conversation) = attempt.resume(&known, dialled)?;
        Some(Self { stream, conversation })
    }

    /// Agrees with the broker on a backend, and goes there.
    fn reach(attempt: &mut Attempt<'_>, broker: &Broker) -> Result<Self, SessionError> {
        loop {
            let (agreement, stream) = Self::agree(attempt, broker)?;
            match Self::open(attempt, agreement, stream) {
                Err(SessionError::Backend(error)) => {
                    let pause = attempt.pause_before_next(error)?;
                    std::thread::sleep(pause);
                }
                outcome => return outcome,
            }
        }
    }

    fn agree(
        attempt: &mut Attempt<'_>,
        broker: &Broker,
    ) -> Result<(Agreement, BlockingStream), SessionError> {
        loop {
            let negotiation = Negotiation::new(broker.endpoint(), attempt.hello());
            match negotiation.and_then(|negotiation| negotiation.run_blocking(attempt.limit_of_hello())) {
                Ok((agreement, stream)) => {
                    attempt.note(&agreement);
                    return Ok((agreement, stream));
                }
                Err(error) => attempt.recover(broker, error)?.carry_out_blocking()?,
            }
        }
    }

    fn agree_with(
        attempt: &mut Attempt<'_>,
        broker: &Broker,
        question: &Question,
    ) -> Result<(Agreement, BlockingStream), FirstRequestError> {
        loop {
            let negotiation = Negotiation::new(broker.endpoint(), attempt.hello())
                .map(|negotiation| negotiation.with_early_data(question.bytes()));
            match negotiation.and_then(|negotiation| negotiation.run_blocking(attempt.limit)) {
                Ok((agreement, stream)) => {
                    attempt.note(&agreement);
                    return Ok((agreement, stream));
                }
                Err(error) => {
                    let error = attempt.unasked(error)?;
                    attempt.recover(broker, error)?.carry_out_blocking()?;
                }
            }
        }
    }

    fn open(
        attempt: &Attempt<'_>,
        agreement: Agreement,
        stream: BlockingStream,
    ) -> Result<Self, SessionError> {
        let is_adopted = match agreement.handover() {
            Handover::Done => true,
            Handover::ToBeTold => Self::is_told(attempt, &agreement, &stream),
            Handover::None => false,
        };
        if is_adopted {
            let (stream, conversation) = attempt.adopt(agreement, stream);
            return Ok(Self { stream, conversation });
        }
        drop(stream);
        let place = Place::new(Party::Backend, &agreement.backend_pipe);
        let dialled = place.dial_blocking(attempt.limit);
        let (stream, conversation) = attempt.start(agreement, dialled)?;
        Ok(Self { stream, conversation })
    }

    fn is_told(attempt: &Attempt<'_>, agreement: &Agreement, stream: &BlockingStream) -> bool {
        let limit = attempt.limit.share(ADOPTION_LIMIT);
        let place = Place::new(Party::Backend, &agreement.backend_pipe);
        let event = place.receive_blocking::<RequestError>(stream, MAX_EVENT_BODY, limit);
        event.is_ok_and(|body| agreement.is_adopted_by(body))
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
        let asked = self.conversation.begin(lane, payload.into())?;
        self.answer(asked)
    }

    fn answer(&mut self, mut asked: Asked) -> Result<Bytes, RequestError> {
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
