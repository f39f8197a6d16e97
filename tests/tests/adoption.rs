//! What an application that links `broker-client` makes of connections that are passed on: with the real
//! broker, and with one that the test plays by hand.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::path::PathBuf;
use std::time::Instant;

use broker_client::{
    Connector, ExchangeError, FirstRequestError, Hello, Origin, PayloadProtocol, RequestError, Session,
    blocking,
};
use broker_protocol::control::{Announcement, ControlMessage};
use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, FrameKind, HandoffAck, HelloReply, Negotiated, hello_reply};
use broker_tests::{Daemon, Listener, PATIENCE, PlainBackend, Wire, World};

const LANE: PayloadProtocol = PayloadProtocol::new(0xF001);
const BIT_0: u64 = 1;
const BIT_32: u64 = 1 << 32;
const TOKEN: [u8; 16] = [7; 16];

fn connector(world: &World) -> Connector {
    let hello = Hello::new("cache".parse().unwrap(), "1.2.3".parse().unwrap());
    Connector::new(hello).broker(world.socket()).timeout(PATIENCE)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A broker whose backend takes offers on its control connection.
fn scene() -> (World, Daemon) {
    let world = World::new();
    world.define("cache", &[]);
    let broker = world.serve(&["--hello-burst", "100000", "--hello-refill", "100000"]);
    let deadline = Instant::now() + PATIENCE;
    while blocking::Session::connect(&connector(&world).with_handoff()).unwrap().origin() != Origin::Handoff {
        assert!(Instant::now() < deadline, "nothing is passed on");
    }
    (world, broker)
}

#[test]
fn a_connection_is_adopted_and_serves_like_one_that_was_dialled() {
    let (world, _broker) = scene();
    let adopting = connector(&world).with_handoff();
    let mut dialled = blocking::Session::connect(&connector(&world)).unwrap();
    let pid = dialled.request(LANE, "?pid").unwrap();
    let mut adopted = blocking::Session::connect(&adopting).unwrap();
    assert_eq!((dialled.origin(), adopted.origin()), (Origin::Broker, Origin::Handoff));
    assert_eq!(adopted.request(LANE, "?pid").unwrap(), pid);
    assert_eq!(adopted.request(LANE, "again").unwrap(), "again");
    block_on(async {
        let mut adopted = Session::connect(&adopting).await.unwrap();
        assert_eq!(adopted.origin(), Origin::Handoff);
        assert_eq!(adopted.request(LANE, "?pid").await.unwrap(), pid);
    });
}

#[test]
fn a_first_request_is_answered_whether_or_not_it_travels_with_the_hello() {
    let (world, _broker) = scene();
    for connector in [connector(&world), connector(&world).with_handoff()] {
        // The second time the broker is known to take it.
        for round in ["first", "second"] {
            let (mut session, answer) =
                blocking::Session::connect_with_request(&connector, LANE, round).unwrap();
            assert_eq!(answer, round);
            assert_eq!(session.request(LANE, "more").unwrap(), "more");
        }
        block_on(async {
            let (mut session, answer) =
                Session::connect_with_request(&connector, LANE, "third").await.unwrap();
            assert_eq!(answer, "third");
            assert_eq!(session.request(LANE, "more").await.unwrap(), "more");
        });
    }
}

#[test]
fn every_request_carries_the_trace_context_of_its_hello() {
    let (world, _broker) = scene();
    let hello =
        Hello::new("cache".parse().unwrap(), "1.2.3".parse().unwrap()).trace_context("00-here", "rp=1");
    let connector = Connector::new(hello).broker(world.socket()).timeout(PATIENCE).with_handoff();
    // Once behind a reply, once behind the Hello itself.
    for _ in 0..2 {
        let (mut session, answer) =
            blocking::Session::connect_with_request(&connector, LANE, "?trace").unwrap();
        assert_eq!(answer, "00-here");
        assert_eq!(session.request(LANE, "?trace").unwrap(), "00-here");
    }
}

#[test]
fn a_plain_backend_is_dialled_by_a_client_that_may_send_early_data() {
    let world = World::new();
    world.define("cache", &[]);
    let backend = PlainBackend::bind(&world);
    let _broker = world.serve(&["--backend", &backend.option("1.2.3")]);
    let connector = connector(&world).with_handoff();
    let mut session = blocking::Session::connect(&connector).unwrap();
    assert_eq!(session.origin(), Origin::Broker);
    assert_eq!(session.request(LANE, "good day").unwrap(), "good day");
    assert!(backend.is_left_alone());
}

// Nothing stops a process and lets it go on from outside on Windows.
#[cfg(unix)]
#[test]
fn a_backend_that_dies_before_it_replies_costs_a_session_nothing_and_a_request_its_certainty() {
    use rustix::process::{Pid, Signal, kill_process};
    let (world, _broker) = scene();
    let connector = connector(&world).with_handoff();
    let (mut session, pid) = blocking::Session::connect_with_request(&connector, LANE, "?pid").unwrap();
    let signal = |pid: &[u8], signal| {
        let pid = std::str::from_utf8(pid).unwrap().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    };
    signal(&pid, Signal::STOP);
    let agreements = world.agreements();
    let (early, plain) = std::thread::scope(|scope| {
        let early = scope.spawn(|| blocking::Session::connect_with_request(&connector, LANE, "early"));
        let plain = scope.spawn(|| blocking::Session::connect(&connector));
        // Both are on offer: the broker has a copy of each connection.
        let deadline = Instant::now() + PATIENCE;
        while world.agreements() < agreements + 2 {
            assert!(Instant::now() < deadline, "they are not both on offer");
        }
        signal(&pid, Signal::KILL);
        (early.join().unwrap(), plain.join().unwrap())
    });
    let error = early.unwrap_err();
    assert!(
        matches!(error, FirstRequestError::Request(RequestError::Exchange(ExchangeError::Closed { .. }))),
        "{error}"
    );
    let mut plain = plain.unwrap();
    assert_ne!(plain.request(LANE, "?pid").unwrap(), pid, "another backend was started");
    assert!(session.request(LANE, "dead").is_err());
}

#[test]
fn the_example_in_the_readme_is_what_it_says_and_works() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let example = std::fs::read_to_string(root.join("examples/echo-client/src/main.rs")).unwrap();
    let shown = &example[example.find("use broker_client").unwrap()..];
    assert!(readme.contains(shown), "README.md shows another examples/echo-client");
    assert!(shown.lines().filter(|line| !line.is_empty()).count() <= 15);

    let world = World::new();
    world.define("build-cache", &[]);
    let _broker = Daemon::start(&mut world.brokerd(&["serve", "--instance", "svc:build-cache"]));
    let run = || broker_tests::Finished::of(&mut world.command(&World::program("echo-client")));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = run();
        assert!(outcome.is_success(), "{outcome:?}");
        if outcome.stdout == "good day (Handoff)\ngood night\n" {
            break;
        }
        assert_eq!(outcome.stdout, "good day (Broker)\ngood night\n", "the backend is new");
        assert!(Instant::now() < deadline, "nothing is passed on");
    }
}

/// Set in the process that counts its descriptors: no other test's may be among them.
#[cfg(target_os = "linux")]
const CHILD_VARIABLE: &str = "BROKER_TESTS_CHILD";

// By what /proc tells.
#[cfg(target_os = "linux")]
#[test]
fn a_client_keeps_no_descriptor_of_a_session_that_has_ended() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    if let Some(socket) = std::env::var_os(CHILD_VARIABLE) {
        let hello = Hello::new("cache".parse().unwrap(), "1.2.3".parse().unwrap());
        let connector = Connector::new(hello).broker(PathBuf::from(socket)).timeout(PATIENCE).with_handoff();
        let once = || {
            let (mut session, _) =
                blocking::Session::connect_with_request(&connector, LANE, "good day").unwrap();
            session.request(LANE, "good day").unwrap();
            drop(blocking::Session::connect(&connector).unwrap());
        };
        once();
        let before = descriptors();
        (0..50).for_each(|_| once());
        assert_eq!(descriptors(), before);
        return;
    }
    let (world, broker) = scene();
    let at_rest = broker.descriptors();
    let outcome = broker_tests::Finished::of(
        world
            .command(&std::env::current_exe().unwrap())
            .args(["--exact", "a_client_keeps_no_descriptor_of_a_session_that_has_ended"])
            .env(CHILD_VARIABLE, world.socket()),
    );
    assert!(outcome.is_success() && outcome.stdout.contains("1 passed"), "{outcome:?}");
    broker.wait_for_descriptors(at_rest);
}

fn kill(pid: &[u8]) {
    let pid = std::str::from_utf8(pid).unwrap().parse().unwrap();
    broker_tests::kill(pid);
    assert!(broker_tests::has_died(pid));
}

#[test]
fn a_first_request_finds_the_next_backend_as_a_session_does() {
    let (world, _broker) = scene();
    for _ in 0..10 {
        let adopting = connector(&world).with_handoff();
        let deadline = Instant::now() + PATIENCE;
        let pid = loop {
            let (session, pid) = blocking::Session::connect_with_request(&adopting, LANE, "?pid").unwrap();
            if session.origin() == Origin::Handoff {
                break pid;
            }
            assert!(Instant::now() < deadline, "nothing is passed on");
        };
        kill(&pid);
        match blocking::Session::connect_with_request(&adopting, LANE, "?pid") {
            Ok((_, next)) => assert_ne!(next, pid),
            // It was on offer to the dead one, which may have read it for all anybody knows.
            Err(FirstRequestError::Request(RequestError::Exchange(ExchangeError::Closed { .. }))) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

// Windows executes no scripts.
#[cfg(unix)]
#[test]
fn a_dead_plain_backend_is_replaced_as_fast_though_its_child_holds_the_control_connection() {
    let world = World::new();
    let script = world.script(
        "plain",
        &format!(
            "sleep 60 >/dev/null 2>&1 &\n\
             unset RUNNING_PROCESS_BROKER_V1_CONTROL_FD RUNNING_PROCESS_BROKER_V1_CONTROL_PIPE\nexec {}",
            World::program("echo-backend").display()
        ),
    );
    let added = world.run(&["service", "add", "cache", "--binary", script.to_str().unwrap()]);
    assert!(added.is_success(), "{added:?}");
    let _broker = world.serve(&["--hello-burst", "100000", "--hello-refill", "100000"]);
    for _ in 0..3 {
        let mut session = blocking::Session::connect(&connector(&world)).unwrap();
        kill(&session.request(LANE, "?pid").unwrap());
        blocking::Session::connect(&connector(&world)).unwrap();
    }
}

#[test]
fn an_owner_that_does_not_reply_is_dialled_in_the_end() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--fail 3"]);
    // It answers probes and requests, but never what comes on its control connection.
    let backend = PlainBackend::bind(&world);
    let _broker = world.serve(&[]);
    let mut control = world.connect();
    control.send(
        &ControlMessage::Announcement(Announcement {
            service_name: "cache".into(),
            service_version: "1.2.3".into(),
            endpoint: backend.endpoint().to_str().unwrap().into(),
            capabilities: BIT_0 | BIT_32,
        })
        .to_frame(5),
    );
    control.receive();
    let mut session = blocking::Session::connect(&connector(&world)).unwrap();
    assert_eq!(session.request(LANE, "good day").unwrap(), "good day");
    let mut session = blocking::Session::connect(&connector(&world).with_handoff()).unwrap();
    assert_eq!(session.origin(), Origin::Broker);
    assert_eq!(session.request(LANE, "good day").unwrap(), "good day");
}

/// A broker and a backend of v1 that the test plays.
struct Played {
    broker: Listener,
    backend: Listener,
    backend_path: PathBuf,
}

impl Played {
    fn new(world: &World) -> Self {
        std::fs::create_dir_all(world.path("run")).unwrap();
        let backend_path = world.endpoint("run/b.sock");
        Self { broker: Listener::bind(&world.socket()), backend: Listener::bind(&backend_path), backend_path }
    }

    /// Takes a Hello and answers it with these capabilities and this token.
    fn agree(&self, capabilities: u64, token: &[u8]) -> Wire {
        let mut client = Wire::of(self.broker.accept());
        let hello = client.receive();
        let negotiated = Negotiated {
            negotiated_protocol: 1,
            daemon_version: "1.2.3".into(),
            backend_pipe: self.backend_path.to_str().unwrap().into(),
            server_capabilities: capabilities,
            keepalive_interval_secs: 1,
            handle_passed_token: token.to_vec(),
            connection_id: 9,
            ..Negotiated::default()
        };
        let reply = HelloReply { result: Some(hello_reply::Result::Negotiated(negotiated)) };
        client.send(&Frame {
            kind: FrameKind::Response.into(),
            payload: reply.encode_to_vec().into(),
            ..hello
        });
        client
    }

    /// Serves one request on a connection.
    fn serve(mut client: Wire) {
        let request = client.receive();
        client.send(&Frame { kind: FrameKind::Response.into(), ..request });
    }

    fn serve_dialled(&self) {
        Self::serve(Wire::of(self.backend.accept()));
    }
}

fn event(token: [u8; 16], accepted: bool, correlation_id: u64) -> Frame {
    let ack = HandoffAck { token: token.to_vec(), accepted, correlation_id, ..HandoffAck::default() };
    Frame {
        envelope_version: 1,
        kind: FrameKind::Event.into(),
        payload_protocol: 0xD0FF,
        payload: ack.encode_to_vec().into(),
        ..Frame::default()
    }
}

/// What both kinds of session make of a broker that is played by `play`.
fn sessions(play: impl Fn(&Played) + Sync, check: impl Fn(Origin, &[u8])) {
    let world = World::new();
    let played = Played::new(&world);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            play(&played);
            play(&played);
        });
        let mut session = blocking::Session::connect(&connector(&world).with_handoff()).unwrap();
        check(session.origin(), &session.request(LANE, "good day").unwrap());
        drop(session);
        block_on(async {
            let mut session = Session::connect(&connector(&world).with_handoff()).await.unwrap();
            check(session.origin(), &session.request(LANE, "good day").await.unwrap());
        });
    });
}

#[test]
fn a_broker_of_plain_v1_tells_with_an_event() {
    sessions(
        |played| {
            let mut client = played.agree(BIT_0, &TOKEN);
            client.send(&event(TOKEN, true, 9));
            Played::serve(client);
        },
        |origin, answer| assert_eq!((origin, answer), (Origin::Handoff, &b"good day"[..])),
    );
}

#[test]
fn whatever_else_comes_or_does_not_come_the_backend_is_dialled() {
    let others: [fn(&mut Wire); 6] = [
        |client| client.send(&event([8; 16], true, 9)),
        |client| client.send(&event(TOKEN, false, 9)),
        |client| client.send(&event(TOKEN, true, 8)),
        |client| client.send(&Frame { kind: 1, ..event(TOKEN, true, 9) }),
        |client| client.write(b"HTTP/1.1 200 OK\r\n\r\n"),
        // The connection ends, or says nothing for the 2 s that a client waits.
        |_| {},
    ];
    for other in others {
        sessions(
            |played| {
                let mut client = played.agree(BIT_0, &TOKEN);
                other(&mut client);
                drop(client);
                played.serve_dialled();
            },
            |origin, answer| assert_eq!((origin, answer), (Origin::Broker, &b"good day"[..])),
        );
    }
    sessions(
        |played| {
            let client = played.agree(BIT_0, &TOKEN);
            played.serve_dialled();
            drop(client);
        },
        |origin, answer| assert_eq!((origin, answer), (Origin::Broker, &b"good day"[..])),
    );
}

#[test]
fn half_an_offer_is_none() {
    for (capabilities, token) in [(BIT_0, &[][..]), (0, &TOKEN[..]), (BIT_32, &TOKEN[..])] {
        sessions(
            |played| {
                drop(played.agree(capabilities, token));
                played.serve_dialled();
            },
            |origin, answer| assert_eq!((origin, answer), (Origin::Broker, &b"good day"[..])),
        );
    }
}

#[test]
fn a_request_is_sent_behind_the_hello_only_to_a_broker_that_is_known_to_take_it() {
    let world = World::new();
    let played = Played::new(&world);
    let connector = connector(&world).with_handoff();
    let ask = |text: &'static str| blocking::Session::connect_with_request(&connector, LANE, text);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Nothing is behind the first Hello until it is answered.
            let client = played.agree(BIT_0 | BIT_32, &TOKEN);
            Played::serve(client);
            // The second is followed by its request at once, which an owner answers.
            Played::serve(played.agree(BIT_0 | BIT_32, &TOKEN));
            // The broker answers by itself: the request is sent again, where it says.
            drop(played.agree(0, &[]));
            played.serve_dialled();
        });
        assert_eq!(ask("one").unwrap().1, "one");
        assert_eq!(ask("two").unwrap().1, "two");
        let (session, answer) = ask("three").unwrap();
        assert_eq!((session.origin(), answer.as_ref()), (Origin::Broker, &b"three"[..]));
        drop(session);
    });
}

#[test]
fn a_request_behind_the_hello_that_nobody_answers_is_not_sent_again() {
    let world = World::new();
    let played = Played::new(&world);
    let connector = connector(&world).with_handoff();
    let ask = |text: &'static str| blocking::Session::connect_with_request(&connector, LANE, text);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            Played::serve(played.agree(BIT_0 | BIT_32, &TOKEN));
            // Passed on in the way of plain v1, after all.
            drop(played.agree(BIT_0, &TOKEN));
            Played::serve(played.agree(BIT_0 | BIT_32, &TOKEN));
            // Not even a reply.
            let mut client = Wire::of(played.broker.accept());
            client.receive();
            drop(client);
        });
        assert_eq!(ask("one").unwrap().1, "one");
        let error = ask("two").unwrap_err();
        assert!(matches!(&error, FirstRequestError::Request(RequestError::Protocol(_))), "{error}");
        assert_eq!(ask("three").unwrap().1, "three");
        let error = ask("four").unwrap_err();
        let is_closed = matches!(
            &error,
            FirstRequestError::Request(RequestError::Exchange(ExchangeError::Closed { .. }))
        );
        assert!(is_closed, "{error}");
    });
    assert!(
        played.backend.is_left_alone(),
        "nobody was dialled with a request that may have been carried out"
    );
}
