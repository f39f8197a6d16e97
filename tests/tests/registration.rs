//! Backends that run already and register themselves over a control connection (behaviour.md 4; protocol.md,
//! "Extensions").
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::path::PathBuf;
use std::time::Instant;

use broker_protocol::control::{Admittance, Announcement, ControlMessage};
use broker_protocol::prost::Message;
use broker_protocol::wire::{ErrorCode, Frame, Hello, HelloReply, hello_reply};
use broker_tests::{Daemon, PATIENCE, Wire, World, agreed, hello, kill, refused, reply_of};

const BIT_0: u64 = 1;

/// Runs a backend by itself that announces itself to the world's broker.
fn run(world: &World, endpoint: &str, version: &str) -> (Daemon, PathBuf) {
    std::fs::create_dir_all(world.path("own")).unwrap();
    let endpoint = world.endpoint(endpoint);
    let mut command = world.command(&World::program("echo-backend"));
    command.arg("--endpoint").arg(&endpoint).arg("--announce-to").arg(world.socket());
    command.args(["--service", "cache", "--version-of", version]);
    (Daemon::spawn(&mut command), endpoint)
}

fn hello_with(capabilities: u64) -> Hello {
    Hello { client_capabilities: capabilities, ..hello("cache", "1.2.3") }
}

/// Where clients are sent to, once that is as it should be.
fn wait_for(world: &World, is_right: impl Fn(&hello_reply::Result) -> bool) -> hello_reply::Result {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = world.connect().say(&hello_with(BIT_0));
        if is_right(&reply) {
            return reply;
        }
        assert!(Instant::now() < deadline, "{reply:?}");
    }
}

/// Takes passed connections, at this endpoint.
fn takes_offers_at(endpoint: &str) -> impl Fn(&hello_reply::Result) -> bool {
    move |reply| {
        matches!(reply, hello_reply::Result::Negotiated(agreed)
            if agreed.backend_pipe == endpoint && agreed.server_capabilities == BIT_0)
    }
}

const MANY: [&str; 4] = ["--hello-burst", "100000", "--hello-refill", "100000"];

#[test]
fn a_backend_that_runs_already_is_used_while_its_control_connection_is_open() {
    let world = World::new();
    // Whatever the broker starts by itself fails.
    world.define("cache", &["--label", "spawn.args=--fail 3"]);
    let _broker = world.serve(&MANY);
    let (backend, endpoint) = run(&world, "own/b.sock", "1.2.3");
    let endpoint = endpoint.to_str().unwrap();
    wait_for(&world, takes_offers_at(endpoint));
    let mut client = world.connect();
    agreed(client.say(&hello_with(BIT_0)));
    client.receive();
    assert_eq!(client.tell("?pid").parse(), Ok(backend.pid()), "it was passed on");
    let status = world.ask("status");
    assert_eq!(status["backends"][0]["pid"], backend.pid());
    assert_eq!(status["backends"][0]["state"], "running");

    backend.kill();
    wait_for(&world, |reply| matches!(reply, hello_reply::Result::Refused(_)));
    // Its successor, at another endpoint.
    let (_successor, endpoint) = run(&world, "own/c.sock", "1.2.3");
    wait_for(&world, takes_offers_at(endpoint.to_str().unwrap()));
}

#[test]
fn a_backend_outlives_its_broker_and_announces_itself_to_the_next_one() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--fail 3"]);
    let broker = world.serve(&MANY);
    let (backend, endpoint) = run(&world, "own/b.sock", "1.2.3");
    let endpoint = endpoint.to_str().unwrap();
    wait_for(&world, takes_offers_at(endpoint));
    broker.stop();
    let _broker = world.serve(&MANY);
    wait_for(&world, takes_offers_at(endpoint));
    assert_eq!(Wire::connect(endpoint.as_ref()).tell("?pid").parse(), Ok(backend.pid()));
}

#[test]
fn a_backend_that_a_broker_has_started_and_left_is_the_next_one_s_again() {
    let world = World::new();
    world.define("cache", &[]);
    let broker = world.serve(&[&MANY[..], &["--keep-backends"]].concat());
    let first = agreed(world.connect().say(&hello_with(0)));
    let pid = Wire::connect(first.backend_pipe.as_ref()).tell("?pid");
    broker.stop();
    world.define("cache", &["--label", "spawn.args=--fail 3"]);
    let _broker = world.serve(&[&MANY[..], &["--keep-backends"]].concat());
    wait_for(&world, takes_offers_at(&first.backend_pipe));
    assert_eq!(Wire::connect(first.backend_pipe.as_ref()).tell("?pid"), pid);
    kill(pid.parse().unwrap());
}

/// Announces something by hand; the broker's answer, and the connection.
fn announce(world: &World, announcement: Announcement) -> (Admittance, Wire) {
    let mut wire = world.connect();
    wire.send(&ControlMessage::Announcement(announcement).to_frame(5));
    let answer = wire.receive();
    assert_eq!(answer.request_id, 5);
    match ControlMessage::from_frame(answer).unwrap() {
        ControlMessage::Admittance(admittance) => (admittance, wire),
        other => panic!("{other:?}"),
    }
}

fn announcement(version: &str, endpoint: &str) -> Announcement {
    Announcement {
        service_name: "cache".into(),
        service_version: version.into(),
        endpoint: endpoint.into(),
        capabilities: BIT_0,
    }
}

#[test]
fn whoever_announces_what_is_not_so_or_is_taken_is_told_why() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--fail 3"]);
    let _broker = world.serve(&MANY);
    let (backend, _) = run(&world, "own/b.sock", "1.2.3");
    wait_for(
        &world,
        |reply| matches!(reply, hello_reply::Result::Negotiated(agreed) if agreed.server_capabilities == BIT_0),
    );
    let holder = format!("process {}", backend.pid());
    let cases = [
        (announcement("1.2.3", "/run/other.sock"), holder.as_str()),
        (announcement("1.2", "/run/other.sock"), "service_version"),
        (announcement("1.2.4", ""), "endpoint"),
        (Announcement { service_name: "Cache".into(), ..announcement("1.2.4", "/x") }, "service_name"),
    ];
    for (announced, why) in cases {
        let (admittance, mut wire) = announce(&world, announced);
        assert!(!admittance.admitted && admittance.reason.contains(why), "{}", admittance.reason);
        assert_eq!(wire.rest(), [0; 0]);
    }
}

#[test]
fn an_endpoint_that_another_process_serves_is_not_used() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--fail 3"]);
    let _broker = world.serve(&MANY);
    let endpoint = world.endpoint("own/other.sock");
    let _other = world.run_backend(&endpoint);
    // The test announces what is not its own.
    let (admittance, _wire) = announce(&world, announcement("1.2.3", endpoint.to_str().unwrap()));
    assert!(admittance.admitted, "whose it is shows when it is used");
    let refusal = refused(world.connect().say(&hello_with(0)));
    assert_eq!(refusal.code(), ErrorCode::ErrorBackendSpawnFailed, "it was not used: {refusal:?}");
    let health = world.run(&["backend-health", "cache", "--socket", world.socket().to_str().unwrap()]);
    assert!(health.is_success() || !health.stdout.is_empty(), "{health:?}");
}

#[test]
fn what_is_no_announcement_is_refused_like_any_other_frame() {
    let world = World::new();
    let _broker = world.serve(&[]);
    let question = ControlMessage::UsageQuery(broker_protocol::control::UsageQuery {}).to_frame(5);
    for frame in [question.clone(), Frame { payload: vec![0xFF].into(), ..question.clone() }] {
        let mut wire = world.connect();
        wire.send(&frame);
        let reply = wire.receive();
        assert_eq!(reply.request_id, 5);
        let refusal = refused(reply_of(&reply));
        assert_eq!(refusal.code(), ErrorCode::ErrorPeerRejected);
        assert!(HelloReply::decode(reply.payload).is_ok());
    }
}
