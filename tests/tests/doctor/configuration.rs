//! The configuration file: one that no broker would take, and one that clients do not know of.

use std::path::PathBuf;

use crate::{Patient, check, chmod, is_root};

/// Somebody with this file at the usual place.
fn with_file(text: &str) -> (Patient, PathBuf) {
    let patient = Patient::new();
    let file = patient.world.definitions().with_file_name("brokerd.toml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, text).unwrap();
    chmod(&file, 0o600);
    (patient, file)
}

#[test]
fn a_file_that_no_broker_takes_is_told_with_its_line_and_set_aside() {
    let (patient, file) = with_file("keep-backends = true\nlimits.hello_burst = 3\nsandbox = 1\n");
    let mend = patient.remedy("config.file", "FAIL", "brokerd.toml:2:8: unknown key `limits.hello_burst`");
    let refused = patient.run("exec brokerd serve");
    assert_eq!(refused.code(), 2, "{refused:?}");
    let report = patient.examined_after(&mend);
    assert_eq!(check(&report, "config.file")["found"], "there is none, so the defaults hold");
    assert!(file.with_file_name("brokerd.toml.aside").exists(), "nothing is lost");
}

#[test]
fn a_file_that_may_not_be_trusted_or_read_is_told_and_mended() {
    let (patient, file) = with_file("sandbox = false\n");
    chmod(&file, 0o620);
    patient.is_mended("config.file", "FAIL", "others may write to it");
    assert_eq!(check(&patient.examined(), "config.file")["found"], format!("{} is good", file.display()));

    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    patient.is_mended("config.file", "FAIL", "expected a regular file");

    if is_root() {
        println!("not tested, as root may read everything: a file that may not be read");
        let (patient, file) = with_file("sandbox = false\n");
        std::os::unix::fs::chown(&file, Some(12_345), None).unwrap();
        patient.is_mended("config.file", "FAIL", "another user");
    } else {
        let (patient, file) = with_file("sandbox = false\n");
        chmod(&file, 0o200);
        patient.is_mended("config.file", "FAIL", "cannot be read");
    }
}

#[test]
fn a_link_that_leads_nowhere_is_no_missing_file() {
    let (patient, file) = with_file("");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/nonexistent/brokerd.toml", &file).unwrap();
    assert_eq!(patient.run("exec brokerd serve").code(), 2);
    patient.is_mended("config.file", "FAIL", "a link that cannot be followed");
}

#[test]
fn a_named_file_that_no_broker_takes_is_no_longer_named_and_left_alone() {
    let patient = Patient::new();
    let named = patient.path("other.toml");
    let patient = patient.with("RUNNING_PROCESS_BROKER_CONFIG", named.clone());
    patient.is_mended("config.file", "FAIL", "no such file");
    std::fs::write(&named, "somebody's, and no TOML").unwrap();
    chmod(named.as_ref(), 0o600);
    patient.is_mended("config.file", "FAIL", "other.toml:1:");
    assert_eq!(std::fs::read_to_string(&named).unwrap(), "somebody's, and no TOML");
}

#[test]
fn definitions_that_only_the_broker_finds_are_told_and_found_by_all() {
    let (patient, file) = with_file("");
    let elsewhere = patient.path("else where");
    std::fs::write(&file, format!("paths.service-dir = '{elsewhere}'\n")).unwrap();
    patient.is_mended("config.service-dir", "WARN", "but clients look in");
    let patient = patient.with("RUNNING_PROCESS_SERVICE_DEF_DIR", "/somewhere");
    assert_eq!(
        check(&patient.examined(), "config.service-dir")["status"],
        "PASS",
        "the variable outweighs it"
    );
}

#[test]
fn the_state_is_looked_for_where_the_broker_has_it() {
    let (patient, file) = with_file("");
    let (by_file, by_variable) = (patient.path("by-file"), patient.path("by-variable"));
    std::fs::write(&file, format!("paths.state-dir = '{by_file}'\n")).unwrap();
    let found = |patient: &Patient| check(&patient.examined(), "dirs.state-dir")["found"].to_string();
    assert!(found(&patient).contains(&by_file), "{}", found(&patient));
    let patient = patient.with("RUNNING_PROCESS_BROKER_STATE_DIR", by_variable.clone());
    assert!(found(&patient).contains(&by_variable), "{}", found(&patient));
}
