//! Writing the answer to a Hello.
//!
//! Most of a `Negotiated` is the same for every client of a backend: the protocol, the version, the
//! endpoint and the warnings. [`RoutePrefix`] is that part, encoded once; [`encode_negotiated`] puts
//! the rest behind it, straight into the output buffer.
//!
//! Invariant: the bytes are those of the generated encoder; the property test below compares them.

use bytes::BufMut;
use prost::Message;

use crate::connection_id::ConnectionId;
use crate::frame::{ENVELOPE_VERSION, PROTOCOL_VERSION};
use crate::framing::put_header;
use crate::token::{HANDOFF_TOKEN_LEN, HandoffToken};
use crate::view::FrameView;
use crate::wire::{Frame, FrameKind, HelloReply, Negotiated, Refused, hello_reply};
use crate::{Capabilities, PayloadProtocol};

/// What a response echoes from its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Echo<'a> {
    /// See `Frame.request_id`.
    pub request_id: u64,
    /// See `Frame.traceparent`.
    pub traceparent: &'a str,
    /// See `Frame.tracestate`.
    pub tracestate: &'a str,
}

impl<'a> From<&FrameView<'a>> for Echo<'a> {
    fn from(frame: &FrameView<'a>) -> Self {
        Self { request_id: frame.request_id, traceparent: frame.traceparent, tracestate: frame.tracestate }
    }
}

/// The part of a `Negotiated` that is the same for every client of a backend, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePrefix(Box<[u8]>);

impl RoutePrefix {
    /// Encodes the backend's version, its endpoint and the warnings.
    pub fn new(daemon_version: &str, backend_pipe: &str, warnings: &[String]) -> Self {
        let negotiated = Negotiated {
            negotiated_protocol: PROTOCOL_VERSION,
            daemon_version: daemon_version.to_owned(),
            backend_pipe: backend_pipe.to_owned(),
            warnings: warnings.to_vec(),
            ..Negotiated::default()
        };
        Self(negotiated.encode_to_vec().into())
    }
}

/// Everything in a `Negotiated`.
#[derive(Clone, Debug)]
pub struct NegotiatedParts<'a> {
    /// The backend's part.
    pub prefix: &'a RoutePrefix,
    /// What this broker and that backend can do.
    pub server_capabilities: Capabilities,
    /// Keepalive interval, in seconds.
    pub keepalive_secs: u64,
    /// The handoff token, where one was issued.
    pub token: Option<&'a HandoffToken>,
    /// The negotiation's id.
    pub connection_id: ConnectionId,
}

/// Keys of the fields written by hand: `tag << 3 | wire type`.
mod key {
    pub(super) const FRAME_ENVELOPE_VERSION: u8 = 1 << 3;
    pub(super) const FRAME_KIND: u8 = 2 << 3;
    pub(super) const FRAME_PAYLOAD: u8 = (4 << 3) | 2;
    pub(super) const FRAME_REQUEST_ID: u8 = 5 << 3;
    pub(super) const FRAME_TRACEPARENT: u8 = (8 << 3) | 2;
    pub(super) const FRAME_TRACESTATE: u8 = (9 << 3) | 2;
    pub(super) const REPLY_NEGOTIATED: u8 = (1 << 3) | 2;
    pub(super) const SERVER_CAPABILITIES: u8 = 5 << 3;
    pub(super) const KEEPALIVE: u8 = 6 << 3;
    pub(super) const TOKEN: u8 = (7 << 3) | 2;
    pub(super) const CONNECTION_ID: u8 = 8 << 3;
}

/// Length of a base-128 varint: one byte for every seven bits begun.
const fn varint_len(value: u64) -> usize {
    ((70 - (value | 1).leading_zeros()) / 7) as usize
}

fn put_varint(mut value: u64, out: &mut impl BufMut) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Length of a number's field; proto3 leaves 0 out.
const fn number_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

/// Length of a field of `length` bytes; proto3 leaves an empty one out.
const fn slice_len(length: usize) -> usize {
    if length == 0 { 0 } else { 1 + varint_len(length as u64) + length }
}

fn put_number(key: u8, value: u64, out: &mut impl BufMut) {
    if value != 0 {
        out.put_u8(key);
        put_varint(value, out);
    }
}

fn put_slice(key: u8, bytes: &[u8], out: &mut impl BufMut) {
    if !bytes.is_empty() {
        out.put_u8(key);
        put_varint(bytes.len() as u64, out);
        out.put_slice(bytes);
    }
}

/// Appends the whole response frame, framing header included, to `out`.
pub fn encode_negotiated(echo: &Echo<'_>, parts: &NegotiatedParts<'_>, out: &mut Vec<u8>) {
    let capabilities = parts.server_capabilities.bits();
    let connection_id = parts.connection_id.get();
    let token_len = if parts.token.is_some() { slice_len(HANDOFF_TOKEN_LEN) } else { 0 };
    let negotiated_len = parts.prefix.0.len()
        + number_len(capabilities)
        + number_len(parts.keepalive_secs)
        + token_len
        + number_len(connection_id);
    let reply_len = slice_len(negotiated_len);
    let body_len = number_len(u64::from(ENVELOPE_VERSION))
        + number_len(FrameKind::Response as u64)
        + slice_len(reply_len)
        + number_len(echo.request_id)
        + slice_len(echo.traceparent.len())
        + slice_len(echo.tracestate.len());

    out.reserve(crate::HEADER_LEN + body_len);
    put_header(body_len, out);
    put_number(key::FRAME_ENVELOPE_VERSION, ENVELOPE_VERSION.into(), out);
    put_number(key::FRAME_KIND, FrameKind::Response as u64, out);
    out.put_u8(key::FRAME_PAYLOAD);
    put_varint(reply_len as u64, out);
    out.put_u8(key::REPLY_NEGOTIATED);
    put_varint(negotiated_len as u64, out);
    out.put_slice(&parts.prefix.0);
    put_number(key::SERVER_CAPABILITIES, capabilities, out);
    put_number(key::KEEPALIVE, parts.keepalive_secs, out);
    if let Some(token) = parts.token {
        put_slice(key::TOKEN, token.as_bytes(), out);
    }
    put_number(key::CONNECTION_ID, connection_id, out);
    put_number(key::FRAME_REQUEST_ID, echo.request_id, out);
    put_slice(key::FRAME_TRACEPARENT, echo.traceparent.as_bytes(), out);
    put_slice(key::FRAME_TRACESTATE, echo.tracestate.as_bytes(), out);
}

/// Appends the whole response frame of a refusal, framing header included, to `out`.
pub fn encode_refused(echo: &Echo<'_>, refused: Refused, out: &mut Vec<u8>) {
    let reply = HelloReply { result: Some(hello_reply::Result::Refused(refused)) };
    let frame = Frame {
        kind: FrameKind::Response.into(),
        traceparent: echo.traceparent.to_owned(),
        tracestate: echo.tracestate.to_owned(),
        ..Frame::request(PayloadProtocol::CONTROL, echo.request_id, reply.encode_to_vec())
    };
    put_header(frame.encoded_len(), out);
    frame.encode_raw(out);
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::encode_frame;

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_generated_encoder(
            request_id in prop_oneof![Just(0), any::<u64>()],
            traceparent in ".{0,60}",
            tracestate in ".{0,150}",
            version in "[0-9.]{1,20}",
            pipe in ".{0,120}",
            warnings in proptest::collection::vec(".{0,30}", 0..3),
            capabilities in prop_oneof![Just(0), any::<u64>()],
            keepalive_secs in prop_oneof![Just(0), any::<u64>()],
            token in proptest::option::of(any::<[u8; 16]>()),
            connection_id in 1..u64::MAX,
        ) {
            let token = token.map(HandoffToken::from_bytes);
            let negotiated = Negotiated {
                negotiated_protocol: 1,
                daemon_version: version.clone(),
                backend_pipe: pipe.clone(),
                warnings: warnings.clone(),
                server_capabilities: capabilities,
                keepalive_interval_secs: keepalive_secs,
                handle_passed_token: token.as_ref().map(|token| token.as_bytes().to_vec()).unwrap_or_default(),
                connection_id,
            };
            let reply = HelloReply { result: Some(hello_reply::Result::Negotiated(negotiated)) };
            let mut request = Frame::request(PayloadProtocol::CONTROL, request_id, "");
            request.traceparent = traceparent.clone();
            request.tracestate = tracestate.clone();
            let mut expected = BytesMut::new();
            encode_frame(&Frame::response_to(&request, reply.encode_to_vec()), &mut expected).unwrap();

            let mut actual = Vec::new();
            encode_negotiated(
                &Echo { request_id, traceparent: &traceparent, tracestate: &tracestate },
                &NegotiatedParts {
                    prefix: &RoutePrefix::new(&version, &pipe, &warnings),
                    server_capabilities: Capabilities::from_bits_retain(capabilities),
                    keepalive_secs,
                    token: token.as_ref(),
                    connection_id: ConnectionId::new(connection_id).unwrap(),
                },
                &mut actual,
            );
            prop_assert_eq!(&actual[..], &expected[..]);
        }
    }
}
