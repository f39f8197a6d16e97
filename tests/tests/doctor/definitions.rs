//! Definitions that break a rule, each mended by what is printed.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use broker_protocol::prost::Message;
use broker_protocol::wire::ServiceDefinition;
use broker_tests::linux::{may_mount, with_rights_of_a_user};
use broker_tests::{Finished, World};

use crate::{Patient, check, chmod, is_root, make_dir, remedy};

const ID: &str = "definition.cache";

/// Somebody with a service whose executable is his own, in a directory of versions.
fn patient() -> (Patient, PathBuf, PathBuf) {
    let patient = Patient::new();
    let binary = patient.world.path("opt/echo");
    for version in ["", "1.2.0/"] {
        let place = patient.path(&format!("opt/{version}echo"));
        make_dir(std::path::Path::new(&place).parent().unwrap());
        // By another process: an executable that is open for writing cannot be executed.
        let copied = patient.run(&format!("cp {} {place}", World::program("echo-backend").display()));
        assert!(copied.is_success(), "{copied:?}");
    }
    let opt = patient.path("opt");
    let options = ["--binary", binary.to_str().unwrap(), "--version-dir", &opt, "--isolation", "shared"];
    let added = patient.world.run(&[&["service", "add", "cache"], &options[..]].concat());
    assert!(added.is_success(), "{added:?}");
    let file = patient.world.definitions().join("cache.servicedef");
    (patient, file, binary)
}

fn rewrite(file: &std::path::Path, change: impl FnOnce(&mut ServiceDefinition)) {
    let mut wire = ServiceDefinition::decode(&std::fs::read(file).unwrap()[..]).unwrap();
    change(&mut wire);
    std::fs::write(file, wire.encode_to_vec()).unwrap();
}

fn label(file: &std::path::Path, key: &str, value: &str) {
    rewrite(file, |wire| drop(wire.labels.insert(key.to_owned(), value.to_owned())));
}

/// That it is mended, and the service still defined.
#[track_caller]
fn is_mended(patient: &Patient, status: &str, said: &str) {
    patient.is_mended(ID, status, said);
    assert_eq!(check(&patient.examined(), ID)["status"], "PASS");
}

#[test]
fn a_definition_that_others_could_have_written_is_told_and_made_the_users_own() {
    let (patient, file, _) = patient();
    chmod(&file, 0o620);
    is_mended(&patient, "FAIL", "others may write");
    std::fs::hard_link(&file, patient.world.path("other")).unwrap();
    is_mended(&patient, "FAIL", "another name");
    std::fs::rename(&file, patient.world.path("elsewhere")).unwrap();
    symlink(patient.world.path("elsewhere"), &file).unwrap();
    is_mended(&patient, "FAIL", "symbolic link");
    if is_root() {
        std::os::unix::fs::chown(&file, Some(12_345), None).unwrap();
        is_mended(&patient, "FAIL", "another user");
    }
}

#[test]
fn what_its_owner_may_not_read_is_told_and_opened() {
    let (patient, file, _) = patient();
    let as_user = |id: &str, said: &str| {
        // Root would read it all the same.
        let report = || {
            let mut doctor = with_rights_of_a_user(&patient.shell("exec brokerd doctor --json"));
            serde_json::from_str(&Finished::of(&mut doctor).stdout).unwrap()
        };
        let mend = remedy(&report(), id, "FAIL", said);
        assert!(patient.run(&mend).is_success(), "{mend}");
        assert_eq!(check(&report(), id)["status"], "PASS", "{mend}");
    };
    chmod(&file, 0o200);
    as_user(ID, "Permission denied");
    chmod(&patient.world.definitions(), 0o300);
    as_user("definitions.files", "Permission denied");
    chmod(&patient.world.definitions(), 0o500);
    as_user("dirs.service-dir", "cannot be written to");
}

#[test]
fn a_label_that_nobody_reads_or_that_says_nothing_is_left_out() {
    let (patient, file, _) = patient();
    label(&file, "idle.timeout_secs", "60");
    label(&file, "spawn.colour", "red");
    is_mended(&patient, "WARN", "spawn.colour");
    label(&file, "spawn.timeout_ms", "soon");
    is_mended(&patient, "FAIL", "soon");
    let wire = ServiceDefinition::decode(&std::fs::read(&file).unwrap()[..]).unwrap();
    assert_eq!(wire.labels.keys().collect::<Vec<_>>(), ["idle.timeout_secs"]);
    assert_eq!(wire.per_version_binary_dir, patient.path("opt"));
}

#[test]
fn an_executable_that_cannot_be_used_is_told_and_mended() {
    let (patient, file, binary) = patient();
    chmod(&binary, 0o600);
    is_mended(&patient, "FAIL", "not executable");
    chmod(&binary, 0o777);
    is_mended(&patient, "FAIL", "may write it");
    chmod(&patient.world.path("opt"), 0o770);
    is_mended(&patient, "FAIL", "a directory from per_version_binary_dir");
    // One of a version of its own.
    chmod(&patient.world.path("opt/1.2.0/echo"), 0o600);
    is_mended(&patient, "FAIL", "1.2.0/echo");
    if is_root() {
        std::os::unix::fs::chown(&binary, Some(12_345), None).unwrap();
        is_mended(&patient, "FAIL", "another user");
    }
    std::fs::remove_file(&binary).unwrap();
    let mend = patient.remedy(ID, "FAIL", "no such file");
    let report = patient.examined_after(&mend);
    assert!(!report.to_string().contains(ID), "{report}");
    assert!(file.with_extension("servicedef.aside").exists());
}

#[test]
fn an_executable_where_nothing_can_be_executed_is_told_and_mended() {
    if !may_mount("an executable on a file system that forbids to execute") {
        return;
    }
    let (mut patient, ..) = patient();
    let opt = patient.path("opt");
    patient.mounts = format!("mount --bind {opt} {opt} && mount -o remount,bind,noexec {opt}");
    patient.is_mended(ID, "FAIL", "not executable");
}

#[test]
fn an_executable_whose_interpreter_is_missing_is_told() {
    let (patient, _, binary) = patient();
    std::fs::write(&binary, "#!/absent/sh\n").unwrap();
    patient.remedy(ID, "FAIL", "/absent/sh");
    let mut program = std::fs::read(World::program("echo-backend")).unwrap();
    let name = b"/ld-linux-";
    let at = program.windows(name.len()).position(|bytes| bytes == name).unwrap();
    program[at + 1] = b'x';
    std::fs::write(&binary, program).unwrap();
    patient.remedy(ID, "FAIL", "/xd-linux-");
}

#[test]
fn a_definition_under_another_name_gets_its_own_and_one_that_is_none_is_set_aside() {
    let (patient, file, _) = patient();
    let other = file.with_file_name("other.servicedef");
    std::fs::rename(&file, &other).unwrap();
    let mend = patient.remedy("definition.other", "FAIL", "named for 'other'");
    assert_eq!(check(&patient.examined_after(&mend), ID)["status"], "PASS");
    for (said, harm) in [
        ("isolation 7", (|wire| wire.isolation = 7) as fn(&mut ServiceDefinition)),
        ("explicit_instance", |wire| wire.explicit_instance = "x".into()),
        ("min_version", |wire| wire.min_version = "1".into()),
        ("not an absolute path", |wire| wire.binary_path = "echo".into()),
        ("service_name", |wire| wire.service_name = "No".into()),
    ] {
        let whole = std::fs::read(&file).unwrap();
        rewrite(&file, harm);
        let mend = patient.remedy(ID, "FAIL", said);
        let report = patient.examined_after(&mend);
        assert!(!report.to_string().contains(ID), "{report}");
        std::fs::write(&file, whole).unwrap();
        chmod(&file, 0o600);
    }
    std::fs::write(&file, b"\xFF\xFF").unwrap();
    patient.remedy(ID, "FAIL", "no encoded ServiceDefinition");
}

#[test]
fn what_lies_beside_definitions_and_is_none_is_told_and_taken_away() {
    let (patient, file, _) = patient();
    std::fs::write(file.with_file_name("Not A Service.servicedef"), "").unwrap();
    patient.is_mended("definitions.files", "WARN", "Not A Service");
    std::fs::write(file.with_file_name(".cache.servicedef.0123456789abcdef.tmp"), "").unwrap();
    patient.is_mended("definitions.files", "WARN", "1 files");
}
