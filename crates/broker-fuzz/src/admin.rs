//! Questions to the broker and its answers: both sides read the same, and no answer to another question is taken.

use broker_client::fuzzing::admin_reply;
use broker_client::{AdminReply, AdminReplyKind, AdminRequest, AdminVerb};
use broker_core::hello::Request;
use broker_protocol::bytes::Bytes;
use broker_protocol::prost::Message;
use broker_protocol::wire::Frame;
use broker_protocol::{PayloadProtocol, Refusal};

use crate::seed::{Seed, encoded, seed};

/// The id of the question that the answers are held against; the seeds know it.
const ID: u64 = 42;

/// Takes the bytes for a question, for an answer, and for the body of a frame that should hold an answer.
pub fn target(bytes: &[u8]) {
    is_a_question(bytes);
    is_an_answer(bytes);
    let _ = admin_reply(Bytes::copy_from_slice(bytes), ID)
        .map(|reply| answers_this_question(bytes, reply.is_ok()));
}

fn is_a_question(bytes: &[u8]) {
    let frame = Frame {
        traceparent: "00-trace".into(),
        ..Frame::request(PayloadProtocol::ADMIN, ID, bytes.to_vec())
    };
    let body = frame.encode_to_vec();
    match (AdminRequest::decode(bytes), Request::decode(&body)) {
        (Ok(question), Ok(Request::Admin(echo, read))) => {
            assert!(question == read, "the broker reads what was written");
            assert_eq!((echo.request_id, echo.traceparent), (ID, "00-trace"));
            let again = question.encode_to_vec();
            assert!(AdminRequest::decode(&again[..]).is_ok_and(|again| again == question));
        }
        (Err(_), Err(rejected)) => {
            assert!(matches!(rejected.refusal, Refusal::Payload { expected: "AdminRequest", .. }));
            assert_eq!(rejected.echo.request_id, ID, "who asked is told which question");
        }
        (question, read) => panic!("asked {question:?}, read {read:?}"),
    }
}

fn is_an_answer(bytes: &[u8]) {
    let Ok(answer) = AdminReply::decode(bytes) else { return };
    let frame = Frame::response_to(&Frame::request(PayloadProtocol::ADMIN, ID, ""), answer.encode_to_vec());
    let read = admin_reply(frame.encode_to_vec().into(), ID).expect("it answers the question");
    assert!(read.is_ok_and(|read| read == answer), "the client reads what was written");
    assert!(admin_reply(frame.encode_to_vec().into(), ID + 1).is_err(), "it answers no other question");
}

fn answers_this_question(bytes: &[u8], is_an_answer: bool) {
    let frame = Frame::decode(bytes).expect("what is no frame is no answer");
    assert_eq!((frame.envelope_version, frame.kind, frame.payload_encoding), (1, 1, 0));
    if is_an_answer {
        assert_eq!((frame.request_id, frame.lane()), (ID, PayloadProtocol::ADMIN));
    } else {
        assert!(matches!(frame.request_id, 0 | ID), "a refusal is about this question, or about none");
        assert_eq!(frame.lane(), PayloadProtocol::CONTROL);
    }
}

/// A question of each kind, and answers to them.
pub fn seeds() -> Vec<Seed> {
    let question = AdminRequest { verb: AdminVerb::BackendHealth.into(), ..AdminRequest::default() };
    let answer = AdminReply {
        kind: AdminReplyKind::Json.into(),
        body: r#"{"schema_version":1}"#.into(),
        exit_code: 1,
        content_type: "application/json".into(),
    };
    let request = Frame::request(PayloadProtocol::ADMIN, ID, question.encode_to_vec());
    let refused = {
        let refusal = Refusal::Draining { remaining: std::time::Duration::from_secs(3) };
        let mut frame = Vec::new();
        let echo = broker_protocol::Echo { request_id: ID, ..Default::default() };
        broker_protocol::encode_refused(&echo, refusal.to_wire(), &mut frame);
        frame.split_off(broker_protocol::HEADER_LEN)
    };
    vec![
        seed("empty", []),
        encoded("status", &AdminRequest { verb: AdminVerb::Status.into(), json: true, ..question.clone() }),
        encoded("backend-health", &AdminRequest { service_name: "cache".into(), ..question.clone() }),
        encoded("diagnose", &AdminRequest { output_path: "/tmp/out.tar.gz".into(), ..question.clone() }),
        encoded(
            "shutdown",
            &AdminRequest { verb: AdminVerb::Shutdown.into(), drain_deadline_ms: 500, ..question.clone() },
        ),
        encoded(
            "release-handles",
            &AdminRequest { release_handles: Some("/srv/x".into()), ..question.clone() },
        ),
        encoded("unknown-verb", &AdminRequest { verb: 15, ..question }),
        encoded("answer", &answer),
        encoded("answer-in-its-frame", &Frame::response_to(&request, answer.encode_to_vec())),
        encoded(
            "answer-to-another",
            &Frame { request_id: 7, ..Frame::response_to(&request, answer.encode_to_vec()) },
        ),
        encoded("question-in-its-frame", &request),
        seed("refusal-in-its-frame", refused),
    ]
}
