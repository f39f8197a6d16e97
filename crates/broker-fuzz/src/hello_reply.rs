//! The answer to a Hello: the broker's two encoders write the same, and a client takes nothing that it cannot use.

use broker_client::fuzzing::{hello_reply, service_reply};
use broker_client::{Agreement, Refused, RefusedKind};
use broker_protocol::bytes::Bytes;
use broker_protocol::prost::Message;
use broker_protocol::wire::{self, Frame, HelloReply, Negotiated, hello_reply::Result as Reply};
use broker_protocol::{
    Capabilities, ConnectionId, Echo, HEADER_LEN, HandoffToken, NegotiatedParts, PayloadProtocol,
    RoutePrefix, encode_negotiated, encode_refused,
};

use crate::names::is_version;
use crate::seed::{Seed, encoded, seed, vector};

/// The id of the Hello that replies are held against; the seeds know it.
const ID: u64 = 42;

const OFFERED: Capabilities = Capabilities::HANDLE_PASSING.union(Capabilities::EARLY_DATA);

/// Takes the bytes for the body of a frame, and for its payload.
pub fn target(bytes: &[u8]) {
    if let Ok(read) = hello_reply(Bytes::copy_from_slice(bytes), ID, OFFERED) {
        let frame = Frame::decode(bytes).expect("what is no frame is no reply");
        assert_eq!((frame.envelope_version, frame.kind, frame.payload_encoding), (1, 1, 0));
        assert_eq!(frame.lane(), PayloadProtocol::CONTROL);
        assert!(frame.request_id == ID || frame.request_id == 0 && read.is_err());
    }
    if let Ok(Some(payload)) = service_reply(Bytes::copy_from_slice(bytes), PayloadProtocol::CLUD, ID) {
        let frame = Frame::decode(bytes).expect("what is no frame is no answer");
        assert_eq!((frame.kind, frame.request_id, frame.lane()), (1, ID, PayloadProtocol::CLUD));
        assert_eq!(frame.payload, payload);
    }
    let Ok(reply) = HelloReply::decode(bytes) else { return };
    let again = reply.encode_to_vec();
    assert!(HelloReply::decode(&again[..]).is_ok_and(|again| again == reply));
    let frame = Frame::response_to(&Frame::request(PayloadProtocol::CONTROL, ID, ""), again);
    let read = hello_reply(frame.encode_to_vec().into(), ID, OFFERED);
    match reply.result {
        None => assert!(read.is_err(), "a reply agrees or refuses"),
        Some(Reply::Refused(refused)) => {
            let read = read.expect("a refusal is a reply").expect_err("a refusal is no agreement");
            is_refused(&refused, &read);
            is_written_by_the_broker(&frame.encode_to_vec(), refused);
        }
        Some(Reply::Negotiated(negotiated)) => {
            match &read {
                Ok(Ok(agreement)) => is_agreed(&negotiated, agreement),
                Ok(Err(refused)) => panic!("an agreement is read as a refusal: {refused}"),
                Err(_) => assert!(!is_usable(&negotiated), "{negotiated:?} is not taken"),
            }
            is_written_in_parts(&frame.encode_to_vec(), &negotiated);
        }
    }
}

/// What a client can use, said once more in the plainest words (but for the endpoint, which is the platform's).
fn is_usable(negotiated: &Negotiated) -> bool {
    negotiated.negotiated_protocol == 1
        && is_version(&negotiated.daemon_version)
        && matches!(negotiated.handle_passed_token.len(), 0 | 16)
        && negotiated.connection_id != 0
        && negotiated.backend_pipe == "/run/backend.sock"
}

fn is_agreed(negotiated: &Negotiated, agreement: &Agreement) {
    assert_eq!(negotiated.negotiated_protocol, 1);
    assert!(is_version(&negotiated.daemon_version));
    assert!(agreement.backend_pipe.to_str().is_some_and(|pipe| negotiated.backend_pipe.ends_with(pipe)));
    assert_eq!(agreement.connection_id.get(), negotiated.connection_id);
    assert_eq!(agreement.warnings, negotiated.warnings);
    assert_eq!(agreement.keepalive.as_secs(), negotiated.keepalive_interval_secs);
    assert!(OFFERED.contains(agreement.capabilities), "nothing is in force that was not offered");
    let passes = agreement.capabilities.contains(Capabilities::HANDLE_PASSING);
    assert_eq!(agreement.token.is_some(), passes, "a token where there is a handoff, and nowhere else");
    if let Some(token) = &agreement.token {
        assert_eq!(&token.as_bytes()[..], negotiated.handle_passed_token);
        assert!(!format!("{agreement:?}").contains(&format!("{:?}", token.as_bytes())), "it is not printed");
    }
}

fn is_refused(wire: &wire::Refused, refused: &Refused) {
    assert_eq!(refused.kind.code(), wire.code);
    assert_eq!((&refused.reason, &refused.details), (&wire.reason, &wire.details));
    let retry_after_ms = refused.retry_after.map_or(0, |wait| wait.as_millis());
    assert_eq!(retry_after_ms, u128::from(wire.retry_after_ms));
    if let RefusedKind::RateLimited { retry_after } | RefusedKind::ShuttingDown { retry_after } = refused.kind
    {
        assert_eq!(retry_after.as_millis(), u128::from(wire.retry_after_ms));
    }
    let is_obeyed = |each: char| each.is_control() && each != '\n' && each != '\t';
    let shown: String = wire
        .reason
        .chars()
        .filter(|each| *each != '\r')
        .map(|each| if is_obeyed(each) { char::REPLACEMENT_CHARACTER } else { each })
        .collect();
    let text = refused.to_string();
    assert!(text.contains(&shown), "what the broker says is passed on");
    assert!(!text.contains(is_obeyed), "and nothing of it steers a terminal");
}

fn is_written_by_the_broker(body: &[u8], refused: wire::Refused) {
    let mut written = Vec::new();
    encode_refused(&Echo { request_id: ID, ..Echo::default() }, refused, &mut written);
    assert_eq!(&written[HEADER_LEN..], body);
}

fn is_written_in_parts(body: &[u8], negotiated: &Negotiated) {
    let token = HandoffToken::try_from(&negotiated.handle_passed_token[..]).ok();
    let is_the_brokers =
        negotiated.negotiated_protocol == 1 && (negotiated.handle_passed_token.is_empty() || token.is_some());
    let Some(connection_id) = ConnectionId::new(negotiated.connection_id).filter(|_| is_the_brokers) else {
        return;
    };
    let Negotiated { daemon_version, backend_pipe, warnings, .. } = negotiated;
    let parts = NegotiatedParts {
        prefix: &RoutePrefix::new(daemon_version, backend_pipe, warnings),
        server_capabilities: Capabilities::from_bits_retain(negotiated.server_capabilities),
        keepalive_secs: negotiated.keepalive_interval_secs,
        token: token.as_ref(),
        connection_id,
    };
    let mut written = Vec::new();
    encode_negotiated(&Echo { request_id: ID, ..Echo::default() }, &parts, &mut written);
    assert_eq!(&written[HEADER_LEN..], body, "one encoder writes what the other does not");
}

/// Agreements and refusals, bare and in their frames.
pub fn seeds() -> Vec<Seed> {
    let negotiated = Negotiated {
        negotiated_protocol: 1,
        daemon_version: "1.2.4".into(),
        backend_pipe: "/run/backend.sock".into(),
        warnings: vec!["careful".into(), String::new()],
        server_capabilities: OFFERED.bits(),
        keepalive_interval_secs: 1_800,
        handle_passed_token: vec![7; 16],
        connection_id: 9,
    };
    let refused = wire::Refused {
        reason: "too many".into(),
        daemon_min_protocol: 1,
        daemon_max_protocol: 1,
        code: 4,
        details: [("field".into(), "x".into()), ("limit".into(), "1".into())].into(),
        retry_after_ms: 12,
    };
    let agreed = |negotiated| HelloReply { result: Some(Reply::Negotiated(negotiated)) };
    let refusal = |refused| HelloReply { result: Some(Reply::Refused(refused)) };
    let request = Frame::request(PayloadProtocol::CONTROL, ID, "");
    let framed = |reply: &HelloReply| Frame::response_to(&request, reply.encode_to_vec());
    let service = Frame::response_to(&Frame::request(PayloadProtocol::CLUD, ID, ""), "pong");
    let all_codes = (0..=10)
        .map(|code| encoded(&format!("refusal-{code}"), &refusal(wire::Refused { code, ..refused.clone() })));
    let mut seeds: Vec<_> = all_codes.collect();
    seeds.extend([
        vector("HelloReply"),
        seed("empty", []),
        encoded("agreement", &agreed(negotiated.clone())),
        encoded("agreement-in-its-frame", &framed(&agreed(negotiated.clone()))),
        encoded("agreement-without-an-id", &Frame { request_id: 0, ..framed(&agreed(negotiated.clone())) }),
        encoded("refusal-without-an-id", &Frame { request_id: 0, ..framed(&refusal(refused.clone())) }),
        encoded("no-token", &agreed(Negotiated { handle_passed_token: vec![], ..negotiated.clone() })),
        encoded(
            "largest-numbers",
            &agreed(Negotiated {
                server_capabilities: u64::MAX,
                keepalive_interval_secs: u64::MAX,
                connection_id: u64::MAX,
                ..negotiated.clone()
            }),
        ),
        encoded(
            "token-without-its-bit",
            &agreed(Negotiated { server_capabilities: 1 << 32, ..negotiated.clone() }),
        ),
        encoded(
            "short-token",
            &agreed(Negotiated { handle_passed_token: vec![1; 15], ..negotiated.clone() }),
        ),
        encoded("relative-endpoint", &agreed(Negotiated { backend_pipe: "x".into(), ..negotiated.clone() })),
        encoded(
            "long-endpoint",
            &agreed(Negotiated { backend_pipe: format!("/{}", "x".repeat(107)), ..negotiated }),
        ),
        encoded("service-answer", &service),
        encoded("service-event", &Frame { kind: 2, ..service }),
    ]);
    seeds
}
