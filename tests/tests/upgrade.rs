//! A broker that goes on as another program (behaviour.md 4, "Replacement of the broker itself").
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use broker_client::{Connector, Hello, Origin, PayloadProtocol, blocking};
use broker_protocol::prost::Message;
use broker_protocol::wire::{AdminReply, AdminRequest, Frame, hello_reply};
use broker_tests::{
    Daemon, Finished, PATIENCE, Signal, Wire, World, agreed, exists, has_died, hello, kill, refused, reply_of,
};

const LANE: PayloadProtocol = PayloadProtocol::new(0xF001);

fn start_backend(world: &World) -> (String, u32) {
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    let pid = Wire::connect(Path::new(&pipe)).tell("?pid").parse().unwrap();
    (pipe, pid)
}

fn upgrade(world: &World, options: &[&str]) -> Finished {
    let socket = world.socket();
    let command = ["upgrade", "--socket", socket.to_str().unwrap()];
    world.run(&[&command[..], options].concat())
}

/// A copy of the broker's program elsewhere.
fn newer(world: &World) -> PathBuf {
    let path = world.path("newer-brokerd");
    std::fs::copy(World::program("brokerd"), &path).unwrap();
    path
}

#[test]
fn the_process_its_backends_and_its_endpoint_stay_and_the_program_is_another() {
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&[]);
    let (pipe, pid) = start_backend(&world);
    let newer = newer(&world);
    let finished = upgrade(&world, &["--json", "--binary", newer.to_str().unwrap()]);
    assert!(finished.is_success(), "{finished:?}");
    let answer: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(
        (&answer["command"], &answer["upgraded"], &answer["broker_pid"]),
        (&"upgrade".into(), &true.into(), &broker.pid().into())
    );
    assert_eq!((&answer["backends_kept"], &answer["connections_kept"]), (&1.into(), &0.into()));
    assert_eq!(start_backend(&world), (pipe.clone(), pid), "it was not started again");
    let dump = world.ask("dump");
    let kinds: Vec<_> = dump["recent_lifecycle_events"].as_array().unwrap().iter().collect();
    let count = |kind: &str| kinds.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!((count("SPAWN"), count("REPLACED_BY_NEWER"), count("DIED_CRASH")), (1, 1, 0));
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
    assert!(has_died(pid));
    assert!(!world.socket().exists() && !world.lock().exists() && !Path::new(&pipe).exists());
}

#[test]
fn not_one_hello_fails_while_the_broker_goes_on_as_another_program_three_times() {
    const CLIENTS: usize = 4;
    let world = World::new();
    world.define("cache", &[]);
    let broker = world.serve(&["--hello-burst", "1000000", "--hello-refill", "1000000"]);
    let (_, pid) = start_backend(&world);
    let (is_over, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (world, is_over, served) = (&world, &is_over, &served);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    // Half of them ask for the connection to be passed on, and go on with whoever has it then.
                    if client % 2 == 0 {
                        agreed(world.connect().say(&hello("cache", "1.0.0")));
                    } else {
                        let hello = Hello::new("cache".parse().unwrap(), "1.0.0".parse().unwrap());
                        let connector = Connector::new(hello).broker(world.socket()).timeout(PATIENCE);
                        let mut session = blocking::Session::connect(&connector.with_handoff()).unwrap();
                        assert_eq!(session.request(LANE, "?pid").unwrap(), pid.to_string());
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..3 {
            let finished = upgrade(&world, &[]);
            assert!(finished.is_success(), "{finished:?}");
            // Until the next one everybody has a turn.
            let before = served.load(Ordering::Relaxed);
            let deadline = Instant::now() + PATIENCE;
            while served.load(Ordering::Relaxed) < before + 100 {
                assert!(Instant::now() < deadline, "nobody is served any more");
                std::thread::yield_now();
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(start_backend(&world).1, pid);
    assert!(world.handoffs("accepted") > 0, "handoffs go on");
    broker.stop();
}

#[test]
fn requests_that_have_half_come_go_along_and_are_answered_by_the_new_program() {
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&["--hello-timeout-ms", "3600000"]);
    let frame = Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", "1.0.0").encode_to_vec());
    let bytes = broker_protocol::frame_bytes(&frame).unwrap();
    let mut halves: Vec<_> = [0, 1, 4, 5, 6, bytes.len() - 1]
        .into_iter()
        .map(|length| {
            let mut wire = world.connect();
            wire.write(&bytes[..length]);
            (wire, length)
        })
        .collect();
    for _ in 0..2 {
        let finished = upgrade(&world, &["--json"]);
        assert!(finished.is_success(), "{finished:?}");
        let answer: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(answer["connections_kept"], halves.len());
    }
    for (wire, length) in &mut halves {
        wire.write(&bytes[*length..]);
        agreed(reply_of(&wire.receive()));
    }
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn an_upgrade_waits_for_a_start_and_who_waits_for_that_is_answered() {
    let world = World::new();
    let gate = define_gated(&world);
    let mut broker = world.serve(&[]);
    let mut waiting = asks_for_the_gated(&world, &mut broker);
    std::thread::scope(|scope| {
        let upgraded = scope.spawn(|| upgrade(&world, &[]));
        broker.wait_for_line("going on as another program");
        std::fs::write(&gate, "").unwrap();
        agreed(reply_of(&waiting.receive()));
        assert!(upgraded.join().unwrap().is_success());
    });
    let dump = world.ask("dump");
    let events = dump["recent_lifecycle_events"].as_array().unwrap();
    assert_eq!(events.iter().filter(|event| event["kind"] == "SPAWN_ATTEMPT").count(), 1);
    broker.stop();
}

#[test]
fn a_backend_that_dies_afterwards_is_noticed_and_one_whose_broker_dies_dies_too() {
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&[]);
    let (_, first) = start_backend(&world);
    for _ in 0..2 {
        assert!(upgrade(&world, &[]).is_success());
    }
    kill(first);
    let line = broker.wait_for_line("DIED_CRASH");
    assert!(line.contains("ended by signal 9"), "it is still a child: {line}");
    assert!(!exists(first), "it was reaped before its death was told");
    let (_, second) = start_backend(&world);
    assert_ne!(second, first);
    assert!(upgrade(&world, &[]).is_success());
    let (_, third) = start_backend(&world);
    assert_eq!(third, second);
    broker.kill();
    broker.wait();
    assert!(has_died(second), "the bond to its broker has outlived the program that made it");
}

#[test]
fn nothing_is_left_over_by_one_upgrade_after_the_other() {
    let world = World::new();
    world.define("cache", &[]);
    let broker = world.serve(&[]);
    let (_, pid) = start_backend(&world);
    let limits = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/limits")).ok();
    assert!(upgrade(&world, &[]).is_success());
    let (resting, limited) = (broker.descriptors_at_rest(), limits(pid));
    for _ in 0..5 {
        assert!(upgrade(&world, &[]).is_success());
    }
    broker.wait_for_descriptors(resting);
    let next = agreed(world.connect().say(&hello("cache", "1.0.1"))).backend_pipe;
    let next: u32 = Wire::connect(Path::new(&next)).tell("?pid").parse().unwrap();
    assert_eq!(limits(next), limited, "a backend starts with the limits that the first program had");
    broker.stop();
}

#[test]
fn a_program_that_would_not_do_is_told_apart_and_the_broker_goes_on() {
    let world = World::new();
    world.define("cache", &[]);
    let broker = world.serve(&[]);
    let (pipe, pid) = start_backend(&world);
    let writable = newer(&world);
    std::fs::set_permissions(&writable, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mute = world.script("mute", "exit 0");
    let unwilling = world.script("unwilling", "echo no such option >&2; exit 2");
    let vanishing = world.script("vanishing", "echo brokerd takes over, form 1 >&2; rm \"$0\"");
    let plain = world.path("plain");
    std::fs::write(&plain, "").unwrap();
    let cases = [
        (world.path("absent"), "there is no such file"),
        (world.path(""), "not an executable file"),
        (plain, "not an executable file"),
        (writable, "others may write to it"),
        (mute, "exit code 0 instead of saying that it would take over"),
        (unwilling, "it said: no such option"),
        // It is there when it is tried, and not when it counts: by then its clients were on their way.
        (vanishing, "there is no such file"),
    ];
    let mut silent = world.connect();
    for (program, expected) in cases {
        let finished = upgrade(&world, &["--binary", program.to_str().unwrap()]);
        assert_eq!(finished.code(), 1, "{finished:?}");
        assert!(finished.stdout.contains("goes on as it is"), "{finished:?}");
        assert!(finished.stdout.contains(expected), "{expected}: {finished:?}");
        assert_eq!(start_backend(&world), (pipe.clone(), pid));
    }
    agreed(silent.say(&hello("cache", "1.0.0")));
    let request = AdminRequest { upgrade_to: Some("brokerd".to_owned()), ..AdminRequest::default() };
    let mut wire = world.connect();
    wire.send(&Frame::request(PayloadProtocol::ADMIN, 7, request.encode_to_vec()));
    let relative = AdminReply::decode(&wire.receive().payload[..]).unwrap();
    assert!(relative.body.contains("absolute path"), "{relative:?}");
    // And when a good one comes, it does.
    assert!(upgrade(&world, &[]).is_success());
    broker.stop();
}

#[test]
fn a_broker_that_drains_is_not_upgraded() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--hang", "--label", "spawn.timeout_ms=3600000"]);
    let mut broker = world.serve(&["--drain-ms", "3600000"]);
    let mut waiting = world.connect();
    waiting.send(&Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", "1.0.0").encode_to_vec()));
    broker.wait_for_line("SPAWN_ATTEMPT");
    broker.signal(Signal::TERM);
    broker.wait_for_line("draining");
    let finished = upgrade(&world, &[]);
    assert_eq!(finished.code(), 1);
    assert!(finished.stdout.contains("shutting down"), "{finished:?}");
    match world.connect().say(&hello("cache", "1.0.0")) {
        result @ hello_reply::Result::Refused(_) => drop(refused(result)),
        other => panic!("expected a refusal, got {other:?}"),
    }
    broker.kill();
    broker.wait();
}

#[test]
fn connections_are_passed_on_afterwards_as_before() {
    let world = World::new();
    world.define("cache", &[]);
    let broker = world.serve(&["--hello-burst", "100000", "--hello-refill", "100000"]);
    let (_, pid) = start_backend(&world);
    let adopt = || {
        let hello = Hello::new("cache".parse().unwrap(), "1.0.0".parse().unwrap());
        let connector = Connector::new(hello).broker(world.socket()).timeout(PATIENCE).with_handoff();
        blocking::Session::connect(&connector).unwrap()
    };
    // Its control connection is announced at its leisure.
    while adopt().origin() != Origin::Handoff {
        std::thread::yield_now();
    }
    let mut before = adopt();
    for _ in 0..3 {
        assert!(upgrade(&world, &[]).is_success());
        let mut session = adopt();
        assert_eq!(session.origin(), Origin::Handoff);
        assert_eq!(session.request(LANE, "?pid").unwrap(), pid.to_string());
    }
    assert_eq!(before.request(LANE, "still here").unwrap(), "still here");
    broker.stop();
}

#[test]
fn a_backend_that_has_announced_itself_stays_known() {
    let world = World::new();
    // Whatever the broker starts by itself fails.
    world.define("cache", &["--label", "spawn.args=--fail 3"]);
    let broker = world.serve(&["--hello-burst", "100000", "--hello-refill", "100000"]);
    std::fs::create_dir_all(world.path("own")).unwrap();
    let endpoint = world.endpoint("own/b.sock");
    let mut command = world.command(&World::program("echo-backend"));
    command.arg("--endpoint").arg(&endpoint).arg("--announce-to").arg(world.socket());
    let backend = Daemon::spawn(command.args(["--service", "cache", "--version-of", "1.2.3"]));
    let deadline = Instant::now() + PATIENCE;
    while let hello_reply::Result::Refused(refused) = world.connect().say(&hello("cache", "1.2.3")) {
        assert!(Instant::now() < deadline, "{refused:?}");
    }
    for _ in 0..3 {
        let upgraded = upgrade(&world, &[]);
        assert!(upgraded.is_success(), "{upgraded:?}");
        let known = agreed(world.connect().say(&hello("cache", "1.2.3"))).backend_pipe;
        assert_eq!(Path::new(&known), endpoint);
    }
    backend.stop();
    broker.stop();
}

#[test]
fn nothing_is_taken_over_from_anybody_else() {
    let world = World::new();
    let socket = world.socket();
    for (number, expected) in [("0", "left by no predecessor"), ("999", "Bad file descriptor")] {
        let finished = world.run(&["serve", "--socket", socket.to_str().unwrap(), "--takeover", number]);
        assert_eq!(finished.code(), 1);
        assert!(finished.stderr.contains(expected), "{finished:?}");
        assert!(finished.stderr.contains("this option is for `brokerd upgrade`"), "{finished:?}");
    }
    let trial = ["serve", "--socket", socket.to_str().unwrap(), "--takeover-trial", "2"];
    let finished = world.run(&trial);
    assert!(finished.code() == 1 && finished.stderr.contains("expected form 1"), "{finished:?}");
    assert!(!socket.exists());
}

#[test]
fn more_may_be_open_than_the_program_begins_with_the_right_to() {
    const MANY: usize = 200;
    let world = World::new();
    world.define("cache", &[]);
    let limits = "ulimit -Sn 100; exec \"$0\" serve --socket \"$1\" --hello-timeout-ms 3600000";
    let mut command = world.command(Path::new("/bin/sh"));
    command.args(["-c", limits]).arg(World::program("brokerd")).arg(world.socket());
    let broker = Daemon::start(&mut command);
    let (_, pid) = start_backend(&world);
    let mut silent: Vec<_> = (0..MANY).map(|_| world.connect()).collect();
    for _ in 0..2 {
        let finished = upgrade(&world, &[]);
        assert!(finished.is_success(), "{finished:?}");
    }
    for wire in &mut silent {
        agreed(wire.say(&hello("cache", "1.0.0")));
    }
    assert_eq!(start_backend(&world).1, pid);
    broker.kill();
}

/// A program that would take over once the gate is there.
fn slow_to_consent(world: &World) -> (PathBuf, PathBuf) {
    gated(world, "brokerd")
}

/// A script that becomes this program once the file is there whose path comes with it.
fn gated(world: &World, program: &str) -> (PathBuf, PathBuf) {
    let gate = world.path("gate");
    let program = World::program(program);
    let (shown, real) = (gate.display(), program.display());
    let wait = format!("while ! [ -e {shown} ]; do sleep 0.01; done; exec {real} \"$@\"");
    (world.script("slow", &wait), gate)
}

/// A service whose backend begins once the file with this path is there.
fn define_gated(world: &World) -> PathBuf {
    let (slow, gate) = gated(world, "echo-backend");
    assert!(world.run(&["service", "add", "cache", "--binary", slow.to_str().unwrap()]).is_success());
    gate
}

/// A client that waits for a backend which is being started.
fn asks_for_the_gated(world: &World, broker: &mut Daemon) -> Wire {
    let mut waiting = world.connect();
    waiting.send(&Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", "1.0.0").encode_to_vec()));
    broker.wait_for_line("SPAWN_ATTEMPT");
    waiting
}

#[test]
fn a_broker_that_is_told_to_end_meanwhile_ends() {
    for by_signal in [true, false] {
        let world = World::new();
        world.define("cache", &["--label", "spawn.args=--ignore-term"]);
        let mut broker = world.serve(&["--drain-ms", "1000"]);
        start_backend(&world);
        let (slow, gate) = slow_to_consent(&world);
        std::thread::scope(|scope| {
            let upgraded = scope.spawn(|| upgrade(&world, &["--binary", slow.to_str().unwrap()]));
            broker.wait_for_line("trying");
            if by_signal {
                broker.signal(Signal::TERM);
                broker.wait_for_line("draining");
            } else {
                let socket = world.socket();
                let ended = world.run(&["shutdown", "--socket", socket.to_str().unwrap()]);
                assert!(ended.is_success(), "{ended:?}");
            }
            std::fs::write(&gate, "").unwrap();
            assert_eq!(broker.wait(), Some(0));
            assert_eq!(upgraded.join().unwrap().code(), 1);
        });
        assert!(!world.socket().exists() && !world.lock().exists());
    }
}

#[test]
fn a_signal_that_comes_in_the_last_moment_is_for_the_new_program() {
    let world = World::new();
    world.define("cache", &[]);
    for _ in 0..20 {
        let mut broker = world.serve(&[]);
        start_backend(&world);
        std::thread::scope(|scope| {
            let upgraded = scope.spawn(|| upgrade(&world, &[]));
            broker.wait_for_line("going on as another program");
            broker.signal(Signal::TERM);
            assert_eq!(broker.wait(), Some(0));
            upgraded.join().unwrap();
        });
        assert!(!world.socket().exists() && !world.lock().exists());
    }
}

#[test]
fn a_broker_whose_files_were_taken_away_goes_on_as_it_is() {
    let take_away: [fn(&World); 2] = [
        |world| std::fs::remove_file(world.lock()).unwrap(),
        |world| std::fs::rename(world.socket(), world.path("run/elsewhere.sock")).unwrap(),
    ];
    for take_away in take_away {
        let world = World::new();
        world.define("cache", &[]);
        let broker = world.serve(&[]);
        let mut wire = world.connect();
        let mut asker = world.connect();
        take_away(&world);
        let program = World::program("brokerd").display().to_string();
        let request = AdminRequest { upgrade_to: Some(program), ..AdminRequest::default() };
        asker.send(&Frame::request(PayloadProtocol::ADMIN, 7, request.encode_to_vec()));
        let answer = AdminReply::decode(&asker.receive().payload[..]).unwrap();
        assert!(answer.body.contains("was removed or replaced"), "{answer:?}");
        agreed(wire.say(&hello("cache", "1.0.0")));
        broker.kill();
    }
}

#[test]
fn what_the_predecessor_did_without_the_new_program_does_without() {
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&[]);
    let (pipe, pid) = start_backend(&world);
    std::fs::set_permissions(world.state_dir(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let finished = upgrade(&world, &[]);
    assert!(finished.is_success(), "{finished:?}");
    broker.wait_for_line("going on all the same");
    assert_eq!(start_backend(&world), (pipe, pid));
    std::fs::set_permissions(world.state_dir(), std::fs::Permissions::from_mode(0o700)).unwrap();
    broker.stop();
}

#[test]
fn a_second_one_who_asks_meanwhile_is_told_so() {
    let world = World::new();
    let mut broker = world.serve(&[]);
    let (slow, gate) = slow_to_consent(&world);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| upgrade(&world, &["--binary", slow.to_str().unwrap()]));
        broker.wait_for_line("trying");
        let second = upgrade(&world, &["--binary", world.path("absent").to_str().unwrap()]);
        assert!(second.code() == 1 && second.stdout.contains("under way already"), "{second:?}");
        std::fs::write(&gate, "").unwrap();
        assert!(first.join().unwrap().is_success());
    });
    broker.stop();
}

#[test]
fn a_relative_path_of_the_configuration_is_found_by_the_new_program() {
    let world = World::new();
    std::fs::write(world.path("my.toml"), "[limits]\ndrain-ms = 1234\n").unwrap();
    std::fs::set_permissions(world.path("my.toml"), std::fs::Permissions::from_mode(0o600)).unwrap();
    for config in [&["--config", "my.toml"][..], &["--config=my.toml"]] {
        let mut command = world.brokerd(&["serve", "--socket", world.socket().to_str().unwrap()]);
        let broker = Daemon::start(command.args(config).current_dir(world.path("")));
        let finished = upgrade(&world, &[]);
        assert!(finished.is_success(), "{finished:?}");
        assert_eq!(world.ask("config")["values"]["limits"]["drain_ms"]["value"], 1234);
        broker.stop();
    }
}

#[test]
fn a_configuration_that_turns_bad_after_the_trial_costs_nothing() {
    let world = World::new();
    let gate = define_gated(&world);
    let file = world.path("my.toml");
    std::fs::write(&file, "[limits]\ndrain-ms = 1234\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut broker = world.serve(&["--config", file.to_str().unwrap()]);
    let mut waiting = asks_for_the_gated(&world, &mut broker);
    std::thread::scope(|scope| {
        let upgraded = scope.spawn(|| upgrade(&world, &[]));
        broker.wait_for_line("going on as another program");
        std::fs::write(&file, "[limits]\ndrain-ms = tru\n").unwrap();
        std::fs::write(&gate, "").unwrap();
        agreed(reply_of(&waiting.receive()));
        let upgraded = upgraded.join().unwrap();
        assert!(upgraded.is_success(), "{upgraded:?}");
    });
    broker.wait_for_line("is not taken, and what held before holds");
    assert_eq!(world.ask("config")["values"]["limits"]["drain_ms"]["value"], 1234);
    start_backend(&world);
    broker.stop();
}

#[test]
fn what_rust_log_holds_for_other_programs_keeps_no_broker_from_going_on() {
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&[]);
    let (_, pid) = start_backend(&world);
    // As an older broker may have been started with, which took it.
    let program = World::program("brokerd");
    let noisy = world.script("noisy", &format!("RUST_LOG=mytool,info exec {} \"$@\"", program.display()));
    let upgraded = upgrade(&world, &["--binary", noisy.to_str().unwrap()]);
    assert!(upgraded.is_success(), "{upgraded:?}");
    broker.wait_for_line("RUST_LOG holds \"mytool\"");
    assert_eq!(start_backend(&world).1, pid);
    broker.stop();
}

#[test]
fn a_backend_that_is_ending_is_asked_to_end_and_not_killed() {
    let world = World::new();
    world.define("cache", &["--label", "idle.timeout_secs=1"]);
    let mut broker = world.serve(&[]);
    let (_, pid) = start_backend(&world);
    let stopped = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    // It does not hear that it should quiesce, so that it is still ending when the broker goes on.
    while !world.ask("status").to_string().contains("draining") {
        rustix::process::kill_process(stopped, Signal::STOP).unwrap();
    }
    assert!(upgrade(&world, &[]).is_success());
    rustix::process::kill_process(stopped, Signal::CONT).unwrap();
    let line = broker.wait_for_line("DIED_IDLE");
    assert!(line.contains("exited with status 0"), "{line}");
    broker.stop();
}
