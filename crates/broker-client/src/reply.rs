//! Reading a reply, and refusing everything that is none.
//!
//! Invariant: what comes out of here is a response of envelope version 1 to the very request that was
//! sent, on a lane on which a reply may come.

use std::path::PathBuf;

use broker_protocol::bytes::Bytes;
use broker_protocol::prost::{DecodeError, Message};
use broker_protocol::wire::{
    AdminReply, Frame, FrameKind, HelloReply, Negotiated, PayloadEncoding, hello_reply,
};
use broker_protocol::{ENVELOPE_VERSION, PROTOCOL_VERSION, PayloadProtocol, TokenLengthError, VersionError};
use broker_transport::endpoint::EndpointError;
use broker_transport::frame_io::FrameFault;
use thiserror::Error;

use crate::link::Party;
use crate::refused::Refused;

/// A reply that breaks the protocol, and who sent it.
#[derive(Debug, Error)]
#[error("not a valid reply from the {party} at {}: {fault}; is a v1 {party} listening there?", endpoint.display())]
pub struct ProtocolError {
    /// Who should have sent a valid one.
    pub party: Party,
    /// The endpoint.
    pub endpoint: PathBuf,
    /// What is wrong with the reply.
    #[source]
    pub fault: ReplyFault,
}

/// What is wrong with a reply.
#[derive(Debug, Error)]
pub enum ReplyFault {
    /// There is no whole frame, or one that is too long.
    #[error(transparent)]
    Framing(FrameFault),
    /// The body is not an encoded `Frame`.
    #[error("the frame body is not a Frame: {0}")]
    NotAFrame(DecodeError),
    /// Another envelope.
    #[error("expected envelope version {ENVELOPE_VERSION}, got {actual}")]
    EnvelopeVersion {
        /// What came.
        actual: u32,
    },
    /// Not a response.
    #[error("expected a RESPONSE frame (kind 1), got kind {actual}")]
    Kind {
        /// What came.
        actual: i32,
    },
    /// A compressed payload.
    #[error("expected payload encoding NONE (0), got {actual}")]
    PayloadEncoding {
        /// What came.
        actual: i32,
    },
    /// A response on a lane that nobody asked on.
    #[error("expected a reply on lane {expected}, got one on lane {actual}")]
    Lane {
        /// The request's lane.
        expected: PayloadProtocol,
        /// The reply's.
        actual: PayloadProtocol,
    },
    /// The response to another request.
    #[error("expected the reply to request {expected}, got one to request {actual}")]
    RequestId {
        /// The request's id.
        expected: u64,
        /// The reply's.
        actual: u64,
    },
    /// The payload is another message.
    #[error("expected a {expected}, got a payload that is none: {cause}")]
    Payload {
        /// The message's name.
        expected: &'static str,
        /// What the decoder says.
        cause: DecodeError,
    },
    /// A `HelloReply` that neither agrees nor refuses.
    #[error("expected a HelloReply that agrees or refuses, got one that does neither")]
    NoResult,
    /// An agreement where no Hello was sent.
    #[error("expected an AdminReply or a refusal, got an agreement to a Hello that was never sent")]
    AgreementWithoutHello,
    /// An agreement on a protocol that was not offered.
    #[error("expected an agreement on protocol {PROTOCOL_VERSION}, got one on {actual}")]
    NegotiatedProtocol {
        /// What came.
        actual: u32,
    },
    /// The backend's version is none.
    #[error("expected the backend's version in daemon_version, got {actual:?}: {cause}")]
    DaemonVersion {
        /// What came.
        actual: String,
        /// Which rule it breaks.
        cause: VersionError,
    },
    /// The backend's endpoint is none.
    #[error("expected the backend's endpoint in backend_pipe, got {actual:?}, which is not absolute")]
    BackendPipe {
        /// What came.
        actual: String,
    },
    /// The backend's endpoint does not fit this platform.
    #[error("backend_pipe: {0}")]
    BackendPipeLength(EndpointError),
    /// A handoff token of the wrong length.
    #[error("handle_passed_token: {0}")]
    Token(TokenLengthError),
    /// A broker that knows nothing of early data has passed the connection on.
    #[error(
        "expected the backend's answer to the request behind the Hello, got a handoff that does not tell \
         whether it is carried out"
    )]
    EarlyDataUntold,
    /// An agreement without an id.
    #[error("expected a connection_id, got 0")]
    ConnectionId,
}

/// A reply: what was asked for, or a refusal.
pub(crate) type Reply<T> = Result<T, Box<Refused>>;

/// Reads the reply to a Hello.
pub(crate) fn to_hello(body: Bytes, request_id: u64) -> Result<Reply<Negotiated>, ReplyFault> {
    let frame = response(body)?;
    match frame.lane() {
        PayloadProtocol::CONTROL => control(frame, request_id),
        actual => Err(ReplyFault::Lane { expected: PayloadProtocol::CONTROL, actual }),
    }
}

/// Reads the reply to an admin request. A broker refuses on the control lane, whatever it was asked.
pub(crate) fn to_admin(body: Bytes, request_id: u64) -> Result<Reply<AdminReply>, ReplyFault> {
    let frame = response(body)?;
    match frame.lane() {
        PayloadProtocol::ADMIN => {
            check_echo(&frame, request_id)?;
            let decoded = AdminReply::decode(frame.payload);
            decoded.map(Ok).map_err(|cause| ReplyFault::Payload { expected: "AdminReply", cause })
        }
        PayloadProtocol::CONTROL => match control(frame, request_id)? {
            Ok(_) => Err(ReplyFault::AgreementWithoutHello),
            Err(refused) => Ok(Err(refused)),
        },
        actual => Err(ReplyFault::Lane { expected: PayloadProtocol::ADMIN, actual }),
    }
}

/// Reads what a backend sends to a request on `lane`: the response's payload, or none yet where the
/// frame is an event, which answers nothing.
pub(crate) fn to_service(
    body: Bytes,
    lane: PayloadProtocol,
    request_id: u64,
) -> Result<Option<Bytes>, ReplyFault> {
    let frame = plain(body)?;
    if frame.kind == FrameKind::Event as i32 {
        return Ok(None);
    }
    check_response(&frame)?;
    if frame.lane() != lane {
        return Err(ReplyFault::Lane { expected: lane, actual: frame.lane() });
    }
    check_echo(&frame, request_id)?;
    Ok(Some(frame.payload))
}

/// Takes a response out of a body and checks what does not depend on the request.
fn response(body: Bytes) -> Result<Frame, ReplyFault> {
    let frame = plain(body)?;
    check_response(&frame)?;
    Ok(frame)
}

/// Takes a frame out of a body and checks what holds for every frame.
fn plain(body: Bytes) -> Result<Frame, ReplyFault> {
    let frame = Frame::decode(body).map_err(ReplyFault::NotAFrame)?;
    if frame.envelope_version != ENVELOPE_VERSION {
        return Err(ReplyFault::EnvelopeVersion { actual: frame.envelope_version });
    }
    if frame.payload_encoding != PayloadEncoding::None as i32 {
        return Err(ReplyFault::PayloadEncoding { actual: frame.payload_encoding });
    }
    Ok(frame)
}

const fn check_response(frame: &Frame) -> Result<(), ReplyFault> {
    if frame.kind == FrameKind::Response as i32 {
        Ok(())
    } else {
        Err(ReplyFault::Kind { actual: frame.kind })
    }
}

fn control(frame: Frame, request_id: u64) -> Result<Reply<Negotiated>, ReplyFault> {
    // A broker that could not read the request has no id to echo, but may say why it could not.
    let is_anonymous = frame.request_id == 0;
    if !is_anonymous {
        check_echo(&frame, request_id)?;
    }
    let decoded = HelloReply::decode(frame.payload);
    match decoded.map_err(|cause| ReplyFault::Payload { expected: "HelloReply", cause })?.result {
        Some(hello_reply::Result::Refused(refused)) => Ok(Err(Box::new(refused.into()))),
        Some(hello_reply::Result::Negotiated(negotiated)) if !is_anonymous => Ok(Ok(negotiated)),
        Some(hello_reply::Result::Negotiated(_)) => {
            Err(ReplyFault::RequestId { expected: request_id, actual: 0 })
        }
        None => Err(ReplyFault::NoResult),
    }
}

const fn check_echo(frame: &Frame, request_id: u64) -> Result<(), ReplyFault> {
    if frame.request_id == request_id {
        Ok(())
    } else {
        Err(ReplyFault::RequestId { expected: request_id, actual: frame.request_id })
    }
}
