//! A backend's executable that is replaced while it runs, as an installer does it: another file takes its name.

use std::path::{Path, PathBuf};

use broker_protocol::wire::hello_reply;
use broker_tests::{Daemon, Wire, World, agreed, has_died, hello, kill, linux};

use crate::is_served;

/// A copy of the example backend that differs from others by what stands behind its end.
fn install(world: &World, release: &str) -> PathBuf {
    let (fresh, path) = (world.path("fresh"), world.path("bin"));
    // Written by another process: what this one has open for writing could not be executed.
    let copy = r#"cp "$1" "$2" && printf %s "$3" >>"$2" && mv -f "$2" "$4""#;
    let copied = std::process::Command::new("/bin/sh")
        .args(["-c", copy, "sh"])
        .args([&World::program("echo-backend"), &fresh])
        .arg(release)
        .arg(&path)
        .status();
    assert!(copied.unwrap().success());
    path
}

fn define(world: &World, binary: &Path, options: &[&str]) {
    let arguments = ["service", "add", "cache", "--binary", binary.to_str().unwrap()];
    let added = world.run(&[&arguments[..], options].concat());
    assert!(added.is_success(), "{added:?}");
}

/// What the executable of a process ends with.
fn runs(pid: u32, release: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/exe")).unwrap().ends_with(release.as_bytes())
}

fn backend(world: &World) -> u32 {
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    Wire::connect(pipe.as_ref()).tell("?pid").parse().unwrap()
}

#[test]
fn a_backend_whose_file_is_replaced_serves_on_and_the_next_start_takes_the_new_one() {
    let world = World::new();
    define(&world, &install(&world, "first release"), &[]);
    let mut broker = world.serve(&[]);
    let first = backend(&world);
    assert!(runs(first, "first release"));
    install(&world, "second release");
    assert_eq!(backend(&world), first, "it serves on");
    assert!(runs(first, "first release"));
    kill(first);
    broker.wait_for_line("DIED_CRASH");
    let second = backend(&world);
    assert!(second != first && runs(second, "second release"));
}

#[test]
fn a_backend_whose_file_is_replaced_before_it_answers_is_what_it_runs() {
    let world = World::new();
    define(&world, &install(&world, "first release"), &["--label", "spawn.args=--delay-ms 500"]);
    let mut broker = world.serve(&[]);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| is_served(&world));
        broker.wait_for_line("SPAWN_ATTEMPT");
        // The process is there, and its executable is hashed by what it runs, whatever lies at its path.
        linux::wait_until("a process", || {
            let children = linux::processes_of(&world.path(""));
            (!children.iter().any(|child| child.parent == broker.pid())).then(|| format!("{children:?}"))
        });
        install(&world, "second release");
        client.join().unwrap();
    });
    let pid = backend(&world);
    assert!(runs(pid, "first release") || runs(pid, "second release"));
}

#[test]
fn a_backend_whose_file_was_replaced_is_known_to_the_next_broker() {
    let world = World::new();
    let binary = install(&world, "first release");
    define(&world, &binary, &["--label", "spawn.args=--fail 3"]);
    std::fs::create_dir_all(world.path("own")).unwrap();
    let many = ["--hello-burst", "100000", "--hello-refill", "100000"];
    let mut broker = world.serve(&many);
    let mut command = world.command(&binary);
    command.arg("--endpoint").arg(world.endpoint("own/b.sock")).arg("--announce-to").arg(world.socket());
    let running = Daemon::spawn(command.args(["--service", "cache", "--version-of", "1.0.0"]));
    let is_known = || match world.connect().say(&hello("cache", "1.0.0")) {
        hello_reply::Result::Negotiated(_) => None,
        hello_reply::Result::Refused(refused) => Some(format!("{refused:?}")),
    };
    linux::wait_until("its announcement", is_known);
    install(&world, "second release");
    broker.kill();
    broker.wait();
    let _next = world.serve(&many);
    linux::wait_until("its announcement", is_known);
    assert_eq!(backend(&world), running.pid());
    assert!(runs(running.pid(), "first release"));
    kill(running.pid());
    assert!(has_died(running.pid()));
}
