//! The service under check, and what is known of it so far.
//!
//! It asks and compares; which rule a difference breaks is said by the check that asked. Invariant: a flaw
//! that the first answer had is held against the service once, by the check that is for it, and not again
//! by every other check that needs an answer.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_protocol::bytes::Bytes;
use broker_protocol::limits::PROBE_NONCE;
use broker_protocol::prost::Message;
use broker_protocol::wire::{DaemonProcess, Frame, FrameKind, PayloadEncoding};
use broker_protocol::{ENVELOPE_VERSION, PayloadProtocol, frame_bytes};

use super::line::{Came, Line};
use super::mixed::OlderFormat;
use super::report::{Outcome, failed, skipped};

const TRACEPARENT: &str = "00-5f0c1a6e2b9d4387a1c2e3f405162738-90a1b2c3d4e5f607-01";
const TRACESTATE: &str = "conformance=1";

/// Above 32 bits, so that an id that is cut shows.
const FIRST_ID: u64 = 1 << 33;

/// Where offers are taken, and for which service.
#[derive(Debug)]
pub(super) struct OffersAt {
    pub(super) endpoint: PathBuf,
    pub(super) service: String,
}

/// A request of the author's own.
#[derive(Debug)]
pub(super) struct OwnRequest {
    pub(super) lane: PayloadProtocol,
    pub(super) payload: Bytes,
}

/// The service.
pub(super) struct Subject {
    pub(super) endpoint: PathBuf,
    pub(super) patience: Duration,
    pub(super) older: Option<OlderFormat>,
    pub(super) offers: Option<OffersAt>,
    pub(super) request: Option<OwnRequest>,
    /// The process that serves, as its author or the kernel says.
    pub(super) pid: Option<u32>,
    pub(super) known: Known,
}

/// What the first answer has told.
#[derive(Default)]
pub(super) struct Known {
    pub(super) flaws: Vec<Flaw>,
    pub(super) process: Option<DaemonProcess>,
}

/// What can be wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aspect {
    Envelope,
    Lane,
    RequestId,
    TraceContext,
    Nonce,
}

/// Something that is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) aspect: Aspect,
    pub(super) expected: String,
    pub(super) came: String,
}

impl Subject {
    pub(super) async fn dial(&self) -> Outcome<Line> {
        Line::dial(&self.endpoint, self.patience).await
    }

    /// Asks a question on a connection that is open.
    pub(super) async fn ask(&self, line: &mut Line, question: &Frame) -> Outcome<Frame> {
        line.send(&wire(question)?).await;
        self.answered(question, line.next().await)
    }

    /// Probes on a connection that is open.
    pub(super) async fn probe_on(&self, line: &mut Line) -> Outcome<Frame> {
        self.ask(line, &probe()).await
    }

    /// Probes on a connection of its own.
    pub(super) async fn probe_anew(&self) -> Outcome<Frame> {
        self.probe_on(&mut self.dial().await?).await
    }

    /// What the author has for such a purpose, or else a probe.
    pub(super) fn question(&self) -> Frame {
        match &self.request {
            Some(own) => Frame { payload: own.payload.clone(), ..question(own.lane, Bytes::new()) },
            None => probe(),
        }
    }

    /// That what came answers the question, by the process that answered first, and with no flaw that the
    /// first answer did not have.
    pub(super) fn answered(&self, question: &Frame, came: Came) -> Outcome<Frame> {
        let answer = match came {
            Came::Frame(answer) => *answer,
            came @ (Came::End | Came::Silence { .. } | Came::Broken(_)) => {
                return Err(failed(format_args!("an answer on lane {}", question.lane()), came));
            }
        };
        let is_known = |flaw: &Flaw| self.known.flaws.iter().any(|known| known.aspect == flaw.aspect);
        if let Some(flaw) = flaws(question, &answer).into_iter().find(|flaw| !is_known(flaw)) {
            return Err(failed(flaw.expected, flaw.came));
        }
        if let (Some(first), Some(now)) = (&self.known.process, process(question, &answer))
            && (first.pid, first.started_at_unix_ms) != (now.pid, now.started_at_unix_ms)
        {
            return Err(failed(
                format_args!("an answer of the same process, {}", first.pid),
                format_args!("one of process {}", now.pid),
            ));
        }
        Ok(answer)
    }
}

/// A number that no other question has.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(FIRST_ID);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A request with everything that an answer has to echo.
pub(super) fn question(lane: PayloadProtocol, payload: impl Into<Bytes>) -> Frame {
    Frame {
        traceparent: TRACEPARENT.into(),
        tracestate: TRACESTATE.into(),
        ..Frame::request(lane, next_number(), payload)
    }
}

/// A probe with a nonce of its own.
pub(super) fn probe() -> Frame {
    question(PayloadProtocol::IDENTITY_PROBE, nonce(PROBE_NONCE))
}

/// A nonce that no other probe has, of any length. It need not be secret: nobody gains by guessing it.
pub(super) fn nonce(length: usize) -> Vec<u8> {
    let seed = next_number() ^ u64::from(std::process::id()) << 48;
    // Neighbours differ in every byte, and what is taken for text or for a length by mistake shows.
    (1..=length as u64).map(|index| (seed.wrapping_mul(index * 2 + 1) >> (index % 7)) as u8 ^ 0xA5).collect()
}

/// A frame as it is sent.
pub(super) fn wire(frame: &Frame) -> Outcome<Bytes> {
    frame_bytes(frame).map_err(|error| skipped(format_args!("the request cannot be sent: {error}")))
}

/// The identity in an answer to a probe.
pub(super) fn process(question: &Frame, answer: &Frame) -> Option<DaemonProcess> {
    if question.lane() != PayloadProtocol::IDENTITY_PROBE {
        return None;
    }
    DaemonProcess::decode(answer.payload.strip_prefix(&question.payload[..])?).ok()
}

/// Everything that is wrong with an answer.
pub(super) fn flaws(question: &Frame, answer: &Frame) -> Vec<Flaw> {
    let envelope = |frame: &Frame, kind| {
        format!(
            "envelope version {}, kind {kind}, encoding {}",
            frame.envelope_version, frame.payload_encoding
        )
    };
    let plain = Frame {
        envelope_version: ENVELOPE_VERSION,
        payload_encoding: PayloadEncoding::None.into(),
        ..Frame::default()
    };
    let context = |frame: &Frame| format!("{:?} and {:?}", frame.traceparent, frame.tracestate);
    let mut pairs = vec![
        (Aspect::Envelope, envelope(&plain, FrameKind::Response as i32), envelope(answer, answer.kind)),
        (Aspect::Lane, format!("lane {}", question.lane()), format!("lane {}", answer.lane())),
        (
            Aspect::RequestId,
            format!("request_id {}", question.request_id),
            format!("request_id {}", answer.request_id),
        ),
        (Aspect::TraceContext, context(question), context(answer)),
    ];
    if question.lane() == PayloadProtocol::IDENTITY_PROBE {
        let expected = "the nonce and a DaemonProcess behind it".to_owned();
        let came = match answer.payload.strip_prefix(&question.payload[..]) {
            None => format!("{} bytes that do not begin with the nonce", answer.payload.len()),
            Some(behind) => match DaemonProcess::decode(behind) {
                Ok(_) => expected.clone(),
                Err(error) => format!("the nonce and {} bytes that are none: {error}", behind.len()),
            },
        };
        pairs.push((Aspect::Nonce, expected, came));
    }
    let wrong = pairs.into_iter().filter(|(_, expected, came)| expected != came);
    wrong.map(|(aspect, expected, came)| Flaw { aspect, expected, came }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(question: &Frame) -> Frame {
        let process = DaemonProcess { pid: 7, ..DaemonProcess::default() };
        broker_protocol::probe::answer(question, &process).unwrap()
    }

    fn subject() -> Subject {
        Subject {
            endpoint: PathBuf::new(),
            patience: Duration::ZERO,
            older: None,
            offers: None,
            request: None,
            pid: None,
            known: Known::default(),
        }
    }

    #[test]
    fn a_good_answer_has_no_flaw_and_each_change_has_its_own() {
        let question = probe();
        let good = answer_to(&question);
        assert_eq!(flaws(&question, &good), []);
        let cases = [
            (Aspect::Envelope, Frame { envelope_version: 2, ..good.clone() }),
            (Aspect::Envelope, Frame { kind: 0, ..good.clone() }),
            (Aspect::Envelope, Frame { payload_encoding: 1, ..good.clone() }),
            (Aspect::Lane, Frame { payload_protocol: 0, ..good.clone() }),
            (Aspect::RequestId, Frame { request_id: u64::from(question.request_id as u32), ..good.clone() }),
            (Aspect::TraceContext, Frame { traceparent: String::new(), ..good.clone() }),
            (Aspect::TraceContext, Frame { tracestate: String::new(), ..good.clone() }),
            (Aspect::Nonce, Frame { payload: good.payload.slice(1..), ..good.clone() }),
            (
                Aspect::Nonce,
                Frame { payload: [&question.payload[..], &[0xFF]].concat().into(), ..good.clone() },
            ),
        ];
        for (aspect, answer) in cases {
            let aspects: Vec<_> = flaws(&question, &answer).iter().map(|flaw| flaw.aspect).collect();
            assert_eq!(aspects, [aspect], "{answer:?}");
        }
    }

    #[test]
    fn a_known_flaw_is_passed_over_and_a_new_one_is_not() {
        let question = probe();
        let forgetful = Frame { request_id: 0, ..answer_to(&question) };
        let came = || Came::Frame(Box::new(forgetful.clone()));
        let mut subject = subject();
        assert!(subject.answered(&question, came()).is_err());
        subject.known.flaws = flaws(&question, &forgetful);
        assert!(subject.answered(&question, came()).is_ok());
        let worse = Frame { tracestate: String::new(), ..forgetful.clone() };
        assert!(subject.answered(&question, Came::Frame(Box::new(worse))).is_err());
    }

    #[test]
    fn another_process_is_told_apart() {
        let question = probe();
        let came = || Came::Frame(Box::new(answer_to(&question)));
        let mut subject = subject();
        subject.known.process = Some(DaemonProcess { pid: 7, ..DaemonProcess::default() });
        assert!(subject.answered(&question, came()).is_ok());
        subject.known.process = Some(DaemonProcess { pid: 8, ..DaemonProcess::default() });
        assert!(subject.answered(&question, came()).is_err());
    }

    #[test]
    fn no_two_nonces_share_a_beginning() {
        let (first, second) = (nonce(32), nonce(32));
        assert_eq!((first.len(), nonce(31).len()), (32, 31));
        assert_ne!(first[..31], second[..31]);
    }
}
