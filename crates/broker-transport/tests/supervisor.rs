//! The process that macOS needs to tie a child to this one's life. Alone in its file: it counts children.
#![cfg(all(target_os = "macos", feature = "tokio"))]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may end at any surprise")]

mod common;

use std::process::Command;

use broker_transport::process::{Exit, ParentDeath, ProcessWatch, SpawnCommand, StopSignal};

use common::{eventually, spawn};

/// The children of this process, but for the one that counts them.
fn children() -> Vec<u32> {
    let own = std::process::id().to_string();
    let listed = Command::new("/usr/bin/pgrep").args(["-P", &own]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.lines().map(|line| line.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_supervisor_outlives_no_child_and_leaves_no_zombie() {
    let sleeping = || SpawnCommand::new("/bin/sleep").arg("1000");
    let mut surviving = sleeping();
    surviving.parent_death = ParentDeath::Survive;
    let surviving = spawn(surviving).await;
    assert_eq!(children(), [surviving.pid()], "who survives has no supervisor");
    let bound = spawn(sleeping()).await;
    let mut supervisor = children();
    supervisor.retain(|pid| ![bound.pid(), surviving.pid()].contains(pid));
    assert_eq!(supervisor.len(), 1);
    let watch = ProcessWatch::open(supervisor[0]).unwrap();
    assert!(!watch.is_dead().unwrap());
    bound.signal(StopSignal::Kill).unwrap();
    assert_eq!(bound.wait().await.unwrap(), Exit::Signal(9));
    watch.died().await.unwrap();
    eventually("the supervisor is reaped", || children() == [surviving.pid()]).await;
    surviving.signal(StopSignal::Kill).unwrap();
    surviving.wait().await.unwrap();
}
