//! Real children, looked at through `/proc`: descriptors, sessions, signals.
#![cfg(all(target_os = "linux", feature = "tokio"))]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may end at any surprise")]

mod common;

use std::fs;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Waker};

use broker_transport::listener::{BindOptions, BoundSocket};
use broker_transport::process::{Exit, Inherited, SpawnCommand, Spawner, StopSignal};
use broker_transport::stream::BlockingStream;

use common::{eventually, said, sh, spawn};

/// The descriptors of a process, as `number -> target`.
fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let mut found: Vec<(u32, String)> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let number = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            (number, fs::read_link(&path).unwrap().to_string_lossy().into_owned())
        })
        .collect();
    found.sort();
    found
}

fn status_field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

#[tokio::test]
async fn a_child_has_three_descriptors_and_its_own_session() {
    // Open, and not close-on-exec: exactly what must not get through.
    let leaky = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    // In a subshell: a shell that redirects its own output keeps the old one open for the moment.
    let child = spawn(sh("(echo up >&2); while :; do sleep 1000; done")).await;
    said(&child, "up").await;
    let open = descriptors(child.pid());
    assert_eq!(open.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2], "{open:?}");
    assert_eq!((open[0].1.as_str(), open[1].1.as_str()), ("/dev/null", "/dev/null"));
    assert!(open[2].1.starts_with("pipe:"));
    let pid = child.pid().to_string();
    assert_eq!((status_field(child.pid(), "NSsid"), status_field(child.pid(), "NSpgid")), (pid.clone(), pid));
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", child.pid())).unwrap(), Path::new("/"));
    child.signal(StopSignal::Kill).unwrap();
    assert_eq!(child.wait().await.unwrap(), Exit::Signal(9));
}

#[tokio::test]
async fn a_child_starts_with_no_signal_blocked_or_ignored() {
    // Not a shell, which blocks signals for a moment whenever it forks.
    let child = spawn(SpawnCommand::new("/bin/sleep").arg("1000")).await;
    for mask in ["SigBlk", "SigIgn"] {
        let bits = u64::from_str_radix(&status_field(child.pid(), mask), 16).unwrap();
        assert_eq!(bits, 0, "{mask}");
    }
    child.signal(StopSignal::Kill).unwrap();
    child.wait().await.unwrap();
}

#[tokio::test]
async fn a_child_is_told_about_its_listener_and_its_other_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let bound = BoundSocket::bind(&path, &BindOptions::default()).unwrap();
    let (near, far) = BlockingStream::pair().unwrap();
    let script = "(echo $LISTEN_FDS $LISTEN_PID $$ $LISTEN_FDNAMES $CONTROL_FD >&2); \
                  while :; do sleep 1000; done";
    let mut command = sh(script).env("LISTEN_PID", "1");
    command.listen_fd = Some(bound.try_clone_descriptor().unwrap());
    let inherited = Inherited { variable: "CONTROL_FD".into(), descriptor: far.into_owned_fd() };
    command.inherited.push(inherited);
    let child = spawn(command).await;
    said(&child, "\n").await;
    let pid = child.pid();
    assert_eq!(child.stderr().text(), format!("1 {pid} {pid} backend 4\n"));
    let open = descriptors(pid);
    assert_eq!(open.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2, 3, 4], "{open:?}");
    assert!(open[3].1.starts_with("socket:") && open[4].1.starts_with("socket:"));
    child.signal(StopSignal::Kill).unwrap();
    child.wait().await.unwrap();
    // The end of the inherited stream is the news of the death.
    assert_eq!(near.read_before(&mut [0; 1], None).unwrap(), 0);
}

#[tokio::test]
async fn a_start_that_is_cancelled_leaves_no_process() {
    let marker = "98765.4321";
    loop {
        tokio::select! {
            biased;
            // The thread was faster than the cancellation: once more.
            child = spawn(SpawnCommand::new("/bin/sleep").arg(marker)) => {
                child.signal(StopSignal::Kill).unwrap();
            }
            () = std::future::ready(()) => break,
        }
    }
    // Starts happen one after another: once this one is through, so is the cancelled one.
    spawn(sh("exit 0")).await.wait().await.unwrap();
    eventually("the cancelled child is gone", || !is_running(marker)).await;
}

#[tokio::test]
async fn a_start_that_is_cancelled_when_it_is_through_leaves_no_process_and_no_zombie() {
    let dir = tempfile::tempdir().unwrap();
    let (is_up, pid) = (dir.path().join("up"), dir.path().join("pid"));
    let script =
        format!("echo $$ > {0}; mv {0} {1}; while :; do sleep 1000; done", pid.display(), is_up.display());
    let spawner = Spawner::start().unwrap();
    {
        let mut start = pin!(spawner.spawn(sh(&script)));
        assert!(start.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        // Starts happen one after another: the answer to the first is there, and nobody has looked at it.
        spawn(sh("exit 0")).await.wait().await.unwrap();
        eventually("the child runs", || is_up.exists()).await;
    }
    let pid: u32 = fs::read_to_string(&is_up).unwrap().trim().parse().unwrap();
    eventually("the child that nobody has got is reaped", || !Path::new(&format!("/proc/{pid}")).exists())
        .await;
}

/// Whether any process has this in its command line.
fn is_running(marker: &str) -> bool {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains(marker)))
}
