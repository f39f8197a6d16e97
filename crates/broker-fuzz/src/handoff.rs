//! An offered connection and the answer to it: what one side writes the other reads, and nothing else is taken.

use broker_protocol::bytes::Bytes;
use broker_protocol::handoff::{Acknowledgement, HandoffFault, MAX_REJECTION_DETAIL, Offer, Verdict};
use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, FrameKind, HandoffAck, HandoffOffer};
use broker_protocol::{ConnectionId, HANDOFF_TOKEN_LEN, HandoffToken, PayloadProtocol};

use crate::names::is_name;
use crate::seed::{Seed, encoded, seed, vector};

/// Takes the bytes for the body of a frame, and for its payload.
pub fn target(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        reads(&frame);
    }
    for kind in [FrameKind::Request, FrameKind::Response, FrameKind::Event] {
        let frame = Frame::request(PayloadProtocol::HANDOFF, 42, bytes.to_vec());
        reads(&Frame { kind: kind.into(), ..frame });
    }
}

fn reads(frame: &Frame) {
    let is_plain = frame.envelope_version == 1
        && frame.payload_encoding == 0
        && frame.lane() == PayloadProtocol::HANDOFF;
    let (offer, response, event) = (
        Offer::from_frame(frame.clone()),
        Acknowledgement::from_response(frame.clone()),
        Acknowledgement::from_event(frame.clone()),
    );
    let taken = [offer.is_ok(), response.is_ok(), event.is_ok()];
    assert!(is_plain || taken == [false; 3]);
    assert!(taken.iter().filter(|taken| **taken).count() <= 1, "a frame is one thing");
    match offer {
        Ok(offer) => is_an_offer(frame, &offer),
        Err(error) => is_not_taken(frame, FrameKind::Request, &error),
    }
    match response {
        Ok(answer) => {
            is_an_answer(frame, &answer);
            let again = Acknowledgement::from_response(answer.to_response());
            assert!(again.is_ok_and(|again| again == answer), "what is written is read again");
        }
        Err(error) => is_not_taken(frame, FrameKind::Response, &error),
    }
    if let Ok(answer) = event {
        is_an_answer(frame, &answer);
        let again = Acknowledgement::from_event(answer.to_event(answer.request_id));
        assert!(again.is_ok_and(|again| again == answer), "what is written is read again");
    }
}

fn is_an_offer(frame: &Frame, offer: &Offer) {
    let wire = HandoffOffer::decode(&frame.payload[..]).expect("an offer is encoded as one");
    assert_eq!(frame.kind, i32::from(FrameKind::Request));
    assert_eq!(offer.request_id, frame.request_id);
    assert!(offer.token.as_bytes()[..] == wire.token);
    assert_eq!(offer.service.as_str(), wire.service_name);
    assert_eq!((offer.connection.get(), offer.handle_value), (wire.correlation_id, wire.handle_value));
    assert_eq!(offer.reply.as_deref().unwrap_or_default(), &wire.hello_reply_frame[..]);
    let again = Offer::from_frame(offer.to_frame());
    assert!(again.is_ok_and(|again| again == *offer), "what is written is read again");
    for answer in [Acknowledgement::accept(offer), Acknowledgement::reject(offer, "x".repeat(600))] {
        let read = Acknowledgement::from_response(answer.to_response()).expect("an answer is read");
        assert!(read.token == offer.token && read.connection == offer.connection);
        assert_eq!(read.request_id, offer.request_id);
        assert_eq!(read.verdict == Verdict::Accepted, answer.verdict == Verdict::Accepted);
    }
}

fn is_an_answer(frame: &Frame, answer: &Acknowledgement) {
    let wire = HandoffAck::decode(&frame.payload[..]).expect("an answer is encoded as one");
    assert_eq!((answer.request_id, answer.connection.get()), (frame.request_id, wire.correlation_id));
    assert!(answer.token.as_bytes()[..] == wire.token);
    match &answer.verdict {
        Verdict::Accepted => assert!(wire.accepted),
        Verdict::Rejected { detail } => {
            assert!(!wire.accepted && wire.error_detail.starts_with(detail.as_str()));
            assert!(detail.len() <= MAX_REJECTION_DETAIL, "a reason is bounded");
            assert!(wire.error_detail.len() - detail.len() <= wire.error_detail.len().saturating_sub(509));
        }
    }
}

/// Why it is not taken is true of it.
fn is_not_taken(frame: &Frame, kind: FrameKind, error: &HandoffFault) {
    match error {
        HandoffFault::EnvelopeVersion { .. } => assert_ne!(frame.envelope_version, 1),
        HandoffFault::Encoding { .. } => assert_ne!(frame.payload_encoding, 0),
        HandoffFault::Lane { .. } => assert_ne!(frame.lane(), PayloadProtocol::HANDOFF),
        HandoffFault::Kind { .. } => assert_ne!(frame.kind, i32::from(kind)),
        HandoffFault::Payload { .. } => match kind {
            FrameKind::Request => assert!(HandoffOffer::decode(&frame.payload[..]).is_err()),
            _ => assert!(HandoffAck::decode(&frame.payload[..]).is_err()),
        },
        HandoffFault::Token(length) => assert_ne!(length.actual, HANDOFF_TOKEN_LEN),
        HandoffFault::CorrelationId => {}
        HandoffFault::Service(_) => {
            let offer = HandoffOffer::decode(&frame.payload[..]).expect("only an offer names a service");
            assert!(!is_name(&offer.service_name));
        }
    }
}

/// Offers and answers of each kind, bare and in their frames.
pub fn seeds() -> Vec<Seed> {
    let offer = Offer {
        token: HandoffToken::from_bytes([7; 16]),
        service: "cache".parse().expect("a name"),
        connection: ConnectionId::new(9).expect("not 0"),
        request_id: 42,
        reply: None,
        handle_value: 0,
    };
    let with_reply =
        Offer { reply: Some(Bytes::from_static(b"\x01\x02\x00\x00\x00\x08\x01")), ..offer.clone() };
    let (accept, reject) =
        (Acknowledgement::accept(&offer), Acknowledgement::reject(&offer, "ü".repeat(300)));
    let bare = |name: &str, frame: Frame| seed(name, frame.payload.to_vec());
    let wire = HandoffOffer::decode(&offer.to_frame().payload[..]).expect("it is one");
    vec![
        vector("HandoffOffer"),
        seed("empty", []),
        bare("offer", offer.to_frame()),
        bare("offer-with-a-reply", with_reply.to_frame()),
        bare("offer-with-a-handle", Offer { handle_value: 0x1F0, ..offer.clone() }.to_frame()),
        bare("acceptance", accept.to_response()),
        bare("rejection", reject.to_response()),
        encoded("offer-in-its-frame", &with_reply.to_frame()),
        encoded("acceptance-in-its-frame", &accept.to_response()),
        encoded("rejection-in-its-frame", &reject.to_response()),
        encoded("event-in-its-frame", &accept.to_event(5)),
        encoded("short-token", &HandoffOffer { token: vec![7; 15], ..wire.clone() }),
        encoded("no-connection", &HandoffOffer { correlation_id: 0, ..wire.clone() }),
        encoded("bad-service", &HandoffOffer { service_name: "A".into(), ..wire }),
    ]
}
