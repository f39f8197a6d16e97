//! What a thread in a sandbox can do and what it cannot, by the kernel that runs this.
#![cfg(all(target_os = "linux", feature = "sandbox"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use broker_transport::sandbox::{Sandbox, SandboxError, forbid_new_privileges};

/// What somebody sees from within; in a thread of its own, as there is no way back. `None`, and a word on it,
/// where this kernel has no Landlock.
fn within<T: Send>(writable: &[&Path], look: impl FnOnce() -> T + Send) -> Option<T> {
    let sandbox = Sandbox { writable: writable.iter().map(|path| path.to_path_buf()).collect() };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| match sandbox.enter() {
            Ok(_) => Some(look()),
            Err(SandboxError::NotOffered { means }) => {
                println!("not tested, as this kernel does not offer {means}");
                None
            }
            Err(error) => panic!("{error}"),
        });
        thread.join().unwrap()
    })
}

#[test]
fn files_are_changed_only_where_they_may_be_and_read_everywhere() {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (inside, outside) = (inside.path(), outside.path());
    fs::write(outside.join("old"), "old").unwrap();
    within(&[inside], || {
        fs::create_dir(inside.join("dir")).unwrap();
        fs::write(inside.join("dir/new"), "new").unwrap();
        fs::rename(inside.join("dir/new"), inside.join("dir/newer")).unwrap();
        drop(UnixListener::bind(inside.join("socket")).unwrap());
        fs::remove_file(inside.join("socket")).unwrap();

        assert_eq!(fs::read_to_string(outside.join("old")).unwrap(), "old");
        let refusals = [
            fs::write(outside.join("new"), "new"),
            fs::write(outside.join("old"), "new"),
            fs::create_dir(outside.join("dir")),
            fs::remove_file(outside.join("old")),
            fs::rename(outside.join("old"), outside.join("older")),
            fs::hard_link(inside.join("dir/newer"), outside.join("link")),
            std::os::unix::fs::symlink("/", outside.join("link")),
            UnixListener::bind(outside.join("socket")).map(drop),
        ];
        for (index, refusal) in refusals.into_iter().enumerate() {
            let kind = refusal.unwrap_err().kind();
            assert!(
                matches!(kind, ErrorKind::PermissionDenied | ErrorKind::CrossesDevices),
                "{index}: {kind:?}"
            );
        }
        assert_eq!(fs::read_to_string(outside.join("old")).unwrap(), "old");
    });
}

#[test]
fn a_link_inside_leads_to_nothing_that_may_be_changed() {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (inside, outside) = (inside.path(), outside.path());
    fs::write(outside.join("old"), "old").unwrap();
    std::os::unix::fs::symlink(outside, inside.join("link")).unwrap();
    within(&[inside], || {
        let refusal = fs::write(inside.join("link/old"), "new").unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::PermissionDenied);
    });
    assert_eq!(fs::read_to_string(outside.join("old")).unwrap(), "old");
}

#[test]
fn there_is_no_network_but_connections_of_this_machine() {
    within(&[], || {
        assert_eq!(TcpListener::bind("127.0.0.1:0").unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(UdpSocket::bind("[::1]:0").unwrap_err().kind(), ErrorKind::PermissionDenied);
        UnixStream::pair().unwrap();
    });
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error =
        std::thread::spawn(|| Sandbox { writable: vec!["/nowhere/at/all".into()] }.enter()).join().unwrap();
    assert!(
        matches!(&error, Err(SandboxError::Directory { path, .. }) if path.ends_with("at/all")),
        "{error:?}"
    );
}

#[test]
fn what_a_thread_gives_up_its_siblings_keep_and_what_it_starts_does_not_get() {
    let promised = || rustix::thread::no_new_privs().unwrap();
    let promised_by_its_own = std::thread::spawn(move || {
        forbid_new_privileges().unwrap();
        [promised(), std::thread::spawn(promised).join().unwrap()]
    });
    assert_eq!(promised_by_its_own.join().unwrap(), [true, true]);
    assert!(!promised());
}
