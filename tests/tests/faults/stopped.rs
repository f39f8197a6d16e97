//! Backends that are stopped: whatever waits for them ends. What becomes of offers to them is told in `control.rs`.

use broker_protocol::wire::ErrorCode;
use broker_tests::linux::{self, processes_of};
use broker_tests::{Daemon, Signal, Wire, World, agreed, exists, has_died, hello, refused};
use broker_transport::listener::has_connections;
use rustix::process::{Pid, kill_process};

fn start(world: &World) -> u32 {
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    Wire::connect(pipe.as_ref()).tell("?pid").parse().unwrap()
}

fn stop(pid: u32) {
    signal(pid, Signal::STOP);
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

fn backends(world: &World, broker: &Daemon) -> usize {
    processes_of(&world.path("")).iter().filter(|process| process.parent == broker.pid()).count()
}

#[test]
fn everybody_who_waits_for_a_backend_that_stops_while_it_starts_is_refused() {
    let world = World::new();
    let backend = world.script("stops", "kill -STOP $$");
    let arguments = ["service", "add", "cache", "--binary", backend.to_str().unwrap()];
    let added = world.run(&[&arguments[..], &["--label", "spawn.timeout_ms=300"]].concat());
    assert!(added.is_success(), "{added:?}");
    let broker = world.serve(&[]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let refusal = refused(world.connect().say(&hello("cache", "1.0.0")));
                assert_eq!(refusal.code(), ErrorCode::ErrorBackendSpawnFailed, "{refusal:?}");
            });
        }
    });
    linux::wait_until("a stopped process", || match backends(&world, &broker) {
        0 => None,
        left => Some(format!("{left} are left")),
    });
    broker.stop();
}

#[test]
fn a_hello_for_a_stopped_backend_is_answered_at_once() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    let pid = start(&world);
    stop(pid);
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    assert_eq!(world.ask("status")["backends"][0]["pid"], pid);
    signal(pid, Signal::CONT);
}

#[test]
fn a_drain_ends_although_a_backend_is_stopped() {
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&["--drain-ms", "500"]);
    let pid = start(&world);
    stop(pid);
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
    assert!(has_died(pid), "nobody wakes it up any more");
}

#[test]
fn a_stopped_backend_that_nobody_asks_for_is_ended() {
    let world = World::new();
    world.define("cache", &["--label", "idle.timeout_secs=1"]);
    let mut broker = world.serve(&[]);
    let pid = start(&world);
    let pipe = world.ask("status")["backends"][0]["backend_pipe"].as_str().unwrap().to_owned();
    // A connection that it has not let go of is in use.
    linux::wait_until("a connection", || has_connections(&pipe).unwrap().then(|| pipe.clone()));
    stop(pid);
    broker.wait_for_line("DIED_IDLE");
    assert!(!exists(pid));
    assert_ne!(start(&world), pid);
}

#[test]
fn a_stopped_backend_is_not_waited_for_when_handles_are_to_be_released() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    let pid = start(&world);
    stop(pid);
    let released = world.run(&["release-handles", "cache", "--socket", world.socket().to_str().unwrap()]);
    assert_eq!(released.code(), 1, "{released:?}");
    assert!(released.stdout.contains("not released"), "{released:?}");
    signal(pid, Signal::CONT);
}
