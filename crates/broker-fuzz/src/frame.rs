//! The envelope of every message: the two decoders agree, and what one writes the other reads.

use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, FrameKind};
use broker_protocol::{Echo, FrameView, FramingError, HEADER_LEN, PayloadProtocol, frame_bytes};

use crate::seed::{Seed, encoded, seed, vector};

/// Takes the bytes for the body of a frame.
pub fn target(bytes: &[u8]) {
    let decoded = Frame::decode(bytes);
    let view = FrameView::decode(bytes);
    let (frame, view) = match (decoded, view) {
        (Ok(frame), Ok(view)) => (frame, view),
        (Err(_), Err(error)) => {
            assert!(error.offset <= bytes.len(), "the fault lies in the bytes");
            return;
        }
        (decoded, view) => {
            panic!("one decoder takes what the other does not: {decoded:?}, {:?}", view.is_ok())
        }
    };
    assert_same(&frame, &view);
    survives_encoding(&frame);
    is_answered_by_its_echo(&frame, &view);
    let shown = format!("{frame:?}");
    assert!(frame.payload.is_empty() || shown.contains("<redacted"), "a payload is not printed");
}

fn assert_same(frame: &Frame, view: &FrameView<'_>) {
    assert_eq!(view.envelope_version, frame.envelope_version);
    assert_eq!(view.kind, frame.kind);
    assert_eq!(view.payload_protocol, frame.payload_protocol);
    assert_eq!(view.payload, &frame.payload[..]);
    assert_eq!(view.request_id, frame.request_id);
    assert_eq!(view.payload_encoding, frame.payload_encoding);
    assert_eq!(view.deadline_unix_ms, frame.deadline_unix_ms);
    assert_eq!(view.traceparent, frame.traceparent);
    assert_eq!(view.tracestate, frame.tracestate);
    assert_eq!(view.lane(), frame.lane());
}

fn survives_encoding(frame: &Frame) {
    let encoded = frame.encode_to_vec();
    assert_eq!(encoded.len(), frame.encoded_len());
    assert!(Frame::decode(&encoded[..]).is_ok_and(|again| again == *frame), "what is written is read again");
    assert_same(frame, &FrameView::decode(&encoded).expect("the view reads what is written"));
    match frame_bytes(frame) {
        Ok(framed) => assert_eq!(&framed[HEADER_LEN..], &encoded[..]),
        Err(error) => assert!(matches!(error, FramingError::TooLong { .. })),
    }
}

fn is_answered_by_its_echo(frame: &Frame, view: &FrameView<'_>) {
    let echo = Echo::from(view);
    let response = Frame::response_to(frame, "answer");
    assert_eq!(response.kind(), FrameKind::Response);
    assert_eq!(response.lane(), frame.lane());
    assert_eq!(response.request_id, echo.request_id);
    assert_eq!((&response.traceparent[..], &response.tracestate[..]), (echo.traceparent, echo.tracestate));
}

/// Frames of each kind, and some that are none.
pub fn seeds() -> Vec<Seed> {
    let request = Frame {
        deadline_unix_ms: 1_700_000_000_000,
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        tracestate: "rp=1".into(),
        ..Frame::request(PayloadProtocol::CLUD, 42, "payload")
    };
    let group = [&request.encode_to_vec()[..], &[0x93, 0x3F, 0x08, 5, 0x94, 0x3F]].concat();
    vec![
        vector("Frame"),
        seed("empty", []),
        encoded("request", &request),
        encoded("response", &Frame::response_to(&request, vec![0xFF; 100])),
        encoded("event", &Frame::event(PayloadProtocol::HANDOFF, "news")),
        encoded("cancel", &Frame { kind: FrameKind::Cancel.into(), ..request.clone() }),
        encoded("unknown-kind-and-encoding", &Frame { kind: -1, payload_encoding: 9, ..request.clone() }),
        seed("twice-the-same-fields", [request.encode_to_vec(), request.encode_to_vec()].concat()),
        seed("unknown-fields-and-a-group", group),
        seed("a-group-that-another-one-closes", [0x93, 0x3F, 0x08, 5, 0x9C, 0x3F]),
        seed("a-group-that-nothing-closes", [0x93, 0x3F, 0x08, 5]),
        seed("cut", &request.encode_to_vec()[..20]),
        seed("no-utf8", [0x42, 2, 0xC3, 0x28]),
        seed("longest-varint", [0x28, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]),
    ]
}
