//! Sockets, locks, and who is behind them.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use std::time::Instant;

use broker_tests::{Daemon, PATIENCE, Signal, World, has_died};

use crate::output::tree;
use crate::{Patient, check, chmod, is_root, make_dir};

/// A socket file that nobody serves.
fn stale(path: &Path) {
    make_dir(path.parent().unwrap());
    drop(UnixListener::bind(path).unwrap());
}

#[test]
fn a_path_that_fits_no_address_is_told_and_chosen_anew() {
    let patient = Patient::new();
    let long = patient.path(&"x".repeat(80));
    make_dir(long.as_ref());
    let patient = patient.with("XDG_RUNTIME_DIR", long);
    patient.is_mended("endpoint.path", "FAIL", "at most 107 bytes");

    // The shared broker's fits, a backend's does not.
    let patient = Patient::new();
    let room = 107 - patient.shared_socket().as_os_str().len();
    let longer = patient.path(&"x".repeat("xdg".len() + room));
    make_dir(longer.as_ref());
    let patient = patient.with("XDG_RUNTIME_DIR", longer);
    assert_eq!(check(&patient.examined(), "endpoint.path")["status"], "PASS");
    patient.is_mended("endpoint.backend-path", "FAIL", "at most 107 bytes");
}

#[test]
fn what_lies_in_the_place_of_the_socket_or_lock_is_told_and_taken_away() {
    let patient = Patient::new();
    let socket = patient.shared_socket();
    let lock = socket.with_extension("sock.lock");
    stale(&socket);
    patient.is_mended("endpoint.socket", "WARN", "stale");
    assert!(!socket.exists());
    std::fs::write(&socket, "").unwrap();
    patient.is_mended("endpoint.socket", "FAIL", "a regular file");
    symlink("/absent", &socket).unwrap();
    patient.is_mended("endpoint.socket", "FAIL", "a symbolic link");

    std::fs::write(&lock, "1\n1\n/x\n").unwrap();
    patient.is_mended("endpoint.lock", "WARN", "left behind by process 1");
    symlink("/absent", &lock).unwrap();
    patient.is_mended("endpoint.lock", "FAIL", "a symbolic link");
    make_dir(&lock);
    std::fs::remove_file(lock.with_extension("lock.aside")).unwrap();
    patient.is_mended("endpoint.lock", "FAIL", "a directory");
    assert_eq!(patient.serve(&[]).last_line().matches("serving").count(), 1);
}

#[test]
fn what_a_killed_broker_leaves_is_told_and_removed() {
    let patient = Patient::new();
    let mut broker = patient.serve(&[]);
    broker.kill();
    broker.wait();
    patient.is_mended("endpoint.socket", "WARN", "stale");
    patient.is_mended("endpoint.lock", "WARN", &format!("process {}", broker.pid()));

    let socket = patient.shared_socket();
    let name = socket.file_name().unwrap().to_str().unwrap().replace("shared", &format!("be-{:032x}", 7));
    stale(&socket.with_file_name(name));
    stale(
        &socket.with_file_name(socket.file_name().unwrap().to_str().unwrap().replace("shared", "svc-other")),
    );
    patient.is_mended("endpoint.leftovers", "WARN", "2 sockets");
}

#[test]
fn where_no_broker_is_the_command_that_is_told_starts_it() {
    let patient = Patient::new();
    let mend = patient.remedy("endpoint.listener", "WARN", "no such endpoint");
    let _broker = patient.run_in_shell(&format!("exec {mend}"));
    let report = patient.examined();
    for id in ["listener", "socket", "lock", "hello", "healthz", "readyz"] {
        assert_eq!(check(&report, &format!("endpoint.{id}"))["status"], "PASS", "{report}");
    }
}

#[test]
fn a_stopped_broker_is_told_in_bounded_time_without_touching_anything_and_goes_on() {
    let patient = Patient::new();
    let mut broker = patient.serve(&[]);
    broker.signal(Signal::STOP);
    let before = tree(&patient.world.path(""));
    let mend = patient.remedy("endpoint.listener", "FAIL", "is stopped, and does not answer");
    assert_eq!(tree(&patient.world.path("")), before);
    let report = patient.examined_after(&mend);
    for id in ["endpoint.listener", "endpoint.hello", "endpoint.readyz"] {
        assert_eq!(check(&report, id)["status"], "PASS", "{report}");
    }
}

#[test]
fn a_broker_that_is_about_to_end_is_told_and_another_started_after_it() {
    let patient = Patient::new();
    let slow = patient.world.script("slow", "exec sleep 1000");
    let add = format!(
        "brokerd service add cache --isolation shared --label spawn.timeout_ms=600000 --binary {}",
        slow.display()
    );
    assert!(patient.run(&add).is_success());
    let mut broker = patient.serve(&[]);
    let _client = Daemon::spawn(&mut patient.shell("exec brokerd hello cache 1.0.0"));
    let deadline = Instant::now() + PATIENCE;
    while !patient.run("brokerd status").stdout.contains("spawning") {
        assert!(Instant::now() < deadline, "the Hello did not come");
    }
    assert!(patient.run("brokerd shutdown --drain-ms 600000").is_success());
    let mend = patient.remedy("endpoint.readyz", "WARN", "not ready");
    assert_eq!(patient.remedy("endpoint.hello", "WARN", "refused"), mend);
    broker.kill();
    broker.wait();
    let _another = patient.run_in_shell(&format!("exec {mend}"));
    let report = patient.examined();
    assert_eq!(check(&report, "endpoint.readyz")["status"], "PASS", "{report}");
    assert_eq!(check(&report, "endpoint.hello")["status"], "PASS", "{report}");
}

#[test]
fn a_socket_that_others_may_connect_to_is_told_and_closed() {
    let patient = Patient::new();
    let _broker = patient.serve(&[]);
    chmod(&patient.shared_socket(), 0o666);
    patient.is_mended("endpoint.socket", "WARN", "lets others connect");
}

#[test]
fn a_process_of_another_user_is_told_and_nothing_is_said_to_it() {
    if !is_root() {
        println!("not tested, as it takes root: a listener of another user");
        return;
    }
    let mut patient = Patient::new();
    // In a home of that user's, and where the user may execute it.
    let place = tempfile::tempdir_in("/tmp").unwrap();
    std::os::unix::fs::chown(place.path(), Some(12_345), None).unwrap();
    let (socket, backend) = (place.path().join("s.sock"), place.path().join("echo"));
    let copied =
        patient.run(&format!("cp {} {}", World::program("echo-backend").display(), backend.display()));
    assert!(copied.is_success(), "{copied:?}");
    let (backend, listen) = (backend.display(), socket.display());
    let script = format!("exec setpriv --reuid 12345 {backend} --endpoint {listen}");
    let _other = Daemon::spawn(&mut patient.shell(&script));
    let deadline = Instant::now() + PATIENCE;
    while !socket.exists() {
        assert!(Instant::now() < deadline, "it does not listen");
        std::thread::yield_now();
    }
    patient.options = vec!["--socket".to_owned(), socket.to_str().unwrap().to_owned()];
    patient.remedy("endpoint.listener", "FAIL", "user 12345");
    let elsewhere = patient.remedy("endpoint.socket", "FAIL", "another user");
    assert!(!elsewhere.contains("rm "), "{elsewhere}");
    // One that nobody serves, in the user's own directory.
    let place = patient.world.path("run/s.sock");
    stale(&place);
    std::os::unix::fs::chown(&place, Some(12_345), None).unwrap();
    patient.options = vec!["--socket".to_owned(), place.to_str().unwrap().to_owned()];
    patient.is_mended("endpoint.socket", "FAIL", "another user");
}

#[test]
fn a_broker_whose_socket_was_removed_is_told_and_ended() {
    let patient = Patient::new();
    let mut broker = patient.serve(&[]);
    std::fs::remove_file(patient.shared_socket()).unwrap();
    let mend = patient.remedy("endpoint.socket", "FAIL", &format!("process {} serves it", broker.pid()));
    assert!(patient.run(&mend).is_success());
    assert_eq!(broker.wait(), Some(0));
    assert_eq!(check(&patient.examined(), "endpoint.socket")["status"], "SKIP");
}

#[test]
fn somebody_who_is_no_broker_is_told_and_ended() {
    let mut patient = Patient::new();
    let place = patient.world.path("own/s.sock");
    let other = patient.world.run_backend(&place);
    patient.options = vec!["--socket".to_owned(), place.to_str().unwrap().to_owned()];
    let mend = patient.remedy("endpoint.listener", "FAIL", &format!("process {}", other.pid()));
    assert!(patient.run(&mend).is_success());
    assert!(has_died(other.pid()));
}
