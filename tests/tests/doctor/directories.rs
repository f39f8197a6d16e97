//! Directories and disks that will not do.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use broker_tests::linux::may_mount;

use crate::{Patient, check, chmod, is_root, make_dir};

/// Each directory by its check, and where it is.
fn places(patient: &Patient) -> [(&'static str, PathBuf); 3] {
    [
        ("dirs.runtime-dir", patient.world.path("xdg/running-process/broker")),
        ("dirs.service-dir", patient.world.definitions()),
        ("dirs.state-dir", patient.world.state_dir()),
    ]
}

/// Breaks all of them in one home, and has them mended.
#[track_caller]
fn each_is_mended(said: &str, harm: impl Fn(&Path)) {
    let patient = Patient::new();
    let places = places(&patient);
    for (_, path) in &places {
        make_dir(path.parent().unwrap());
        harm(path);
    }
    patient.are_mended(&places.map(|(id, _)| (id, "FAIL", said)));
}

#[test]
fn a_directory_that_is_not_the_users_alone_is_told_and_mended() {
    each_is_mended("others may write to it", |path| {
        make_dir(path);
        chmod(path, 0o770);
    });
    each_is_mended("has mode 0777", |path| {
        make_dir(path);
        chmod(path.parent().unwrap(), 0o777);
    });
    if is_root() {
        each_is_mended("belongs to user 12345", |path| {
            make_dir(path);
            std::os::unix::fs::chown(path, Some(12_345), None).unwrap();
        });
    }
}

#[test]
fn what_is_no_directory_is_told_and_set_aside() {
    each_is_mended("is a symbolic link", |path| {
        let elsewhere = path.with_extension("elsewhere");
        make_dir(&elsewhere);
        symlink(elsewhere, path).unwrap();
    });
    each_is_mended("is not a directory", |path| std::fs::write(path, "").unwrap());
    each_is_mended("is a symbolic link", |path| {
        let parent = path.parent().unwrap();
        std::fs::remove_dir(parent).unwrap();
        symlink("/absent", parent).unwrap();
    });
}

#[test]
fn a_directory_by_a_path_that_goes_up_is_chosen_anew() {
    let patient = Patient::new();
    make_dir(&patient.world.path("a"));
    let upwards = patient.path("a/../services");
    patient.with("RUNNING_PROCESS_SERVICE_DEF_DIR", upwards).is_mended(
        "dirs.service-dir",
        "FAIL",
        "absolute",
    );
    let patient = Patient::new();
    let open = patient.world.path("open");
    make_dir(&open);
    chmod(&open, 0o1777);
    let open = open.to_str().unwrap().to_owned();
    patient.with("RUNNING_PROCESS_SERVICE_DEF_DIR", open).is_mended("dirs.service-dir", "FAIL", "others");
}

#[test]
fn a_log_of_events_that_is_no_file_is_told_and_set_aside() {
    let patient = Patient::new();
    make_dir(&patient.world.state_dir().join("events/lifecycle.pb"));
    patient.is_mended("dirs.events", "WARN", "a directory");
    assert!(patient.world.state_dir().join("events/lifecycle.pb.aside").exists());
}

#[test]
fn directories_that_options_name_are_looked_at_in_place_of_the_usual_ones() {
    let mut patient = Patient::new();
    let (services, state) = (patient.world.path("services"), patient.world.path("state"));
    for dir in [&services, &state] {
        make_dir(dir);
        chmod(dir, 0o777);
    }
    patient.options = ["--service-dir", &patient.path("services"), "--state-dir", &patient.path("state")]
        .map(str::to_owned)
        .to_vec();
    patient.are_mended(&[("dirs.service-dir", "FAIL", "/services"), ("dirs.state-dir", "FAIL", "/state")]);
}

/// Mounts a file system with these options at a path.
fn mounted(options: &str, at: &Path) -> String {
    format!("mkdir -p -m 700 {0}\nmount -t tmpfs -o {options} none {0}", at.display())
}

#[test]
fn a_disk_that_cannot_be_written_to_is_told_and_mended() {
    if !may_mount("directories on a read-only file system") {
        return;
    }
    let mut patient = Patient::new();
    let places = places(&patient);
    let mounts = places
        .each_ref()
        .map(|(_, path)| format!("{}\nmount -o remount,ro {}\n", mounted("mode=700", path), path.display()));
    patient.mounts = mounts.concat();
    patient.are_mended(&places.map(|(id, _)| (id, "FAIL", "read-only")));

    let mut patient = Patient::new();
    patient.mounts = mounted("ro,mode=700", &patient.world.path("xdg"));
    patient.is_mended("dirs.runtime-dir", "FAIL", "read-only");
}

#[test]
fn what_lies_above_a_directory_is_told_and_mended_where_the_system_s_own_directories_are() {
    if !may_mount("directories that do not lie below /tmp") {
        return;
    }
    for (below, said) in [("open/a", "anybody may replace"), ("link/a", "leads nowhere")] {
        let mut patient = Patient::new();
        patient.mounts = "mount -t tmpfs -o mode=755 none /mnt\nmkdir /mnt/open && chmod 777 /mnt/open\n\
                          ln -s /absent /mnt/link"
            .to_owned();
        let patient = patient.with("XDG_STATE_HOME", format!("/mnt/{below}"));
        patient.is_mended("dirs.state-dir", "FAIL", said);
    }
}

#[test]
fn a_disk_that_is_full_is_told_and_what_fills_it_is_shown() {
    if !may_mount("directories on a full file system") {
        return;
    }
    let mut patient = Patient::new();
    let state = patient.world.state_dir();
    let filling = state.join("filling");
    for (options, id) in [("size=1m,mode=700", "disk.space"), ("nr_inodes=3,mode=700", "disk.inodes")] {
        let fill = match id {
            "disk.space" => format!("head -c 2000000 /dev/zero >{0} 2>/dev/null || true", filling.display()),
            _ => format!("mkdir {0} && touch {0}/x", filling.display()),
        };
        patient.mounts = format!("{}\n{fill}", mounted(options, &state));
        let mend = patient.remedy(id, "FAIL", "are left");
        let shown = patient.run(&mend);
        assert!(shown.is_success() && shown.stdout.contains(state.to_str().unwrap()), "{mend}: {shown:?}");
        let emptied = patient.examined_after(&format!("rm -r {}", filling.display()));
        assert_eq!(check(&emptied, id)["status"], "PASS", "{emptied}");
    }
}

#[test]
fn what_belongs_to_the_system_is_never_to_be_changed() {
    if !is_root() {
        println!("not tested, as it takes root: to be another user than the owner of a directory");
        return;
    }
    // A program where any user may execute it.
    let place = tempfile::tempdir_in("/tmp").unwrap();
    chmod(place.path(), 0o755);
    let patient = Patient::new();
    let from = broker_tests::World::program("brokerd");
    let copied = patient.run(&format!("cp {} {}", from.display(), place.path().display()));
    assert!(copied.is_success(), "{copied:?}");
    let doctor = place.path().join("brokerd");
    for options in [
        "--service-dir /usr --state-dir /etc",
        "--service-dir /root/x --state-dir /root/y --socket /root/z",
        "--socket /s.sock --service-dir /",
    ] {
        let script = format!(
            "HOME=/usr XDG_RUNTIME_DIR=/root exec setpriv --reuid 12345 {} doctor --json {options}",
            doctor.display()
        );
        let said = patient.run(&script);
        let report: serde_json::Value =
            serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        for check in report["checks"].as_array().unwrap().iter().filter(|check| !check["mend"].is_null()) {
            let mend = check["mend"].as_str().unwrap();
            for change in ["chown", "chmod", "mv ", "rm "] {
                assert!(!mend.contains(change), "{options}: {check}");
            }
        }
        assert!(report["summary"]["fail"].as_u64().unwrap() >= 2, "{report}");
    }
}

#[test]
fn what_a_variable_names_by_mistake_is_left_alone() {
    let sticky = Patient::new();
    let shared = sticky.world.path("shared");
    std::fs::create_dir(&shared).unwrap();
    chmod(&shared, 0o1777);
    let sticky = sticky.with("XDG_RUNTIME_DIR", shared.to_str().unwrap());
    let mend = sticky.remedy("env.runtime-place", "WARN", "everybody's directory");
    assert_eq!(mend, "unset XDG_RUNTIME_DIR");

    let patient = Patient::new();
    let file = patient.world.path("file");
    std::fs::write(&file, "somebody's").unwrap();
    let named = file.to_str().unwrap().to_owned();
    let patient =
        patient.with("XDG_RUNTIME_DIR", named.clone()).with("RUNNING_PROCESS_SERVICE_DEF_DIR", named);
    patient.are_mended(&[
        ("env.runtime-place", "WARN", "no directory"),
        ("dirs.service-dir", "FAIL", "not a directory"),
    ]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "somebody's");
}

#[test]
fn manifests_that_no_broker_could_use_are_told_and_mended() {
    let patient = Patient::new();
    let dir = patient.world.path(".local/share/running-process/manifests");
    make_dir(&dir);
    chmod(&dir, 0o777);
    patient.is_mended("dirs.manifest-dir", "FAIL", "others may write");
    std::fs::write(dir.join("cache-1.0.0.pb"), "no manifest").unwrap();
    chmod(&dir.join("cache-1.0.0.pb"), 0o600);
    patient.is_mended("manifests.files", "WARN", "cache-1.0.0.pb");
    assert!(dir.join("cache-1.0.0.pb.aside").exists(), "nothing is lost");
}
