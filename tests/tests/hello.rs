//! A client says Hello, and talks to the backend it is sent to.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::collections::BTreeSet;
use std::env::consts::EXE_SUFFIX;
use std::path::Path;

use broker_protocol::PayloadProtocol;
use broker_protocol::prost::Message;
use broker_protocol::wire::hello_reply::Result;
use broker_protocol::wire::{ErrorCode, Frame, Hello};
use broker_tests::{Wire, World, agreed, hello, is_listening, reply_of};
use broker_transport::identity::process_executable;

fn pid_behind(pipe: &str) -> u32 {
    Wire::connect(Path::new(pipe)).tell("?pid").parse().unwrap()
}

#[test]
fn the_backend_is_started_and_answers_and_the_next_hello_finds_it() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    let first = agreed(world.connect().say(&hello("cache", "1.2.3")));
    assert_eq!((first.negotiated_protocol, &first.daemon_version[..]), (1, "1.2.3"));
    assert_eq!(first.keepalive_interval_secs, 1_800);
    assert!(
        first.handle_passed_token.is_empty() && first.server_capabilities == 0 && first.warnings.is_empty()
    );
    assert_eq!(Wire::connect(Path::new(&first.backend_pipe)).tell("are you there?"), "are you there?");

    let second = agreed(world.connect().say(&Hello { client_keepalive_secs: 30, ..hello("cache", "1.2.3") }));
    assert_eq!(second.backend_pipe, first.backend_pipe);
    assert_eq!(second.keepalive_interval_secs, 30);
    assert!(first.connection_id != 0 && second.connection_id != 0);
    assert_ne!(first.connection_id, second.connection_id);
}

#[test]
fn the_reply_echoes_the_request_and_the_connection_ends_with_it() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    let mut wire = world.connect();
    let mut request =
        Frame::request(PayloadProtocol::CONTROL, u64::MAX, hello("cache", "1.0.0").encode_to_vec());
    request.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
    request.tracestate = "rp=1".into();
    wire.send(&request);
    let reply = wire.receive();
    assert_eq!(
        (reply.request_id, &reply.traceparent, &reply.tracestate),
        (u64::MAX, &request.traceparent, &request.tracestate)
    );
    let pipe = agreed(reply_of(&reply)).backend_pipe;
    assert_eq!(wire.rest(), b"");
    let told =
        |name: &str| Wire::connect(Path::new(&pipe)).tell(&format!("?env RUNNING_PROCESS_BROKER_V1_{name}"));
    assert_eq!(told("TRACEPARENT"), request.traceparent, "the Hello that started it");
    assert_eq!(told("TRACESTATE"), request.tracestate);
}

#[test]
fn fifty_hellos_at_once_start_one_backend() {
    let world = World::new();
    world.define("cache", &["--allow-version", "1.0.0", "--label", "spawn.args=--delay-ms 100"]);
    let _broker = world.serve(&[]);
    let mut clients: Vec<_> = (0..50).map(|_| world.connect()).collect();
    let request = Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", "1.0.0").encode_to_vec());
    clients.iter_mut().for_each(|client| client.send(&request));
    let pipes: BTreeSet<_> =
        clients.iter_mut().map(|client| agreed(reply_of(&client.receive())).backend_pipe).collect();
    assert_eq!(pipes.len(), 1);
    let metrics = world.run(&["metrics", "--socket", world.socket().to_str().unwrap()]).stdout;
    let started = r#"spawn_attempts_total{service="cache",version="1.0.0",outcome="success"} 1"#;
    assert!(metrics.contains(started), "{metrics}");
}

#[test]
fn two_versions_run_side_by_side_each_from_its_own_directory() {
    let world = World::new();
    let versions = world.path("versions");
    let name = format!("echo{EXE_SUFFIX}");
    for version in ["1.0.0", "2.0.0"] {
        std::fs::create_dir_all(versions.join(version)).unwrap();
        std::fs::copy(World::program("echo-backend"), versions.join(version).join(&name)).unwrap();
    }
    let binary = versions.join("1.0.0").join(&name);
    let added = world.run(&[
        "service",
        "add",
        "cache",
        "--binary",
        binary.to_str().unwrap(),
        "--version-dir",
        versions.to_str().unwrap(),
    ]);
    assert!(added.is_success(), "{added:?}");
    let _broker = world.serve(&[]);
    let old = agreed(world.connect().say(&hello("cache", "1.0.0")));
    let new = agreed(world.connect().say(&hello("cache", "2.0.0")));
    let executable = |pipe: &str| process_executable(pid_behind(pipe)).unwrap().canonicalize().unwrap();
    for (version, agreement) in [("1.0.0", &old), ("2.0.0", &new)] {
        let expected = versions.join(version).join(&name).canonicalize().unwrap();
        assert_eq!(executable(&agreement.backend_pipe), expected);
    }
    assert_eq!(pid_behind(&old.backend_pipe), pid_behind(&old.backend_pipe));
}

#[test]
fn a_backend_gets_its_environment() {
    let world = World::new();
    world.define("cache", &["--label", "env.COLOUR=blue", "--label", "spawn.args="]);
    let _broker = world.serve(&["--instance", "inst:test"]);
    let pipe = agreed(world.connect().say(&hello("cache", "1.2.3-rc.1"))).backend_pipe;
    let mut backend = Wire::connect(Path::new(&pipe));
    let mut told = |name: &str| backend.tell(&format!("?env {name}"));
    assert_eq!(told("RUNNING_PROCESS_BROKER_V1_SERVICE_NAME"), "cache");
    assert_eq!(told("RUNNING_PROCESS_BROKER_V1_SERVICE_VERSION"), "1.2.3-rc.1");
    assert_eq!(told("RUNNING_PROCESS_BROKER_V1_BACKEND_PIPE"), pipe);
    assert_eq!(told("RUNNING_PROCESS_BROKER_V1_INSTANCE"), "inst:test");
    assert_eq!(told("RUNNING_PROCESS_BROKER_V1_BACKEND_NAMESPACE").len(), 16);
    assert_eq!(told("COLOUR"), "blue");
    let cwd = backend.tell("?cwd");
    let neutral = if cfg!(windows) { std::env::var("SystemRoot").unwrap() } else { "/".into() };
    assert!(cwd.eq_ignore_ascii_case(&neutral), "{cwd}");
}

// By what /proc tells.
#[cfg(target_os = "linux")]
#[test]
fn a_backend_has_no_descriptor_that_it_was_not_given_and_a_session_of_its_own() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    let pipe = agreed(world.connect().say(&hello("cache", "1.2.3"))).backend_pipe;
    let mut backend = Wire::connect(Path::new(&pipe));
    let pid: u32 = backend.tell("?pid").parse().unwrap();
    let session = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = session.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    assert_eq!(
        (fields[2], fields[3]),
        (&pid.to_string()[..], &pid.to_string()[..]),
        "its own group and session"
    );
    // What it has beside these it has opened itself; the broker's listener is not among it.
    let target = |number: u32| std::fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
    assert_eq!((target(0), target(1)), ("/dev/null".into(), "/dev/null".into()));
    assert!(target(2).to_string_lossy().starts_with("pipe:"));
    let broker_socket = std::fs::read_to_string("/proc/net/unix").unwrap();
    let inode = broker_socket
        .lines()
        .find(|line| line.ends_with(world.socket().to_str().unwrap()))
        .and_then(|line| line.split_ascii_whitespace().nth(6))
        .unwrap()
        .to_owned();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        assert_ne!(target.to_string_lossy(), format!("socket:[{inode}]"));
    }
}

#[cfg(windows)]
#[test]
fn a_listener_that_cannot_be_passed_is_told_with_the_remedy() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.activation=listen-fds"]);
    let _broker = world.serve(&[]);
    let refusal = broker_tests::refused(world.connect().say(&hello("cache", "1.0.0")));
    assert_eq!(refusal.code(), ErrorCode::ErrorBackendSpawnFailed);
    let cause = &refusal.details["cause"];
    assert!(cause.contains("set the label spawn.activation to bind"), "{cause}");
}

// On Windows a listener cannot be handed on.
#[cfg(unix)]
#[test]
fn a_backend_can_be_given_its_listening_socket() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.activation=listen-fds"]);
    let _broker = world.serve(&[]);
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    let mut backend = Wire::connect(Path::new(&pipe));
    assert_eq!(backend.tell("?env LISTEN_FDS"), "1");
    assert_eq!(backend.tell("?env LISTEN_FDNAMES"), "backend");
    assert_eq!(backend.tell("?env LISTEN_PID"), backend.tell("?pid"));
}

// On Windows a listener cannot be handed on.
#[cfg(unix)]
#[test]
fn a_backend_with_its_listening_socket_is_named_before_it_runs() {
    let world = World::new();
    let args = "spawn.args=--hang";
    let limit = "spawn.timeout_ms=60000";
    world.define("cache", &["--label", "spawn.activation=listen-fds", "--label", args, "--label", limit]);
    let _broker = world.serve(&[]);
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    // It never accepts, and never will; the first bytes are taken all the same.
    Wire::connect(Path::new(&pipe)).write(b"the first bytes");
    assert_eq!(agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe, pipe);
}

#[test]
fn a_registered_backend_is_used_and_when_it_is_gone_one_is_started() {
    let world = World::new();
    world.define("cache", &[]);
    std::fs::create_dir_all(world.path("own")).unwrap();
    let endpoint = world.endpoint("own/e.sock");
    let mut registered = world
        .command(&World::program("echo-backend"))
        .args(["--endpoint", endpoint.to_str().unwrap()])
        .spawn()
        .unwrap();
    let option = format!("service=cache,version=1.0.0,endpoint={}", endpoint.display());
    let _broker = world.serve(&["--backend", &option]);
    // It may not listen yet, in which case the broker starts one of its own: wait for its socket.
    while !is_listening(&endpoint) {
        std::thread::yield_now();
    }
    let agreement = agreed(world.connect().say(&hello("cache", "1.0.0")));
    assert_eq!(agreement.backend_pipe, endpoint.to_str().unwrap());
    assert_eq!(pid_behind(&agreement.backend_pipe), registered.id());

    registered.kill().unwrap();
    registered.wait().unwrap();
    // The broker hears of the death by itself; until then it may still name the old endpoint.
    let started = loop {
        match world.connect().say(&hello("cache", "1.0.0")) {
            Result::Negotiated(agreement) if agreement.backend_pipe == endpoint.to_str().unwrap() => {}
            Result::Negotiated(agreement) => break agreement,
            // Whoever asks as fast as this may be told to wait.
            Result::Refused(refused) => assert_eq!(refused.code(), ErrorCode::ErrorRateLimited),
        }
    };
    assert_ne!(pid_behind(&started.backend_pipe), registered.id());
}

// By what /proc tells.
#[cfg(target_os = "linux")]
#[test]
fn services_of_one_process_cost_the_broker_one_descriptor() {
    let world = World::new();
    let services: Vec<_> = (0..20).map(|number| format!("cache-{number}")).collect();
    services.iter().for_each(|service| world.define(service, &[]));
    std::fs::create_dir_all(world.path("own")).unwrap();
    let endpoint = world.endpoint("own/e.sock");
    let mut command = world.command(&World::program("echo-backend"));
    let mut backend = broker_tests::Daemon::spawn(command.args(["--endpoint", endpoint.to_str().unwrap()]));
    let deadline = std::time::Instant::now() + broker_tests::PATIENCE;
    while !is_listening(&endpoint) {
        assert!(std::time::Instant::now() < deadline, "it does not listen");
        std::thread::yield_now();
    }
    let option =
        |service| format!("--backend=service={service},version=1.0.0,endpoint={}", endpoint.display());
    let options: Vec<_> = services.iter().map(option).collect();
    let mut broker = world.serve(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let descriptors = |broker: &broker_tests::Daemon| {
        std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap().count()
    };
    let ask = |service: &String| agreed(world.connect().say(&hello(service, "1.0.0"))).backend_pipe;
    assert_eq!(ask(&services[0]), endpoint.to_str().unwrap());
    let one = descriptors(&broker);
    for service in &services {
        assert_eq!(ask(service), endpoint.to_str().unwrap());
    }
    // What was answered last may not be closed yet, and the file of events is opened at some point.
    while descriptors(&broker) >= one + services.len() / 2 {
        assert!(
            std::time::Instant::now() < deadline,
            "{} descriptors, {one} with one service",
            descriptors(&broker)
        );
        std::thread::yield_now();
    }

    backend.kill();
    backend.wait();
    for _ in &services {
        broker.wait_for_line("DIED");
    }
}

#[test]
fn a_definition_that_is_replaced_is_picked_up_by_the_next_hello() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    world.define("cache", &["--label", "spawn.colour=red"]);
    let warned = agreed(world.connect().say(&hello("cache", "1.0.0")));
    assert!(
        warned.warnings.len() == 1 && warned.warnings[0].contains("spawn.colour"),
        "{:?}",
        warned.warnings
    );
    world.define("cache", &["--min-version", "2.0.0"]);
    broker_tests::refused(world.connect().say(&hello("cache", "1.0.0")));
    world.define("cache", &[]);
    assert!(agreed(world.connect().say(&hello("cache", "1.0.0"))).warnings.is_empty());
}
