//! What broker and backend say on a control connection: what one side writes the other reads, in a frame of the
//! right kind, and an announcement is one for the broker too.

use broker_core::hello::Request;
use broker_protocol::PayloadProtocol;
use broker_protocol::control::{
    Admittance, Announcement, ControlFault, ControlMessage, HandlesReleased, Quiesce, Quiesced,
    ReleaseHandles, Usage, UsageQuery,
};
use broker_protocol::local;
use broker_protocol::prost::Message;
use broker_protocol::wire::Frame;

use crate::names::{is_name, is_version};
use crate::seed::{Seed, encoded, seed};

/// Takes the bytes for the body of a frame, and for its payload.
pub fn target(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        reads(&frame);
    }
    for kind in 0..4 {
        let frame = Frame::request(PayloadProtocol::BACKEND_CONTROL, 42, bytes.to_vec());
        reads(&Frame { kind, ..frame });
    }
}

fn reads(frame: &Frame) {
    let read = ControlMessage::from_frame(frame.clone());
    let decoded = local::ControlMessage::decode(&frame.payload[..]);
    match &read {
        Ok(message) => {
            assert_eq!((frame.envelope_version, frame.payload_encoding), (1, 0));
            assert_eq!(frame.lane(), PayloadProtocol::BACKEND_CONTROL);
            assert_eq!(frame.kind, i32::from(message.kind()));
            assert!(decoded.is_ok_and(|decoded| decoded.message.as_ref() == Some(message)));
            let again = ControlMessage::from_frame(message.to_frame(frame.request_id));
            assert!(again.is_ok_and(|again| again == *message), "what is written is read again");
        }
        Err(ControlFault::Envelope { .. }) => {
            let is_plain = frame.envelope_version == 1 && frame.payload_encoding == 0;
            assert!(!is_plain || frame.lane() != PayloadProtocol::BACKEND_CONTROL);
        }
        Err(ControlFault::Payload(_)) => assert!(decoded.is_err()),
        Err(ControlFault::Empty) => assert!(decoded.is_ok_and(|decoded| decoded.message.is_none())),
        Err(ControlFault::Kind { expected, actual }) => assert_ne!(i32::from(*expected), *actual),
    }
    is_the_same_to_a_broker(frame, &read);
}

/// On the broker's own socket only an announcement is taken.
fn is_the_same_to_a_broker(frame: &Frame, read: &Result<ControlMessage, ControlFault>) {
    let body = frame.encode_to_vec();
    let announced = match Request::decode(&body) {
        Ok(Request::Announcement(echo, announcement)) => {
            assert_eq!(echo.request_id, frame.request_id);
            Some(announcement)
        }
        Ok(Request::Hello(_) | Request::Admin(..)) | Err(_) => None,
    };
    match read {
        Ok(ControlMessage::Announcement(announcement)) => {
            assert_eq!(announced.as_ref(), Some(announcement));
            names_what_it_serves(announcement);
        }
        Ok(_) | Err(_) => assert_eq!(announced, None, "{read:?} is no announcement"),
    }
}

fn names_what_it_serves(announcement: &Announcement) {
    let expected = is_name(&announcement.service_name) && is_version(&announcement.service_version);
    match announcement.key() {
        Ok((service, _)) => assert!(expected && service.as_str() == announcement.service_name),
        Err(error) => assert!(!expected, "{announcement:?} is not taken: {error}"),
    }
}

/// Every message, bare and in its frame.
pub fn seeds() -> Vec<Seed> {
    let announcement = Announcement {
        service_name: "cache".into(),
        service_version: "1.2.3".into(),
        endpoint: "/run/cached.sock".into(),
        capabilities: 1 | (1 << 32),
    };
    let messages = [
        ("announcement", ControlMessage::Announcement(announcement.clone())),
        (
            "announcement-of-nothing",
            ControlMessage::Announcement(Announcement { service_name: "A".into(), ..announcement }),
        ),
        ("admittance", ControlMessage::Admittance(Admittance { admitted: false, reason: "taken".into() })),
        ("usage-query", ControlMessage::UsageQuery(UsageQuery {})),
        ("usage", ControlMessage::Usage(Usage { connections: 7 })),
        ("quiesce", ControlMessage::Quiesce(Quiesce { deadline_ms: 2_000 })),
        ("quiesced", ControlMessage::Quiesced(Quiesced {})),
        ("release-handles", ControlMessage::ReleaseHandles(ReleaseHandles { path: "/srv/x".into() })),
        (
            "handles-released",
            ControlMessage::HandlesReleased(HandlesReleased { released: true, detail: String::new() }),
        ),
    ];
    let mut seeds = vec![seed("empty", []), seed("of-a-later-version", [0xA2, 0x06, 0])];
    for (name, message) in &messages {
        let frame = message.to_frame(5);
        seeds.push(seed(name, frame.payload.to_vec()));
        seeds.push(encoded(&format!("{name}-in-its-frame"), &frame));
    }
    seeds
}
