//! Brokers and backends coming and going (behaviour.md 4, 5, 6 and 9).
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::path::Path;

use broker_protocol::PayloadProtocol;
use broker_protocol::prost::Message;
use broker_protocol::wire::{ErrorCode, EventKind, Frame, LifecycleEvent};
use broker_tests::{Daemon, Signal, Wire, World, agreed, exists, has_died, hello, kill, refused, reply_of};

fn start_backend(world: &World) -> (String, u32) {
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    let pid = Wire::connect(Path::new(&pipe)).tell("?pid").parse().unwrap();
    (pipe, pid)
}

/// The events on disk, once the broker that wrote them has ended.
fn events(world: &World) -> Vec<LifecycleEvent> {
    let bytes = std::fs::read(world.state_dir().join("events/lifecycle.pb")).unwrap();
    let mut rest = &bytes[..];
    let mut events = Vec::new();
    while !rest.is_empty() {
        let before = rest.len();
        events.push(LifecycleEvent::decode_length_delimited(&mut rest).unwrap());
        assert!(before - rest.len() <= 512);
    }
    events
}

#[test]
fn a_backend_that_dies_is_replaced_by_the_next_hello_and_leaves_no_zombie_and_no_socket() {
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&[]);
    let (pipe, pid) = start_backend(&world);
    kill(pid);
    broker.wait_for_line("DIED_CRASH");
    assert!(!exists(pid), "it was reaped before its death was told");
    assert!(!Path::new(&pipe).exists());
    let (next_pipe, next_pid) = start_backend(&world);
    assert!(next_pipe != pipe && next_pid != pid);
    broker.stop();
    let kinds: Vec<_> = events(&world).iter().map(LifecycleEvent::kind).collect();
    let expected = [
        EventKind::ServiceDefLoaded,
        EventKind::SpawnAttempt,
        EventKind::Spawn,
        EventKind::HelloAccepted,
        EventKind::DiedCrash,
        EventKind::SpawnAttempt,
        EventKind::Spawn,
        EventKind::HelloAccepted,
        EventKind::DiedShutdown,
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn sigterm_drains_takes_the_backends_along_and_leaves_nothing_behind() {
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&[]);
    let (pipe, pid) = start_backend(&world);
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
    assert!(has_died(pid));
    assert!(!world.socket().exists() && !world.lock().exists());
    assert!(!Path::new(&pipe).exists());
}

#[test]
fn a_draining_broker_refuses_new_hellos_is_not_ready_and_a_second_signal_ends_it_at_once() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--hang", "--label", "spawn.timeout_ms=3600000"]);
    let mut broker = world.serve(&["--drain-ms", "3600000"]);
    // A Hello that is under way keeps the drain from ending.
    let mut waiting = world.connect();
    waiting.send(&Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", "1.0.0").encode_to_vec()));
    broker.wait_for_line("SPAWN_ATTEMPT");
    broker.signal(Signal::TERM);
    if !broker_tests::goes_without("what a console event is answered with in the log") {
        broker.wait_for_line("draining");
    }
    let refusal = loop {
        // The signal was heard; the drain itself begins a moment later.
        match refused(world.connect().say(&hello("unknown", "1.0.0"))) {
            refusal if refusal.code() == ErrorCode::ErrorShuttingDown => break refusal,
            refusal => assert_eq!(refusal.code(), ErrorCode::ErrorServiceUnknown),
        }
    };
    assert!(refusal.retry_after_ms > 1_000);
    let socket = world.socket();
    let ready = world.run(&["readyz", "--socket", socket.to_str().unwrap()]);
    assert_eq!((ready.code(), &ready.stdout[..]), (1, "not ready\n"));
    let healthy = world.run(&["healthz", "--socket", socket.to_str().unwrap()]);
    assert_eq!((healthy.code(), &healthy.stdout[..]), (0, "ok\n"));
    if broker_tests::goes_without("a second console event") {
        return;
    }
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(1));
    assert!(!socket.exists());
}

#[test]
fn a_backend_that_does_not_end_is_killed_and_the_drain_ends_in_time() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--ignore-term"]);
    let mut broker = world.serve(&[]);
    let (_, pid) = start_backend(&world);
    let asked = world.run(&["shutdown", "--drain-ms", "200", "--socket", world.socket().to_str().unwrap()]);
    assert_eq!((asked.code(), &asked.stdout[..]), (0, "draining\n"));
    assert_eq!(broker.wait(), Some(0));
    assert!(has_died(pid));
}

#[test]
fn hellos_that_wait_are_answered_before_a_drain_ends() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--delay-ms 300"]);
    let mut broker = world.serve(&[]);
    let mut waiting = world.connect();
    waiting.send(&Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", "1.0.0").encode_to_vec()));
    broker.wait_for_line("SPAWN_ATTEMPT");
    broker.signal(Signal::TERM);
    agreed(reply_of(&waiting.receive()));
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn a_second_broker_is_told_who_serves_and_exits_with_3() {
    let world = World::new();
    let broker = world.serve(&[]);
    let second = world.run(&["serve", "--socket", world.socket().to_str().unwrap()]);
    assert_eq!(second.code(), 3, "{second:?}");
    assert!(second.stderr.contains(&format!("process {}", broker.pid())), "{}", second.stderr);
    assert!(second.stderr.contains("next:"), "{}", second.stderr);
    world.run(&["healthz", "--socket", world.socket().to_str().unwrap()]);
    broker.stop();
}

#[test]
fn the_socket_of_a_broker_that_was_killed_is_taken_over() {
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&[]);
    let (_, pid) = start_backend(&world);
    broker.kill();
    assert_ne!(broker.wait(), Some(0));
    assert!(has_died(pid), "a backend goes with its broker, however that goes");
    assert_eq!(world.socket().exists(), cfg!(unix), "a pipe leaves nothing behind");
    let _next = world.serve(&[]);
    start_backend(&world);
}

// By the kernel's list of sockets.
#[cfg(target_os = "linux")]
#[test]
fn the_socket_of_a_backend_that_is_killed_after_its_broker_is_removed_by_the_next_broker() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--ignore-term"]);
    let killed = |broker: &mut Daemon| {
        broker.kill();
        assert_ne!(broker.wait(), Some(0));
    };
    let mut first = world.serve(&[]);
    let (pipe, pid) = start_backend(&world);
    killed(&mut first);
    // It lives on, and whoever is connected to it stays so.
    let mut next = world.serve(&[]);
    let (_, another) = start_backend(&world);
    assert_eq!(Wire::connect(Path::new(&pipe)).tell("still here"), "still here");
    kill(pid);
    let removed = |pipe: &str| format!("removed a socket that nobody serves any more socket={pipe}");
    next.wait_for_line(&removed(&pipe));
    assert!(!Path::new(&pipe).exists());
    // Also where nobody is there to see it end.
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    killed(&mut next);
    kill(another);
    assert!(has_died(another) && Path::new(&pipe).exists());
    world.serve(&[]).wait_for_line(&removed(&pipe));
    assert!(!Path::new(&pipe).exists());
}

#[test]
fn backends_that_are_to_be_kept_outlive_their_broker() {
    let world = World::new();
    world.define("cache", &[]);
    let broker = world.serve(&["--keep-backends"]);
    let (pipe, pid) = start_backend(&world);
    broker.stop();
    assert_eq!(Wire::connect(Path::new(&pipe)).tell("?pid"), pid.to_string());
    kill(pid);
    assert!(has_died(pid));
}

#[test]
fn a_backend_that_nobody_asks_for_is_ended() {
    let world = World::new();
    world.define("cache", &["--label", "idle.timeout_secs=1"]);
    let mut broker = world.serve(&[]);
    let (_, pid) = start_backend(&world);
    broker.wait_for_line("DIED_IDLE");
    assert!(!exists(pid));
    assert_ne!(start_backend(&world).1, pid);
}

#[test]
fn a_backend_that_somebody_is_connected_to_is_not_idle() {
    let world = World::new();
    world.define("cache", &["--label", "idle.timeout_secs=1"]);
    let mut command = world.brokerd(&["serve", "--socket", world.socket().to_str().unwrap()]);
    let mut broker = Daemon::start(command.env("RUST_LOG", "debug"));
    // Where this takes longer than a second, the backend is idle and gone, and the next one is asked for.
    let client = loop {
        let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
        if let Ok(client) = Wire::try_connect(Path::new(&pipe)) {
            break client;
        }
    };
    broker.wait_for_line("but it has connections");
    broker.wait_for_line("but it has connections");
    drop(client);
    broker.wait_for_line("DIED_IDLE");
}

// A pipe lies in no directory.
#[cfg(unix)]
#[test]
fn whatever_is_no_socket_of_a_broker_is_never_replaced() {
    let world = World::new();
    std::fs::create_dir_all(world.path("run")).unwrap();
    std::fs::write(world.socket(), "precious").unwrap();
    let failed = world.run(&["serve", "--socket", world.socket().to_str().unwrap()]);
    assert_eq!(failed.code(), 1, "{failed:?}");
    assert!(failed.stderr.contains("regular file"), "{}", failed.stderr);
    assert_eq!(std::fs::read_to_string(world.socket()).unwrap(), "precious");
}

// A pipe lies in no directory.
#[cfg(unix)]
#[test]
fn a_socket_path_that_is_a_directory_is_refused_and_left_alone() {
    let world = World::new();
    std::fs::create_dir_all(world.socket()).unwrap();
    let failed = world.run(&["serve", "--socket", world.socket().to_str().unwrap()]);
    assert_eq!(failed.code(), 1, "{failed:?}");
    assert!(failed.stderr.contains("a directory"), "{}", failed.stderr);
    assert!(world.socket().is_dir());
}

// A pipe lies in no directory.
#[cfg(unix)]
#[test]
fn a_socket_in_somebody_else_s_directory_is_refused_with_its_owner() {
    let world = World::new();
    let socket = if rustix::process::geteuid().is_root() {
        std::fs::create_dir(world.path("run")).unwrap();
        std::os::unix::fs::chown(world.path("run"), Some(65_534), None).unwrap();
        world.socket()
    } else {
        "/usr/s.sock".into()
    };
    let failed = world.run(&["serve", "--socket", socket.to_str().unwrap()]);
    assert_eq!(failed.code(), 1, "{failed:?}");
    assert!(failed.stderr.contains("belongs to user"), "{}", failed.stderr);
}

#[cfg(unix)]
#[test]
fn who_keeps_the_log_of_events_locked_keeps_no_broker_from_ending() {
    for signals in [1, 2] {
        let world = World::new();
        world.define("cache", &[]);
        let mut broker = world.serve(&[]);
        agreed(world.connect().say(&hello("cache", "1.0.0")));
        world.wait_for_events(1);
        let log = std::fs::File::open(world.state_dir().join("events/lifecycle.pb")).unwrap();
        log.lock().unwrap();
        agreed(world.connect().say(&hello("cache", "2.0.0")));
        (0..signals).for_each(|_| broker.signal(Signal::TERM));
        let code = broker.wait();
        assert!(code == Some(0) || (signals == 2 && code == Some(1)), "{code:?}");
    }
}

// Nothing stops a process and lets it go on from outside on Windows.
#[cfg(unix)]
#[test]
fn every_hello_that_was_sent_before_a_drain_ends_is_answered() {
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&["--max-connections", "2048"]);
    broker.signal(Signal::STOP);
    let request = Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", "1.0.0").encode_to_vec());
    let mut clients: Vec<_> = (0..400).map(|_| world.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&request));
    broker.signal(Signal::TERM);
    broker.signal(Signal::CONT);
    for client in &mut clients {
        let frame = client.receive();
        assert_eq!(frame.request_id, 7);
    }
    assert_eq!(broker.wait(), Some(0));
}

// By modes; access control lists are the transport's own tests.
#[cfg(unix)]
#[test]
fn directories_are_made_private_and_open_ones_are_refused_with_the_remedy() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    world.serve(&[]).stop();
    for dir in ["run", ".config/running-process/services", ".local/state/running-process/broker/events"] {
        assert_eq!(std::fs::metadata(world.path(dir)).unwrap().permissions().mode() & 0o777, 0o700, "{dir}");
    }
    std::fs::set_permissions(world.path("run"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let failed = world.run(&["serve", "--socket", world.socket().to_str().unwrap()]);
    assert_eq!(failed.code(), 1);
    let remedy = format!("chmod 700 {}", world.path("run").display());
    assert!(failed.stderr.contains(&remedy), "{}", failed.stderr);
}

// Nothing here becomes another user on Windows.
#[cfg(unix)]
#[test]
fn root_is_refused_unless_it_is_asked_for() {
    let world = World::new();
    let mut command = world.brokerd(&["serve", "--socket", world.socket().to_str().unwrap()]);
    command.env_remove("RUNNING_PROCESS_BROKER_ALLOW_PRIVILEGED");
    if rustix::process::geteuid().is_root() {
        let failed = broker_tests::Finished::of(&mut command);
        assert_eq!(failed.code(), 1);
        assert!(failed.stderr.contains("RUNNING_PROCESS_BROKER_ALLOW_PRIVILEGED=1"), "{}", failed.stderr);
    } else {
        Daemon::start(&mut command).stop();
    }
}

// A pipe's name has a limit of its own, and its test below.
#[cfg(unix)]
#[test]
fn a_path_that_fits_no_socket_address_is_a_usage_error() {
    let world = World::new();
    let socket = world.path(&"x".repeat(100));
    let failed = world.run(&["serve", "--socket", socket.to_str().unwrap()]);
    assert_eq!(failed.code(), 2);
    assert!(failed.stderr.contains("107 bytes"), "{}", failed.stderr);
    let mut command = world.brokerd(&["serve", "--socket", world.socket().to_str().unwrap()]);
    let failed = broker_tests::Finished::of(command.env("XDG_RUNTIME_DIR", world.path(&"x".repeat(60))));
    assert_eq!(failed.code(), 2);
    assert!(failed.stderr.contains("XDG_RUNTIME_DIR"), "{}", failed.stderr);
}

// By one thread's own user.
#[cfg(target_os = "linux")]
#[test]
fn foreign_users_are_dropped_unread() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not shown: only root can connect as somebody else");
        return;
    }
    let world = World::new();
    let mut broker = world.serve(&[]);
    // The directory and the socket let nobody else in; opened up, the kernel's word still counts.
    use std::os::unix::fs::PermissionsExt;
    for path in [world.path(""), world.path("run"), world.socket()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let socket = world.socket();
    let answer = std::thread::spawn(move || {
        // On Linux a user is a thread's own until its end.
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_534)).unwrap();
        Wire::connect(&socket).rest()
    });
    assert_eq!(answer.join().unwrap(), b"");
    broker.wait_for_line("SECURITY_VIOLATION");
    refused(world.connect().say(&hello("cache", "1.0.0")));
}

#[cfg(windows)]
#[test]
fn a_name_that_is_too_long_for_a_pipe_is_a_usage_error() {
    let world = World::new();
    let failed = world.run(&["serve", "--socket", &"x".repeat(300)]);
    assert_eq!(failed.code(), 2, "{failed:?}");
    assert!(failed.stderr.contains("260 bytes"), "{}", failed.stderr);
}

#[cfg(windows)]
#[test]
fn the_path_of_a_file_is_no_pipe_s_name() {
    let world = World::new();
    let failed = world.run(&["serve", "--socket", r"C:\broker\shared"]);
    assert_eq!(failed.code(), 2, "{failed:?}");
    assert!(failed.stderr.contains(r"C:\broker\shared: expected the name of a pipe"), "{}", failed.stderr);
}

#[cfg(unix)]
#[test]
fn a_listener_that_outlives_its_lock_for_a_moment_keeps_nobody_from_starting() {
    let world = World::new();
    // Where the broker's socket will be.
    drop(world.serve(&[]));
    let dying = broker_tests::Listener::bind(&world.socket());
    let mut broker =
        Daemon::spawn(&mut world.brokerd(&["serve", "--socket", world.socket().to_str().unwrap()]));
    while !world.lock().exists() {
        std::thread::yield_now();
    }
    drop(dying);
    broker.wait_for_line("serving");
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
}
