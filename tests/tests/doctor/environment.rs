//! Variables that say something else than what is meant.

use broker_tests::linux::may_mount;

use crate::{Patient, check, chmod, is_root};

#[test]
fn a_variable_that_is_wrong_is_told_and_mended_in_the_shell_that_has_it() {
    // In rounds, as a variable has one value at a time.
    let rounds: [&[_]; 2] = [
        &[
            ("RUNNING_PROCESS_DISABLE", "0", "env.disable", "FAIL", "\"0\""),
            ("RUNNING_PROCESS_BROKER_CLIENT_TIMEOUT_MS", "soon", "env.client-timeout", "FAIL", "soon"),
            ("RUNNING_PROCESS_BROKER_HELLO_TIMEOUT_MS", "0", "env.hello-timeout", "FAIL", "\"0\""),
            ("RUNNING_PROCESS_SERVICE_DEF_DIR", "services", "env.service-def-dir", "FAIL", "services"),
            (
                "RUNNING_PROCESS_BROKER_HELLO_BURST",
                "many",
                "env.settings",
                "FAIL",
                "HELLO_BURST: invalid value",
            ),
            ("RUNNING_PROCESS_BROKER_ALLOW_PRIVILEGED", "yes", "env.allow-privileged", "WARN", "yes"),
            ("RUNNING_PROCESS_BROKER_V1_INSTANCE", "shared", "env.backend", "WARN", "V1_INSTANCE"),
            ("RUNNING_PROCESS_UNHEARD_OF_BY_ANYBODY", "1", "env.unknown", "WARN", "means nothing"),
        ],
        &[
            ("RUNNING_PROCESS_DISABLE", "1", "env.disable", "WARN", "pass the broker by"),
            ("RUNNING_PROCESS_BROKER_CLIENT_TIMEOUT_MS", "5", "env.client-timeout", "WARN", "5 ms"),
            ("RUNNING_PROCESS_BROKER_HELLO_TIMEOUT_MS", "5", "env.hello-timeout", "WARN", "5 ms"),
            ("RUNNING_PROCESS_SERVICE_DEF_DIR", "my services", "env.service-def-dir", "FAIL", "my services"),
            ("RUST_LOG", "brokerd=loud,info", "env.settings", "WARN", "brokerd=loud"),
            ("RUNNING_PROCESS_DISBALE", "1", "env.unknown", "WARN", "RUNNING_PROCESS_DISABLE does"),
        ],
    ];
    for round in rounds {
        let mut patient = Patient::new();
        patient.variables = round.iter().map(|(variable, value, ..)| (*variable, (*value).into())).collect();
        let broken: Vec<_> = round.iter().map(|(_, _, id, status, said)| (*id, *status, *said)).collect();
        patient.are_mended(&broken);
    }
}

#[test]
fn the_variable_that_is_meant_takes_the_value_of_the_misspelt_one() {
    let patient = Patient::new().with("RUNNING_PROCESS_BROKER_HELLO_TIMEOUT", "2500");
    let mend = patient.remedy("env.unknown", "WARN", "RUNNING_PROCESS_BROKER_HELLO_TIMEOUT_MS is meant");
    let report = patient.examined_after(&mend);
    assert_eq!(check(&report, "env.hello-timeout")["found"], "2500 ms");
    assert_eq!(check(&report, "env.unknown")["status"], "PASS");
}

#[test]
fn a_runtime_directory_that_will_not_do_is_told_and_mended() {
    Patient::new().with("XDG_RUNTIME_DIR", "run").is_mended("env.runtime-place", "WARN", "no absolute path");

    let patient = Patient::new();
    let missing = patient.path("a b/run");
    patient.with("XDG_RUNTIME_DIR", missing).is_mended("env.runtime-place", "WARN", "No such file");

    let patient = Patient::new();
    chmod(&patient.world.path("xdg"), 0o770);
    patient.is_mended("env.runtime-place", "WARN", "by others");

    if is_root() {
        let patient = Patient::new();
        std::os::unix::fs::chown(patient.world.path("xdg"), Some(12_345), None).unwrap();
        patient.is_mended("env.runtime-place", "WARN", "another user");
    }
}

#[test]
fn without_a_home_it_is_asked_for_again() {
    let patient = Patient::new().with("HOME", "");
    patient.are_mended(&[("dirs.service-dir", "FAIL", "$HOME"), ("dirs.state-dir", "FAIL", "$HOME")]);
}

#[test]
fn root_is_told_what_lets_it_serve() {
    if !is_root() {
        println!("not tested, as it takes root: that it is told what lets it serve");
        return;
    }
    let patient = Patient::new().with("RUNNING_PROCESS_BROKER_ALLOW_PRIVILEGED", "");
    patient.is_mended("system.user", "FAIL", "privileged");
    let _broker = patient.run_in_shell("RUNNING_PROCESS_BROKER_ALLOW_PRIVILEGED=1 exec brokerd serve");
    patient.is_mended("system.user", "WARN", "could not be started from here");
}

#[test]
fn few_descriptors_are_told_and_more_are_had() {
    let patient = Patient::new();
    let few = patient.examined_after("ulimit -n 256");
    let found = check(&few, "system.descriptors");
    assert_eq!(found["status"], "WARN", "{found}");
    let mended = format!("ulimit -n 256\n{}", found["mend"].as_str().unwrap());
    if !patient.run(&mended).is_success() {
        println!("not tested, as it takes the right to raise a hard limit: {mended}");
        return;
    }
    let more = patient.examined_after(&mended);
    assert_eq!(check(&more, "system.descriptors")["status"], "PASS", "{more}");
}

#[test]
fn what_was_written_in_the_future_is_told_and_touched() {
    let patient = Patient::new();
    patient.world.define("cache", &[]);
    let definition = patient.world.definitions().join("cache.servicedef");
    let file = std::fs::File::options().write(true).open(&definition).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(86_400)).unwrap();
    patient.is_mended("system.file-times", "WARN", "cache.servicedef");
}

#[test]
fn a_machine_that_does_not_say_which_it_is_is_told_and_mended() {
    if !may_mount("a machine without an id, and one without /proc") {
        return;
    }
    let mut patient = Patient::new();
    std::fs::write(patient.world.path("empty"), "").unwrap();
    patient.mounts = format!("mount --bind {} /etc/machine-id", patient.path("empty"));
    if std::path::Path::new("/var/lib/dbus/machine-id").exists() {
        patient.mounts.push_str("\nmount -t tmpfs none /var/lib/dbus");
    }
    patient.is_mended("system.machine-id", "WARN", "with every boot");

    patient.mounts = "mount -t tmpfs none /proc".to_owned();
    patient.is_mended("system.boot-id", "FAIL", "boot_id");
}
