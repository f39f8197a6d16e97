//! Connections that a broker passes to a backend over its control connection, with clients that know only
//! bytes (protocol.md, "Extensions").
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::time::Instant;

use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, HandoffAck, Hello, Negotiated};
use broker_tests::{Daemon, PATIENCE, Wire, World, agreed, frame_of, hello, reply_of};

const BIT_0: u64 = 1;
const BIT_32: u64 = 1 << 32;

/// A broker whose backend runs and has a control connection.
struct Scene {
    world: World,
    broker: Daemon,
    at_rest: usize,
}

impl Scene {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(definition: &[&str]) -> Self {
        let world = World::new();
        world.define("cache", definition);
        // As many Hellos as a test likes to say.
        let broker = world.serve(&["--hello-burst", "100000", "--hello-refill", "100000"]);
        let scene = Self { world, broker, at_rest: 0 };
        // The announcement may come a moment after the first agreement.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (mut client, negotiated) = scene.say(BIT_0);
            if !negotiated.handle_passed_token.is_empty() {
                client.receive();
                break;
            }
            assert!(Instant::now() < deadline, "no control connection");
        }
        let at_rest = scene.broker.descriptors_at_rest();
        Self { at_rest, ..scene }
    }

    /// Says Hello; the reply, from whoever wrote it.
    fn say(&self, capabilities: u64) -> (Wire, Negotiated) {
        let mut client = self.world.connect();
        let negotiated = agreed(client.say(&hello_with(capabilities)));
        (client, negotiated)
    }

    fn backend_pid(&self) -> u32 {
        Wire::connect(self.say(0).1.backend_pipe.as_ref()).tell("?pid").parse().unwrap()
    }
}

fn hello_with(capabilities: u64) -> Hello {
    Hello { client_capabilities: capabilities, ..hello("cache", "1.2.3") }
}

fn wire(frame: &Frame) -> Vec<u8> {
    frame_of(&frame.encode_to_vec())
}

fn hello_frame(capabilities: u64) -> Frame {
    Frame {
        envelope_version: 1,
        request_id: 7,
        traceparent: "00-trace".into(),
        payload: hello_with(capabilities).encode_to_vec().into(),
        ..Frame::default()
    }
}

fn request(id: u64, text: &str) -> Frame {
    Frame {
        envelope_version: 1,
        payload_protocol: 0xF001,
        request_id: id,
        payload: text.to_owned().into(),
        ..Frame::default()
    }
}

#[test]
fn a_plain_client_gets_its_reply_from_the_broker_and_an_event() {
    let scene = Scene::new();
    let (mut client, negotiated) = scene.say(BIT_0);
    assert_eq!(negotiated.server_capabilities, BIT_0);
    let event = client.receive();
    assert_eq!((event.kind, event.payload_protocol, event.request_id), (2, 0xD0FF, 7));
    let ack = HandoffAck::decode(event.payload).unwrap();
    assert!(ack.accepted);
    assert_eq!((ack.token, ack.correlation_id), (negotiated.handle_passed_token, negotiated.connection_id));
    assert_eq!(client.tell("adopted"), "adopted");
}

#[test]
fn early_data_is_answered_right_behind_the_reply_of_the_new_owner() {
    let scene = Scene::new();
    let mut client = scene.world.connect();
    client.write(&[wire(&hello_frame(BIT_0 | BIT_32)), wire(&request(9, "early"))].concat());
    let reply = client.receive();
    assert_eq!((reply.request_id, reply.traceparent.as_str()), (7, "00-trace"));
    let negotiated = agreed(reply_of(&reply));
    assert_eq!(negotiated.server_capabilities, BIT_0 | BIT_32);
    assert_eq!(negotiated.handle_passed_token.len(), 16);
    let answer = client.receive();
    assert_eq!((answer.request_id, answer.payload.as_ref()), (9, &b"early"[..]));
    assert_eq!(client.tell("and more"), "and more");
    let (pid, adopted) = (scene.backend_pid().to_string(), client.tell("?pid"));
    assert_eq!(adopted, pid, "the backend itself has the connection");
}

#[test]
fn every_kind_of_early_data_reaches_the_backend_whole() {
    let scene = Scene::new();
    for length in [0, 1, 16, 4_096, 60_000, 100_000] {
        let text = "x".repeat(length);
        let mut client = scene.world.connect();
        client.write(&[wire(&hello_frame(BIT_0 | BIT_32)), wire(&request(9, &text))].concat());
        agreed(reply_of(&client.receive()));
        assert!(client.receive().payload == text.as_bytes(), "{length}");
    }
}

#[test]
fn a_client_without_bit_0_dials() {
    let scene = Scene::new();
    for capabilities in [0, BIT_32] {
        let (mut client, negotiated) = scene.say(capabilities);
        assert_eq!((negotiated.server_capabilities, negotiated.handle_passed_token.len()), (0, 0));
        assert_eq!(client.rest(), [0; 0]);
    }
}

#[test]
fn a_reply_that_is_too_long_to_travel_is_written_by_the_broker_without_a_token() {
    let scene = Scene::new();
    let mut client = scene.world.connect();
    let traceparent = "x".repeat(10_000);
    client.send(&Frame { traceparent: traceparent.clone(), ..hello_frame(BIT_0 | BIT_32) });
    let reply = client.receive();
    assert_eq!(reply.traceparent, traceparent);
    let negotiated = agreed(reply_of(&reply));
    assert_eq!((negotiated.server_capabilities, negotiated.handle_passed_token.len()), (0, 0));
    assert_eq!(scene.world.handoffs("unsent"), 1);
}

#[test]
fn nothing_is_left_of_a_thousand_handoffs() {
    let scene = Scene::new();
    let accepted = scene.world.handoffs("accepted");
    for round in 0..100 {
        let clients: Vec<_> = (0..10)
            .map(|number| {
                let mut client = scene.world.connect();
                let capabilities = if number % 2 == 0 { BIT_0 } else { BIT_0 | BIT_32 };
                client.send(&hello_frame(capabilities));
                client
            })
            .collect();
        for (number, mut client) in clients.into_iter().enumerate() {
            let reply = client.receive();
            assert_eq!(agreed(reply_of(&reply)).handle_passed_token.len(), 16);
            if number % 2 == 0 {
                client.receive();
            }
            assert_eq!(client.tell(&round.to_string()), round.to_string());
        }
    }
    scene.broker.wait_for_descriptors(scene.at_rest);
    assert_eq!(scene.world.handoffs("accepted"), accepted + 1_000);
    assert_eq!(
        scene.world.handoffs("unsent") + scene.world.handoffs("expired") + scene.world.handoffs("lost"),
        0
    );
}

// Nothing stops a process and lets it go on from outside on Windows.
#[cfg(unix)]
#[test]
fn a_backend_that_dies_with_offers_out_ends_their_connections() {
    let scene = Scene::new();
    let pid = scene.backend_pid();
    let stop = |signal| rustix::process::kill_process(pid_of(pid), signal).unwrap();
    stop(rustix::process::Signal::STOP);
    let agreements = scene.world.agreements();
    let mut early = scene.world.connect();
    early.write(&[wire(&hello_frame(BIT_0 | BIT_32)), wire(&request(9, "early"))].concat());
    let (mut plain, _) = scene.say(BIT_0);
    // Somebody else is served meanwhile.
    assert_eq!(scene.say(0).1.server_capabilities, 0);
    // Whoever came later may have been answered sooner.
    let deadline = Instant::now() + PATIENCE;
    while scene.world.agreements() < agreements + 3 {
        assert!(Instant::now() < deadline, "the first one is not on offer");
    }
    stop(rustix::process::Signal::KILL);
    assert_eq!(early.rest(), [0; 0], "whoever gets no reply knows that it has to ask again");
    assert_eq!(plain.rest(), [0; 0]);
    scene.broker.wait_for_descriptors(scene.at_rest);
    assert_eq!(scene.world.handoffs("lost"), 2);
}

// Nothing stops a process and lets it go on from outside on Windows.
#[cfg(unix)]
#[test]
fn a_backend_that_does_not_answer_is_plain_until_it_does() {
    let scene = Scene::new();
    let pid = scene.backend_pid();
    let handoff = || scene.world.ask("dump")["backend_table"][0]["handoff"].clone();
    assert_eq!(handoff(), "control");
    let stop = |signal| rustix::process::kill_process(pid_of(pid), signal).unwrap();
    stop(rustix::process::Signal::STOP);
    let mut early = scene.world.connect();
    early.write(&[wire(&hello_frame(BIT_0 | BIT_32)), wire(&request(9, "early"))].concat());
    // The broker's deadline of 5 s for the answer; until then it has a copy.
    let deadline = Instant::now() + PATIENCE;
    while scene.world.handoffs("expired") == 0 {
        assert!(Instant::now() < deadline, "the offer does not expire");
    }
    scene.broker.wait_for_descriptors(scene.at_rest);
    assert_eq!(scene.say(BIT_0).1.server_capabilities, 0, "it has been silent");
    assert_eq!(handoff(), "dial-only");
    stop(rustix::process::Signal::CONT);
    // It takes what it was given, as nobody else has it.
    agreed(reply_of(&early.receive()));
    assert_eq!(early.receive().payload, "early");
    let deadline = Instant::now() + PATIENCE;
    while scene.say(BIT_0).1.server_capabilities == 0 {
        assert!(Instant::now() < deadline, "it has spoken again");
    }
}

#[cfg(unix)]
fn pid_of(number: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(number.try_into().unwrap()).unwrap()
}

// Nothing stops a process and lets it go on from outside on Windows.
#[cfg(unix)]
#[test]
fn a_stopped_backend_has_at_most_64_offers_and_delays_nobody() {
    let scene = Scene::new();
    let pid = scene.backend_pid();
    rustix::process::kill_process(pid_of(pid), rustix::process::Signal::STOP).unwrap();
    let _out: Vec<_> = (0..64)
        .map(|_| {
            let (client, negotiated) = scene.say(BIT_0);
            assert_eq!(negotiated.server_capabilities, BIT_0);
            client
        })
        .collect();
    let (mut client, negotiated) = scene.say(BIT_0 | BIT_32);
    assert_eq!((negotiated.server_capabilities, negotiated.handle_passed_token.len()), (0, 0));
    assert_eq!(client.rest(), [0; 0]);
    rustix::process::kill_process(pid_of(pid), rustix::process::Signal::CONT).unwrap();
}

// On Windows a listener cannot be handed on.
#[cfg(unix)]
#[test]
fn a_backend_that_is_given_its_listener_has_a_control_connection_too() {
    let scene = Scene::with(&["--label", "spawn.activation=listen-fds"]);
    let mut client = scene.world.connect();
    client.write(&[wire(&hello_frame(BIT_0 | BIT_32)), wire(&request(9, "early"))].concat());
    agreed(reply_of(&client.receive()));
    assert_eq!(client.receive().payload, "early");
}

// Windows executes no scripts.
#[cfg(unix)]
#[test]
fn a_started_backend_that_knows_nothing_of_control_connections_is_dialled_for_each_offer() {
    let world = World::new();
    let offers_at = world.path("own/h.sock");
    let backend = world.script(
        "plain-backend",
        &format!(
            "unset RUNNING_PROCESS_BROKER_V1_CONTROL_FD RUNNING_PROCESS_BROKER_V1_CONTROL_PIPE\n\
             exec {} --offers-at {}",
            World::program("echo-backend").display(),
            offers_at.display()
        ),
    );
    let label = format!("handoff.endpoint={}", offers_at.display());
    let added =
        world.run(&["service", "add", "cache", "--binary", backend.to_str().unwrap(), "--label", &label]);
    assert!(added.is_success(), "{added:?}");
    let _broker = world.serve(&[]);
    let mut client = world.connect();
    let negotiated = agreed(client.say(&hello_with(BIT_0)));
    assert_eq!((negotiated.server_capabilities, negotiated.handle_passed_token.len()), (BIT_0, 16));
    assert!(HandoffAck::decode(client.receive().payload).unwrap().accepted);
    assert_eq!(client.tell("adopted"), "adopted");
    assert_eq!(agreed(world.connect().say(&hello_with(BIT_0 | BIT_32))).server_capabilities, 0);
}

#[test]
fn a_backend_is_not_idle_while_a_connection_that_was_passed_to_it_is_open() {
    let scene = Scene::with(&["--label", "idle.timeout_secs=1"]);
    let pid = scene.backend_pid();
    let (mut client, _) = scene.say(BIT_0);
    client.receive();
    // The broker looks once its timeout is over, and finds the one connection; then it waits as long again.
    let looked_at = Instant::now();
    while looked_at.elapsed() < std::time::Duration::from_millis(2_500) {
        assert_eq!(client.tell("busy"), "busy");
    }
    assert_eq!(client.tell("?pid"), pid.to_string());
    drop(client);
    assert!(broker_tests::has_died(pid), "it is idle now");
    let deadline = Instant::now() + PATIENCE;
    // The broker hears of it a moment later.
    while !scene.world.ask("dump").to_string().contains("DIED_IDLE") {
        assert!(Instant::now() < deadline, "{}", scene.world.ask("dump"));
    }
}

// Nothing stops a process and lets it go on from outside on Windows.
#[cfg(unix)]
#[test]
fn a_backend_that_is_too_busy_to_say_so_is_not_idle() {
    let scene = Scene::with(&["--label", "idle.timeout_secs=1"]);
    let mut client = scene.world.connect();
    client.send(&hello_frame(BIT_0 | BIT_32));
    agreed(reply_of(&client.receive()));
    let pid: u32 = client.tell("?pid").parse().unwrap();
    // Its one thread does not come round while the broker asks, twice.
    rustix::process::kill_process(pid_of(pid), rustix::process::Signal::STOP).unwrap();
    let stopped = Instant::now();
    while stopped.elapsed() < std::time::Duration::from_millis(4_500) {
        assert_eq!(scene.world.ask("status")["backends"][0]["state"], "running");
    }
    rustix::process::kill_process(pid_of(pid), rustix::process::Signal::CONT).unwrap();
    assert_eq!(client.tell("still here"), "still here");
}

// By another process's limits (prlimit).
#[cfg(target_os = "linux")]
#[test]
fn a_backend_without_a_free_descriptor_rejects_an_offer_and_takes_the_next() {
    let scene = Scene::new();
    let pid = scene.backend_pid();
    let limit = |soft: u64| {
        let limit = rustix::process::Rlimit { current: Some(soft), maximum: Some(4_096) };
        rustix::process::prlimit(Some(pid_of(pid)), rustix::process::Resource::Nofile, limit).unwrap();
    };
    // It has the first three for as long as it lives, so none is free.
    limit(3);
    let mut early = scene.world.connect();
    early.send(&hello_frame(BIT_0 | BIT_32));
    let negotiated = agreed(reply_of(&early.receive()));
    assert_eq!(negotiated.server_capabilities, 0, "the broker answers, without a promise");
    assert_eq!(scene.world.handoffs("rejected"), 1);
    limit(1_024);
    assert_eq!(scene.say(BIT_0).1.server_capabilities, BIT_0, "it still takes offers");
}

#[test]
fn backends_are_asked_to_release_what_they_hold_open() {
    let scene = Scene::new();
    let socket = scene.world.socket();
    let release = |service: &str, options: &[&str]| {
        let arguments = ["release-handles", service, "--socket", socket.to_str().unwrap()];
        scene.world.run(&[&arguments[..], options].concat())
    };
    let pid = scene.backend_pid();
    let released = release("cache", &[]);
    assert_eq!((released.code(), released.stdout), (0, format!("cache 1.2.3 (pid {pid}) released\n")));
    let json: serde_json::Value = serde_json::from_str(&release("cache", &["--json"]).stdout).unwrap();
    assert_eq!(
        (&json["command"], &json["backends"][0]["released"]),
        (&"release-handles".into(), &true.into())
    );
    let held = release("cache", &["--path", "/held"]);
    assert_eq!(held.code(), 1);
    let whole = std::path::absolute("/held").unwrap();
    let expected = format!("not released: {} is in use\n", whole.display());
    assert!(held.stdout.ends_with(&expected), "{}", held.stdout);
    let none = release("other", &[]);
    assert_eq!((none.code(), none.stdout.as_str()), (0, "no backend of other runs\n"));
}

// Nothing stops a process and lets it go on from outside on Windows.
#[cfg(unix)]
#[test]
fn offers_that_leave_in_part_or_not_at_all_are_each_served_once() {
    let scene = Scene::new();
    let pid = scene.backend_pid();
    rustix::process::kill_process(pid_of(pid), rustix::process::Signal::STOP).unwrap();
    // Long replies, so that the backend's socket is full before 64 offers are out.
    let trace = "x".repeat(7_000);
    let mut clients: Vec<_> = (0..64)
        .map(|number| {
            let mut client = scene.world.connect();
            let hello = Frame { traceparent: trace.clone(), ..hello_frame(BIT_0 | BIT_32) };
            client.write(&[wire(&hello), wire(&request(number, "early"))].concat());
            client
        })
        .collect();
    let deadline = Instant::now() + PATIENCE;
    while scene.world.handoffs("unsent") == 0 {
        assert!(Instant::now() < deadline, "there was room for all of them");
    }
    rustix::process::kill_process(pid_of(pid), rustix::process::Signal::CONT).unwrap();
    let (mut adopted, mut dialled) = (0, 0);
    for (number, client) in (0..).zip(&mut clients) {
        let reply = client.receive();
        assert_eq!(reply.traceparent, trace);
        if agreed(reply_of(&reply)).handle_passed_token.is_empty() {
            assert_eq!(client.rest(), [0; 0], "its request was read by nobody");
            dialled += 1;
        } else {
            let answer = client.receive();
            assert_eq!((answer.request_id, answer.payload.as_ref()), (number, &b"early"[..]));
            adopted += 1;
        }
    }
    assert!(adopted > 0 && dialled > 0, "{adopted} adopted, {dialled} dialled");
    drop(clients);
    scene.broker.wait_for_descriptors(scene.at_rest);
    assert_eq!(scene.world.handoffs("unsent"), dialled);
}

// By what /proc tells.
#[cfg(target_os = "linux")]
#[test]
fn a_client_that_leaves_at_any_step_leaves_nothing_behind() {
    let scene = Scene::new();
    let early = [wire(&hello_frame(BIT_0 | BIT_32)), wire(&request(9, "early"))].concat();
    // With its Hello, with its request, and right after its reply.
    for _ in 0..20 {
        scene.world.connect().send(&hello_frame(BIT_0));
        scene.world.connect().write(&early);
        scene.say(BIT_0 | BIT_32);
    }
    let (mut last, _) = scene.say(BIT_0 | BIT_32);
    assert_eq!(last.tell("still here"), "still here");
    drop(last);
    scene.broker.wait_for_descriptors(scene.at_rest);
    let pid = scene.backend_pid();
    let connections = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let deadline = Instant::now() + PATIENCE;
    let before = connections();
    scene.say(BIT_0 | BIT_32);
    while connections() > before {
        assert!(Instant::now() < deadline, "the backend keeps connections");
    }
}
