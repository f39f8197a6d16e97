//! Real children on every platform: what they are told, how they end, and what ends with them.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use broker_transport::process::{
    BaseEnv, ExecFailure, Exit, ParentDeath, ProcessWatch, STDERR_RING_BYTES, SignalError, SpawnCommand,
    SpawnError, Spawner, StopSignal, WatchError,
};

use common::{helper, said, spawn};

#[tokio::test]
async fn a_child_gets_its_arguments_as_they_are() {
    let args = ["", "a b", "\"", r"a\", r#"a\"b"#, r"a b\\", "ä\u{1F980}", "%PATH%", "$HOME", "* ^&|"];
    let command = args.iter().fold(helper("args"), SpawnCommand::arg);
    let child = spawn(command).await;
    assert!(child.wait().await.unwrap().is_success());
    let expected: Vec<String> = args.iter().map(|arg| format!("{arg:?}")).collect();
    assert_eq!(child.stderr().last_lines(args.len()), expected);
}

/// What Windows programs cannot do without, and what Wine gives to every process.
fn is_the_systems(name: &str) -> bool {
    ["SystemRoot", "SystemDrive"].contains(&name) || name.starts_with("WINE")
}

#[tokio::test]
async fn a_child_gets_the_variables_it_should_and_no_others() {
    let mut command = helper("env").env("FIRST", "1").env("SECOND", "a b=c").env("FIRST", "2");
    command.base_env = BaseEnv::Empty;
    let child = spawn(command).await;
    assert!(child.wait().await.unwrap().is_success());
    let text = child.stderr().text();
    let mut names: Vec<&str> = text.lines().map(|line| line.split('=').next().unwrap()).collect();
    names.retain(|name| !is_the_systems(name));
    names.sort_unstable();
    assert_eq!(names, ["BROKER_TRANSPORT_TEST_SCRIPT", "FIRST", "SECOND"], "{text}");
    assert!(text.contains("FIRST=2\n") && text.contains("SECOND=a b=c\n"), "{text}");

    let inheriting = spawn(helper("env")).await;
    inheriting.wait().await.unwrap();
    assert!(inheriting.stderr().text().to_ascii_uppercase().contains("PATH="));
}

#[tokio::test]
async fn what_cannot_be_passed_to_a_program_is_refused() {
    let refused = |command| async { Spawner::start().unwrap().spawn(command).await.unwrap_err() };
    assert!(matches!(refused(SpawnCommand::new("sh")).await, SpawnError::NotAbsolute { .. }));
    for command in [
        helper("").arg("a\0b"),
        helper("").env("A=B", "c"),
        helper("").env("", "c"),
        helper("").env("A", "b\0c"),
    ] {
        let error = refused(command).await;
        assert!(matches!(error, SpawnError::Unpassable { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("absent.exe");
    let error = Spawner::start().unwrap().spawn(SpawnCommand::new(&program)).await.unwrap_err();
    assert!(matches!(&error, SpawnError::Exec { failure: ExecFailure::NotFound, .. }), "{error:?}");
    assert!(error.to_string().contains(program.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn an_end_is_told_by_its_code_and_as_often_as_asked() {
    let child = spawn(helper("exit 7")).await;
    assert_eq!(child.wait().await.unwrap(), Exit::Code(7));
    assert_eq!(child.wait().await.unwrap(), Exit::Code(7));
    assert!(matches!(child.signal(StopSignal::Kill), Err(SignalError::Exited)));
}

#[tokio::test]
async fn a_child_that_is_told_to_end_does_and_everybody_hears_of_it() {
    for stop in [StopSignal::Terminate, StopSignal::Kill] {
        let child = spawn(helper("sleep")).await;
        let watch = ProcessWatch::open(child.pid()).unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        assert!(!watch.is_dead().unwrap());
        let (first, second, died, ()) = tokio::join!(child.wait(), child.wait(), watch.died(), async {
            child.signal(stop).unwrap();
        });
        assert_eq!(first.unwrap(), second.unwrap());
        died.unwrap();
        assert!(watch.is_dead().unwrap() && !child.wait().await.unwrap().is_success());
        assert!(matches!(watch.signal(stop), Err(SignalError::Exited)));
    }
}

#[tokio::test]
async fn a_dropped_child_lives_on() {
    let child = spawn(helper("sleep")).await;
    let watch = ProcessWatch::open(child.pid()).unwrap();
    drop(child);
    assert!(!watch.is_dead().unwrap());
    watch.signal(StopSignal::Kill).unwrap();
    watch.died().await.unwrap();
}

#[tokio::test]
async fn killing_reaches_what_the_child_started() {
    let child = spawn(helper("start sleep; sleep")).await;
    said(&child, "\n").await;
    let grandchild = ProcessWatch::open(child.stderr().text().trim().parse().unwrap()).unwrap();
    child.signal(StopSignal::Kill).unwrap();
    grandchild.died().await.unwrap();
    assert!(!child.wait().await.unwrap().is_success());
}

#[tokio::test]
async fn what_an_ended_child_has_started_lives_on() {
    let child = spawn(helper("start sleep; exit 0")).await;
    assert!(child.wait().await.unwrap().is_success());
    let grandchild = ProcessWatch::open(child.stderr().text().trim().parse().unwrap()).unwrap();
    drop(child);
    assert!(!grandchild.is_dead().unwrap());
    grandchild.signal(StopSignal::Kill).unwrap();
    grandchild.died().await.unwrap();
}

#[tokio::test]
async fn a_flood_of_stderr_neither_blocks_the_child_nor_grows_the_ring() {
    let child = spawn(helper("flood 500000; say the end")).await;
    assert!(child.wait().await.unwrap().is_success());
    let text = child.stderr().text();
    assert_eq!((text.len(), child.stderr().written()), (STDERR_RING_BYTES, 3_000_008));
    assert_eq!(child.stderr().last_lines(1), ["the end"]);
}

#[tokio::test]
async fn last_words_are_there_at_the_end_even_if_a_grandchild_holds_the_pipe() {
    let child = spawn(helper("start sleep; say last words; exit 3")).await;
    assert_eq!(child.wait().await.unwrap(), Exit::Code(3));
    let lines = child.stderr().last_lines(2);
    assert_eq!(lines[1], "last words");
    ProcessWatch::open(lines[0].parse().unwrap()).unwrap().signal(StopSignal::Kill).unwrap();
}

#[tokio::test]
async fn a_process_that_is_not_there_cannot_be_watched() {
    for pid in [0, u32::MAX] {
        assert!(matches!(ProcessWatch::open(pid), Err(WatchError::NoSuchProcess { .. })), "{pid}");
    }
}

const PARENT: &str = "BROKER_TRANSPORT_TEST_PARENT";

/// Not a test of its own: the process that the next one kills.
#[test]
#[ignore = "run by a_child_ends_with_its_parent_unless_it_is_to_survive"]
fn parent_of_two_children() {
    if std::env::var_os(PARENT).is_none() {
        return;
    }
    // The thread that asks is gone before the children are looked at: only the process counts.
    let children = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pids = runtime.block_on(async {
            let bound = spawn(helper("sleep")).await;
            let mut surviving = helper("sleep");
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
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "parent_of_two_children", "--ignored", "--nocapture"])
        .env(PARENT, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pids = lines.find_map(|line| line.strip_prefix("pids ").map(str::to_owned)).unwrap();
    let [bound, surviving] = pids
        .split(' ')
        .map(|pid| ProcessWatch::open(pid.parse().unwrap()).unwrap())
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    assert!(!bound.is_dead().unwrap() && !surviving.is_dead().unwrap());
    parent.kill().unwrap();
    parent.wait().unwrap();
    bound.died().await.unwrap();
    assert!(!surviving.is_dead().unwrap());
    surviving.signal(StopSignal::Kill).unwrap();
    surviving.died().await.unwrap();
}
