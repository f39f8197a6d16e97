//! Real children: what they get, how they end, and that nothing of them is left.
#![cfg(all(unix, feature = "tokio"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use broker_transport::listener::BindOptions;
use broker_transport::process::{
    BaseEnv, ExecFailure, Exit, ParentDeath, ProcessWatch, STDERR_RING_BYTES, SignalError, SpawnCommand,
    SpawnError, Spawner, StopSignal, WatchError,
};
use broker_transport::stream::Stream;

use common::{eventually, exists, said, sh, spawn};

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
async fn a_child_gets_the_variables_it_should_and_no_others() {
    let mut command = SpawnCommand::new("/bin/sh").arg("-c").arg("exec /usr/bin/env >&2");
    command.base_env = BaseEnv::Empty;
    command = command.env("FIRST", "1").env("SECOND", "a b=c").env("FIRST", "2");
    let child = spawn(command).await;
    assert!(child.wait().await.unwrap().is_success());
    let text = child.stderr().text();
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("PWD=")).collect();
    lines.sort_unstable();
    lines
        .retain(|line| !line.starts_with("_=") && !line.starts_with("SHLVL=") && !line.starts_with("OLDPWD"));
    assert_eq!(lines, ["FIRST=2", "SECOND=a b=c"]);

    let inheriting = spawn(sh("exec /usr/bin/env >&2")).await;
    inheriting.wait().await.unwrap();
    assert!(inheriting.stderr().text().contains("PATH="));
    assert!(!inheriting.stderr().text().contains("LISTEN_"));
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
async fn what_cannot_be_passed_to_a_program_is_refused() {
    let refused = |command| async { Spawner::start().unwrap().spawn(command).await.unwrap_err() };
    assert!(matches!(refused(SpawnCommand::new("sh")).await, SpawnError::NotAbsolute { .. }));
    for command in [
        SpawnCommand::new("/bin/true").arg("a\0b"),
        SpawnCommand::new("/bin/true").env("A=B", "c"),
        SpawnCommand::new("/bin/true").env("", "c"),
        SpawnCommand::new("/bin/true").env("A", "b\0c"),
    ] {
        let error = refused(command).await;
        assert!(matches!(error, SpawnError::Unpassable { .. }), "{error}");
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
async fn killing_reaches_what_the_child_started() {
    let child = spawn(sh("sleep 1000 & echo $! >&2; wait")).await;
    said(&child, "\n").await;
    let grandchild = ProcessWatch::open(child.stderr().text().trim().parse().unwrap()).unwrap();
    child.signal(StopSignal::Kill).unwrap();
    grandchild.died().await.unwrap();
    assert_eq!(child.wait().await.unwrap(), Exit::Signal(9));
}

#[tokio::test]
async fn a_flood_of_stderr_neither_blocks_the_child_nor_grows_the_ring() {
    let child = spawn(sh("yes flood | head -c 3000000 >&2; echo the end >&2")).await;
    assert!(child.wait().await.unwrap().is_success());
    let text = child.stderr().text();
    assert_eq!((text.len(), child.stderr().written()), (STDERR_RING_BYTES, 3_000_008));
    assert_eq!(child.stderr().last_lines(1), ["the end"]);
}

#[tokio::test]
async fn last_words_are_there_at_the_end_even_if_a_grandchild_holds_the_pipe() {
    let child = spawn(sh("sleep 1000 & echo $! >&2; echo last words >&2; exit 3")).await;
    assert_eq!(child.wait().await.unwrap(), Exit::Code(3));
    let lines = child.stderr().last_lines(2);
    assert_eq!(lines[1], "last words");
    ProcessWatch::open(lines[0].parse().unwrap()).unwrap().signal(StopSignal::Kill).unwrap();
}

#[tokio::test]
async fn a_process_that_is_not_there_cannot_be_watched() {
    let child = spawn(sh("exit 0")).await;
    child.wait().await.unwrap();
    for pid in [0, u32::MAX, child.pid()] {
        assert!(matches!(ProcessWatch::open(pid), Err(WatchError::NoSuchProcess { .. })), "{pid}");
    }
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

const HELPER: &str = "BROKER_TRANSPORT_TEST_HELPER";

/// Not a test of its own: the process that the next one kills.
#[test]
#[ignore = "run by a_child_ends_with_its_parent_unless_it_is_to_survive"]
fn helper_with_two_children() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    // The thread that asks is gone before the children are looked at: only the forking thread counts.
    let children = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pids = runtime.block_on(async {
            let sleeping = || SpawnCommand::new("/bin/sleep").arg("1000");
            let bound = spawn(sleeping()).await;
            let mut surviving = sleeping();
            surviving.parent_death = ParentDeath::Survive;
            let surviving = spawn(surviving).await;
            [bound.pid(), surviving.pid()]
        });
        drop(runtime);
        pids
    });
    let [bound, surviving] = children.join().unwrap();
    println!("\npids {bound} {surviving}");
    loop {
        std::thread::park();
    }
}

#[tokio::test]
async fn a_child_ends_with_its_parent_unless_it_is_to_survive() {
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_with_two_children", "--ignored", "--nocapture"])
        .env(HELPER, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(helper.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pids = lines.find_map(|line| line.strip_prefix("pids ").map(str::to_owned)).unwrap();
    let [bound, surviving] = pids
        .split(' ')
        .map(|pid| ProcessWatch::open(pid.parse().unwrap()).unwrap())
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    assert!(!bound.is_dead().unwrap() && !surviving.is_dead().unwrap());
    helper.kill().unwrap();
    helper.wait().unwrap();
    bound.died().await.unwrap();
    assert!(!surviving.is_dead().unwrap());
    surviving.signal(StopSignal::Kill).unwrap();
    surviving.died().await.unwrap();
}
