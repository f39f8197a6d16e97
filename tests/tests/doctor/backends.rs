//! Backends that are no longer what their definition wants.

use std::time::Instant;

use broker_tests::{PATIENCE, World, has_died};
use serde_json::Value;

use crate::{Patient, check, make_dir};

const ID: &str = "backend.cache.1.0.0";

/// Somebody with a running broker and a running backend.
fn patient() -> (Patient, broker_tests::Daemon, u32) {
    let patient = Patient::new();
    make_dir(&patient.world.path("opt"));
    let binary = patient.path("opt/echo");
    let made = patient.run(&format!(
        "cp {} {binary} && brokerd service add cache --isolation shared --binary {binary}",
        World::program("echo-backend").display()
    ));
    assert!(made.is_success(), "{made:?}");
    let broker = patient.serve(&[]);
    let pid = begin(&patient, None);
    (patient, broker, pid)
}

/// Has the backend started, if it does not run; its process, which is not the one that has ended.
fn begin(patient: &Patient, ended: Option<u32>) -> u32 {
    let deadline = Instant::now() + PATIENCE;
    // A broker learns of a death a moment after it.
    while Instant::now() < deadline {
        let said = patient.run("brokerd hello cache 1.0.0 >&2; brokerd status --json");
        let status: Value =
            serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        let pid = status["backends"][0]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        match pid {
            Some(pid) if Some(pid) != ended => return pid,
            Some(_) | None => {}
        }
    }
    panic!("no backend was started")
}

/// Has the doctor find this, and end the process as it says.
#[track_caller]
fn is_ended(patient: &Patient, pid: u32, said: &str) {
    let mend = patient.remedy(ID, "WARN", said);
    assert!(patient.run(&mend).is_success());
    assert!(has_died(pid));
}

#[test]
fn a_backend_that_is_no_longer_wanted_is_told_and_ended() {
    let (patient, _broker, first) = patient();
    let binary = patient.path("opt/echo");
    let define = format!("brokerd service add cache --isolation shared --binary {binary}");
    assert!(patient.run(&format!("{define} --min-version 2.0.0")).is_success());
    is_ended(&patient, first, "does not allow version 1.0.0 any more");

    assert!(patient.run(&define).is_success());
    let second = begin(&patient, Some(first));
    assert!(patient.run("brokerd service remove cache").is_success());
    is_ended(&patient, second, "nobody defines");

    assert!(patient.run(&define).is_success());
    let third = begin(&patient, Some(second));
    assert!(patient.run(&format!("cp {binary} {binary}.other; {define}.other")).is_success());
    is_ended(&patient, third, "its definition names");
    begin(&patient, Some(third));
    assert_eq!(check(&patient.examined(), ID)["status"], "PASS");
}

#[test]
fn a_backend_whose_executable_was_replaced_is_told_and_the_next_hello_starts_the_new_one() {
    let (patient, _broker, pid) = patient();
    let binary = patient.path("opt/echo");
    let replaced = patient.run(&format!(
        "(cat {binary}; echo) >{binary}.new && chmod 700 {binary}.new && mv {binary}.new {binary}"
    ));
    assert!(replaced.is_success(), "{replaced:?}");
    is_ended(&patient, pid, "was replaced");
    begin(&patient, Some(pid));
    assert_eq!(check(&patient.examined(), ID)["status"], "PASS");
}

#[test]
fn a_stopped_backend_is_told_and_goes_on() {
    let (patient, _broker, pid) = patient();
    assert!(patient.run(&format!("kill -STOP {pid}")).is_success());
    patient.is_mended(ID, "FAIL", "is stopped");
}

#[test]
fn a_backend_that_could_not_be_started_is_told() {
    let patient = Patient::new();
    let binary = patient.world.script("broken", "echo no >&2; exit 3");
    let add = format!("brokerd service add cache --isolation shared --binary {}", binary.display());
    assert!(patient.run(&add).is_success());
    let _broker = patient.serve(&[]);
    assert!(!patient.run("brokerd hello cache 1.0.0").is_success());
    let mend = patient.remedy(ID, "WARN", "its last start failed");
    let again = patient.run(&mend);
    assert!(again.stderr.contains("exit status 3") || again.stderr.contains('3'), "{again:?}");
}
