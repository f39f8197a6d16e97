//! What gets into a backend's environment, and into the log, and what does not.

use std::path::Path;

use broker_protocol::PayloadProtocol;
use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, Hello};
use broker_tests::{Daemon, Wire, World, agreed, hello, reply_of};

#[test]
fn a_label_cannot_set_a_variable_that_the_broker_sets_nor_one_that_is_no_name() {
    let world = World::new();
    let backend = World::program("echo-backend");
    let names = [
        "RUNNING_PROCESS_BROKER_V1_SERVICE_NAME",
        "RUNNING_PROCESS_BROKER_V1_CONTROL_FD",
        "RUNNING_PROCESS_BROKER_V1_ANYTHING",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "NOTIFY_SOCKET",
        "",
        "1A",
        "A B",
        "A\nB",
        "A.B",
    ];
    for name in names {
        let label = format!("env.{name}=x");
        let failed =
            world.run(&["service", "add", "cache", "--binary", backend.to_str().unwrap(), "--label", &label]);
        assert!(!failed.is_success() && failed.stderr.contains("env."), "{label:?}: {failed:?}");
    }
}

#[test]
fn a_backend_gets_what_its_definition_says_and_nothing_that_was_meant_for_the_broker_alone() {
    let world = World::new();
    // The definition is the user's own word, like the program that it names.
    world.define("cache", &["--label", "env.LD_LIBRARY_PATH=/nowhere", "--label", "env.A=b=c"]);
    let socket = world.socket();
    let mut command = world.brokerd(&["serve", "--socket", socket.to_str().unwrap()]);
    let for_the_broker = [
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "RUNNING_PROCESS_BROKER_V1_SERVICE_VERSION",
        "RUNNING_PROCESS_BROKER_V1_TRACEPARENT",
        "RUNNING_PROCESS_BROKER_V1_ANYTHING",
    ];
    command.envs(for_the_broker.map(|name| (name, "the broker's")));
    let _broker = Daemon::start(&mut command);
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    let mut backend = Wire::connect(Path::new(&pipe));
    let mut told = |name: &str| backend.tell(&format!("?env {name}"));
    assert_eq!((&told("LD_LIBRARY_PATH")[..], &told("A")[..]), ("/nowhere", "b=c"));
    for name in for_the_broker {
        assert_ne!(told(name), "the broker's", "{name}");
    }
    assert_eq!(told("RUNNING_PROCESS_BROKER_V1_SERVICE_VERSION"), "1.0.0");
}

#[test]
fn what_a_client_says_makes_no_variable_and_no_line_of_the_log() {
    let world = World::new();
    world.define("cache", &[]);
    let socket = world.socket();
    let mut command = world.brokerd(&["serve", "--socket", socket.to_str().unwrap()]);
    let broker = Daemon::start(command.env("RUST_LOG", "trace"));
    let hostile = "x\nFORGED=1\r\n2026-01-01T00:00:00Z  INFO forged\x1b[2J";
    let hello = Hello {
        request_id: hostile.to_owned(),
        client_lib_name: "lib\nFORGED=1".to_owned(),
        client_version: "1\nFORGED=1".to_owned(),
        ..hello("cache", "1.0.0")
    };
    let frame = Frame {
        traceparent: hostile.to_owned(),
        tracestate: format!("{hostile}\0LD_PRELOAD=/x"),
        ..Frame::request(PayloadProtocol::CONTROL, 7, hello.encode_to_vec())
    };
    let mut client = world.connect();
    client.send(&frame);
    let pipe = agreed(reply_of(&client.receive())).backend_pipe;
    let mut backend = Wire::connect(Path::new(&pipe));
    let mut told = |name: &str| backend.tell(&format!("?env {name}"));
    // One variable, whatever is in it; and none where it could not be one.
    assert_eq!(told("RUNNING_PROCESS_BROKER_V1_TRACEPARENT"), hostile);
    assert_eq!(told("RUNNING_PROCESS_BROKER_V1_TRACESTATE"), "");
    assert_eq!((&told("FORGED")[..], &told("LD_PRELOAD")[..]), ("", ""));
    // A refusal's text is a client's own words, too.
    client = world.connect();
    let unknown = Hello { service_name: "no\nFORGED=1".to_owned(), ..hello };
    client.send(&Frame::request(PayloadProtocol::CONTROL, 8, unknown.encode_to_vec()));
    client.receive();
    let log = broker.stop_and_hear();
    let is_forged = |line: &&str| ["FORGED", "2026-01-01"].iter().any(|begin| line.starts_with(begin));
    let forged: Vec<_> =
        log.lines().filter(|line| is_forged(line) || line.contains(['\r', '\x1b'])).collect();
    assert!(log.contains("FORGED"), "what was said is in the log: {log}");
    assert_eq!(forged, [""; 0], "{log}");
}
