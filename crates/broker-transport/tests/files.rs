//! Looking at, opening and replacing files.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[path = "common/wine.rs"]
mod wine;

use std::io::{self, Read, Write};
use std::path::Path;

use broker_transport::files::{FileKind, facts, open_append, open_no_follow, write_atomically};
use broker_transport::identity::current_user_key;

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
    assert_eq!(new.owner, current_user_key());
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
fn a_file_is_replaced_while_somebody_reads_the_old_one() {
    if wine::goes_without("rename as POSIX does, which replaces an open file") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    write_atomically(&path, b"old").unwrap();
    let (mut old, _) = open_no_follow(&path).unwrap();
    write_atomically(&path, b"newer").unwrap();
    let mut text = String::new();
    old.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
    assert_eq!(std::fs::read(&path).unwrap(), b"newer");
}

#[test]
fn an_opened_file_has_the_facts_of_what_lies_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "x").unwrap();
    let (_, opened) = open_no_follow(&path).unwrap();
    assert_eq!(opened, facts(&path).unwrap());
    assert_eq!((opened.kind, opened.size), (FileKind::Regular, 1));
    assert_eq!(facts(dir.path()).unwrap().kind, FileKind::Directory);
    let absent = dir.path().join("absent");
    assert_eq!(open_no_follow(&absent).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(facts(&absent).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn an_appended_file_is_private_and_grows_at_its_end_whoever_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut first, facts) = open_append(&path).unwrap();
    assert_eq!((facts.size, facts.writable_by_others), (0, false));
    assert_eq!(facts.owner, current_user_key());
    first.write_all(b"one").unwrap();
    let (mut second, facts) = open_append(&path).unwrap();
    assert_eq!(facts.size, 3);
    second.write_all(b"two").unwrap();
    first.write_all(b"three").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "onetwothree");
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use broker_transport::files::is_executable;

    use super::*;

    #[test]
    fn a_link_is_seen_as_a_link_and_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        std::fs::write(&target, "x").unwrap();
        symlink(&target, &link).unwrap();
        assert_eq!(facts(&link).unwrap().kind, FileKind::Symlink);
        assert!(open_no_follow(&link).is_err());
    }

    #[test]
    fn an_appended_file_has_mode_0600_and_is_never_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("log"), dir.path().join("link"));
        open_append(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        symlink(&path, &link).unwrap();
        assert!(open_append(&link).is_err());
    }

    #[test]
    fn opening_a_fifo_does_not_wait_for_a_writer() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        // A program: not every system has the function at hand.
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert_eq!(open_no_follow(&fifo).unwrap().1.kind, FileKind::Other);
    }

    #[test]
    fn only_what_has_an_execute_bit_is_executable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "x").unwrap();
        assert!(!is_executable(&path));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o775)).unwrap();
        assert!(is_executable(&path));
        assert!(facts(&path).unwrap().writable_by_others);
    }
}

#[cfg(windows)]
mod windows {
    use std::os::windows::fs::symlink_file;

    use broker_transport::files::is_executable;

    use super::*;

    #[test]
    fn a_link_is_seen_as_a_link_and_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        std::fs::write(&target, "x").unwrap();
        if wine::goes_without("make symbolic links, though it says so") {
            return;
        }
        if let Err(error) = symlink_file(&target, &link) {
            println!("not tested: this user may not make symbolic links: {error}");
            return;
        }
        assert_eq!(facts(&link).unwrap().kind, FileKind::Symlink);
        assert!(open_no_follow(&link).is_err() && open_append(&link).is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"x");
    }

    #[test]
    fn only_what_is_named_so_is_executable() {
        let dir = tempfile::tempdir().unwrap();
        for (name, expected) in [("a.exe", true), ("a.EXE", true), ("a.bat", false), ("exe", false)] {
            let path = dir.path().join(name);
            std::fs::write(&path, "x").unwrap();
            assert_eq!(is_executable(&path), expected, "{name}");
        }
        std::fs::create_dir(dir.path().join("b.exe")).unwrap();
        assert!(!is_executable(&dir.path().join("b.exe")) && !is_executable(&dir.path().join("absent.exe")));
    }
}

#[test]
fn an_appended_file_can_be_locked_for_the_moment_of_a_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    for round in 1..=2 {
        let (mut file, _) = open_append(&path).unwrap();
        file.lock().unwrap();
        Write::write_all(&mut file, b"event").unwrap();
        // Wine tells of the second, which the standard library gives back as well, that it was never there.
        if let Err(error) = file.unlock() {
            assert!(wine::goes_without("say ERROR_NOT_LOCKED"), "{error}");
        }
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap().len(), round * 5);
    }
}
