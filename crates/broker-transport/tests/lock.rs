//! The instance lock.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[cfg(feature = "tokio")]
mod common;

use std::fs;

use broker_transport::files::facts;
use broker_transport::identity::process_start_time;
use broker_transport::lock::{InstanceLock, LockEntry, LockError, LockStanding, standing};

const ENDPOINT: &str = "/run/x.sock";

#[test]
fn a_second_lock_is_refused_and_names_the_holder_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let first = InstanceLock::acquire(&path, ENDPOINT).unwrap();
    let pid = std::process::id();
    let entry = LockEntry { pid, start_time: process_start_time(pid).unwrap(), endpoint: ENDPOINT.into() };
    assert_eq!(LockEntry::parse(&fs::read_to_string(&path).unwrap()), Some(entry));
    assert!(!facts(&path).unwrap().writable_by_others);

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

/// A lock as it is when its holder has been killed between fork and exec of a child.
#[cfg(unix)]
fn lock_that_outlives_its_holder(path: &std::path::Path) -> std::os::fd::OwnedFd {
    let copy = InstanceLock::acquire(path, ENDPOINT).unwrap().into_descriptor().unwrap();
    let mut holder = std::process::Command::new("/bin/sh").args(["-c", "exit"]).spawn().unwrap();
    holder.wait().unwrap();
    fs::write(path, format!("{}\n1\n{ENDPOINT}\n", holder.id())).unwrap();
    copy
}

#[cfg(unix)]
#[test]
fn what_a_dead_holder_has_just_forked_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let copy = lock_that_outlives_its_holder(&path);
    let _lock = std::thread::scope(|scope| {
        let successor = scope.spawn(|| InstanceLock::acquire(&path, ENDPOINT));
        // Likely it waits by then; if not, it finds the lock free.
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(copy);
        successor.join().unwrap().unwrap()
    });
    assert_eq!(LockEntry::parse(&fs::read_to_string(&path).unwrap()).unwrap().pid, std::process::id());
}

#[cfg(unix)]
#[test]
fn a_lock_that_somebody_keeps_after_its_holder_s_death_is_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let _copy = lock_that_outlives_its_holder(&path);
    let error = InstanceLock::acquire(&path, ENDPOINT).unwrap_err();
    assert!(matches!(error, LockError::Held { pid: Some(_), .. }), "{error}");
}

#[test]
fn a_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = InstanceLock::acquire(dir.path(), ENDPOINT).unwrap_err();
    assert!(matches!(error, LockError::NotAFile { .. }), "{error}");
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

// What may be written to is the descriptor's matter on Unix; a disk that is full refuses as this one does.
#[cfg(unix)]
#[test]
fn a_lock_whose_entry_cannot_be_written_is_taken_over_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    fs::write(&path, "of somebody before").unwrap();
    let reads_only = fs::File::open(&path).unwrap();
    let lock = InstanceLock::from_descriptor(reads_only.into(), &path, ENDPOINT).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "of somebody before", "nothing is cut off first");
    assert!(matches!(InstanceLock::acquire(&path, ENDPOINT), Err(LockError::Held { .. })));
    drop(lock);
    assert!(!path.exists());
}

#[test]
fn a_handle_that_does_not_carry_the_lock_does_not_take_it_over() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("lock"), dir.path().join("other"));
    fs::write(&other, "").unwrap();
    let held = InstanceLock::acquire(&path, ENDPOINT).unwrap();
    for place in [&path, &other] {
        let handle = fs::File::open(place).unwrap().into();
        assert!(InstanceLock::from_descriptor(handle, &path, "/run/new.sock").is_err(), "{place:?}");
    }
    assert_eq!(LockEntry::parse(&fs::read_to_string(&path).unwrap()).unwrap().endpoint, ENDPOINT);
    drop(held);
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn a_lock_that_another_process_was_given_is_held_until_its_end() {
    use broker_transport::process::{Inherited, StopSignal};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let descriptor = InstanceLock::acquire(&path, ENDPOINT).unwrap().into_descriptor().unwrap();
    let mut command = common::helper("sleep");
    command.inherited.push(Inherited { variable: "LOCK".into(), descriptor });
    let child = common::spawn(command).await;
    assert!(matches!(InstanceLock::acquire(&path, ENDPOINT), Err(LockError::Held { .. })));
    child.signal(StopSignal::Kill).unwrap();
    child.wait().await.unwrap();
    InstanceLock::acquire(&path, ENDPOINT).unwrap();
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_lock_file_has_mode_0600() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let _lock = InstanceLock::acquire(&path, ENDPOINT).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_link_is_refused_and_its_target_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "precious").unwrap();
        symlink(&target, &link).unwrap();
        let error = InstanceLock::acquire(&link, ENDPOINT).unwrap_err();
        assert!(matches!(error, LockError::NotAFile { .. }), "{error}");
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
}

#[cfg(windows)]
mod windows {
    use super::*;

    #[test]
    fn a_file_that_is_locked_can_neither_be_removed_nor_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = InstanceLock::acquire(&path, ENDPOINT).unwrap();
        assert!(fs::remove_file(&path).is_err() && fs::write(&path, "").is_err());
        assert!(fs::rename(&path, dir.path().join("other")).is_err());
        drop(lock);
        assert!(!path.exists());
    }

    #[test]
    fn a_reader_does_not_keep_a_holder_from_going_nor_the_next_from_coming() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = InstanceLock::acquire(&path, ENDPOINT).unwrap();
        let reader = fs::File::open(&path).unwrap();
        drop(lock);
        let next = InstanceLock::acquire(&path, ENDPOINT).unwrap();
        drop(reader);
        drop(next);
        assert!(!path.exists());
    }
}

#[test]
fn a_look_tells_whether_a_lock_is_held_and_by_whom_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    assert_eq!(standing(&path).unwrap(), LockStanding::Absent);
    assert!(!path.exists());
    let lock = InstanceLock::acquire(&path, ENDPOINT).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let entry = LockEntry::parse(&text);
    assert!(entry.as_ref().is_some_and(LockEntry::is_alive));
    assert_eq!(standing(&path).unwrap(), LockStanding::Held { entry });
    drop(lock);

    fs::write(&path, "1\n1\n/run/x.sock\n").unwrap();
    let entry = LockEntry::parse("1\n1\n/run/x.sock\n");
    assert!(entry.as_ref().is_some_and(|entry| !entry.is_alive()));
    assert_eq!(standing(&path).unwrap(), LockStanding::Left { entry });
    fs::write(&path, "").unwrap();
    assert_eq!(standing(&path).unwrap(), LockStanding::Left { entry: None });
    assert_eq!(fs::read_to_string(&path).unwrap(), "");

    fs::hard_link(&path, dir.path().join("other")).unwrap();
    assert!(matches!(standing(&path), Err(LockError::NotAFile { .. })));
    assert!(matches!(standing(dir.path()), Err(LockError::NotAFile { found: "a directory", .. })));
}
