//! A broker that is not the one that is meant, or lacks something.

use broker_tests::{Daemon, World};

use crate::{Patient, check, make_dir};

/// Copies `brokerd` to where the patient's shell finds it first; `change` is a command that reads one and writes
/// another.
fn own_brokerd(patient: &Patient, change: &str) {
    make_dir(&patient.world.path("bin"));
    let (from, to) = (World::program("brokerd"), patient.path("bin/brokerd"));
    let made = patient
        .run(&format!("{change} <{} >{to}.new && chmod 700 {to}.new && mv {to}.new {to}", from.display()));
    assert!(made.is_success(), "{made:?}");
}

/// Has the doctor find this of the shared broker, and start it anew as it says.
#[track_caller]
fn is_started_anew(patient: &Patient, mut broker: Daemon, id: &str, status: &str, said: &str) {
    let mend = patient.remedy(id, status, said);
    // Nobody is sure that it is gone before it was waited for.
    let end = std::thread::spawn(move || broker.wait());
    let again = patient.run_in_shell(&mend);
    assert_eq!(end.join().unwrap(), Some(0));
    let report = patient.examined();
    assert_eq!(check(&report, id)["status"], "PASS", "{report}");
    assert!(patient.run("brokerd shutdown").is_success());
    let (_, heard) = again.hear_out();
    assert!(heard.contains("ended"), "{heard}");
}

#[test]
fn a_broker_of_another_version_is_told_and_started_anew() {
    let patient = Patient::new();
    let version = env!("CARGO_PKG_VERSION");
    own_brokerd(&patient, &format!("sed s/{}/9.9.9/g", version.replace('.', "[.]")));
    let broker = patient.serve(&["--max-connections", "77"]);
    std::fs::remove_file(patient.world.path("bin/brokerd")).unwrap();
    is_started_anew(&patient, broker, "broker.version", "WARN", "the broker is 9.9.9");
}

#[test]
fn a_broker_whose_executable_was_replaced_is_told_and_upgraded_with_its_options_and_backends() {
    let patient = Patient::new();
    own_brokerd(&patient, "cat");
    let broker = patient.serve(&["--max-connections", "77"]);
    let pid = broker.pid();
    // The same content is the same program.
    own_brokerd(&patient, "cat");
    assert_eq!(check(&patient.examined(), "broker.executable")["status"], "PASS");
    own_brokerd(&patient, "(cat; echo)");
    patient.is_mended("broker.executable", "WARN", "was replaced");
    let status: serde_json::Value =
        serde_json::from_str(&patient.run("brokerd status --json").stdout).unwrap();
    assert_eq!(status["broker_pid"], pid);
    let config = patient.run("brokerd config").stdout;
    assert!(config.contains("\"flag:--max-connections\""), "{config}");
}

#[test]
fn a_broker_whose_lock_was_removed_is_told_and_started_anew() {
    let patient = Patient::new();
    let broker = patient.serve(&[]);
    std::fs::remove_file(patient.shared_socket().with_extension("sock.lock")).unwrap();
    is_started_anew(&patient, broker, "endpoint.lock", "WARN", "somebody removed it");
}

#[test]
fn a_broker_that_reads_definitions_elsewhere_is_told_and_agreed_with() {
    let patient = Patient::new();
    let _broker = patient.serve(&["--service-dir", &patient.path("other services")]);
    patient.is_mended("broker.service-dir", "WARN", "other services");
}

#[test]
fn another_instance_in_the_place_of_the_one_that_is_meant_is_told_and_ended() {
    let patient = Patient::new();
    let socket = patient.shared_socket();
    let broker = patient.serve(&["--instance", "svc:cache", "--socket", socket.to_str().unwrap()]);
    is_started_anew(&patient, broker, "broker.instance", "FAIL", "'svc:cache' listens");
}

#[test]
fn a_broker_with_fewer_connections_than_wanted_is_told_and_started_with_more() {
    let patient = Patient::new();
    let broker = patient.run_in_shell("ulimit -n 256; exec brokerd serve");
    is_started_anew(&patient, broker, "broker.connections", "WARN", "fewer than wanted");
}

#[test]
fn a_unit_that_ends_backends_is_told_and_gets_another_mode() {
    for (command, status, said) in [
        ("brokerd serve --keep-backends", "FAIL", "--keep-backends"),
        ("brokerd serve --keep-backends\nKillMode=mixed", "FAIL", "KillMode=mixed"),
        ("brokerd serve", "WARN", "KillMode=control-group"),
    ] {
        let patient = Patient::new();
        let units = patient.world.path(".config/systemd/user");
        make_dir(&units);
        std::fs::write(units.join("my broker.service"), format!("[Service]\nExecStart={command}\n")).unwrap();
        patient.is_mended("systemd.kill-mode", status, said);
    }
}
