//! What the tests with real children share.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::time::{Duration, Instant};

use broker_transport::process::{ChildProcess, SpawnCommand, Spawner};

/// Far beyond what anything here takes: reaching it is a failure, not a matter of speed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn spawn(command: SpawnCommand) -> ChildProcess {
    Spawner::start().unwrap().spawn(command).await.unwrap()
}

pub(crate) fn sh(script: &str) -> SpawnCommand {
    SpawnCommand::new("/bin/sh").arg("-c").arg(script)
}

/// Waits for a state that nobody announces.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < give_up, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until a child has written `text` to its stderr.
pub(crate) async fn said(child: &ChildProcess, text: &str) {
    eventually(text, || child.stderr().text().contains(text)).await;
}

/// Whether there is a process with this pid, be it a zombie.
pub(crate) fn exists(pid: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::test_kill_process(pid).is_ok()
}
