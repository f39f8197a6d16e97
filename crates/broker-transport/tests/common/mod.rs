//! What the tests with real children share.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use broker_transport::detach::detached;
use broker_transport::process::{ChildProcess, SpawnCommand, Spawner};

/// Far beyond what anything here takes: reaching it is a failure, not a matter of speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a helper is to do.
const SCRIPT: &str = "BROKER_TRANSPORT_TEST_SCRIPT";

/// How this program becomes a helper.
const HELPER_ARGS: [&str; 4] = ["--exact", "common::helper_process", "--ignored", "--nocapture"];

pub(crate) async fn spawn(command: SpawnCommand) -> ChildProcess {
    Spawner::start().unwrap().spawn(command).await.unwrap()
}

pub(crate) fn sh(script: &str) -> SpawnCommand {
    SpawnCommand::new("/bin/sh").arg("-c").arg(script)
}

/// This program once more, to carry out a script: on every platform, in whatever order.
///
/// `say TEXT`, `flood LINES`, `env`, `args`, `exit CODE`, `sleep`, and `start STEP`, which says the pid of
/// a helper that does that, and `detach STEP`, which starts one that is detached.
pub(crate) fn helper(script: &str) -> SpawnCommand {
    let program = std::env::current_exe().unwrap();
    HELPER_ARGS.iter().fold(SpawnCommand::new(program), SpawnCommand::arg).env(SCRIPT, script)
}

/// The same as a command of the standard library.
pub(crate) fn helper_command(script: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(HELPER_ARGS).env(SCRIPT, script);
    command
}

/// Not a test of its own.
#[allow(clippy::zombie_processes, reason = "what it starts is to outlive it")]
#[test]
#[ignore = "run by tests that need another process"]
fn helper_process() {
    let Ok(script) = std::env::var(SCRIPT) else { return };
    let mut rest = script.as_str();
    while !rest.is_empty() {
        let (step, behind) = rest.split_once("; ").unwrap_or((rest, ""));
        rest = behind;
        let (verb, object) = step.split_once(' ').unwrap_or((step, ""));
        match verb {
            "say" => eprintln!("{object}"),
            "flood" => {
                let flood = "flood\n".repeat(object.parse().unwrap());
                std::io::stderr().write_all(flood.as_bytes()).unwrap();
            }
            "env" => std::env::vars().for_each(|(name, value)| eprintln!("{name}={value}")),
            "args" => std::env::args().skip(1 + HELPER_ARGS.len()).for_each(|arg| eprintln!("{arg:?}")),
            "exit" => std::process::exit(object.parse().unwrap()),
            "sleep" => loop {
                std::thread::park();
            },
            "start" => {
                let child = helper_command(object).spawn().unwrap();
                eprintln!("{}", child.id());
            }
            "detach" => {
                let child = detached(&mut helper_command(object)).spawn().unwrap();
                println!("\npid {}", child.id());
            }
            _ => panic!("unknown: {step}"),
        }
    }
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
#[cfg(unix)]
pub(crate) fn exists(pid: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::test_kill_process(pid).is_ok()
}
