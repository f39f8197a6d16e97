//! Making the frames of a conversation.

use bytes::Bytes;

use crate::payload_protocol::PayloadProtocol;
use crate::wire::{Frame, FrameKind};

/// `Frame.envelope_version` of every frame.
pub const ENVELOPE_VERSION: u32 = 1;

/// The protocol that Hello negotiates.
pub const PROTOCOL_VERSION: u32 = 1;

impl Frame {
    /// A request on `lane` with the requester's own `request_id`.
    pub fn request(lane: PayloadProtocol, request_id: u64, payload: impl Into<Bytes>) -> Self {
        Self {
            envelope_version: ENVELOPE_VERSION,
            kind: FrameKind::Request.into(),
            payload_protocol: lane.id(),
            payload: payload.into(),
            request_id,
            ..Self::default()
        }
    }

    /// The response to `request`: same lane, and the id and trace context echoed.
    ///
    /// ```
    /// use broker_protocol::PayloadProtocol;
    /// use broker_protocol::wire::{Frame, FrameKind};
    ///
    /// let mut request = Frame::request(PayloadProtocol::CLUD, 42, "ping");
    /// request.tracestate = "rp=1".into();
    /// let response = Frame::response_to(&request, "pong");
    /// assert_eq!(response.kind(), FrameKind::Response);
    /// assert_eq!((response.request_id, response.tracestate.as_str()), (42, "rp=1"));
    /// ```
    pub fn response_to(request: &Self, payload: impl Into<Bytes>) -> Self {
        Self {
            envelope_version: ENVELOPE_VERSION,
            kind: FrameKind::Response.into(),
            payload_protocol: request.payload_protocol,
            payload: payload.into(),
            request_id: request.request_id,
            traceparent: request.traceparent.clone(),
            tracestate: request.tracestate.clone(),
            ..Self::default()
        }
    }

    /// An event on `lane`, which nobody answers.
    pub fn event(lane: PayloadProtocol, payload: impl Into<Bytes>) -> Self {
        Self { kind: FrameKind::Event.into(), ..Self::request(lane, 0, payload) }
    }

    /// The lane of this frame's payload.
    pub const fn lane(&self) -> PayloadProtocol {
        PayloadProtocol::new(self.payload_protocol)
    }
}
