//! Sessions over real sockets, with brokers and backends that know only bytes.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[allow(dead_code, reason = "each test binary uses its part")]
mod fake;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broker_client::{
    Capabilities, Connector, ExchangeError, HelloError, Origin, Party, PayloadProtocol, RefusedKind,
    ReplyFault, RequestError, SessionError,
};
use broker_transport::frame_io::FrameFault;
use broker_transport::listener::{BindOptions, BoundSocket};
use broker_transport::stream::ConnectErrorKind;

use fake::bytes::{Response, number, text};
use fake::session::HALVES;
use fake::{FakeServer, Place, Request, hello};

const CONTROL: u64 = 0;

/// Codes and a field of `Refused`.
const RATE_LIMITED: u64 = 4;
const SHUTTING_DOWN: u64 = 5;
const FD_PRESSURE: u64 = 9;
const RETRY_AFTER: u64 = 6;
const LANE: PayloadProtocol = PayloadProtocol::new(0xF001);

/// A time in which nothing comes from a backend that never says anything.
const MOMENT: Duration = Duration::from_millis(20);

/// A broker that names the backend at `endpoint`, to be kept for `keepalive_secs`.
fn broker_naming(endpoint: PathBuf, keepalive_secs: u64) -> FakeServer {
    FakeServer::replying(move |request| negotiated(request, &endpoint, keepalive_secs))
}

/// The valid answer of a backend: the request's payload, on its lane.
fn echo(request: &Request) -> Response {
    Response::new(request.frame.number(3), request.id(), request.frame.text(4).to_vec())
}

/// A broker that names one backend after the other.
fn broker_naming_in_turn(endpoints: [PathBuf; 2]) -> FakeServer {
    let hellos = AtomicUsize::new(0);
    FakeServer::replying(move |request| {
        negotiated(request, &endpoints[hellos.fetch_add(1, Ordering::Relaxed)], 1_800)
    })
}

fn negotiated(request: &Request, endpoint: &Path, keepalive_secs: u64) -> Vec<u8> {
    let fields = [
        number(1, 1),
        text(2, "1.2.4"),
        text(3, endpoint.to_str().unwrap()),
        number(6, keepalive_secs),
        number(8, 77),
    ];
    Response::new(CONTROL, request.id(), text(1, fields.concat())).bytes()
}

fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since_epoch.as_millis()).unwrap()
}

/// A backend, and a broker that names it.
struct Scene {
    broker: FakeServer,
    backend: FakeServer,
}

impl Scene {
    fn with(backend: FakeServer) -> Self {
        Self { broker: broker_naming(backend.endpoint(), 1_800), backend }
    }

    fn echoing() -> Self {
        Self::with(FakeServer::conversing(|request| echo(request).bytes()))
    }

    /// The backend's answers are what `change` makes of valid ones.
    fn answering(change: impl Fn(&mut Response) + Send + Sync + 'static) -> Self {
        Self::with(FakeServer::conversing(move |request| {
            let mut response = echo(request);
            change(&mut response);
            response.bytes()
        }))
    }

    fn connector(&self) -> Connector {
        Connector::new(hello()).broker(self.broker.endpoint()).timeout(Duration::MAX)
    }
}

#[test]
fn each_request_of_a_session_gets_the_response_with_its_id() {
    for half in HALVES {
        let scene = Scene::echoing();
        let mut session = half.connect(&scene.connector()).unwrap();
        assert_eq!(session.request(LANE, "first").unwrap(), "first");
        assert_eq!(session.request(PayloadProtocol::CLUD, "second").unwrap(), "second");
        assert_eq!(session.request(LANE, "").unwrap(), "");
        let requests = scene.backend.requests();
        let lanes = requests.iter().map(|request| request.frame.number(3));
        assert_eq!(lanes.collect::<Vec<_>>(), [0xF001, 0x7C4C, 0xF001]);
        for pair in requests.windows(2) {
            assert!(pair[0].id() != 0 && pair[0].id() < pair[1].id());
        }
        for request in requests {
            assert_eq!([1, 2, 6].map(|field| request.frame.number(field)), [1, 0, 0]);
        }
    }
}

#[test]
fn a_request_says_until_when_it_is_waited_for() {
    for half in HALVES {
        let scene = Scene::echoing();
        let mut session = half.connect(&scene.connector()).unwrap();
        session.request(LANE, "for ever").unwrap();
        session.set_timeout(Duration::from_secs(60));
        let before = unix_ms();
        session.request(LANE, "a minute").unwrap();
        let deadlines: Vec<_> =
            scene.backend.requests().iter().map(|request| request.frame.number(7)).collect();
        assert_eq!(deadlines[0], 0, "none");
        // It is cut to a whole millisecond.
        assert!((before + 59_999..=unix_ms() + 60_000).contains(&deadlines[1]), "{before} {deadlines:?}");
    }
}

#[test]
fn the_second_session_does_without_a_hello() {
    for half in HALVES {
        let scene = Scene::echoing();
        let connector = scene.connector();
        let first = half.connect(&connector).unwrap();
        assert_eq!(first.origin(), Origin::Broker);
        for connector in [connector.clone(), connector] {
            let mut next = half.connect(&connector).unwrap();
            assert_eq!((next.origin(), next.agreement()), (Origin::Memory, first.agreement()));
            assert_eq!(next.request(LANE, "still there?").unwrap(), "still there?");
        }
        assert_eq!(scene.broker.requests().len(), 1);
    }
}

#[test]
fn a_backend_without_keepalive_is_not_remembered() {
    for half in HALVES {
        let backend = FakeServer::conversing(|request| echo(request).bytes());
        let broker = broker_naming(backend.endpoint(), 0);
        let connector = Connector::new(hello()).broker(broker.endpoint());
        for hellos in 1..3 {
            assert_eq!(half.connect(&connector).unwrap().origin(), Origin::Broker);
            assert_eq!(broker.requests().len(), hellos);
        }
    }
}

#[test]
fn when_the_backend_is_gone_the_broker_is_asked_for_the_next() {
    for half in HALVES {
        let first = FakeServer::conversing(|request| echo(request).bytes());
        let second = FakeServer::conversing(|request| echo(request).bytes());
        let broker = broker_naming_in_turn([first.endpoint(), second.endpoint()]);
        let connector = Connector::new(hello()).broker(broker.endpoint());
        assert_eq!(half.connect(&connector).unwrap().agreement().backend_pipe, first.endpoint());
        drop(first);
        let mut session = half.connect(&connector).unwrap();
        assert_eq!(session.origin(), Origin::Broker);
        assert_eq!(session.agreement().backend_pipe, second.endpoint());
        assert_eq!(session.request(LANE, "you?").unwrap(), "you?");
        assert_eq!(half.connect(&connector).unwrap().origin(), Origin::Memory);
    }
}

#[test]
fn a_backend_that_takes_no_connection_is_not_waited_for_before_the_broker_is_asked() {
    for half in HALVES {
        let place = Place::new();
        let full = place.endpoint("full.sock");
        // One place in its queue, and nobody who ever takes a connection out of it.
        let options = BindOptions { backlog: 0, ..BindOptions::default() };
        let _listener = BoundSocket::bind(&full, &options).unwrap();
        let second = FakeServer::conversing(|request| echo(request).bytes());
        let broker = broker_naming_in_turn([full.clone(), second.endpoint()]);
        let connector = Connector::new(hello()).broker(broker.endpoint());
        let _first = half.connect(&connector).unwrap();
        let next = half.connect(&connector).unwrap();
        assert_eq!((next.origin(), &next.agreement().backend_pipe), (Origin::Broker, &second.endpoint()));
    }
}

#[test]
fn who_asks_another_broker_does_not_use_what_the_first_one_said() {
    for half in HALVES {
        let (one, other) = (Scene::echoing(), Scene::echoing());
        let connector = one.connector();
        half.connect(&connector).unwrap();
        let session = half.connect(&connector.clone().broker(other.broker.endpoint())).unwrap();
        let endpoint = &session.agreement().backend_pipe;
        assert_eq!((session.origin(), endpoint), (Origin::Broker, &other.backend.endpoint()));
        assert_eq!(half.connect(&connector).unwrap().origin(), Origin::Memory, "the first one still does");
    }
}

#[test]
fn a_response_that_breaks_the_protocol_ends_the_session_and_the_broker_is_asked_again() {
    type Case = (fn(&mut Response), fn(&ReplyFault) -> bool);
    let cases: [Case; 7] = [
        (|reply| reply.envelope_version = 2, |fault| matches!(fault, ReplyFault::EnvelopeVersion { .. })),
        (|reply| reply.kind = 0, |fault| matches!(fault, ReplyFault::Kind { actual: 0 })),
        (|reply| reply.kind = 3, |fault| matches!(fault, ReplyFault::Kind { actual: 3 })),
        (|reply| reply.encoding = 1, |fault| matches!(fault, ReplyFault::PayloadEncoding { actual: 1 })),
        (|reply| reply.lane = 0, |fault| matches!(fault, ReplyFault::Lane { expected: LANE, .. })),
        (|reply| reply.request_id += 1, |fault| matches!(fault, ReplyFault::RequestId { .. })),
        (|reply| reply.request_id = 0, |fault| matches!(fault, ReplyFault::RequestId { actual: 0, .. })),
    ];
    for half in HALVES {
        for (change, is_expected) in cases {
            let scene = Scene::answering(change);
            let connector = scene.connector();
            let mut session = half.connect(&connector).unwrap();
            let error = session.request(LANE, "payload").unwrap_err();
            let RequestError::Protocol(broken) = &error else { panic!("{error}") };
            assert!(is_expected(&broken.fault) && broken.party == Party::Backend, "{error}");
            assert!(error.to_string().contains("is a v1 backend listening there?"), "{error}");
            assert!(matches!(session.request(LANE, "more"), Err(RequestError::Over)));
            assert_eq!(half.connect(&connector).unwrap().origin(), Origin::Broker);
            assert_eq!(scene.backend.requests().len(), 1, "nothing was sent after the failure");
        }
    }
}

#[test]
fn a_backend_that_closes_or_hangs_ends_the_session() {
    type Case = (fn() -> FakeServer, Duration, fn(&ExchangeError) -> bool);
    let cases: [Case; 2] = [
        (
            || FakeServer::replying(|_| vec![]),
            Duration::MAX,
            |error| matches!(error, ExchangeError::Closed { party: Party::Backend, .. }),
        ),
        (
            || FakeServer::stalling(|_| vec![]),
            MOMENT,
            |error| matches!(error, ExchangeError::TimedOut { party: Party::Backend, after: MOMENT, .. }),
        ),
    ];
    for half in HALVES {
        for (backend, timeout, is_expected) in cases {
            let scene = Scene::with(backend());
            let mut session = half.connect(&scene.connector()).unwrap();
            session.set_timeout(timeout);
            let error = session.request(LANE, "payload").unwrap_err();
            assert!(matches!(&error, RequestError::Exchange(error) if is_expected(error)), "{error}");
            assert!(matches!(session.request(LANE, "more"), Err(RequestError::Over)));
            assert!(session.into_stream_is_none(), "it may stand in the middle of a frame");
            assert_eq!(half.connect(&scene.connector()).unwrap().origin(), Origin::Broker);
        }
    }
}

#[test]
fn events_before_a_response_are_passed_over() {
    for half in HALVES {
        let scene = Scene::with(FakeServer::conversing(|request| {
            let event = Response { kind: 2, request_id: 0, ..echo(request) };
            [event.bytes(), Response { lane: 0xF002, ..event }.bytes(), echo(request).bytes()].concat()
        }));
        let mut session = half.connect(&scene.connector()).unwrap();
        for payload in ["first", "second"] {
            assert_eq!(session.request(LANE, payload).unwrap(), payload);
        }
    }
}

#[test]
fn endless_events_are_not_waited_through() {
    for half in HALVES {
        // No response among them, as long as there is somebody to read them.
        let scene = Scene::with(FakeServer::flooding(|request| {
            Response { kind: 2, ..echo(request) }.bytes().repeat(1_000)
        }));
        let mut session = half.connect(&scene.connector()).unwrap();
        session.set_timeout(MOMENT);
        let error = session.request(LANE, "payload").unwrap_err();
        let RequestError::Exchange(ExchangeError::TimedOut { after, .. }) = error else { panic!("{error}") };
        assert_eq!(after, MOMENT);
    }
}

#[test]
fn a_request_that_is_too_long_is_not_sent_and_the_session_goes_on() {
    for half in HALVES {
        let scene = Scene::echoing();
        let mut session = half.connect(&scene.connector()).unwrap();
        let error = session.request(LANE, vec![0; 16_777_216]).unwrap_err();
        let RequestError::Exchange(ExchangeError::RequestTooLong { limit, .. }) = error else {
            panic!("{error}")
        };
        assert_eq!(limit, 16_777_216);
        assert_eq!(session.request(LANE, "short").unwrap(), "short");
    }
}

#[test]
fn the_longest_response_is_read_and_one_more_byte_is_refused_unread() {
    for half in HALVES {
        let scene = Scene::with(FakeServer::conversing(|request| echo(request).padded(16_777_216)));
        let mut session = half.connect(&scene.connector()).unwrap();
        assert_eq!(session.request(LANE, "all of it").unwrap(), "all of it");

        // Only the header comes: who waited for more would wait for ever.
        let scene = Scene::with(FakeServer::stalling(|_| b"\x01\x01\x00\x00\x01".to_vec()));
        let mut session = half.connect(&scene.connector()).unwrap();
        let error = session.request(LANE, "too much").unwrap_err();
        let RequestError::Protocol(error) = error else { panic!("{error}") };
        let expected = FrameFault::TooLong { declared: 16_777_217, limit: 16_777_216 };
        assert!(matches!(error.fault, ReplyFault::Framing(fault) if fault == expected), "{error}");
    }
}

#[test]
fn a_session_never_offers_to_take_part_in_a_handoff() {
    for half in HALVES {
        let scene = Scene::echoing();
        let other = Capabilities::from_bits_retain(1 << 40);
        let all = Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA | other;
        half.connect(&Connector::new(hello().capabilities(all)).broker(scene.broker.endpoint())).unwrap();
        assert_eq!(scene.broker.requests()[0].payload().number(6), other.bits());
    }
}

#[test]
fn a_broker_that_does_not_run_is_an_error_that_says_how_to_run_it() {
    for half in HALVES {
        let absent = Path::new("/absent/broker.sock");
        let error = half.connect(&Connector::new(hello()).broker(absent)).unwrap_err();
        let text = error.to_string();
        assert!(text.ends_with("run the broker with `brokerd serve --socket /absent/broker.sock`"), "{text}");
        let SessionError::NoBroker { source, .. } = error else { panic!("{text}") };
        assert_eq!(source.kind, ConnectErrorKind::NotFound);
    }
}

#[test]
fn a_refusal_is_the_brokers_and_an_unreachable_backend_is_told_from_it() {
    for half in HALVES {
        let broker = FakeServer::replying(|request| {
            Response::new(CONTROL, request.id(), text(2, [text(1, "too old"), number(4, 8)].concat())).bytes()
        });
        let error = half.connect(&Connector::new(hello()).broker(broker.endpoint())).unwrap_err();
        let SessionError::Hello(HelloError::Refused(refused)) = error else { panic!("{error}") };
        assert_eq!(refused.kind, RefusedKind::VersionBlocked);

        let broker = broker_naming("/absent/backend.sock".into(), 1_800);
        let connector = Connector::new(hello()).broker(broker.endpoint());
        for sessions in 1..3 {
            let error = half.connect(&connector).unwrap_err();
            assert!(matches!(error, SessionError::Backend(ExchangeError::Connect(_))), "{error}");
            // The broker may not have heard of its end: it is asked three times more.
            let hellos = broker.requests().len();
            assert_eq!(hellos, 4 * sessions, "a backend that was not reached is not remembered");
        }
    }
}

/// A broker that refuses the first Hello with this code and time, and agrees to those after it.
fn impatient(code: u64, retry_after_ms: u64, backend: PathBuf) -> FakeServer {
    let hellos = AtomicUsize::new(0);
    FakeServer::replying(move |request| {
        if hellos.fetch_add(1, Ordering::Relaxed) > 0 {
            return negotiated(request, &backend, 1_800);
        }
        let refused = [text(1, "not now"), number(4, code), number(RETRY_AFTER, retry_after_ms)].concat();
        Response::new(CONTROL, request.id(), text(2, refused)).bytes()
    })
}

#[test]
fn a_broker_that_asks_for_patience_is_asked_again_after_the_time_it_names() {
    for half in HALVES {
        for code in [RATE_LIMITED, SHUTTING_DOWN, FD_PRESSURE] {
            let backend = FakeServer::conversing(|request| echo(request).bytes());
            let broker = impatient(code, 5, backend.endpoint());
            let begun = Instant::now();
            let connector = Connector::new(hello()).broker(broker.endpoint());
            let mut session = half.connect(&connector).unwrap();
            assert!(begun.elapsed() >= Duration::from_millis(5));
            assert_eq!(session.request(LANE, "now?").unwrap(), "now?");
            let ids: Vec<_> = broker.requests().iter().map(Request::id).collect();
            assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");
        }
    }
}

#[test]
fn a_refusal_that_patience_does_not_help_against_is_given_back_at_once() {
    const MINUTE_MS: u64 = 60_000;
    let other_codes = (0..12).filter(|code| ![RATE_LIMITED, SHUTTING_DOWN, FD_PRESSURE].contains(code));
    let for_ever = |connector: Connector| connector.timeout(Duration::MAX);
    // Beyond the limit, not wanted, and of no use.
    type Case = (u64, u64, fn(Connector) -> Connector);
    let mut cases: Vec<Case> = vec![
        (RATE_LIMITED, MINUTE_MS, |connector| connector.timeout(Duration::from_secs(59))),
        (RATE_LIMITED, MINUTE_MS, |connector| connector.timeout(Duration::MAX).without_retry()),
        (RATE_LIMITED, 0, for_ever),
    ];
    cases.extend(other_codes.map(|code| (code, MINUTE_MS, for_ever as fn(Connector) -> Connector)));
    for half in HALVES {
        for (code, retry_after_ms, change) in &cases {
            let broker = impatient(*code, *retry_after_ms, "/absent/backend.sock".into());
            let error = half.connect(&change(Connector::new(hello()).broker(broker.endpoint()))).unwrap_err();
            assert!(matches!(error, SessionError::Hello(HelloError::Refused(_))), "{code}: {error}");
            assert_eq!(broker.requests().len(), 1);
        }
    }
}

#[test]
fn the_connection_can_be_taken_out_of_a_session() {
    for half in HALVES {
        let scene = Scene::echoing();
        let mut session = half.connect(&scene.connector()).unwrap();
        session.request(LANE, "before").unwrap();
        let frame = Response { kind: 0, ..Response::new(LANE.id().into(), 9, b"by hand".to_vec()) };
        let expected = Response { kind: 1, ..frame.clone() }.bytes();
        let mut answer = vec![0; expected.len()];
        session.ask_by_hand(&frame.bytes(), &mut answer);
        assert_eq!(answer, expected);
    }
}

#[cfg(feature = "tokio")]
#[test]
fn a_request_that_is_dropped_half_way_ends_the_session() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let scene = Scene::with(FakeServer::stalling(|_| vec![]));
        let connector = scene.connector();
        let mut session = broker_client::Session::connect(&connector).await.unwrap();
        let dropped = tokio::time::timeout(MOMENT, session.request(LANE, "payload")).await;
        assert!(dropped.is_err());
        assert!(matches!(session.request(LANE, "more").await, Err(RequestError::Over)));
        let next = broker_client::Session::connect(&connector).await.unwrap();
        assert_eq!(next.origin(), Origin::Broker, "whoever hangs is not tried again");
    });
}

#[cfg(feature = "tokio")]
#[test]
fn an_async_session_can_move_between_threads() {
    fn is_send<T: Send>(work: impl Future<Output = T>) {
        drop(work);
    }
    let connector = Connector::new(hello());
    is_send(broker_client::Session::connect(&connector));
    is_send(async {
        let mut session = broker_client::Session::connect(&Connector::new(hello())).await?;
        session.request(LANE, "payload").await.map_err(|_| SessionError::Disabled)
    });
}
