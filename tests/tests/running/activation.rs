//! A listener that the manager has bound, and keeps.

use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use broker_protocol::PayloadProtocol;
use broker_protocol::prost::Message;
use broker_protocol::wire::Frame;
use broker_tests::{Daemon, Finished, Signal, Wire, World, agreed, hello, is_listening, reply_of};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::Manager;

/// The listener of a socket unit.
pub(crate) struct Unit(UnixListener);

impl Unit {
    pub(crate) fn at(path: &Path) -> Self {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(path).unwrap();
        // Inherited by what is started from now on, as the descriptor that a shell puts in its place.
        fcntl_setfd(&listener, FdFlags::empty()).unwrap();
        Self(listener)
    }

    /// The command as a service of this unit; it gets as many copies as there are names.
    pub(crate) fn activated(&self, names: &[&str], command: &Command) -> Command {
        let number = self.0.as_raw_fd();
        let copies: String = (0..names.len()).map(|index| format!(" {}<&{number}", 3 + index)).collect();
        let script = format!(
            "exec{copies}; export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={}; exec \"$@\"",
            names.len(),
            names.join(":"),
        );
        let mut activated = Command::new("/bin/bash");
        activated.args(["-c", &script, "bash"]).arg(command.get_program()).args(command.get_args());
        activated.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        activated
    }

    fn start(&self, world: &World, names: &[&str], options: &[&str]) -> Daemon {
        Daemon::start(&mut self.activated(names, &serve(world, options)))
    }
}

fn serve(world: &World, options: &[&str]) -> Command {
    let socket = world.socket();
    let mut command = world.brokerd(&["serve", "--socket", socket.to_str().unwrap()]);
    command.args(options);
    command
}

fn say_early(world: &World) -> Wire {
    let mut early = world.connect();
    early.send(&Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", "1.0.0").encode_to_vec()));
    early
}

fn shut_down(world: &World, mut broker: Daemon) {
    let done = world.run(&["shutdown", "--socket", world.socket().to_str().unwrap()]);
    assert!(done.is_success(), "{done:?}");
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn who_came_before_the_broker_is_served_and_the_socket_stays_for_the_next_one() {
    let world = World::new();
    world.define("cache", &[]);
    let unit = Unit::at(&world.socket());
    for names in [&["brokerd"][..], &["brokerd.socket"], &["http", "brokerd"]] {
        let mut early = say_early(&world);
        let broker = unit.start(&world, names, &[]);
        agreed(reply_of(&early.receive()));
        assert!(world.lock().exists());
        shut_down(&world, broker);
        assert!(is_listening(&world.socket()) && !world.lock().exists());
        // The look was a connection, which nobody is to be served on.
        drop(unit.0.accept().unwrap());
    }
}

#[test]
fn the_doctor_looks_at_the_broker_and_not_at_who_has_bound_its_socket() {
    let world = World::new();
    std::fs::create_dir(world.path("xdg")).unwrap();
    let unit = Unit::at(&world.socket());
    let broker = unit.start(&world, &["brokerd"], &[]);
    let said = world.run(&["doctor", "--socket", world.socket().to_str().unwrap(), "--json"]);
    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let found = |id: &str| {
        let check = report["checks"].as_array().unwrap().iter().find(|check| check["id"] == id).unwrap();
        check["found"].as_str().unwrap().to_owned()
    };
    assert_eq!(found("endpoint.listener"), format!("process {} answers", broker.pid()));
    assert_eq!(found("broker.executable"), World::program("brokerd").to_str().unwrap());
    broker.stop();
}

#[test]
fn a_second_broker_finds_the_lock_taken_though_the_socket_was_passed_to_it() {
    let world = World::new();
    let unit = Unit::at(&world.socket());
    let broker = unit.start(&world, &["brokerd"], &[]);
    let second = Finished::of(&mut unit.activated(&["brokerd"], &serve(&world, &[])));
    assert_eq!(second.code(), 3, "{second:?}");
    broker.stop();
}

#[test]
fn a_listener_at_another_place_or_none_is_an_error_that_says_what_to_change() {
    let world = World::new();
    let other = world.path("run/other.sock");
    let unit = Unit::at(&other);
    let failed = Finished::of(&mut unit.activated(&["brokerd"], &serve(&world, &[])));
    assert_eq!(failed.code(), 1, "{failed:?}");
    let advice = format!("set ListenStream= of the socket unit to {}", world.socket().display());
    assert!(failed.stderr.contains(&advice), "{failed:?}");
    assert!(failed.stderr.contains(&format!("--socket {}", other.display())), "{failed:?}");

    let failed = Finished::of(&mut unit.activated(&["http", "https"], &serve(&world, &[])));
    assert_eq!(failed.code(), 1, "{failed:?}");
    assert!(failed.stderr.contains("FileDescriptorName=brokerd"), "{failed:?}");

    let stream = std::os::unix::net::UnixStream::connect(&other).unwrap();
    fcntl_setfd(&stream, FdFlags::empty()).unwrap();
    let no_listener = Unit(UnixListener::from(std::os::fd::OwnedFd::from(stream)));
    let failed = Finished::of(&mut no_listener.activated(&["brokerd"], &serve(&world, &[])));
    assert_eq!(failed.code(), 1, "{failed:?}");
    assert!(failed.stderr.contains("a socket that does not listen"), "{failed:?}");
    assert!(!world.lock().exists() && other.exists(), "nothing is left, and nothing is gone");
}

#[test]
fn what_was_passed_to_somebody_else_is_left_alone() {
    let world = World::new();
    for pid in ["1", "nobody"] {
        let mut command = serve(&world, &[]);
        command.env("LISTEN_PID", pid).env("LISTEN_FDS", "1");
        let broker = Daemon::start(&mut command);
        broker.stop();
        assert!(!world.socket().exists(), "it was the broker's own");
    }
}

#[test]
fn a_program_that_takes_over_keeps_the_listener_and_leaves_its_file() {
    let world = World::new();
    world.define("cache", &[]);
    let unit = Unit::at(&world.socket());
    let mut manager = Manager::at_a_path(&world);
    let mut command = serve(&world, &[]);
    command.env("NOTIFY_SOCKET", &manager.name);
    let mut broker = Daemon::start(&mut unit.activated(&["brokerd"], &command));
    manager.wait_for("READY=1");
    for _ in 0..2 {
        let socket = world.socket();
        let upgraded = world.run(&["upgrade", "--socket", socket.to_str().unwrap()]);
        assert!(upgraded.is_success(), "{upgraded:?}");
        manager.wait_for("READY=1");
        agreed(world.connect().say(&hello("cache", "1.0.0")));
    }
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
    assert!(world.socket().exists() && !world.lock().exists());
}

#[test]
fn a_backend_is_not_given_the_broker_s_listener() {
    let world = World::new();
    world.define("cache", &[]);
    let unit = Unit::at(&world.socket());
    let broker = unit.start(&world, &["brokerd"], &["--sandbox"]);
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    let mut backend = Wire::connect(pipe.as_ref());
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET"] {
        assert_eq!(backend.tell(&format!("?env {name}")), backend.tell("?env NOT_SET_AT_ALL"), "{name}");
    }
    let pid: u32 = backend.tell("?pid").parse().unwrap();
    // The listener of this test itself is inherited by whatever it starts.
    let listeners = sockets_named(pid, &world.socket());
    assert_eq!(listeners, 0, "it could accept the broker's clients");
    broker.stop();
}

/// How many descriptors of a process are sockets at this path.
fn sockets_named(pid: u32, path: &Path) -> usize {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    let at = format!(" {}", path.display());
    let inodes: Vec<String> = table
        .lines()
        .filter(|line| line.ends_with(&at))
        .filter_map(|line| Some(format!("socket:[{}]", line.split_whitespace().nth(6)?)))
        .collect();
    let listed = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = listed.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| inodes.iter().any(|inode| link.to_string_lossy() == *inode)).count()
}
