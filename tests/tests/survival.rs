//! Backends that outlive their broker, and the next one that adopts them (behaviour.md 4, "Broker restart").
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use broker_client::{Connector, Hello, PayloadProtocol, blocking};
use broker_protocol::manifest;
use broker_protocol::prost::Message;
use broker_protocol::wire::{CacheManifest, CacheRoot, Frame};
use broker_tests::{Daemon, PATIENCE, Signal, Wire, World, agreed, exists, has_died, hello, kill, reply_of};

const LANE: PayloadProtocol = PayloadProtocol::new(0xF001);
const KEEP: [&str; 5] = ["--keep-backends", "--hello-burst", "100000", "--hello-refill", "100000"];

fn backend(world: &World) -> (String, u32) {
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    let pid = Wire::connect(Path::new(&pipe)).tell("?pid").parse().unwrap();
    (pipe, pid)
}

/// Where the manifest of the backend is, or would be.
fn manifest_path(world: &World) -> PathBuf {
    world.path(".local/share/running-process/manifests/cache-1.0.0.pb")
}

/// The manifest of the backend, once it is written.
fn wait_for_manifest(world: &World) -> PathBuf {
    let path = manifest_path(world);
    wait_until(|| path.exists());
    path
}

fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to that");
        std::thread::yield_now();
    }
}

/// A backend that has outlived its broker, with its manifest.
fn outlived(world: &World) -> (String, u32, PathBuf) {
    world.define("cache", &[]);
    let broker = world.serve(&KEEP);
    let (pipe, pid) = backend(world);
    let manifest = wait_for_manifest(world);
    crash(broker);
    (pipe, pid, manifest)
}

fn count(world: &World, kind: &str) -> usize {
    let dump = world.ask("dump");
    dump["recent_lifecycle_events"].as_array().unwrap().iter().filter(|event| event["kind"] == kind).count()
}

/// A broker that says whom it asks, too.
fn talkative(world: &World) -> Daemon {
    let socket = world.socket();
    let mut command = world.brokerd(&["serve", "--socket", socket.to_str().unwrap()]);
    Daemon::start(command.args(KEEP).env("RUST_LOG", "debug"))
}

/// Kills a broker that has just answered; what was written down then is there, and the next one ends its backend.
fn is_known_to_the_next(world: &World, broker: Daemon) {
    broker.kill();
    assert!(manifest_path(world).exists());
    crash(broker);
    let broker = world.serve(&[]);
    let (_, pid) = backend(world);
    assert_eq!(count(world, "SPAWN"), 1, "it was adopted");
    broker.stop();
    assert!(has_died(pid), "and is ours");
}

fn crash(mut broker: Daemon) {
    broker.kill();
    assert_eq!(broker.wait(), None, "it did not end by itself");
}

#[test]
fn who_has_an_answer_has_one_that_the_next_broker_knows_of() {
    for _ in 0..5 {
        let world = World::new();
        world.define("cache", &[]);
        let broker = world.serve(&KEEP);
        agreed(world.connect().say(&hello("cache", "1.0.0")));
        // At once: nothing else is waited for.
        is_known_to_the_next(&world, broker);
    }
}

#[test]
fn what_is_certainly_gone_is_forgotten_at_once() {
    let world = World::new();
    let (pipe, pid, manifest) = outlived(&world);
    kill(pid);
    assert!(has_died(pid));
    let _ = std::fs::remove_file(&pipe);
    // Its number is somebody else's by now, in the same boot.
    let other = Daemon::spawn(world.command(Path::new("/bin/sleep")).arg("1000"));
    rewrite(&manifest, |manifest| manifest.current_daemon.as_mut().unwrap().pid = other.pid());
    let mut broker = talkative(&world);
    assert_ne!(backend(&world).1, pid);
    broker.wait_for_line("SPAWN ");
    let heard = broker.stop_and_hear();
    assert!(heard.contains("there is no such endpoint") && !heard.contains("is asked again"), "{heard}");
    assert!(exists(other.pid()), "it is nobody's to end");
}

#[test]
fn a_backend_that_is_given_its_listener_is_written_down_before_a_client_is_sent_to_it() {
    let world = World::new();
    world
        .define("cache", &["--label", "spawn.activation=listen-fds", "--label", "spawn.args=--delay-ms 300"]);
    let broker = world.serve(&KEEP);
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    is_known_to_the_next(&world, broker);
}

#[test]
fn a_backend_that_is_to_outlive_the_broker_and_fails_is_told_to_have_no_last_words() {
    let world = World::new();
    let fails = world.script("fails", "echo in vain >&2; exit 7");
    assert!(world.run(&["service", "add", "cache", "--binary", fails.to_str().unwrap()]).is_success());
    let _broker = world.serve(&KEEP);
    let socket = world.socket();
    let refused = world.run(&["hello", "cache", "1.0.0", "--socket", socket.to_str().unwrap()]);
    assert!(refused.stderr.contains("with --keep-backends, what a backend says is not kept"), "{refused:?}");
}

#[test]
fn a_backend_that_does_not_answer_at_first_is_asked_again() {
    let world = World::new();
    let (pipe, pid, manifest) = outlived(&world);
    let signal = |signal| broker_tests::signal(pid, signal);
    signal(Signal::STOP);
    let mut broker = talkative(&world);
    broker.wait_for_line("is asked again");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| backend(&world));
        signal(Signal::CONT);
        assert_eq!(asked.join().unwrap(), (pipe.clone(), pid), "no other one is started");
    });
    assert!(manifest.exists());
    broker.stop();
    kill(pid);
}

#[test]
fn a_backend_that_lives_and_does_not_answer_stays_written_down() {
    let world = World::new();
    let (_, pid, manifest) = outlived(&world);
    broker_tests::signal(pid, Signal::STOP);
    let mut broker = world.serve(&KEEP);
    let told = broker.wait_for_line("what a former broker has left is not used");
    assert!(told.contains("no answer within"), "{told}");
    broker.stop();
    assert!(manifest.exists() && exists(pid));
    kill(pid);
}

#[test]
fn a_manifest_of_another_broker_whose_backend_runs_is_not_overwritten() {
    let world = World::new();
    world.define("cache", &[]);
    let first = world.serve(&KEEP);
    let (_, pid) = backend(&world);
    let manifest = wait_for_manifest(&world);
    let written = std::fs::read(&manifest).unwrap();
    let elsewhere = world.path("run/other.sock");
    let mut command = world.brokerd(&["serve", "--socket", elsewhere.to_str().unwrap()]);
    let mut second = Daemon::start(command.args(KEEP));
    agreed(Wire::connect(&elsewhere).say(&hello("cache", "1.0.0")));
    let told = second.wait_for_line("the next broker will not find a backend");
    assert!(told.contains(&format!("process {pid}")), "{told}");
    assert_eq!(std::fs::read(&manifest).unwrap(), written);
    crash(first);
    let _first = world.serve(&[]);
    assert_eq!(backend(&world).1, pid, "the first one finds its own");
    drop(second);
    for line in world.run(&["manifest", "list", "--json"]).stdout.lines() {
        assert!(!line.contains("other.sock"), "{line}");
    }
}

#[test]
fn after_a_crash_under_load_no_backend_restarts_and_no_client_fails_twice() {
    const CLIENTS: usize = 4;
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = Some(world.serve(&KEEP));
    let (pipe, pid) = backend(&world);
    wait_for_manifest(&world);
    let (is_over, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let hello = Hello::new("cache".parse().unwrap(), "1.0.0".parse().unwrap());
                let connector = Connector::new(hello).broker(world.socket());
                let mut failed_before = false;
                while !is_over.load(Ordering::Relaxed) {
                    let attempt = || -> Result<(), Box<dyn std::error::Error>> {
                        let mut session = blocking::Session::connect(&connector)?;
                        assert_eq!(session.request(LANE, "?pid")?, pid.to_string());
                        Ok(())
                    };
                    match attempt() {
                        Ok(()) => {
                            failed_before = false;
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            assert!(!failed_before, "twice: {error}");
                            failed_before = true;
                        }
                    }
                }
            });
        }
        for _ in 0..3 {
            let before = served.load(Ordering::Relaxed);
            while served.load(Ordering::Relaxed) < before + 100 {
                std::thread::yield_now();
            }
            crash(broker.take().unwrap());
            broker = Some(world.serve(&KEEP));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(backend(&world), (pipe, pid));
    assert_eq!(count(&world, "SPAWN_ATTEMPT"), 0, "it was not started again");
    kill(pid);
    broker.unwrap().stop();
}

#[test]
fn an_adopted_backend_is_the_broker_s_own_from_then_on() {
    let world = World::new();
    let (pipe, pid, manifest) = outlived(&world);
    let mut broker = world.serve(&KEEP);
    assert_eq!(backend(&world), (pipe.clone(), pid));
    assert_eq!(count(&world, "SPAWN"), 1, "an adoption is told as what it leads to");
    kill(pid);
    broker.wait_for_line("DIED_CRASH");
    wait_until(|| !manifest.exists());
    assert!(!Path::new(&pipe).exists(), "its socket goes with it");
    let (_, next) = backend(&world);
    assert_ne!(next, pid);
    wait_until(|| manifest.exists());
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
    assert!(exists(next) && manifest.exists(), "it is kept");
    // The next broker keeps nothing.
    let mut last = world.serve(&[]);
    assert_eq!(backend(&world).1, next);
    last.signal(Signal::TERM);
    assert_eq!(last.wait(), Some(0));
    assert!(has_died(next) && !manifest.exists(), "both are gone when the broker is");
}

#[test]
fn an_adopted_backend_goes_along_when_the_broker_is_upgraded() {
    let world = World::new();
    let (pipe, pid, _) = outlived(&world);
    let broker = world.serve(&KEEP);
    for _ in 0..2 {
        let upgraded = world.run(&["upgrade", "--socket", world.socket().to_str().unwrap()]);
        assert!(upgraded.is_success(), "{upgraded:?}");
        assert_eq!(backend(&world), (pipe.clone(), pid));
    }
    assert_eq!(count(&world, "SPAWN_ATTEMPT"), 0);
    kill(pid);
    broker.stop();
}

#[test]
fn one_that_has_died_with_its_broker_is_forgotten() {
    let world = World::new();
    let (_, pid, manifest) = outlived(&world);
    kill(pid);
    assert!(has_died(pid) && manifest.exists());
    let broker = world.serve(&KEEP);
    wait_until(|| !manifest.exists());
    let (_, next) = backend(&world);
    assert_ne!(next, pid);
    kill(next);
    broker.stop();
}

#[test]
fn a_process_that_is_another_by_now_is_neither_used_nor_signalled() {
    let world = World::new();
    let (_, pid, path) = outlived(&world);
    kill(pid);
    assert!(has_died(pid));
    // Somebody else has its number, as far as can be told from the manifest.
    let mut other = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    rewrite(&path, |manifest| manifest.current_daemon.as_mut().unwrap().pid = other.id());
    let broker = world.serve(&KEEP);
    let (_, next) = backend(&world);
    assert_ne!(next, other.id());
    let error = world.ask("dump").to_string();
    assert!(error.contains("what a former broker has left is not used"), "{error}");
    broker.stop();
    assert_eq!(other.try_wait().unwrap(), None, "it has nothing to do with all this");
    other.kill().unwrap();
    other.wait().unwrap();
    kill(next);
}

fn rewrite(path: &Path, change: impl FnOnce(&mut CacheManifest)) {
    let mut manifest = manifest::open(&std::fs::read(path).unwrap()).unwrap();
    change(&mut manifest);
    std::fs::write(path, manifest::seal(manifest)).unwrap();
}

#[test]
fn what_answers_must_be_who_was_written_down() {
    type Change = fn(&mut CacheManifest);
    let changes: [(&str, Change); 3] = [
        ("started at", |manifest| manifest.current_daemon.as_mut().unwrap().started_at_unix_ms += 1),
        ("exe_hash", |manifest| manifest.current_daemon.as_mut().unwrap().exe_hash[0] ^= 1),
        ("pid", |manifest| manifest.current_daemon.as_mut().unwrap().pid = std::process::id()),
    ];
    for (what, change) in changes {
        let world = World::new();
        let (_, pid, path) = outlived(&world);
        rewrite(&path, change);
        let broker = world.serve(&KEEP);
        let (_, next) = backend(&world);
        assert_ne!(next, pid, "{what}");
        assert!(exists(pid), "it is left alone");
        kill(pid);
        kill(next);
        broker.stop();
    }
}

#[test]
fn a_damaged_manifest_and_one_of_another_boot_are_reported_and_left_alone() {
    let world = World::new();
    let (_, pid, path) = outlived(&world);
    rewrite(&path, |manifest| manifest.current_daemon.as_mut().unwrap().boot_id = "another".into());
    let foreign = std::fs::read(&path).unwrap();
    let damaged = path.with_file_name("other-1.0.0.pb");
    std::fs::write(&damaged, "no manifest").unwrap();
    let broker = world.serve(&KEEP);
    assert_eq!(count(&world, "CACHE_CORRUPTION_DETECTED"), 1);
    assert_eq!(std::fs::read(&path).unwrap(), foreign);
    assert_eq!(std::fs::read(&damaged).unwrap(), b"no manifest");
    let listed = world.run(&["manifest", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed["manifests"][0]["state"], "other-boot");
    assert!(listed["manifests"][1]["error"].as_str().unwrap().contains("damaged"), "{listed}");
    let verified = world.run(&["manifest", "verify"]);
    assert_eq!(verified.code(), 1);
    assert!(verified.stdout.contains("ok ") && verified.stdout.contains("damaged "), "{verified:?}");
    let pruned = world.run(&["manifest", "prune"]);
    assert!(pruned.is_success(), "{pruned:?}");
    assert!(path.exists() && damaged.exists(), "{pruned:?}");
    kill(pid);
    broker.stop();
}

#[test]
fn a_broker_that_takes_its_backends_along_leaves_no_manifest() {
    let world = World::new();
    world.define("cache", &[]);
    let broker = world.serve(&[]);
    let (_, pid) = backend(&world);
    crash(broker);
    assert!(has_died(pid) && !manifest_path(&world).exists());
}

#[test]
fn an_adopted_backend_that_clients_ask_for_during_an_upgrade_is_not_started_again() {
    let world = World::new();
    let (pipe, pid, _) = outlived(&world);
    let broker = world.serve(&KEEP);
    let frame = Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", "1.0.0").encode_to_vec());
    let bytes = broker_protocol::frame_bytes(&frame).unwrap();
    for _ in 0..3 {
        // Whole requests that go along: they wait while the half of another keeps their connection unread.
        let mut halves: Vec<_> = (0..8)
            .map(|_| {
                let mut wire = world.connect();
                wire.write(&bytes[..bytes.len() - 1]);
                wire
            })
            .collect();
        std::thread::scope(|scope| {
            let upgraded =
                scope.spawn(|| world.run(&["upgrade", "--socket", world.socket().to_str().unwrap()]));
            for wire in &mut halves {
                wire.write(&bytes[bytes.len() - 1..]);
            }
            assert!(upgraded.join().unwrap().is_success());
        });
        for wire in &mut halves {
            assert_eq!(agreed(reply_of(&wire.receive())).backend_pipe, pipe);
        }
    }
    assert_eq!(count(&world, "SPAWN_ATTEMPT"), 0);
    kill(pid);
    broker.stop();
}

#[test]
fn an_adopted_backend_is_ended_with_a_broker_that_was_upgraded() {
    let world = World::new();
    let (_, pid, manifest) = outlived(&world);
    // This one keeps nothing, and the backend has announced itself to it before it goes on.
    let mut broker = world.serve(&["--hello-burst", "100000", "--hello-refill", "100000"]);
    backend(&world);
    let upgraded = world.run(&["upgrade", "--socket", world.socket().to_str().unwrap(), "--json"]);
    assert!(upgraded.stdout.contains("\"backends_kept\": 1"), "{upgraded:?}");
    assert_eq!(backend(&world).1, pid);
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
    assert!(has_died(pid) && !manifest.exists());
}

#[test]
fn a_backend_that_an_upgrade_has_waited_for_is_written_down() {
    let world = World::new();
    let (gate, echo) = (world.path("gate"), World::program("echo-backend"));
    let wait =
        format!("while ! [ -e {} ]; do sleep 0.01; done; exec {} \"$@\"", gate.display(), echo.display());
    let slow = world.script("slow", &wait);
    assert!(world.run(&["service", "add", "cache", "--binary", slow.to_str().unwrap()]).is_success());
    let mut broker = world.serve(&KEEP);
    let mut waiting = world.connect();
    waiting.send(&Frame::request(PayloadProtocol::CONTROL, 7, hello("cache", "1.0.0").encode_to_vec()));
    broker.wait_for_line("SPAWN_ATTEMPT");
    std::thread::scope(|scope| {
        let upgraded = scope.spawn(|| world.run(&["upgrade", "--socket", world.socket().to_str().unwrap()]));
        broker.wait_for_line("going on as another program");
        std::fs::write(&gate, "").unwrap();
        assert!(upgraded.join().unwrap().is_success());
    });
    assert!(manifest_path(&world).exists(), "before the broker went on, and whole");
    agreed(reply_of(&waiting.receive()));
    kill(backend(&world).1);
    broker.stop();
}

#[test]
fn brokers_of_one_user_adopt_each_only_their_own() {
    let world = World::new();
    let (_, pid, path) = outlived(&world);
    // Another broker, elsewhere, of the same instance.
    let elsewhere = world.endpoint("run/other.sock");
    let mut options = vec!["serve", "--socket", elsewhere.to_str().unwrap()];
    options.extend(KEEP);
    let other = Daemon::start(&mut world.brokerd(&options));
    let pipe = agreed(Wire::connect(&elsewhere).say(&hello("cache", "1.0.0"))).backend_pipe;
    let its_own: u32 = Wire::connect(Path::new(&pipe)).tell("?pid").parse().unwrap();
    assert_ne!(its_own, pid);
    kill(its_own);
    kill(pid);
    drop(other);
    drop(path);
}

#[test]
fn a_service_s_own_manifest_keeps_what_it_says() {
    let world = World::new();
    world.define("cache", &[]);
    let path = manifest_path(&world);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::set_permissions(path.parent().unwrap(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let own = CacheManifest {
        service_name: "cache".into(),
        service_version: "1.0.0".into(),
        roots: vec![CacheRoot { path: "/var/cache/x".into(), ..CacheRoot::default() }],
        ..CacheManifest::default()
    };
    std::fs::write(&path, manifest::seal(own)).unwrap();
    let read = || manifest::open(&std::fs::read(&path).unwrap()).unwrap();
    let mut broker = world.serve(&KEEP);
    let (_, pid) = backend(&world);
    wait_until(|| read().current_daemon.is_some());
    assert_eq!(read().roots[0].path, "/var/cache/x");
    kill(pid);
    broker.wait_for_line("DIED_CRASH");
    wait_until(|| read().current_daemon.is_none());
    assert_eq!(read().roots[0].path, "/var/cache/x");
    let pruned = world.run(&["manifest", "prune", "--dry-run"]);
    assert!(pruned.stdout.starts_with("left alone"), "{pruned:?}");
    broker.stop();
}

#[test]
fn manifests_are_shown_and_what_a_broker_has_left_of_the_dead_is_pruned() {
    let world = World::new();
    let (pipe, pid, path) = outlived(&world);
    let shown = world.run(&["manifest", "show", "cache", "1.0.0", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    let shown = &shown["manifests"][0];
    assert_eq!((&shown["process"]["pid"], &shown["process"]["endpoint"]), (&pid.into(), &pipe.into()));
    assert_eq!(shown["state"], "may-run");
    assert_eq!(shown["broker_endpoint"], world.socket().display().to_string());
    let kept = world.run(&["manifest", "prune"]);
    assert!(kept.stdout.contains("may run") && path.exists(), "{kept:?}");
    kill(pid);
    assert!(has_died(pid));
    let dry = world.run(&["manifest", "prune", "--dry-run"]);
    assert!(dry.stdout.contains("would remove") && path.exists(), "{dry:?}");
    let pruned = world.run(&["manifest", "prune", "--json"]);
    assert!(pruned.is_success() && !path.exists(), "{pruned:?}");
    let missing = world.run(&["manifest", "show", "cache", "1.0.0"]);
    assert_eq!(missing.code(), 1);
    assert!(missing.stderr.contains("`brokerd manifest list` tells which there are"), "{missing:?}");
}
