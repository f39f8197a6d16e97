//! What a broker and a backend say to each other on a control connection (protocol.md, "Extensions").
//!
//! An extension: a peer without one never sees any of it. The messages are generated from
//! `proto/broker_control_v1.proto`; this puts them into frames and takes them out again. Invariant: what
//! comes out is a message of a plain version 1 frame on the lane
//! [`BACKEND_CONTROL`](PayloadProtocol::BACKEND_CONTROL), of the kind that such a message has.

use prost::{DecodeError, Message};
use thiserror::Error;

use crate::frame::ENVELOPE_VERSION;
use crate::wire::{Frame, FrameKind, PayloadEncoding};
use crate::{NameError, PayloadProtocol, ServiceName, Version, VersionError};

use crate::local;
pub use crate::local::control_message::Message as ControlMessage;
pub use crate::local::{
    Admittance, Announcement, HandlesReleased, Quiesce, Quiesced, ReleaseHandles, Usage, UsageQuery,
};

/// Longest body of a frame on a control connection, in bytes.
pub const MAX_CONTROL_BODY: usize = 64 * 1024;

/// Variable that tells a started backend the number of its end of the control connection, in decimal.
pub const CONTROL_FD: &str = "RUNNING_PROCESS_BROKER_V1_CONTROL_FD";

/// Why a frame is no message of a control connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ControlFault {
    /// It is no plain frame of version 1 on this lane.
    #[error(
        "expected a plain frame of version {ENVELOPE_VERSION} on lane {}, got version {version}, encoding \
         {encoding}, lane {lane}",
        PayloadProtocol::BACKEND_CONTROL
    )]
    Envelope {
        /// Its envelope version.
        version: u32,
        /// Its payload encoding.
        encoding: i32,
        /// Its lane.
        lane: PayloadProtocol,
    },
    /// The payload is no message.
    #[error("expected a ControlMessage, got a payload that is none: {0}")]
    Payload(DecodeError),
    /// A message of a later version, or none at all.
    #[error("expected a message that is known here, got none")]
    Empty,
    /// A message in a frame of another kind: a question that comes as an answer, or the other way round.
    #[error("expected this message in a frame of kind {}, got kind {actual}", *expected as i32)]
    Kind {
        /// The kind that belongs here.
        expected: FrameKind,
        /// What came.
        actual: i32,
    },
}

impl ControlMessage {
    /// The frame that carries it. An answer has the id of what it answers.
    pub fn to_frame(&self, request_id: u64) -> Frame {
        let payload = local::ControlMessage { message: Some(self.clone()) }.encode_to_vec();
        let frame = Frame::request(PayloadProtocol::BACKEND_CONTROL, request_id, payload);
        Frame { kind: self.kind().into(), ..frame }
    }

    /// Takes a message out of its frame.
    ///
    /// # Errors
    /// [`ControlFault`].
    pub fn from_frame(frame: Frame) -> Result<Self, ControlFault> {
        let lane = frame.lane();
        if frame.envelope_version != ENVELOPE_VERSION
            || frame.payload_encoding != i32::from(PayloadEncoding::None)
            || lane != PayloadProtocol::BACKEND_CONTROL
        {
            return Err(ControlFault::Envelope {
                version: frame.envelope_version,
                encoding: frame.payload_encoding,
                lane,
            });
        }
        let decoded = local::ControlMessage::decode(frame.payload).map_err(ControlFault::Payload)?;
        let message = decoded.message.ok_or(ControlFault::Empty)?;
        let expected = message.kind();
        if frame.kind == i32::from(expected) {
            Ok(message)
        } else {
            Err(ControlFault::Kind { expected, actual: frame.kind })
        }
    }

    /// The kind of frame that such a message comes in.
    pub const fn kind(&self) -> FrameKind {
        match self {
            Self::Announcement(_) | Self::UsageQuery(_) | Self::Quiesce(_) | Self::ReleaseHandles(_) => {
                FrameKind::Request
            }
            Self::Admittance(_) | Self::Usage(_) | Self::Quiesced(_) | Self::HandlesReleased(_) => {
                FrameKind::Response
            }
        }
    }
}

/// Why an announcement is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnnouncementFault {
    /// No valid service.
    #[error("service_name: {0}")]
    Service(#[from] NameError),
    /// No valid version.
    #[error("service_version: {0}")]
    Version(#[from] VersionError),
}

impl Announcement {
    /// The service and version that a backend announces.
    ///
    /// # Errors
    /// [`AnnouncementFault`].
    pub fn key(&self) -> Result<(ServiceName, Version), AnnouncementFault> {
        Ok((ServiceName::parse(&self.service_name)?, Version::parse(&self.service_version)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [ControlMessage; 8] {
        [
            ControlMessage::Announcement(Announcement {
                service_name: "cache".into(),
                service_version: "1.2.3".into(),
                endpoint: "/run/be.sock".into(),
                capabilities: 1,
            }),
            ControlMessage::Admittance(Admittance { admitted: true, reason: String::new() }),
            ControlMessage::UsageQuery(UsageQuery {}),
            ControlMessage::Usage(Usage { connections: 3 }),
            ControlMessage::Quiesce(Quiesce { deadline_ms: 100 }),
            ControlMessage::Quiesced(Quiesced {}),
            ControlMessage::ReleaseHandles(ReleaseHandles { path: "/x".into() }),
            ControlMessage::HandlesReleased(HandlesReleased { released: false, detail: "busy".into() }),
        ]
    }

    #[test]
    fn every_message_survives_the_way_through_its_frame() {
        for message in all() {
            let frame = message.to_frame(7);
            assert_eq!((frame.request_id, frame.kind), (7, message.kind() as i32));
            assert_eq!(ControlMessage::from_frame(frame), Ok(message));
        }
    }

    #[test]
    fn a_question_does_not_come_as_an_answer() {
        for message in all() {
            for kind in 0..5 {
                let frame = Frame { kind, ..message.to_frame(7) };
                let is_its_kind = kind == message.kind() as i32;
                assert_eq!(ControlMessage::from_frame(frame).is_ok(), is_its_kind, "{message:?} as {kind}");
            }
        }
    }

    #[test]
    fn other_frames_and_unknown_messages_are_told_apart() {
        let good = all()[0].to_frame(7);
        for frame in [
            Frame { envelope_version: 2, ..good.clone() },
            Frame { payload_encoding: 1, ..good.clone() },
            Frame { payload_protocol: 0xD0FF, ..good.clone() },
        ] {
            let fault = ControlMessage::from_frame(frame).unwrap_err();
            assert!(matches!(fault, ControlFault::Envelope { .. }), "{fault}");
        }
        let of = |payload: &'static [u8]| {
            ControlMessage::from_frame(Frame { payload: payload.into(), ..good.clone() })
        };
        assert!(matches!(of(&[0xFF]), Err(ControlFault::Payload(_))));
        // Field 900, empty.
        assert_eq!(of(&[0xA2, 0x38, 0x00]), Err(ControlFault::Empty));
        assert_eq!(of(&[]), Err(ControlFault::Empty));
    }

    #[test]
    fn an_announcement_names_a_service_and_a_version() {
        let announce = |service: &str, version: &str| {
            let announcement = Announcement {
                service_name: service.into(),
                service_version: version.into(),
                ..Announcement::default()
            };
            announcement.key()
        };
        assert!(announce("cache", "1.2.3").is_ok());
        assert!(matches!(announce("Cache", "1.2.3"), Err(AnnouncementFault::Service(_))));
        assert!(matches!(announce("cache", "1.2"), Err(AnnouncementFault::Version(_))));
    }
}
