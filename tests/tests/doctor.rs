//! The doctor: what is broken for real, is told, and is mended by the very command that is printed.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[path = "doctor/backends.rs"]
mod backends;
#[path = "doctor/broker.rs"]
mod broker;
#[path = "doctor/configuration.rs"]
mod configuration;
#[path = "doctor/definitions.rs"]
mod definitions;
#[path = "doctor/directories.rs"]
mod directories;
#[path = "doctor/endpoint.rs"]
mod endpoint;
#[path = "doctor/environment.rs"]
mod environment;
#[path = "doctor/output.rs"]
mod output;

use std::fs::{DirBuilder, Permissions, set_permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use broker_tests::linux::after;
use broker_tests::{Daemon, Finished, World};
use serde_json::Value;

/// Somebody whose home is as it should be, until a test breaks it.
struct Patient {
    world: World,
    variables: Vec<(&'static str, String)>,
    options: Vec<String>,
    /// Commands of sh(1) that make file systems, in a mount namespace of the doctor's own.
    mounts: String,
}

impl Patient {
    fn new() -> Self {
        let world = World::new();
        make_dir(&world.path("xdg"));
        Self { world, variables: Vec::new(), options: Vec::new(), mounts: String::new() }
    }

    fn with(mut self, variable: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((variable, value.into()));
        self
    }

    /// A command of the patient's shell, which finds `brokerd` by its name.
    fn shell(&self, script: &str) -> Command {
        let mut command = self.world.command(Path::new("/bin/sh"));
        let programs = World::program("brokerd");
        let path = format!("{}:{}:/usr/bin:/bin", self.path("bin"), programs.parent().unwrap().display());
        command.args(["-c", script]).env("PATH", path).envs(self.variables.clone());
        if self.mounts.is_empty() { command } else { after(&self.mounts, &command) }
    }

    /// What the doctor says after these commands.
    fn examined_after(&self, commands: &str) -> Value {
        let options: String = self.options.iter().map(|option| format!(" '{option}'")).collect();
        let said = Finished::of(&mut self.shell(&format!("{commands}\nexec brokerd doctor --json{options}")));
        let report = said.stdout.rfind("{\n  \"schema_version\"").map(|start| &said.stdout[start..]);
        let report: Value = serde_json::from_str(report.unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error}: {said:?} after {commands}"));
        let has_failed = report["summary"]["fail"] != 0;
        assert_eq!(said.code(), i32::from(has_failed), "{said:?}");
        report
    }

    fn examined(&self) -> Value {
        self.examined_after("")
    }

    /// Has the doctor find this, and gives its remedy.
    #[track_caller]
    fn remedy(&self, id: &str, status: &str, said: &str) -> String {
        remedy(&self.examined(), id, status, said)
    }

    /// Has the doctor find this, does what it says, and has it find everything in order.
    #[track_caller]
    fn is_mended(&self, id: &str, status: &str, said: &str) {
        self.are_mended(&[(id, status, said)]);
    }

    /// The same for several things that are broken at the same time.
    #[track_caller]
    fn are_mended(&self, broken: &[(&str, &str, &str)]) {
        let report = self.examined();
        let mends: Vec<_> =
            broken.iter().map(|(id, status, said)| remedy(&report, id, status, said)).collect();
        let report = self.examined_after(&mends.join("\n"));
        for ((id, ..), mend) in broken.iter().zip(mends) {
            let check = check(&report, id);
            assert!(check["status"] == "PASS" || check["status"] == "SKIP", "{mend}: {check}");
        }
    }

    fn path(&self, below: &str) -> String {
        self.world.path(below).to_str().unwrap().to_owned()
    }

    /// Runs the shared broker, as a command that the doctor gave.
    fn run_in_shell(&self, script: &str) -> Daemon {
        Daemon::start(&mut self.shell(script))
    }

    fn serve(&self, options: &[&str]) -> Daemon {
        let options: String = options.iter().map(|option| format!(" '{option}'")).collect();
        self.run_in_shell(&format!("exec brokerd serve{options}"))
    }

    fn run(&self, command: &str) -> Finished {
        Finished::of(&mut self.shell(command))
    }

    /// Where the shared broker listens.
    fn shared_socket(&self) -> std::path::PathBuf {
        let report = self.examined();
        let found = check(&report, "endpoint.path")["found"].as_str().unwrap().to_owned();
        found.split(" has ").next().unwrap().into()
    }
}

/// A check of a report, by its id.
#[track_caller]
fn check<'a>(report: &'a Value, id: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no {id} in {report}"))
}

/// What mends a check that found this.
#[track_caller]
fn remedy(report: &Value, id: &str, status: &str, said: &str) -> String {
    let check = check(report, id);
    assert_eq!(check["status"], status, "{check}");
    assert!(check["found"].as_str().unwrap().contains(said), "{said}: {check}");
    check["mend"].as_str().unwrap_or_else(|| panic!("no mend: {check}")).to_owned()
}

fn make_dir(path: &Path) {
    DirBuilder::new().recursive(true).mode(0o700).create(path).unwrap();
}

fn chmod(path: &Path, mode: u32) {
    set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_home_with_nothing_in_it_is_healthy_and_so_is_one_with_a_broker_and_a_backend() {
    let patient = Patient::new();
    let report = patient.examined();
    assert_eq!(report["summary"]["fail"], 0, "{report}");
    assert_eq!(report["summary"]["warn"], 1, "only that nobody listens: {report}");
    assert_eq!(check(&report, "endpoint.listener")["status"], "WARN");

    patient.world.define("cache", &["--isolation", "shared"]);
    let _broker = patient.serve(&[]);
    assert!(patient.run("brokerd hello cache 1.0.0").is_success());
    let report = patient.examined();
    assert_eq!((&report["summary"]["fail"], &report["summary"]["warn"]), (&0.into(), &0.into()), "{report}");
    for id in
        ["endpoint.hello", "broker.version", "broker.executable", "definition.cache", "backend.cache.1.0.0"]
    {
        assert_eq!(check(&report, id)["status"], "PASS");
    }
}
