//! What an application that links `broker-client` lives through: a broker and backends of its own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::time::Instant;

use broker_client::{
    Connector, ExchangeError, Hello, HelloError, Origin, PayloadProtocol, RefusedKind, RequestError, Session,
    SessionError, blocking,
};
use broker_tests::{Daemon, Finished, PATIENCE, World};

const LANE: PayloadProtocol = PayloadProtocol::new(0xF001);

/// Set in the process that a test starts of itself.
const CHILD_VARIABLE: &str = "BROKER_TESTS_CHILD";

fn hello() -> Hello {
    Hello::new("cache".parse().unwrap(), "1.2.3".parse().unwrap())
}

/// Who answers, by process id.
fn pid_behind(session: &mut blocking::Session) -> u32 {
    let answer = session.request(LANE, "?pid").unwrap();
    std::str::from_utf8(&answer).unwrap().parse().unwrap()
}

/// The broker hears of a backend's death by itself; until then it may still name the dead one.
fn connect_to_a_living_backend(connector: impl Fn() -> Connector) -> blocking::Session {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "the broker still names the dead one");
        match blocking::Session::connect(&connector()) {
            Ok(session) => return session,
            Err(SessionError::Backend(_)) => {}
            // Whoever asks as fast as this may be told to wait.
            Err(SessionError::Hello(HelloError::Refused(refused)))
                if matches!(refused.kind, RefusedKind::RateLimited { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_service_is_reached_by_its_name_alone() {
    if std::env::var_os(CHILD_VARIABLE).is_some() {
        return reach_it_by_name();
    }
    let world = World::new();
    world.define("cache", &[]);
    let _broker = Daemon::start(&mut world.brokerd(&["serve", "--instance", "svc:cache"]));
    let outcome = Finished::of(
        world
            .command(&std::env::current_exe().unwrap())
            .args(["--exact", "a_service_is_reached_by_its_name_alone", "--nocapture"])
            .env(CHILD_VARIABLE, "1"),
    );
    assert!(outcome.is_success() && outcome.stdout.contains("1 passed"), "{outcome:?}");
}

fn reach_it_by_name() {
    let connector = Connector::new(hello());
    let mut first = blocking::Session::connect(&connector).unwrap();
    assert_eq!(first.request(LANE, "good day").unwrap(), "good day");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut second = Session::connect(&connector).await.unwrap();
        assert_eq!((first.origin(), second.origin()), (Origin::Broker, Origin::Memory));
        assert_eq!(second.request(LANE, "good day").await.unwrap(), "good day");
    });
}

#[test]
fn a_backend_that_dies_ends_its_sessions_and_the_next_one_gets_another() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    let connector = Connector::new(hello()).broker(world.socket());
    let mut session = blocking::Session::connect(&connector).unwrap();
    let dead = pid_behind(&mut session);
    let error = session.request(LANE, "?exit 3").unwrap_err();
    assert!(matches!(error, RequestError::Exchange(ExchangeError::Closed { .. })), "{error}");
    assert!(broker_tests::has_died(dead));

    let mut next = connect_to_a_living_backend(|| connector.clone());
    assert_eq!(next.origin(), Origin::Broker);
    assert_ne!(pid_behind(&mut next), dead);
}

#[test]
fn an_endpoint_that_another_process_has_taken_over_is_not_used_without_a_hello() {
    let world = World::new();
    world.define("cache", &[]);
    let endpoint = world.endpoint("own/e.sock");
    let mut registered = world.run_backend(&endpoint);
    let option = format!("service=cache,version=1.2.3,endpoint={}", endpoint.display());
    let _broker = world.serve(&["--backend", &option]);
    let connector = Connector::new(hello()).broker(world.socket());
    let mut session = blocking::Session::connect(&connector).unwrap();
    assert_eq!(pid_behind(&mut session), registered.pid());
    assert_eq!(blocking::Session::connect(&connector).unwrap().origin(), Origin::Memory);

    registered.kill();
    assert_ne!(registered.wait(), Some(0));
    // In another version, for all the client knows.
    let _successor = world.run_backend(&endpoint);
    assert_eq!(blocking::Session::connect(&connector).unwrap().origin(), Origin::Broker);
}

#[test]
fn a_new_process_finds_on_disk_what_an_earlier_one_heard_from_the_broker() {
    if std::env::var_os(CHILD_VARIABLE).is_some() {
        return tell_origin_and_backend();
    }
    let world = World::new();
    world.define("cache", &[]);
    let _broker = Daemon::start(&mut world.brokerd(&["serve", "--instance", "svc:cache"]));
    let process = || {
        let test = "a_new_process_finds_on_disk_what_an_earlier_one_heard_from_the_broker";
        let mut command = world.command(&std::env::current_exe().unwrap());
        let outcome = Finished::of(command.args(["--exact", test, "--nocapture"]).env(CHILD_VARIABLE, "1"));
        assert!(outcome.is_success(), "{outcome:?}");
        let told = outcome.stdout.lines().find_map(|line| line.split_once(TOLD));
        let (origin, backend) = told.unwrap().1.split_once(' ').unwrap();
        (origin.to_owned(), backend.parse::<u32>().unwrap())
    };
    let (origin, backend) = process();
    assert_eq!(origin, "Broker");
    assert_eq!(process(), ("Disk".to_owned(), backend));

    broker_tests::kill(backend);
    assert!(broker_tests::has_died(backend));
    let (origin, successor) = process();
    assert_eq!(origin, "Broker");
    assert_ne!(successor, backend);
    assert_eq!(process(), ("Disk".to_owned(), successor));
}

/// What the line with a child's findings has before them.
const TOLD: &str = "origin and backend: ";

fn tell_origin_and_backend() {
    // As a process does once: what one attempt remembers is not there for the next.
    let connector = || Connector::new(hello()).with_disk_cache();
    let mut session = connect_to_a_living_backend(connector);
    println!("{TOLD}{:?} {}", session.origin(), pid_behind(&mut session));
}

#[test]
fn an_endpoint_on_disk_that_another_process_has_taken_over_is_not_used_without_a_hello() {
    let world = World::new();
    world.define("cache", &[]);
    let endpoint = world.endpoint("own/e.sock");
    let mut registered = world.run_backend(&endpoint);
    let option = format!("service=cache,version=1.2.3,endpoint={}", endpoint.display());
    let _broker = world.serve(&["--backend", &option]);
    let connector =
        || Connector::new(hello()).broker(world.socket()).with_disk_cache_in(world.path("remembered"));
    let mut session = blocking::Session::connect(&connector()).unwrap();
    assert_eq!(pid_behind(&mut session), registered.pid());
    assert_eq!(blocking::Session::connect(&connector()).unwrap().origin(), Origin::Disk);

    registered.kill();
    assert_ne!(registered.wait(), Some(0));
    let _successor = world.run_backend(&endpoint);
    assert_eq!(blocking::Session::connect(&connector()).unwrap().origin(), Origin::Broker);
}
