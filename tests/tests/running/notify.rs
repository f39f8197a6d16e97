//! Readiness, status, end and sign of life.

use std::time::{Duration, Instant};

use broker_tests::{Daemon, Finished, Signal, Wire, World, agreed, hello};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::Manager;

fn shut_down(world: &World) {
    let socket = world.socket();
    let done = world.run(&["shutdown", "--socket", socket.to_str().unwrap()]);
    assert!(done.is_success(), "{done:?}");
}

#[test]
fn a_manager_hears_that_the_broker_is_ready_how_it_stands_and_that_it_ends() {
    for named in [Manager::at_a_path, Manager::by_an_abstract_name] {
        let world = World::new();
        let mut manager = named(&world);
        let mut broker = Daemon::spawn(&mut manager.service(&world, &[]));
        assert_eq!(manager.next(), "READY=1");
        // Who is told so can connect at once.
        assert_eq!(world.ask("status")["accepting_hello"], true);
        assert_eq!(manager.wait_for("STATUS="), "STATUS=serving: 0 backends, 0 open connections");
        shut_down(&world);
        manager.wait_for("STOPPING=1");
        assert_eq!(broker.wait(), Some(0));
        assert_eq!((manager.count("READY=1"), manager.count("WATCHDOG=1")), (1, 0));
    }
}

#[test]
fn a_drain_is_told_when_it_begins() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--hang", "--label", "spawn.timeout_ms=3600000"]);
    let mut manager = Manager::at_a_path(&world);
    let mut broker = Daemon::start(&mut manager.service(&world, &["--drain-ms", "3600000"]));
    let mut waiting = world.connect();
    let hello = broker_protocol::prost::Message::encode_to_vec(&hello("cache", "1.0.0"));
    waiting.send(&broker_protocol::wire::Frame::request(broker_protocol::PayloadProtocol::CONTROL, 7, hello));
    broker.wait_for_line("SPAWN_ATTEMPT");
    broker.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    manager.wait_for("STATUS=draining: ");
    // It does not end before its hour is over, unless it is told again.
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(1));
    assert_eq!(manager.count("STOPPING=1"), 1);
}

#[test]
fn a_status_is_told_when_it_has_changed_and_not_for_each_hello() {
    let world = World::new();
    world.define("cache", &[]);
    let mut manager = Manager::at_a_path(&world);
    let begun = Instant::now();
    let broker = Daemon::start(&mut manager.service(&world, &[]));
    manager.wait_for("STATUS=serving: 0 backends");
    for _ in 0..200 {
        agreed(world.connect().say(&hello("cache", "1.0.0")));
    }
    manager.wait_for("STATUS=serving: 1 backend,");
    let most = 2 + begun.elapsed().as_secs() as usize / 3;
    assert!(manager.count("STATUS=") <= most, "at most {most}: {:?}", manager.heard);
    broker.stop();
}

#[test]
fn a_sandbox_keeps_no_word_from_the_manager() {
    for named in [Manager::at_a_path, Manager::by_an_abstract_name] {
        let world = World::new();
        let mut manager = named(&world);
        let mut command = manager.service(&world, &["--sandbox"]);
        command.env("WATCHDOG_USEC", "20000");
        let mut broker = Daemon::spawn(&mut command);
        let said = broker.next_line();
        if said.contains("does not offer") {
            println!("not tested, as this kernel has no sandbox: {said}");
            return;
        }
        assert!(said.contains("the sandbox is in force"), "{said}");
        assert_eq!(manager.next(), "READY=1");
        manager.wait_for("WATCHDOG=1");
        manager.wait_for("WATCHDOG=1");
        broker.signal(Signal::TERM);
        manager.wait_for("STOPPING=1");
        assert_eq!(broker.wait(), Some(0));
    }
}

#[test]
fn a_loop_that_hangs_gives_no_sign_of_life_whatever_other_threads_do() {
    const HALF: Duration = Duration::from_millis(10);
    let world = World::new();
    let mut manager = Manager::at_a_path(&world);
    let mut command = manager.service(&world, &[]);
    command.env("WATCHDOG_USEC", (2 * HALF.as_micros()).to_string());
    let broker = Daemon::start(&mut command);
    manager.wait_for("WATCHDOG=1");
    manager.wait_for("WATCHDOG=1");

    let hung = thread(broker.pid(), "broker-loop");
    ptrace::seize(hung, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(hung).unwrap();
    waitpid(hung, Some(WaitPidFlag::__WALL)).unwrap();
    // What it had told before it was held.
    while manager.hears_within(Duration::from_millis(1)) {}
    assert!(!manager.hears_within(20 * HALF), "it hangs, and nobody else speaks for it");
    ptrace::detach(hung, None).unwrap();
    manager.wait_for("WATCHDOG=1");
    broker.stop();
}

#[test]
fn a_watchdog_that_is_meant_for_another_process_is_not_heeded() {
    let world = World::new();
    let mut manager = Manager::at_a_path(&world);
    let mut command = manager.service(&world, &[]);
    command.env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let mut broker = Daemon::start(&mut command);
    manager.wait_for("STATUS=");
    broker.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    assert_eq!((broker.wait(), manager.count("WATCHDOG=1")), (Some(0), 0));
}

#[test]
fn a_manager_that_does_not_listen_keeps_nobody_from_serving() {
    let world = World::new();
    world.define("cache", &[]);
    let socket = world.socket();
    for name in ["/absent/notify", "@absent-notify", "vsock:2:1234", ""] {
        let mut command = world.brokerd(&["serve", "--socket", socket.to_str().unwrap()]);
        let mut broker = Daemon::spawn(command.env("NOTIFY_SOCKET", name));
        if !name.is_empty() {
            broker.wait_for_line("hears nothing");
        }
        broker.wait_for_line("serving");
        agreed(world.connect().say(&hello("cache", "1.0.0")));
        broker.stop();
    }
}

#[test]
fn a_manager_that_does_not_read_delays_nobody() {
    let world = World::new();
    world.define("cache", &[]);
    let mut manager = Manager::at_a_path(&world);
    // Its queue has room for few of these (net.unix.max_dgram_qlen).
    let mut command = manager.service(&world, &["--hello-burst", "1000000"]);
    command.env("WATCHDOG_USEC", "200");
    let mut broker = Daemon::start(&mut command);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(200) {
        agreed(world.connect().say(&hello("cache", "1.0.0")));
    }
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
    assert_eq!(manager.next(), "READY=1");
}

#[test]
fn a_program_that_takes_over_is_ready_again_and_goes_on_giving_signs_of_life() {
    let world = World::new();
    world.define("cache", &[]);
    let mut manager = Manager::at_a_path(&world);
    let mut command = manager.service(&world, &[]);
    command.env("WATCHDOG_USEC", "100000");
    let mut broker = Daemon::start(&mut command);
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    for upgrade in 1..=2 {
        manager.wait_for("WATCHDOG=1");
        let socket = world.socket();
        let upgraded = Finished::of(&mut world.brokerd(&["upgrade", "--socket", socket.to_str().unwrap()]));
        assert!(upgraded.is_success(), "{upgraded:?}");
        while manager.count("READY=1") == upgrade {
            manager.next();
        }
        manager.wait_for("WATCHDOG=1");
        manager.wait_for("WATCHDOG=1");
    }
    assert_eq!(manager.count("STOPPING=1"), 0, "the process has not ended");
    assert_eq!(Wire::connect(pipe.as_ref()).tell("x"), "x");
    broker.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    assert_eq!(broker.wait(), Some(0));
}

/// A thread of a process, by its name.
fn thread(pid: u32, name: &str) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let is_meant =
        |task: &std::path::Path| std::fs::read_to_string(task.join("comm")).unwrap().trim() == name;
    let task = tasks.map(|task| task.unwrap().path()).find(|task| is_meant(task)).unwrap();
    Pid::from_raw(task.file_name().unwrap().to_str().unwrap().parse().unwrap())
}
