//! The instance lock.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use broker_transport::identity::process_start_time;
use broker_transport::lock::{InstanceLock, LockEntry, LockError};

const ENDPOINT: &str = "/run/x.sock";

#[test]
fn a_second_lock_is_refused_and_names_the_holder_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let first = InstanceLock::acquire(&path, ENDPOINT).unwrap();
    let pid = std::process::id();
    let entry = LockEntry { pid, start_time: process_start_time(pid).unwrap(), endpoint: ENDPOINT.into() };
    assert_eq!(LockEntry::parse(&fs::read_to_string(&path).unwrap()), Some(entry));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let error = InstanceLock::acquire(&path, ENDPOINT).unwrap_err();
    assert!(matches!(error, LockError::Held { pid: Some(holder), .. } if holder == pid), "{error}");
    assert!(error.to_string().contains(&pid.to_string()) && error.to_string().contains("lock"));

    drop(first);
    assert!(!path.exists());
    InstanceLock::acquire(&path, ENDPOINT).unwrap();
}

#[test]
fn a_file_of_a_dead_holder_is_taken_over_whatever_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    fs::write(&path, "1\n1\na much longer entry than the one that replaces it, to see that it is cut\n\n")
        .unwrap();
    let _lock = InstanceLock::acquire(&path, ENDPOINT).unwrap();
    assert_eq!(LockEntry::parse(&fs::read_to_string(&path).unwrap()).unwrap().pid, std::process::id());
}

#[test]
fn a_link_or_a_directory_is_refused_and_its_target_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let (target, link) = (dir.path().join("target"), dir.path().join("link"));
    fs::write(&target, "precious").unwrap();
    symlink(&target, &link).unwrap();
    for path in [&link, &dir.path().to_path_buf()] {
        let error = InstanceLock::acquire(path, ENDPOINT).unwrap_err();
        assert!(matches!(error, LockError::NotAFile { .. }), "{error}");
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
}

#[test]
fn a_lock_whose_file_was_replaced_does_not_remove_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let old = InstanceLock::acquire(&path, ENDPOINT).unwrap();
    fs::remove_file(&path).unwrap();
    let new = InstanceLock::acquire(&path, ENDPOINT).unwrap();
    drop(old);
    assert!(path.exists());
    assert!(matches!(InstanceLock::acquire(&path, ENDPOINT), Err(LockError::Held { .. })));
    drop(new);
    assert!(!path.exists());
}

#[test]
fn a_lock_that_is_handed_on_is_held_all_the_while() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let descriptor = InstanceLock::acquire(&path, ENDPOINT).unwrap().into_descriptor().unwrap();
    assert!(matches!(InstanceLock::acquire(&path, ENDPOINT), Err(LockError::Held { .. })));
    let taken_over = InstanceLock::from_descriptor(descriptor, &path, "/run/new.sock").unwrap();
    assert!(matches!(InstanceLock::acquire(&path, ENDPOINT), Err(LockError::Held { .. })));
    assert_eq!(LockEntry::parse(&fs::read_to_string(&path).unwrap()).unwrap().endpoint, "/run/new.sock");
    drop(taken_over);
    assert!(!path.exists());
}
