//! Looking at, opening and replacing files.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::io;
use std::path::Path;

use broker_transport::files::{
    FileKind, facts, is_executable, open_append, open_no_follow, write_atomically,
};

#[test]
fn a_replaced_file_is_new_private_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    write_atomically(&path, b"old").unwrap();
    let old = facts(&path).unwrap();
    write_atomically(&path, b"newer").unwrap();
    let new = facts(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"newer");
    assert_eq!((new.kind, new.size, new.writable_by_others), (FileKind::Regular, 5, false));
    assert_ne!((old.inode, old.size), (new.inode, new.size));
    assert!(new.modified_ns > 0);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_failed_replacement_leaves_the_old_and_no_temporary_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("occupied");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("inner"), "x").unwrap();
    assert!(write_atomically(&path, b"new").is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(write_atomically(Path::new("/"), b"new").is_err());
}

#[test]
fn a_link_is_seen_as_a_link_and_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (target, link) = (dir.path().join("target"), dir.path().join("link"));
    std::fs::write(&target, "x").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert_eq!(facts(&link).unwrap().kind, FileKind::Symlink);
    assert!(open_no_follow(&link).is_err());
    let (_, opened) = open_no_follow(&target).unwrap();
    assert_eq!(opened, facts(&target).unwrap());
    assert_eq!(open_no_follow(&dir.path().join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn an_appended_file_is_private_grows_at_its_end_and_is_never_a_link() {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("log"), dir.path().join("link"));
    for (text, size) in [("one", 0), ("two", 3)] {
        let (mut file, facts) = open_append(&path).unwrap();
        assert_eq!(facts.size, size);
        file.write_all(text.as_bytes()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "onetwo");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(open_append(&link).is_err());
}

#[test]
fn opening_a_fifo_does_not_wait_for_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    // A program: not every platform has the function at hand.
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_eq!(open_no_follow(&fifo).unwrap().1.kind, FileKind::Other);
}

#[test]
fn only_what_has_an_execute_bit_is_executable() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "x").unwrap();
    assert!(!is_executable(&path));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o775)).unwrap();
    assert!(is_executable(&path));
    assert!(facts(&path).unwrap().writable_by_others);
}
