//! Encodings by an independent implementation, both ways: our encoder writes the same bytes, our
//! decoders read the same values.

#![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use broker_protocol::prost::Message;
use broker_protocol::wire::{
    Frame, FrameKind, HandoffOffer, Hello, HelloReply, Negotiated, PayloadEncoding, hello_reply,
};
use broker_protocol::{FrameView, HelloView};
use serde_json::Value;

fn vector(message: &str) -> (Vec<u8>, Value) {
    let file: Value = serde_json::from_str(include_str!("vectors.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    let found: Vec<_> = vectors.iter().filter(|vector| vector["message"] == message).collect();
    assert_eq!(found.len(), 1, "one vector for {message}");
    (hex(&found[0]["hex"]), found[0]["fields"].clone())
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap(),
        other => other.as_u64().unwrap(),
    }
}

fn number32(value: &Value) -> u32 {
    u32::try_from(number(value)).unwrap()
}

fn assert_both_ways<M: Message + Default + PartialEq>(bytes: &[u8], message: &M) {
    assert_eq!(message.encode_to_vec(), bytes);
    assert!(M::decode(bytes).unwrap() == *message);
}

#[test]
fn frame() {
    let (bytes, fields) = vector("Frame");
    let frame = Frame {
        envelope_version: number32(&fields["envelope_version"]),
        kind: FrameKind::from_str_name(&text(&fields["kind"])).unwrap().into(),
        payload_protocol: number32(&fields["payload_protocol"]),
        payload: hex(&fields["payload_hex"]).into(),
        request_id: number(&fields["request_id"]),
        payload_encoding: PayloadEncoding::from_str_name(&text(&fields["payload_encoding"])).unwrap().into(),
        deadline_unix_ms: number(&fields["deadline_unix_ms"]),
        traceparent: text(&fields["traceparent"]),
        tracestate: text(&fields["tracestate"]),
    };
    assert_both_ways(&bytes, &frame);

    let view = FrameView::decode(&bytes).unwrap();
    assert_eq!(view.payload, &frame.payload[..]);
    assert_eq!((view.request_id, view.deadline_unix_ms), (frame.request_id, frame.deadline_unix_ms));
    assert_eq!((view.traceparent, view.tracestate), (&frame.traceparent[..], &frame.tracestate[..]));
}

#[test]
fn hello() {
    let (bytes, fields) = vector("Hello");
    let hello = Hello {
        client_min_protocol: number32(&fields["client_min_protocol"]),
        client_max_protocol: number32(&fields["client_max_protocol"]),
        service_name: text(&fields["service_name"]),
        wanted_version: text(&fields["wanted_version"]),
        client_version: text(&fields["client_version"]),
        client_capabilities: number(&fields["client_capabilities"]),
        auth_token: hex(&fields["auth_token_hex"]),
        request_id: text(&fields["request_id"]),
        connection_id: number(&fields["connection_id"]),
        peer_pid: number32(&fields["peer_pid"]),
        client_lib_name: text(&fields["client_lib_name"]),
        client_lib_version: text(&fields["client_lib_version"]),
        peer_attestation_nonce: hex(&fields["peer_attestation_nonce_hex"]),
        capability_token: hex(&fields["capability_token_hex"]),
        client_keepalive_secs: number(&fields["client_keepalive_secs"]),
    };
    assert_both_ways(&bytes, &hello);

    let view = HelloView::decode(&bytes).unwrap();
    assert_eq!(
        (view.service_name, view.wanted_version),
        (&hello.service_name[..], &hello.wanted_version[..])
    );
    assert_eq!((view.peer_pid, view.client_capabilities), (hello.peer_pid, hello.client_capabilities));
    assert_eq!(view.client_keepalive_secs, hello.client_keepalive_secs);
}

#[test]
fn hello_reply() {
    let (bytes, fields) = vector("HelloReply");
    let fields = &fields["negotiated"];
    let negotiated = Negotiated {
        negotiated_protocol: number32(&fields["negotiated_protocol"]),
        daemon_version: text(&fields["daemon_version"]),
        backend_pipe: text(&fields["backend_pipe"]),
        warnings: fields["warnings"].as_array().unwrap().iter().map(text).collect(),
        server_capabilities: number(&fields["server_capabilities"]),
        keepalive_interval_secs: number(&fields["keepalive_interval_secs"]),
        handle_passed_token: hex(&fields["handle_passed_token_hex"]),
        connection_id: number(&fields["connection_id"]),
    };
    assert_both_ways(&bytes, &HelloReply { result: Some(hello_reply::Result::Negotiated(negotiated)) });
}

#[test]
fn handoff_offer() {
    let (bytes, fields) = vector("HandoffOffer");
    let offer = HandoffOffer {
        handle_value: number(&fields["handle_value"]),
        token: hex(&fields["token_hex"]),
        service_name: text(&fields["service_name"]),
        correlation_id: number(&fields["correlation_id"]),
        ..HandoffOffer::default()
    };
    assert_both_ways(&bytes, &offer);
}
