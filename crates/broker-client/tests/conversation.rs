//! Hellos and admin requests over real sockets, answered by brokers that know only bytes.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[allow(dead_code, reason = "each test binary uses its part")]
mod fake;

use std::path::Path;
use std::time::Duration;

use broker_client::{
    AdminError, AdminReply, AdminReplyKind, Capabilities, ExchangeError, HandoffToken, HelloError,
    RefusedKind, ReplyFault, blocking,
};
use broker_transport::frame_io::FrameFault;
use broker_transport::listener::{BindOptions, BoundSocket};
use broker_transport::stream::ConnectErrorKind;

use fake::bytes::{Response, framed, number, text};
use fake::{FakeServer, Place, hello};

const CONTROL: u64 = 0;
const ADMIN: u64 = 0xAD01;
const TOKEN: [u8; 16] = *b"0123456789abcdef";

/// A time in which nothing comes from a broker that never says anything.
const MOMENT: Duration = Duration::from_millis(20);

/// A `Negotiated` with one field more behind it, which wins over what is before.
fn negotiated(last: Vec<u8>) -> Vec<u8> {
    let fields = [
        number(1, 1),
        text(2, "1.2.4"),
        text(3, "/run/cache.sock"),
        text(4, "first warning"),
        text(4, "second warning"),
        number(5, 1 | 1 << 32),
        number(6, 1_800),
        text(7, TOKEN),
        number(8, 77),
        last,
    ];
    text(1, fields.concat())
}

fn refused(code: u64) -> Vec<u8> {
    let detail = [text(1, "service"), text(2, "cache")].concat();
    let fields = [
        text(1, "the very reason"),
        number(2, 1),
        number(3, 1),
        number(4, code),
        text(5, detail),
        number(6, 250),
    ];
    text(2, fields.concat())
}

fn agreeing() -> FakeServer {
    FakeServer::replying(|request| Response::new(CONTROL, request.id(), negotiated(vec![])).bytes())
}

/// The fault in each of the replies that `change` made of a valid one.
fn hello_faults(change: impl Fn(&mut Response) + Send + Sync + 'static) -> Vec<ReplyFault> {
    let broker = FakeServer::replying(move |request| {
        let mut response = Response::new(CONTROL, request.id(), negotiated(vec![]));
        change(&mut response);
        response.bytes()
    });
    let fault = |outcome: Result<_, HelloError>| match outcome.unwrap_err() {
        HelloError::Protocol(error) => error.fault,
        other => panic!("{other}"),
    };
    broker.greet().into_iter().map(fault).collect()
}

fn admin_faults(change: impl Fn(&mut Response) + Send + Sync + 'static) -> Vec<ReplyFault> {
    let broker = FakeServer::replying(move |request| {
        let mut response = Response::new(ADMIN, request.id(), text(2, "fine"));
        change(&mut response);
        response.bytes()
    });
    let fault = |outcome: Result<AdminReply, AdminError>| match outcome.unwrap_err() {
        AdminError::Protocol(error) => error.fault,
        other => panic!("{other}"),
    };
    broker.inquire().into_iter().map(fault).collect()
}

/// What the connection of each half came to.
fn exchange_errors(broker: &FakeServer, timeout: Duration) -> Vec<ExchangeError> {
    let error = |outcome: Result<_, HelloError>| match outcome.unwrap_err() {
        HelloError::Exchange(error) => error,
        other => panic!("{other}"),
    };
    broker.greet_with(&hello(), timeout).into_iter().map(error).collect()
}

#[test]
fn an_agreement_is_read_field_by_field() {
    let broker = agreeing();
    let offering = hello().capabilities(Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA);
    for outcome in broker.greet_with(&offering, Duration::MAX) {
        let agreement = outcome.unwrap();
        assert_eq!(agreement.daemon_version.to_string(), "1.2.4");
        assert_eq!(agreement.backend_pipe, Path::new("/run/cache.sock"));
        assert_eq!(agreement.warnings, ["first warning", "second warning"]);
        assert_eq!(agreement.capabilities.bits(), 1 | 1 << 32);
        assert_eq!(agreement.keepalive, Duration::from_secs(1_800));
        assert_eq!(agreement.token, Some(HandoffToken::from_bytes(TOKEN)));
        assert_eq!(agreement.connection_id.get(), 77);
    }
}

#[test]
fn a_hello_says_on_the_wire_what_the_protocol_wants_to_hear() {
    let broker = agreeing();
    let hello = hello()
        .client_version("0.9.0")
        .capabilities(Capabilities::EARLY_DATA)
        .keepalive(Duration::from_secs(90))
        .client_lib("by-hand", "2.0.0")
        .request_id("r-1")
        .trace_context("00-aa-bb-01", "k=v")
        .deadline(Duration::from_secs(5));
    let outcomes = broker.greet_with(&hello, Duration::MAX);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let requests = broker.requests();
    assert_eq!(requests.len(), outcomes.len());
    for request in &requests {
        let (frame, payload) = (&request.frame, request.payload());
        assert_eq!([1, 2, 3, 6].map(|field| frame.number(field)), [1, 0, CONTROL, 0]);
        assert_ne!(frame.number(5), 0);
        assert!(frame.number(7) > 1_700_000_000_000, "a deadline in milliseconds since 1970");
        assert_eq!([8, 9].map(|field| frame.text(field)), [&b"00-aa-bb-01"[..], b"k=v"]);
        let numbers = [1, 2, 6, 9, 10, 15].map(|field| payload.number(field));
        assert_eq!(numbers, [1, 1, 1 << 32, 0, std::process::id().into(), 90]);
        let texts = [3, 4, 5, 8, 11, 12].map(|field| payload.text(field));
        assert_eq!(texts, [&b"cache"[..], b"1.2.3", b"0.9.0", b"r-1", b"by-hand", b"2.0.0"]);
    }
    let all_differ = requests.windows(2).all(|pair| pair[0].id() != pair[1].id());
    assert!(all_differ, "every request has an id of its own");
}

#[test]
fn a_hello_that_is_too_long_is_never_sent() {
    let broker = agreeing();
    for outcome in broker.greet_with(&hello().client_version("x".repeat(129)), Duration::MAX) {
        assert!(matches!(outcome.unwrap_err(), HelloError::FieldTooLong { field: "client_version", .. }));
    }
    for outcome in broker.greet_with(&hello().trace_context("", "x".repeat(65_536)), Duration::MAX) {
        let error = outcome.unwrap_err();
        assert!(matches!(error, HelloError::Exchange(ExchangeError::RequestTooLong { .. })), "{error}");
    }
    assert_eq!(broker.requests().len(), 0);
}

#[test]
fn a_refusal_is_typed_and_keeps_the_brokers_words() {
    let retry_after = Duration::from_millis(250);
    let kinds = [
        (4, RefusedKind::RateLimited { retry_after }),
        (8, RefusedKind::VersionBlocked),
        (15, RefusedKind::Other(15)),
    ];
    for (code, kind) in kinds {
        let broker =
            FakeServer::replying(move |request| Response::new(CONTROL, request.id(), refused(code)).bytes());
        for outcome in broker.greet() {
            let Err(HelloError::Refused(refused)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(refused.kind, kind);
            assert_eq!(refused.reason, "the very reason");
            assert_eq!(refused.details["service"], "cache");
            assert_eq!(refused.retry_after, Some(retry_after));
            assert!(refused.to_string().contains("the very reason; "), "{refused}");
        }
    }
}

#[test]
fn a_refusal_may_come_unread_and_without_an_id_and_an_agreement_may_not() {
    let broker = FakeServer::unread(Response::new(CONTROL, 0, refused(4)).bytes());
    for outcome in broker.greet() {
        assert!(matches!(outcome, Err(HelloError::Refused(_))), "{outcome:?}");
    }
    for fault in hello_faults(|response| response.request_id = 0) {
        assert!(matches!(fault, ReplyFault::RequestId { actual: 0, .. }), "{fault}");
    }
}

#[test]
fn a_reply_that_breaks_the_envelope_is_none() {
    type Case = (fn(&mut Response), fn(&ReplyFault) -> bool);
    let cases: [Case; 8] = [
        (
            |reply| reply.envelope_version = 2,
            |fault| matches!(fault, ReplyFault::EnvelopeVersion { actual: 2 }),
        ),
        (
            |reply| reply.envelope_version = 0,
            |fault| matches!(fault, ReplyFault::EnvelopeVersion { actual: 0 }),
        ),
        (|reply| reply.kind = 0, |fault| matches!(fault, ReplyFault::Kind { actual: 0 })),
        (|reply| reply.kind = 2, |fault| matches!(fault, ReplyFault::Kind { actual: 2 })),
        (|reply| reply.encoding = 1, |fault| matches!(fault, ReplyFault::PayloadEncoding { actual: 1 })),
        (|reply| reply.lane = 0xD0FF, |fault| matches!(fault, ReplyFault::Lane { .. })),
        (|reply| reply.request_id += 1, |fault| matches!(fault, ReplyFault::RequestId { .. })),
        (|reply| reply.payload = vec![0xFF], |fault| matches!(fault, ReplyFault::Payload { .. })),
    ];
    for (change, is_expected) in cases {
        for fault in hello_faults(change).into_iter().chain(admin_faults(change)) {
            assert!(is_expected(&fault), "{fault}");
        }
    }
}

#[test]
fn a_hello_is_answered_on_the_control_lane_by_a_message_with_a_result() {
    for fault in hello_faults(|reply| reply.payload = vec![]) {
        assert!(matches!(fault, ReplyFault::NoResult), "{fault}");
    }
    for fault in hello_faults(|reply| (reply.lane, reply.payload) = (ADMIN, text(2, "fine"))) {
        assert!(matches!(fault, ReplyFault::Lane { .. }), "{fault}");
    }
}

#[test]
fn an_agreement_with_a_field_that_breaks_its_rule_is_none() {
    type Case = (fn() -> Vec<u8>, fn(&ReplyFault) -> bool);
    let cases: [Case; 7] = [
        (|| number(1, 2), |fault| matches!(fault, ReplyFault::NegotiatedProtocol { actual: 2 })),
        (|| text(2, "latest"), |fault| matches!(fault, ReplyFault::DaemonVersion { .. })),
        (|| text(3, ""), |fault| matches!(fault, ReplyFault::BackendPipe { .. })),
        (
            || text(3, "x".repeat(300)),
            |fault| matches!(fault, ReplyFault::BackendPipe { .. } | ReplyFault::BackendPipeLength(_)),
        ),
        (|| text(7, [7; 15]), |fault| matches!(fault, ReplyFault::Token(_))),
        (|| text(7, [7; 17]), |fault| matches!(fault, ReplyFault::Token(_))),
        (|| number(8, 0), |fault| matches!(fault, ReplyFault::ConnectionId)),
    ];
    for (last, is_expected) in cases {
        for fault in hello_faults(move |reply| reply.payload = negotiated(last())) {
            assert!(is_expected(&fault), "{fault}");
        }
    }
}

#[test]
fn bytes_that_are_no_frame_are_no_reply() {
    type Case = (&'static [u8], fn(&ReplyFault) -> bool);
    let cases: [Case; 3] = [
        (b"HTTP/1.1 400\r\n\r\n", |fault| {
            matches!(fault, ReplyFault::Framing(FrameFault::FramingVersion(b'H')))
        }),
        (b"\x01\x03\x00\x00\x00\xFF\xFF\xFF", |fault| matches!(fault, ReplyFault::NotAFrame(_))),
        // An empty frame is one, of envelope version 0.
        (b"\x01\x00\x00\x00\x00", |fault| matches!(fault, ReplyFault::EnvelopeVersion { actual: 0 })),
    ];
    for (bytes, is_expected) in cases {
        for outcome in FakeServer::replying(move |_| bytes.to_vec()).greet() {
            let Err(HelloError::Protocol(error)) = outcome else { panic!("{outcome:?}") };
            assert!(is_expected(&error.fault), "{error}");
        }
    }
}

#[test]
fn a_reply_that_is_cut_short_anywhere_is_none() {
    let whole = Response::new(CONTROL, 1, negotiated(vec![])).bytes().len();
    for end in 1..whole {
        let broker = FakeServer::replying(move |request| {
            Response::new(CONTROL, request.id(), negotiated(vec![])).bytes()[..end].to_vec()
        });
        for outcome in broker.greet() {
            let Err(HelloError::Protocol(error)) = outcome else { panic!("{outcome:?}") };
            let ReplyFault::Framing(FrameFault::Truncated { received }) = error.fault else {
                panic!("{error}")
            };
            assert_eq!(received, end);
        }
    }
}

#[test]
fn a_broker_that_closes_without_a_reply_is_told_from_one_that_is_cut_short() {
    for broker in [FakeServer::unread(vec![]), FakeServer::replying(|_| vec![])] {
        for error in exchange_errors(&broker, Duration::MAX) {
            assert!(matches!(error, ExchangeError::Closed { .. }), "{error}");
        }
        for outcome in broker.inquire() {
            let error = outcome.unwrap_err();
            assert!(matches!(error, AdminError::Exchange(ExchangeError::Closed { .. })), "{error}");
        }
    }
}

#[test]
fn a_broker_that_says_nothing_or_half_a_reply_is_not_waited_for_longer_than_the_timeout() {
    let silent = FakeServer::stalling(|_| vec![]);
    let half = FakeServer::stalling(|_| framed(&[0; 100])[..50].to_vec());
    for broker in [silent, half] {
        for timeout in [Duration::ZERO, MOMENT] {
            for error in exchange_errors(&broker, timeout) {
                assert!(
                    matches!(error, ExchangeError::TimedOut { after, .. } if after == timeout),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn the_longest_reply_to_a_hello_is_read_and_one_more_byte_is_refused_unread() {
    let padded = |length| {
        move |request: &fake::Request| Response::new(CONTROL, request.id(), negotiated(vec![])).padded(length)
    };
    for outcome in FakeServer::replying(padded(65_536)).greet() {
        assert_eq!(outcome.unwrap().connection_id.get(), 77);
    }
    // Only the header comes: who waited for more would wait for ever.
    let header = FakeServer::stalling(|_| b"\x01\x01\x00\x01\x00".to_vec());
    for outcome in header.greet() {
        let Err(HelloError::Protocol(error)) = outcome else { panic!("{outcome:?}") };
        let fault = FrameFault::TooLong { declared: 65_537, limit: 65_536 };
        assert!(matches!(error.fault, ReplyFault::Framing(actual) if actual == fault), "{error}");
    }
}

#[test]
fn the_longest_reply_to_an_admin_request_is_read_and_one_more_byte_is_refused_unread() {
    let longest = FakeServer::replying(|request| {
        Response::new(ADMIN, request.id(), text(2, "all of it")).padded(16_777_216)
    });
    for outcome in longest.inquire() {
        assert_eq!(outcome.unwrap().body, "all of it");
    }
    let header = FakeServer::stalling(|_| b"\x01\x01\x00\x00\x01".to_vec());
    for outcome in header.inquire() {
        let Err(AdminError::Protocol(error)) = outcome else { panic!("{outcome:?}") };
        let fault = FrameFault::TooLong { declared: 16_777_217, limit: 16_777_216 };
        assert!(matches!(error.fault, ReplyFault::Framing(actual) if actual == fault), "{error}");
    }
}

#[test]
fn an_admin_request_is_asked_and_answered_on_its_lane() {
    let broker = FakeServer::replying(|request| {
        let reply = [number(1, 1), text(2, "{}"), number(3, 1), text(4, "application/json")].concat();
        Response::new(ADMIN, request.id(), reply).bytes()
    });
    for outcome in broker.inquire() {
        let reply = outcome.unwrap();
        assert_eq!((reply.kind(), reply.body.as_str()), (AdminReplyKind::Json, "{}"));
        assert_eq!((reply.exit_code, reply.content_type.as_str()), (1, "application/json"));
    }
    for request in broker.requests() {
        assert_eq!([1, 2, 3].map(|field| request.frame.number(field)), [1, 0, ADMIN]);
        assert_eq!([1, 2].map(|field| request.payload().number(field)), [1, 1], "status, as JSON");
    }
}

#[test]
fn an_admin_request_is_refused_on_the_control_lane_and_nothing_else_comes_there() {
    for id in [0, 1] {
        let broker = FakeServer::replying(move |request| {
            Response::new(CONTROL, request.id() * id, refused(6)).bytes()
        });
        for outcome in broker.inquire() {
            let Err(AdminError::Refused(refused)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(refused.kind, RefusedKind::PeerRejected);
        }
    }
    for fault in admin_faults(|reply| (reply.lane, reply.payload) = (CONTROL, negotiated(vec![]))) {
        assert!(matches!(fault, ReplyFault::AgreementWithoutHello), "{fault}");
    }
    for fault in admin_faults(|reply| (reply.lane, reply.payload) = (CONTROL, vec![])) {
        assert!(matches!(fault, ReplyFault::NoResult), "{fault}");
    }
    for fault in admin_faults(|reply| reply.request_id = 0) {
        assert!(matches!(fault, ReplyFault::RequestId { actual: 0, .. }), "{fault}");
    }
}

#[test]
fn an_endpoint_where_nobody_listens_is_named() {
    let place = Place::new();
    let stale = place.endpoint("stale.sock");
    BoundSocket::bind(&stale, &BindOptions::default()).unwrap().keep_file();
    // A pipe leaves nothing behind.
    let left = if cfg!(windows) { ConnectErrorKind::NotFound } else { ConnectErrorKind::Refused };
    for (endpoint, kind) in [(place.endpoint("absent.sock"), ConnectErrorKind::NotFound), (stale, left)] {
        let error = blocking::say_hello(&endpoint, &hello(), Duration::MAX).unwrap_err();
        let HelloError::Exchange(ExchangeError::Connect(error)) = error else { panic!("{error}") };
        assert_eq!((&error.endpoint, error.kind), (&endpoint, kind));
        assert!(error.to_string().contains(&*endpoint.to_string_lossy()), "{error}");
    }
}

#[cfg(feature = "tokio")]
#[test]
fn the_async_half_can_move_between_threads() {
    fn is_send(_: impl Send) {}
    let (endpoint, hello) = (Path::new("/absent"), hello());
    is_send(broker_client::say_hello(endpoint, &hello, MOMENT));
    is_send(broker_client::admin(endpoint, &broker_client::AdminRequest::default()));
}
