//! One test per row of the decision table (behaviour.md 2) that the in-memory negotiation decides,
//! at each boundary, from encoded frame to decoded reply.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot unwrap has failed")]

use std::time::Duration;

use broker_core::admission::{PeerKey, RateLimit};
use broker_core::entropy::SeededEntropy;
use broker_core::hello::{BackendHandoff, HandoffPlatform, HelloConfig, HelloHandler};
use broker_core::services::{Definition, TrustDomain};
use broker_core::time::{Monotonic, Now, UnixMillis};
use broker_protocol::prost::Message;
use broker_protocol::wire::{
    BrokerIsolation, ErrorCode, Frame, FrameKind, Hello, HelloReply, Negotiated, PayloadEncoding, Refused,
    ServiceDefinition, hello_reply,
};
use broker_protocol::{BrokerInstance, PayloadProtocol, Version};

type Handler = HelloHandler<SeededEntropy>;

const PID: u32 = 4242;
const BINARY: &str = if cfg!(windows) { r"C:\bin\cached.exe" } else { "/usr/bin/cached" };

fn now() -> Now {
    Now { monotonic: Monotonic::from_nanos(1_000_000_000), unix: UnixMillis::new(1_700_000_000_000) }
}

fn later(nanos: u64) -> Now {
    Now { monotonic: Monotonic::from_nanos(1_000_000_000 + nanos), ..now() }
}

fn peer() -> PeerKey {
    PeerKey::new(1000, Some(PID))
}

fn definition() -> ServiceDefinition {
    ServiceDefinition {
        service_name: "cache".into(),
        binary_path: BINARY.into(),
        isolation: BrokerIsolation::SharedBroker.into(),
        ..ServiceDefinition::default()
    }
}

fn handler_with(config: HelloConfig, definition: &ServiceDefinition, handoff: BackendHandoff) -> Handler {
    let mut handler = HelloHandler::new(config, SeededEntropy::new(7));
    let definition = Definition::new(definition).unwrap();
    handler.register(definition, Version::parse("1.2.3").unwrap(), "/run/cached.sock", handoff);
    handler
}

fn handler() -> Handler {
    handler_with(HelloConfig::default(), &definition(), BackendHandoff::Plain)
}

fn hello() -> Hello {
    Hello {
        client_min_protocol: 1,
        client_max_protocol: 1,
        service_name: "cache".into(),
        wanted_version: "1.2.3".into(),
        client_capabilities: 1,
        ..Hello::default()
    }
}

fn request(hello: &Hello) -> Frame {
    Frame {
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        tracestate: "rp=1".into(),
        ..Frame::request(PayloadProtocol::CONTROL, 77, hello.encode_to_vec())
    }
}

fn answer_bytes(handler: &mut Handler, now: Now, body: &[u8]) -> (Frame, hello_reply::Result) {
    let mut out = Vec::new();
    handler.handle_frame(now, peer(), body, &mut out);
    let length = u32::from_le_bytes(out[1..5].try_into().unwrap()) as usize;
    assert_eq!((out[0], out.len()), (1, 5 + length), "one whole frame");
    let frame = Frame::decode(&out[5..]).unwrap();
    assert_eq!((frame.envelope_version, frame.kind()), (1, FrameKind::Response));
    let result = HelloReply::decode(frame.payload.clone()).unwrap().result.unwrap();
    (frame, result)
}

fn ask(handler: &mut Handler, frame: &Frame) -> hello_reply::Result {
    let (response, result) = answer_bytes(handler, now(), &frame.encode_to_vec());
    assert_eq!(response.request_id, frame.request_id, "the id is echoed");
    assert_eq!((&response.traceparent, &response.tracestate), (&frame.traceparent, &frame.tracestate));
    result
}

fn refused(result: hello_reply::Result) -> Refused {
    match result {
        hello_reply::Result::Refused(refused) => {
            assert_eq!((refused.daemon_min_protocol, refused.daemon_max_protocol), (1, 1));
            assert!(!refused.reason.is_empty());
            refused
        }
        hello_reply::Result::Negotiated(negotiated) => panic!("expected a refusal, got {negotiated:?}"),
    }
}

fn negotiated(result: hello_reply::Result) -> Negotiated {
    match result {
        hello_reply::Result::Negotiated(negotiated) => negotiated,
        hello_reply::Result::Refused(refused) => panic!("expected an agreement, got {refused:?}"),
    }
}

fn code_of(change: impl FnOnce(&mut Hello)) -> Option<ErrorCode> {
    let mut hello = hello();
    change(&mut hello);
    match ask(&mut handler(), &request(&hello)) {
        hello_reply::Result::Negotiated(_) => None,
        hello_reply::Result::Refused(refused) => Some(refused.code()),
    }
}

#[test]
fn row_4_a_body_that_is_no_frame() {
    let (frame, result) = answer_bytes(&mut handler(), now(), &[0xFF, 0xFF, 0xFF]);
    let refused = refused(result);
    assert_eq!(refused.code(), ErrorCode::ErrorPeerRejected);
    assert_eq!((frame.request_id, refused.retry_after_ms), (0, 0));
    assert_eq!(refused.details["field"], "frame");
}

#[test]
fn row_5_another_envelope_version() {
    for version in [0, 2, u32::MAX] {
        let frame = Frame { envelope_version: version, ..request(&hello()) };
        let refused = refused(ask(&mut handler(), &frame));
        assert_eq!(refused.code(), ErrorCode::ErrorVersionUnsupported);
        assert_eq!(refused.details["actual"], version.to_string());
    }
    // A zero-length body is a legal frame, whose envelope version is 0.
    let (_, result) = answer_bytes(&mut handler(), now(), &[]);
    assert_eq!(refused(result).code(), ErrorCode::ErrorVersionUnsupported);
}

#[test]
fn row_6_another_kind_lane_or_encoding() {
    let frames = [
        Frame { kind: FrameKind::Response.into(), ..request(&hello()) },
        Frame { kind: FrameKind::Event.into(), ..request(&hello()) },
        Frame { kind: FrameKind::Cancel.into(), ..request(&hello()) },
        Frame { kind: 4, ..request(&hello()) },
        Frame { kind: -1, ..request(&hello()) },
        Frame { payload_protocol: PayloadProtocol::HANDOFF.id(), ..request(&hello()) },
        Frame { payload_protocol: PayloadProtocol::IDENTITY_PROBE.id(), ..request(&hello()) },
        Frame { payload_protocol: 1, ..request(&hello()) },
        Frame { payload_encoding: PayloadEncoding::Zstd.into(), ..request(&hello()) },
        Frame { payload_encoding: 9, ..request(&hello()) },
    ];
    for frame in frames {
        assert_eq!(refused(ask(&mut handler(), &frame)).code(), ErrorCode::ErrorPeerRejected, "{frame:?}");
    }
}

#[test]
fn row_7_a_payload_that_is_no_hello() {
    let frame = Frame { payload: vec![0x0A].into(), ..request(&hello()) };
    let refused = refused(ask(&mut handler(), &frame));
    assert_eq!(refused.code(), ErrorCode::ErrorPeerRejected);
    assert_eq!(refused.details["expected"], "Hello");
}

#[test]
fn row_10_the_257th_hello_of_a_second_waits_for_its_permit() {
    let mut handler = handler();
    for _ in 0..256 {
        negotiated(ask(&mut handler, &request(&hello())));
    }
    let first_over = refused(ask(&mut handler, &request(&hello())));
    assert_eq!(first_over.code(), ErrorCode::ErrorRateLimited);
    assert_eq!(first_over.retry_after_ms, 4, "1/256 s is 3.90625 ms, rounded up");

    let a_permit = 1_000_000_000 / 256;
    let body = request(&hello()).encode_to_vec();
    let (_, early) = answer_bytes(&mut handler, later(a_permit - 1), &body);
    assert_eq!(refused(early).code(), ErrorCode::ErrorRateLimited);
    let (_, in_time) = answer_bytes(&mut handler, later(a_permit), &body);
    negotiated(in_time);
}

#[test]
fn row_10_malformed_requests_cost_permits_and_other_peers_keep_theirs() {
    let mut handler = handler();
    for _ in 0..256 {
        refused(answer_bytes(&mut handler, now(), &[0xFF]).1);
    }
    assert_eq!(refused(ask(&mut handler, &request(&hello()))).code(), ErrorCode::ErrorRateLimited);

    let mut out = Vec::new();
    let other = PeerKey::new(1000, Some(PID + 1));
    handler.handle_frame(now(), other, &request(&hello()).encode_to_vec(), &mut out);
    let reply = HelloReply::decode(Frame::decode(&out[5..]).unwrap().payload).unwrap();
    negotiated(reply.result.unwrap());
}

#[test]
fn row_10_the_limit_can_be_set_and_zero_means_one() {
    let config = HelloConfig { rate_limit: RateLimit::new(0, 0), ..HelloConfig::default() };
    let mut handler = handler_with(config, &definition(), BackendHandoff::DialOnly);
    negotiated(ask(&mut handler, &request(&hello())));
    assert_eq!(refused(ask(&mut handler, &request(&hello()))).retry_after_ms, 1_000);
}

#[test]
fn row_11_protocol_1_must_be_in_the_client_s_range() {
    let range =
        |min, max| code_of(|hello| (hello.client_min_protocol, hello.client_max_protocol) = (min, max));
    assert_eq!(range(1, 1), None);
    assert_eq!(range(0, 1), None);
    assert_eq!(range(0, u32::MAX), None);
    for (min, max) in [(0, 0), (2, 2), (2, 9), (2, 0), (1, 0)] {
        assert_eq!(range(min, max), Some(ErrorCode::ErrorVersionUnsupported), "{min}..{max}");
    }
}

#[test]
fn row_12_names_and_versions_have_a_form_and_at_most_64_bytes() {
    let rejected = Some(ErrorCode::ErrorPeerRejected);
    let unknown = Some(ErrorCode::ErrorServiceUnknown);
    assert_eq!(code_of(|hello| hello.service_name = "a".repeat(64)), unknown);
    assert_eq!(code_of(|hello| hello.service_name = "a".repeat(65)), rejected);
    for bad in ["", "Cache", "ca/che", "cache\0", "../cache"] {
        assert_eq!(code_of(|hello| hello.service_name = bad.into()), rejected, "{bad:?}");
    }
    // At 64 bytes the version is good and merely not running; at 65 it is rejected.
    let longest = format!("1.2.3-{}", "a".repeat(58));
    assert_eq!(
        code_of(|hello| hello.wanted_version = longest.clone()),
        Some(ErrorCode::ErrorBackendSpawnFailed)
    );
    assert_eq!(code_of(|hello| hello.wanted_version = format!("{longest}a")), rejected);
    for bad in ["", "1.2", "v1.2.3", "1.2.3+x", "1.2.3-", "18446744073709551616.0.0"] {
        assert_eq!(code_of(|hello| hello.wanted_version = bad.into()), rejected, "{bad:?}");
    }
}

#[test]
fn row_12_telemetry_fields_are_bounded() {
    let rejected = Some(ErrorCode::ErrorPeerRejected);
    assert_eq!(code_of(|hello| hello.client_version = "x".repeat(128)), None);
    assert_eq!(code_of(|hello| hello.client_version = "x".repeat(129)), rejected);
    assert_eq!(code_of(|hello| hello.client_lib_name = "x".repeat(64)), None);
    assert_eq!(code_of(|hello| hello.client_lib_name = "x".repeat(65)), rejected);
    assert_eq!(code_of(|hello| hello.client_lib_version = "x".repeat(64)), None);
    assert_eq!(code_of(|hello| hello.client_lib_version = "x".repeat(65)), rejected);

    let over = Hello { client_lib_name: "x".repeat(65), ..hello() };
    let refused = refused(ask(&mut handler(), &request(&over)));
    assert_eq!(refused.details["field"], "client_lib_name");
    assert_eq!((&refused.details["limit"][..], &refused.details["actual"][..]), ("64", "65"));
}

#[test]
fn row_13_a_claimed_pid_must_be_the_kernel_s() {
    assert_eq!(code_of(|hello| hello.peer_pid = 0), None, "0 claims nothing");
    assert_eq!(code_of(|hello| hello.peer_pid = PID), None);
    assert_eq!(code_of(|hello| hello.peer_pid = PID + 1), Some(ErrorCode::ErrorPeerRejected));

    // Where the kernel gives no pid there is nothing to compare with.
    let claiming = Hello { peer_pid: 1, ..hello() };
    let mut out = Vec::new();
    handler().handle_frame(now(), PeerKey::new(1000, None), &request(&claiming).encode_to_vec(), &mut out);
    let reply = HelloReply::decode(Frame::decode(&out[5..]).unwrap().payload).unwrap();
    negotiated(reply.result.unwrap());
}

#[test]
fn row_14_no_definition() {
    let refused = refused(ask(&mut handler(), &request(&Hello { service_name: "other".into(), ..hello() })));
    assert_eq!(refused.code(), ErrorCode::ErrorServiceUnknown);
    assert_eq!(refused.details["service"], "other");
}

#[test]
fn row_14_a_service_of_another_trust_domain_names_the_right_pipe() {
    let config = HelloConfig {
        domain: TrustDomain::Only(BrokerInstance::Service("other".parse().unwrap())),
        ..HelloConfig::default()
    };
    let mut handler = handler_with(config, &definition(), BackendHandoff::Plain)
        .with_endpoint_names(|instance| format!("/run/{instance}.sock"));
    let refused = refused(ask(&mut handler, &request(&hello())));
    assert_eq!(refused.code(), ErrorCode::ErrorServiceUnknown);
    assert_eq!(refused.details["pipe"], "/run/shared.sock");
}

#[test]
fn row_16_the_floor_its_pre_release_and_the_allow_list() {
    let check = |min: &str, allow: &[&str], wanted: &str| {
        let definition = ServiceDefinition {
            min_version: min.into(),
            version_allow_list: allow.iter().map(ToString::to_string).collect(),
            ..definition()
        };
        let mut handler = handler_with(HelloConfig::default(), &definition, BackendHandoff::Plain);
        match ask(&mut handler, &request(&Hello { wanted_version: wanted.into(), ..hello() })) {
            hello_reply::Result::Negotiated(_) => None,
            hello_reply::Result::Refused(refused) => Some((refused.code(), refused.retry_after_ms)),
        }
    };
    let blocked = Some((ErrorCode::ErrorVersionBlocked, 30_000));
    assert_eq!(check("1.2.3", &[], "1.2.3"), None);
    assert_eq!(check("1.2.3", &[], "1.2.3-rc.1"), blocked);
    assert_eq!(check("1.2.3", &[], "1.2.2"), blocked);
    assert_eq!(check("1.2.4", &[], "1.2.3"), blocked);
    assert_eq!(check("", &["1.2.3", "2.0.0"], "1.2.3"), None);
    assert_eq!(check("", &["1.2.4"], "1.2.3"), blocked);
}

#[test]
fn row_18_here_means_that_no_backend_is_registered() {
    let refused =
        refused(ask(&mut handler(), &request(&Hello { wanted_version: "9.9.9".into(), ..hello() })));
    assert_eq!(refused.code(), ErrorCode::ErrorBackendSpawnFailed);
    assert_eq!((&refused.details["stage"][..], refused.retry_after_ms), ("absent", 1_000));
}

#[test]
fn row_19_an_agreement_names_the_backend_and_a_fresh_id() {
    let mut handler = handler();
    let first = negotiated(ask(&mut handler, &request(&hello())));
    assert_eq!((first.negotiated_protocol, &first.daemon_version[..]), (1, "1.2.3"));
    assert_eq!(first.backend_pipe, "/run/cached.sock");
    assert_eq!(first.keepalive_interval_secs, 1_800);
    let second = negotiated(ask(&mut handler, &request(&Hello { client_keepalive_secs: 30, ..hello() })));
    assert_eq!(second.keepalive_interval_secs, 30);
    assert_ne!(first.connection_id, 0);
    assert!(second.connection_id > first.connection_id);
}

#[test]
fn row_19_an_unknown_label_is_a_warning_in_every_agreement() {
    let mut definition = definition();
    definition.labels.insert("spawn.nice".into(), "5".into());
    let mut handler = handler_with(HelloConfig::default(), &definition, BackendHandoff::Plain);
    let negotiated = negotiated(ask(&mut handler, &request(&hello())));
    assert_eq!(negotiated.warnings.len(), 1);
    assert!(negotiated.warnings[0].contains("spawn.nice"));
}

#[test]
fn row_19_a_token_is_issued_only_where_everybody_allows_it() {
    let token = |config: HelloConfig, labels: &[(&str, &str)], handoff, capabilities| {
        let mut definition = definition();
        definition.labels.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let mut handler = handler_with(config, &definition, handoff);
        let hello = Hello { client_capabilities: capabilities, ..hello() };
        let negotiated = negotiated(ask(&mut handler, &request(&hello)));
        (negotiated.handle_passed_token.len(), negotiated.server_capabilities & 1)
    };
    let with_token = (16, 1);
    let without = (0, 0);
    let default = HelloConfig::default;
    assert_eq!(token(default(), &[], BackendHandoff::Plain, 1), with_token);
    assert_eq!(token(default(), &[], BackendHandoff::Plain, 0), without, "the client");
    assert_eq!(token(default(), &[], BackendHandoff::Plain, !1), without, "the client");
    assert_eq!(token(default(), &[], BackendHandoff::DialOnly, 1), without, "the backend");
    assert_eq!(
        token(default(), &[("handoff.enabled", "false")], BackendHandoff::Plain, 1),
        without,
        "the policy"
    );
    let unsupported = HelloConfig { platform: HandoffPlatform::Unsupported, ..default() };
    assert_eq!(token(unsupported, &[], BackendHandoff::Plain, 1), without, "the platform");
}

#[test]
fn row_19_the_65th_outstanding_offer_of_a_backend_gets_no_token_and_no_bit() {
    let config = HelloConfig { rate_limit: RateLimit::new(10_000, 10_000), ..HelloConfig::default() };
    let mut handler = handler_with(config, &definition(), BackendHandoff::Plain);
    for _ in 0..64 {
        assert_eq!(negotiated(ask(&mut handler, &request(&hello()))).handle_passed_token.len(), 16);
    }
    let over = negotiated(ask(&mut handler, &request(&hello())));
    assert_eq!((over.handle_passed_token.len(), over.server_capabilities), (0, 0));

    // Thirty seconds later the tokens have expired, to the nanosecond.
    let ttl = Duration::from_secs(30);
    handler.handoffs().expire(later(ttl.as_nanos() as u64 - 1).monotonic, &mut |_| panic!("too early"));
    let mut expired = 0;
    handler.handoffs().expire(later(ttl.as_nanos() as u64).monotonic, &mut |_| expired += 1);
    assert_eq!(expired, 64);
    assert_eq!(negotiated(ask(&mut handler, &request(&hello()))).handle_passed_token.len(), 16);
}

#[test]
fn row_19_tokens_whose_time_is_over_make_room_without_anybody_driving_a_timer() {
    let config = HelloConfig { rate_limit: RateLimit::new(10_000, 10_000), ..HelloConfig::default() };
    let mut handler = handler_with(config, &definition(), BackendHandoff::Plain);
    for _ in 0..64 {
        ask(&mut handler, &request(&hello()));
    }
    let body = request(&hello()).encode_to_vec();
    let token_at = |handler: &mut Handler, nanos: u64| {
        let (_, result) = answer_bytes(handler, later(nanos), &body);
        negotiated(result).handle_passed_token.len()
    };
    let ttl = Duration::from_secs(30).as_nanos() as u64;
    assert_eq!(token_at(&mut handler, ttl - 1), 0);
    assert_eq!(token_at(&mut handler, ttl), 16);
}

#[test]
fn earlier_rows_win_over_later_ones() {
    // Row 11 before 12 before 13 before 14.
    let everything_wrong = Hello {
        client_min_protocol: 2,
        client_max_protocol: 2,
        service_name: "BAD".into(),
        peer_pid: PID + 1,
        ..hello()
    };
    let protocol_right = Hello { client_min_protocol: 1, ..everything_wrong.clone() };
    let name_right = Hello { service_name: "unknown".into(), ..protocol_right.clone() };
    let pid_right = Hello { peer_pid: PID, ..name_right.clone() };
    let kind = |hello: &Hello| {
        let refused = refused(ask(&mut handler(), &request(hello)));
        (refused.code(), refused.details.get("field").cloned().unwrap_or_default())
    };
    assert_eq!(kind(&everything_wrong).0, ErrorCode::ErrorVersionUnsupported);
    assert_eq!(kind(&protocol_right), (ErrorCode::ErrorPeerRejected, "service_name".into()));
    assert_eq!(kind(&name_right), (ErrorCode::ErrorPeerRejected, "peer_pid".into()));
    assert_eq!(kind(&pid_right).0, ErrorCode::ErrorServiceUnknown);
}

#[test]
fn a_backend_that_is_gone_is_not_routed_to() {
    let mut handler = handler();
    negotiated(ask(&mut handler, &request(&hello())));
    handler.unregister("cache", &Version::parse("1.2.3").unwrap());
    assert_eq!(refused(ask(&mut handler, &request(&hello()))).code(), ErrorCode::ErrorBackendSpawnFailed);
    handler.undefine("cache");
    assert_eq!(refused(ask(&mut handler, &request(&hello()))).code(), ErrorCode::ErrorServiceUnknown);
}
