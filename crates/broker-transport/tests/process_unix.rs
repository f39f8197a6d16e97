//! Real children on Unix: descriptors, signals, and that no zombie is left.
#![cfg(all(unix, feature = "tokio"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod common;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use broker_transport::listener::BindOptions;
use broker_transport::process::{
    ExecFailure, Exit, ProcessWatch, SignalError, SpawnCommand, SpawnError, Spawner, StopSignal, WatchError,
};
use broker_transport::stream::Stream;

use common::{eventually, exists, sh, spawn};

#[tokio::test]
async fn a_child_has_no_descriptor_of_its_parents() {
    // Open, and not close-on-exec: exactly what must not get through.
    let leaky = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    assert!(leaky.as_raw_fd() < 100);
    let script = "n=3; while [ $n -lt 100 ]; do [ -e /dev/fd/$n ] && echo $n >&2; n=$((n + 1)); done; exit 0";
    let child = spawn(sh(script)).await;
    assert!(child.wait().await.unwrap().is_success());
    assert_eq!(child.stderr().text(), "");
}

#[tokio::test]
async fn what_cannot_be_executed_says_why_and_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, content: &[u8], mode| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let cases = [
        (dir.path().join("absent"), ExecFailure::NotFound),
        (make("no_interpreter", b"#!/absent/interpreter\n", 0o755), ExecFailure::NotFound),
        (make("not_executable", b"#!/bin/sh\n", 0o644), ExecFailure::PermissionDenied),
        (make("garbage", b"\0\x01garbage", 0o755), ExecFailure::WrongFormat),
    ];
    for (program, expected) in cases {
        let error = Spawner::start().unwrap().spawn(SpawnCommand::new(&program)).await.unwrap_err();
        assert!(matches!(&error, SpawnError::Exec { failure, .. } if *failure == expected), "{error:?}");
        assert!(error.to_string().contains(program.to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn an_end_is_told_by_code_or_signal_and_as_often_as_asked() {
    let child = spawn(sh("exit 7")).await;
    assert_eq!(child.wait().await.unwrap(), Exit::Code(7));
    assert_eq!(child.wait().await.unwrap(), Exit::Code(7));
    assert!(matches!(child.signal(StopSignal::Kill), Err(SignalError::Exited)));
    assert!(!exists(child.pid()));
    let child = spawn(SpawnCommand::new("/bin/sleep").arg("1000")).await;
    assert_eq!(child.try_wait().unwrap(), None);
    let (first, second, ()) = tokio::join!(child.wait(), child.wait(), async {
        child.signal(StopSignal::Terminate).unwrap();
    });
    assert_eq!((first.unwrap(), second.unwrap()), (Exit::Signal(15), Exit::Signal(15)));
}

#[tokio::test]
async fn a_dropped_child_lives_on_and_is_reaped_when_it_ends() {
    let child = spawn(SpawnCommand::new("/bin/sleep").arg("1000")).await;
    let pid = child.pid();
    let watch = ProcessWatch::open(pid).unwrap();
    drop(child);
    assert!(!watch.is_dead().unwrap());
    watch.signal(StopSignal::Kill).unwrap();
    watch.died().await.unwrap();
    eventually("the dropped child is reaped", || !exists(pid)).await;
}

#[tokio::test]
async fn a_child_that_is_dropped_after_its_end_leaves_no_zombie() {
    let child = spawn(SpawnCommand::new("/bin/sleep").arg("1000")).await;
    let pid = child.pid();
    let watch = ProcessWatch::open(pid).unwrap();
    child.signal(StopSignal::Kill).unwrap();
    watch.died().await.unwrap();
    // A moment after its death, macOS knows it neither as alive nor as a zombie.
    eventually("nobody has reaped it yet", || exists(pid)).await;
    drop(child);
    eventually("the ended child is reaped", || !exists(pid)).await;
}

#[tokio::test]
async fn children_of_a_runtime_that_is_gone_are_reaped() {
    let pids = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let child = runtime.block_on(spawn(sh("exit 0")));
        let pid = child.pid();
        drop(runtime);
        drop(child);
        pid
    });
    let pid = pids.join().unwrap();
    eventually("the child is reaped", || !exists(pid)).await;
}

#[tokio::test]
async fn a_raised_descriptor_limit_is_not_passed_on() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(700), maximum }).unwrap();
    assert!(broker_transport::limits::raise_descriptor_limit().unwrap() > 700);
    let child = spawn(sh("ulimit -n >&2")).await;
    child.wait().await.unwrap();
    assert_eq!(child.stderr().text(), "700\n");
}

#[tokio::test]
async fn a_peer_can_be_watched_where_the_kernel_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = broker_transport::listener::Listener::bind(&path, &BindOptions::default()).unwrap();
    let _client = Stream::connect(&path).await.unwrap();
    let accepted = listener.accept().await.unwrap();
    match ProcessWatch::of_peer(&accepted.stream) {
        Ok(watch) => assert!(!watch.is_dead().unwrap()),
        Err(error) => assert!(matches!(error, WatchError::NoPeer), "{error}"),
    }
}
