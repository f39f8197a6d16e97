//! Offering a connection, and the answer to the offer (protocol.md, "Conversations" 4 to 6 and
//! "Extensions").
//!
//! Values and their frames, for all three sides; who owns the connection when is decided elsewhere.
//! Invariant: what comes out of here names a connection and has a token of the right length, so an
//! answer can be held against the offer it answers.

use bytes::Bytes;
use prost::{DecodeError, Message};
use thiserror::Error;

use crate::connection_id::ConnectionId;
use crate::frame::ENVELOPE_VERSION;
use crate::token::{HandoffToken, TokenLengthError};
use crate::wire::{Frame, FrameKind, HandoffAck, HandoffOffer, PayloadEncoding};
use crate::{NameError, PayloadProtocol, ServiceName};

/// Longest reason for a rejection that is passed on, in bytes.
pub const MAX_REJECTION_DETAIL: usize = 512;

/// Why a frame is no offer, or no answer to one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandoffFault {
    /// Another envelope.
    #[error("expected envelope version {ENVELOPE_VERSION}, got {actual}")]
    EnvelopeVersion {
        /// What came.
        actual: u32,
    },
    /// A compressed payload.
    #[error("expected payload encoding NONE (0), got {actual}")]
    Encoding {
        /// What came.
        actual: i32,
    },
    /// Another lane.
    #[error("expected a frame on lane {}, got one on lane {actual}", PayloadProtocol::HANDOFF)]
    Lane {
        /// What came.
        actual: PayloadProtocol,
    },
    /// Another kind of frame.
    #[error("expected a frame of kind {}, got kind {actual}", *expected as i32)]
    Kind {
        /// The kind that belongs here.
        expected: FrameKind,
        /// What came.
        actual: i32,
    },
    /// The payload is another message.
    #[error("expected a {expected}, got a payload that is none: {cause}")]
    Payload {
        /// The message's name.
        expected: &'static str,
        /// What the decoder says.
        cause: DecodeError,
    },
    /// A token of the wrong length.
    #[error(transparent)]
    Token(#[from] TokenLengthError),
    /// No connection is named.
    #[error("expected a correlation_id, got 0")]
    CorrelationId,
    /// The service has no valid name.
    #[error("service_name: {0}")]
    Service(#[from] NameError),
}

/// A connection that the broker offers to a backend.
///
/// ```
/// use broker_protocol::handoff::{Acknowledgement, Offer};
/// use broker_protocol::{ConnectionId, HandoffToken};
///
/// let offer = Offer {
///     token: HandoffToken::from_bytes([7; 16]),
///     service: "build-cache".parse()?,
///     connection: ConnectionId::new(9).ok_or("an id is not 0")?,
///     request_id: 1,
///     reply: None,
///     handle_value: 0,
/// };
/// let received = Offer::from_frame(offer.to_frame())?;
/// let answer = Acknowledgement::accept(&received).to_response();
/// let answer = Acknowledgement::from_response(answer)?;
/// assert!(answer.connection == offer.connection && answer.token == offer.token);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The one-time token that the client was given, or is given by the reply.
    pub token: HandoffToken,
    /// The service that the client asked for.
    pub service: ServiceName,
    /// The negotiation.
    pub connection: ConnectionId,
    /// The frame's own id, which its answer echoes.
    pub request_id: u64,
    /// Extension: the reply frame that the backend writes to the client before anything else, header
    /// included. None where the broker has written it.
    pub reply: Option<Bytes>,
    /// On Windows the value of the connection's handle in the backend's table; 0 on Unix.
    pub handle_value: u64,
}

impl Offer {
    /// The frame that asks for an answer.
    pub fn to_frame(&self) -> Frame {
        let offer = HandoffOffer {
            handle_value: self.handle_value,
            token: self.token.as_bytes().to_vec(),
            service_name: self.service.to_string(),
            correlation_id: self.connection.get(),
            hello_reply_frame: self.reply.clone().unwrap_or_default(),
        };
        Frame::request(PayloadProtocol::HANDOFF, self.request_id, offer.encode_to_vec())
    }

    /// Reads an offer.
    ///
    /// # Errors
    /// [`HandoffFault`].
    pub fn from_frame(frame: Frame) -> Result<Self, HandoffFault> {
        check(&frame, FrameKind::Request)?;
        let request_id = frame.request_id;
        let offer = HandoffOffer::decode(frame.payload)
            .map_err(|cause| HandoffFault::Payload { expected: "HandoffOffer", cause })?;
        Ok(Self {
            token: HandoffToken::try_from(offer.token.as_slice())?,
            service: ServiceName::parse(&offer.service_name)?,
            connection: ConnectionId::new(offer.correlation_id).ok_or(HandoffFault::CorrelationId)?,
            request_id,
            reply: Some(offer.hello_reply_frame).filter(|reply| !reply.is_empty()),
            handle_value: offer.handle_value,
        })
    }
}

/// What a backend says to an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The connection is the backend's from now on.
    Accepted,
    /// It stays the broker's. The backend has closed its copy without a byte read or written.
    Rejected {
        /// Why.
        detail: String,
    },
}

/// A backend's answer to an offer; to the client, the news that the backend has its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The offer's token.
    pub token: HandoffToken,
    /// The offer's connection.
    pub connection: ConnectionId,
    /// The id of the frame that it comes in: the offer's, or in an event that of the Hello.
    pub request_id: u64,
    /// Whether the backend took it.
    pub verdict: Verdict,
}

impl Acknowledgement {
    /// The answer of a backend that takes the connection.
    pub fn accept(offer: &Offer) -> Self {
        Self::answer(offer, Verdict::Accepted)
    }

    /// The answer of a backend that does not.
    pub fn reject(offer: &Offer, detail: impl Into<String>) -> Self {
        Self::answer(offer, Verdict::Rejected { detail: detail.into() })
    }

    fn answer(offer: &Offer, verdict: Verdict) -> Self {
        let Offer { token, connection, request_id, .. } = offer;
        Self { token: token.clone(), connection: *connection, request_id: *request_id, verdict }
    }

    /// The response to the broker.
    pub fn to_response(&self) -> Frame {
        Frame { kind: FrameKind::Response.into(), ..self.frame(self.request_id) }
    }

    /// The event on the client's own connection, with the id of the Hello.
    pub fn to_event(&self, request_id: u64) -> Frame {
        Frame { kind: FrameKind::Event.into(), ..self.frame(request_id) }
    }

    /// Reads what a backend has sent.
    ///
    /// # Errors
    /// [`HandoffFault`].
    pub fn from_response(frame: Frame) -> Result<Self, HandoffFault> {
        Self::from_frame(frame, FrameKind::Response)
    }

    /// Reads what came on a client's own connection.
    ///
    /// # Errors
    /// [`HandoffFault`].
    pub fn from_event(frame: Frame) -> Result<Self, HandoffFault> {
        Self::from_frame(frame, FrameKind::Event)
    }

    fn frame(&self, request_id: u64) -> Frame {
        let (accepted, error_detail) = match &self.verdict {
            Verdict::Accepted => (true, String::new()),
            Verdict::Rejected { detail } => (false, detail.clone()),
        };
        let ack = HandoffAck {
            token: self.token.as_bytes().to_vec(),
            accepted,
            error_detail,
            correlation_id: self.connection.get(),
        };
        Frame::request(PayloadProtocol::HANDOFF, request_id, ack.encode_to_vec())
    }

    fn from_frame(frame: Frame, kind: FrameKind) -> Result<Self, HandoffFault> {
        check(&frame, kind)?;
        let request_id = frame.request_id;
        let ack = HandoffAck::decode(frame.payload)
            .map_err(|cause| HandoffFault::Payload { expected: "HandoffAck", cause })?;
        let verdict = if ack.accepted {
            Verdict::Accepted
        } else {
            Verdict::Rejected { detail: shortened(ack.error_detail) }
        };
        Ok(Self {
            token: HandoffToken::try_from(ack.token.as_slice())?,
            connection: ConnectionId::new(ack.correlation_id).ok_or(HandoffFault::CorrelationId)?,
            request_id,
            verdict,
        })
    }
}

fn shortened(mut detail: String) -> String {
    let mut length = MAX_REJECTION_DETAIL.min(detail.len());
    while !detail.is_char_boundary(length) {
        length -= 1;
    }
    detail.truncate(length);
    detail
}

fn check(frame: &Frame, kind: FrameKind) -> Result<(), HandoffFault> {
    if frame.envelope_version != ENVELOPE_VERSION {
        return Err(HandoffFault::EnvelopeVersion { actual: frame.envelope_version });
    }
    if frame.payload_encoding != i32::from(PayloadEncoding::None) {
        return Err(HandoffFault::Encoding { actual: frame.payload_encoding });
    }
    if frame.lane() != PayloadProtocol::HANDOFF {
        return Err(HandoffFault::Lane { actual: frame.lane() });
    }
    if frame.kind != i32::from(kind) {
        return Err(HandoffFault::Kind { expected: kind, actual: frame.kind });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        Offer {
            token: HandoffToken::from_bytes([7; 16]),
            service: "build-cache".parse().unwrap(),
            connection: ConnectionId::new(9).unwrap(),
            request_id: 41,
            reply: None,
            handle_value: 0,
        }
    }

    #[test]
    fn an_offer_and_its_answers_survive_the_way_through_a_frame() {
        let plain = offer();
        let extended = Offer { reply: Some(Bytes::from_static(b"frame")), ..offer() };
        let of_a_handle = Offer { handle_value: u64::MAX, ..offer() };
        for offer in [plain, extended, of_a_handle] {
            assert_eq!(Offer::from_frame(offer.to_frame()).unwrap(), offer);
            for answer in [Acknowledgement::accept(&offer), Acknowledgement::reject(&offer, "full")] {
                assert_eq!(answer.to_response().request_id, 41, "as every response does");
                assert_eq!(Acknowledgement::from_response(answer.to_response()).unwrap(), answer);
                let told = Acknowledgement { request_id: 5, ..answer.clone() };
                assert_eq!(Acknowledgement::from_event(answer.to_event(5)).unwrap(), told);
            }
        }
    }

    #[test]
    fn what_the_extension_adds_is_a_field_that_a_plain_offer_leaves_out() {
        let wire = |offer: Offer| HandoffOffer::decode(offer.to_frame().payload).unwrap();
        assert!(wire(offer()).hello_reply_frame.is_empty());
        let plain = offer().to_frame().payload.len();
        let extended = Offer { reply: Some(Bytes::from_static(b"frame")), ..offer() };
        // Two bytes of key, one of length.
        assert_eq!(extended.to_frame().payload.len(), plain + 3 + 5);
    }

    #[test]
    fn a_frame_that_is_none_of_them_is_told_apart() {
        let good = Acknowledgement::accept(&offer()).to_response();
        let fault_of = |frame| Acknowledgement::from_response(frame).unwrap_err();
        let fault = fault_of(Frame { envelope_version: 2, ..good.clone() });
        assert_eq!(fault, HandoffFault::EnvelopeVersion { actual: 2 });
        let fault = fault_of(Frame { payload_encoding: 1, ..good.clone() });
        assert_eq!(fault, HandoffFault::Encoding { actual: 1 });
        let fault = fault_of(Frame { payload_protocol: 0, ..good.clone() });
        assert_eq!(fault, HandoffFault::Lane { actual: PayloadProtocol::CONTROL });
        let fault = fault_of(Frame { kind: 2, ..good.clone() });
        assert_eq!(fault, HandoffFault::Kind { expected: FrameKind::Response, actual: 2 });
        let fault = fault_of(Frame { payload: Bytes::from_static(&[0xFF]), ..good.clone() });
        assert!(matches!(fault, HandoffFault::Payload { .. }), "{fault}");
        let fault = fault_of(Frame { payload: Bytes::new(), ..good });
        assert_eq!(fault, HandoffFault::Token(TokenLengthError { actual: 0 }));
        let nobody = HandoffAck { token: vec![7; 16], accepted: true, ..HandoffAck::default() };
        let frame = Frame { kind: 1, ..Frame::request(PayloadProtocol::HANDOFF, 0, nobody.encode_to_vec()) };
        assert_eq!(Acknowledgement::from_response(frame), Err(HandoffFault::CorrelationId));
        let nameless = HandoffOffer { token: vec![7; 16], correlation_id: 1, ..HandoffOffer::default() };
        let frame = Frame::request(PayloadProtocol::HANDOFF, 1, nameless.encode_to_vec());
        assert!(matches!(Offer::from_frame(frame), Err(HandoffFault::Service(NameError::Empty))));
    }

    #[test]
    fn a_long_reason_is_cut_between_two_characters() {
        let detail = |length: usize| {
            let answer = Acknowledgement::reject(&offer(), "é".repeat(length));
            match Acknowledgement::from_response(answer.to_response()).unwrap().verdict {
                Verdict::Rejected { detail } => detail.len(),
                Verdict::Accepted => 0,
            }
        };
        assert_eq!((detail(256), detail(257)), (512, 512));
    }
}
