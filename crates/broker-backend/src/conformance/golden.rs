//! Fixed bytes: the kit's own, so that it can be trusted, and the shape of the service's answers
//! (protocol.md, "Framing" and "Envelope file").
//!
//! Invariant: the bytes here were written by hand from the specification, not by the encoder that they are
//! compared with.

use broker_protocol::bytes::Bytes;
use broker_protocol::handoff::{Acknowledgement, Offer, Verdict};
use broker_protocol::prost::Message;
use broker_protocol::wire::Frame;
use broker_protocol::{ConnectionId, HandoffToken, PayloadProtocol, probe};

use super::line::Came;
use super::report::{Check, Outcome, failed, skipped};
use super::run::Run;
use super::subject::{Aspect, Subject, flaws, process, question, wire};

const ENVELOPE: &str = "protocol.md, \"Envelope file\"";
const PROBING: &str = "protocol.md, \"Conversations\" 3";
const HANDING_OFF: &str = "protocol.md, \"Conversations\" 4";

const FRAME: Check = Check { name: "golden/frame", section: ENVELOPE };
const PROBE: Check = Check { name: "golden/probe", section: PROBING };
const OFFER: Check = Check { name: "golden/offer", section: HANDING_OFF };
const ACKNOWLEDGEMENT: Check = Check { name: "golden/acknowledgement", section: HANDING_OFF };

/// The service answers a probe with one whole frame: framing byte 1, length, and a body that is a `Frame`.
pub(super) const ANSWER: Check = Check { name: "golden/answer", section: "protocol.md, \"Framing\"" };
const ENVELOPE_OF_ANSWER: Check = Check { name: "golden/envelope", section: ENVELOPE };
const LANE: Check = Check { name: "golden/lane", section: "protocol.md, \"Payload protocols\"" };
const REQUEST_ID: Check = Check { name: "golden/request-id", section: PROBING };
const TRACE_CONTEXT: Check = Check { name: "golden/trace-context", section: PROBING };
const OWN_REQUEST: Check = Check { name: "golden/own-request", section: ENVELOPE };

const TOKEN: [u8; 16] = [0xA5; 16];

/// envelope_version 1, lane 0xF001, payload "hi", request_id 300, deadline 1500, traceparent "t", tracestate
/// "s=1".
const FRAME_BYTES: &[u8] = b"\x01\x18\x00\x00\x00\
    \x08\x01\x18\x81\xE0\x03\x22\x02hi\x28\xAC\x02\x38\xDC\x0B\x42\x01t\x4A\x03s=1";
/// envelope_version 1, lane 0xB232, a payload of 32 bytes, request_id 300.
const PROBE_BYTES: &[u8] = b"\x01\x2B\x00\x00\x00\
    \x08\x01\x18\xB2\xE4\x02\x22\x20abcdefghijklmnopqrstuvwxyz012345\x28\xAC\x02";
/// envelope_version 1, lane 0xD0FF, request_id 300; the offer: token, service "echo", correlation_id 300, and
/// hello_reply_frame "hi".
const OFFER_BYTES: &[u8] = b"\x01\x2B\x00\x00\x00\
    \x08\x01\x18\xFF\xA1\x03\x22\x20\
    \x12\x10\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\
    \x1A\x04echo\x20\xAC\x02\xC2\x3E\x02hi\x28\xAC\x02";
/// The same envelope with kind 1; the acknowledgement: token, accepted, correlation_id 300.
const ACCEPTED_BODY: &[u8] = b"\x08\x01\x10\x01\x18\xFF\xA1\x03\x22\x17\
    \x0A\x10\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\
    \x10\x01\x20\xAC\x02\x28\xAC\x02";
/// The same, but instead of accepted the error_detail "full".
const REJECTED_BODY: &[u8] = b"\x08\x01\x10\x01\x18\xFF\xA1\x03\x22\x1B\
    \x0A\x10\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5\
    \x1A\x04full\x20\xAC\x02\x28\xAC\x02";

/// Checks the kit itself.
pub(super) fn encodings(run: &mut Run) {
    run.note(FRAME, frame());
    run.note(PROBE, same_bytes(PROBE_BYTES, &probe::request(b"abcdefghijklmnopqrstuvwxyz012345", 300)));
    run.note(OFFER, offer());
    run.note(ACKNOWLEDGEMENT, acknowledgement());
}

fn frame() -> Outcome {
    let frame = Frame {
        deadline_unix_ms: 1500,
        traceparent: "t".into(),
        tracestate: "s=1".into(),
        ..Frame::request(PayloadProtocol::new(0xF001), 300, "hi")
    };
    same_bytes(FRAME_BYTES, &frame)
}

fn offer() -> Outcome {
    let offer = Offer {
        token: HandoffToken::from_bytes(TOKEN),
        service: "echo".parse().map_err(|error| failed("a service's name", error))?,
        connection: connection()?,
        request_id: 300,
        reply: Some(Bytes::from_static(b"hi")),
        handle_value: 0,
    };
    same_bytes(OFFER_BYTES, &offer.to_frame())
}

fn acknowledgement() -> Outcome {
    for (body, verdict) in
        [(ACCEPTED_BODY, Verdict::Accepted), (REJECTED_BODY, Verdict::Rejected { detail: "full".into() })]
    {
        let frame = Frame::decode(body).map_err(|error| failed("a Frame", error))?;
        let came = Acknowledgement::from_response(frame).map_err(|error| failed("a HandoffAck", error))?;
        let expected = Acknowledgement {
            token: HandoffToken::from_bytes(TOKEN),
            connection: connection()?,
            request_id: 300,
            verdict,
        };
        if came != expected {
            return Err(failed(format_args!("{expected:?}"), format_args!("{came:?}")));
        }
    }
    Ok(())
}

fn connection() -> Outcome<ConnectionId> {
    ConnectionId::new(300).ok_or_else(|| failed("a connection's id", "none"))
}

fn same_bytes(golden: &[u8], frame: &Frame) -> Outcome {
    let came = wire(frame)?;
    if golden == came {
        Ok(())
    } else {
        Err(failed(format_args!("{golden:02x?}"), format_args!("{:02x?}", came.as_ref())))
    }
}

/// Asks the service for the first time, and looks at the answer from all sides.
pub(super) async fn answers(run: &mut Run, subject: &mut Subject, question: &Frame, came: Outcome<Came>) {
    let answer = match came {
        Ok(Came::Frame(answer)) => Ok(*answer),
        Ok(other) => Err(failed("an answer to the first probe: one whole frame", other)),
        Err(stop) => Err(stop),
    };
    if let Ok(answer) = &answer {
        subject.known.flaws = flaws(question, answer);
        subject.known.process = process(question, answer);
    }
    run.check(subject, ANSWER, &[], async { answer.map(drop) }).await;
    for (check, aspect) in [
        (ENVELOPE_OF_ANSWER, Aspect::Envelope),
        (LANE, Aspect::Lane),
        (REQUEST_ID, Aspect::RequestId),
        (TRACE_CONTEXT, Aspect::TraceContext),
    ] {
        run.check(subject, check, &[ANSWER], async { first(subject, aspect) }).await;
    }
    run.check(subject, OWN_REQUEST, &[ANSWER], own_request(subject)).await;
}

/// What the first answer was like in one respect.
pub(super) fn first(subject: &Subject, aspect: Aspect) -> Outcome {
    match subject.known.flaws.iter().find(|flaw| flaw.aspect == aspect) {
        Some(flaw) => Err(failed(&flaw.expected, &flaw.came)),
        None => Ok(()),
    }
}

async fn own_request(subject: &Subject) -> Outcome {
    let Some(own) = &subject.request else { return Err(skipped("no request of its own was named")) };
    let question = question(own.lane, own.payload.clone());
    subject.ask(&mut subject.dial().await?, &question).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::report::Stop;

    #[test]
    fn the_kit_s_own_bytes_are_those_that_were_written_by_hand() {
        let mut run = Run::new("/nowhere".into());
        encodings(&mut run);
        let report = run.into_report();
        report.assert_passed();
        assert_eq!((report.findings().len(), report.skipped().len()), (4, 0));
    }

    #[test]
    fn one_other_byte_is_seen() {
        let frame = Frame::request(PayloadProtocol::new(0xF001), 301, "hi");
        assert!(matches!(same_bytes(FRAME_BYTES, &frame), Err(Stop::Failed { .. })));
    }
}
