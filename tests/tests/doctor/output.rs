//! That nothing is changed, and how the report comes.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use broker_tests::{Finished, World};

use crate::{Patient, chmod, make_dir};

/// Everything below a directory: its mode, owner, times and content.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(path) = left.pop() {
        let facts = path.symlink_metadata().unwrap();
        if facts.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let content = if facts.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let (mode, owner, inode) = (facts.mode(), facts.uid(), facts.ino());
        let times = (facts.mtime(), facts.mtime_nsec(), facts.ctime(), facts.ctime_nsec());
        found.insert(path, format!("{mode:o} {owner} {inode} {times:?} {content:?}"));
    }
    found
}

#[test]
fn nothing_is_changed_in_an_empty_home() {
    let patient = Patient::new();
    std::fs::remove_dir(patient.world.path("xdg")).unwrap();
    let home = patient.world.path("");
    let before = tree(&home);
    assert_eq!(before.len(), 1);
    patient.examined();
    patient.run("brokerd doctor");
    assert_eq!(tree(&home), before);
}

#[test]
fn nothing_is_changed_in_a_home_where_everything_is_wrong() {
    let mut patient = Patient::new();
    patient.world.define("cache", &["--label", "spawn.colour=red"]);
    std::fs::write(patient.world.definitions().join("broken.servicedef"), "x").unwrap();
    symlink("cache.servicedef", patient.world.definitions().join("link.servicedef")).unwrap();
    let socket = patient.shared_socket();
    make_dir(socket.parent().unwrap());
    drop(UnixListener::bind(&socket).unwrap());
    std::fs::write(socket.with_extension("sock.lock"), "1\n1\n/x\n").unwrap();
    make_dir(&patient.world.state_dir().join("events"));
    chmod(&patient.world.state_dir(), 0o777);
    patient.options = vec!["--state-dir".to_owned(), patient.path("absent/state")];
    let home = patient.world.path("");
    let before = tree(&home);
    patient.examined();
    patient.options.clear();
    let report = patient.examined();
    assert!(report["summary"]["fail"].as_u64().unwrap() >= 3, "{report}");
    assert_eq!(tree(&home), before);
}

#[test]
fn a_wrong_command_line_ends_with_two() {
    let patient = Patient::new();
    for options in ["--colour", "--instance nobody", "--socket /x --instance shared"] {
        assert_eq!(patient.run(&format!("brokerd doctor {options}")).code(), 2, "{options}");
    }
    assert_eq!(patient.run("brokerd doctor").code(), 0);
    assert_eq!(patient.run("RUNNING_PROCESS_DISABLE=no brokerd doctor").code(), 1);
}

#[test]
fn people_get_lines_in_colour_on_a_terminal_alone_and_never_against_their_wish() {
    let patient = Patient::new();
    let plain = patient.run("brokerd doctor");
    assert!(plain.stderr.is_empty() && !plain.stdout.contains('\x1b'), "{plain:?}");
    assert!(plain.stdout.contains("\n  WARN  endpoint.listener "), "{}", plain.stdout);
    assert!(plain.stdout.contains("\n        mend: brokerd serve --instance shared\n"), "{}", plain.stdout);
    assert!(plain.stdout.ends_with(" SKIP\n"), "{}", plain.stdout);
    let on_terminal = |command: &str| patient.run(&format!("script -qec '{command}' /dev/null")).stdout;
    assert!(on_terminal("brokerd doctor").contains("\x1b[33mWARN\x1b[0m"));
    assert!(!on_terminal("NO_COLOR=1 brokerd doctor").contains('\x1b'));
}

#[test]
fn a_terminal_is_told_nothing_by_what_a_variable_holds() {
    let world = World::new();
    // A shell does not pass such a name on.
    let said = Finished::of(world.brokerd(&["doctor"]).env("RUNNING_PROCESS_\x1b[2J\n", "x"));
    assert!(said.stdout.contains("RUNNING_PROCESS_\\u{1b}[2J\\n"), "{}", said.stdout);
}
