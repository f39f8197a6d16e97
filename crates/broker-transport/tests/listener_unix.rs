//! Sockets as files: binding, replacing and handing on, and what keeps one from all that.
#![cfg(all(unix, feature = "tokio"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker_transport::listener::{BindError, BindOptions, BoundSocket, Listener, has_connections};
use broker_transport::stream::{BlockingStream, ConnectErrorKind, Stream};

fn bind(path: &Path) -> Result<BoundSocket, BindError> {
    BoundSocket::bind(path, &BindOptions::default())
}

/// A path of exactly `length` bytes below `dir`.
fn path_of_length(dir: &Path, length: usize) -> PathBuf {
    let name = "x".repeat(length - dir.as_os_str().len() - 1);
    dir.join(name)
}

#[test]
fn the_socket_file_is_private_and_goes_with_the_listener() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let bound = bind(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(bound);
    assert!(!path.exists());
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let live = bind(&path).unwrap();
    let error = bind(&path).unwrap_err();
    assert!(matches!(&error, BindError::InUse { path: named } if *named == path), "{error}");
    BlockingStream::connect(&path, None).unwrap();
    drop(live);
}

#[test]
fn a_live_socket_with_a_full_queue_is_not_stolen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let _live = BoundSocket::bind(&path, &BindOptions { backlog: 0, mode: 0o600 }).unwrap();
    let _waiting = BlockingStream::connect(&path, None).unwrap();
    assert!(matches!(bind(&path), Err(BindError::InUse { .. })));
    let busy = BlockingStream::connect(&path, Some(Duration::from_millis(1))).unwrap_err();
    assert_eq!(busy.kind, ConnectErrorKind::Busy);
}

#[test]
fn nothing_but_a_stale_stream_socket_is_ever_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (file, directory, link) =
        (dir.path().join("file"), dir.path().join("directory"), dir.path().join("link"));
    fs::write(&file, "precious").unwrap();
    fs::create_dir(&directory).unwrap();
    symlink(dir.path().join("nowhere"), &link).unwrap();
    for (path, what) in [(&file, "regular file"), (&directory, "directory"), (&link, "symbolic link")] {
        let error = bind(path).unwrap_err();
        assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
        assert!(error.to_string().contains(what) && error.to_string().contains(path.to_str().unwrap()));
        assert!(path.symlink_metadata().is_ok());
    }
    let datagram = dir.path().join("datagram");
    let _bound = UnixDatagram::bind(&datagram).unwrap();
    assert!(bind(&datagram).is_err());
    assert!(datagram.symlink_metadata().unwrap().file_type().is_socket());
}

#[test]
fn the_longest_path_is_bound_and_one_more_byte_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let longest = path_of_length(dir.path(), 107);
    let _bound = bind(&longest).unwrap();
    BlockingStream::connect(&longest, None).unwrap();
    let too_long = path_of_length(dir.path(), 108);
    let error = bind(&too_long).unwrap_err();
    assert!(matches!(error, BindError::TooLong { actual: 108, limit: 107, .. }), "{error}");
    let error = BlockingStream::connect(&too_long, None).unwrap_err();
    assert_eq!(error.kind, ConnectErrorKind::TooLong);
    assert!(bind(Path::new("")).is_err());
}

#[test]
fn a_listener_does_not_remove_a_socket_that_took_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let old = bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _new = UnixListener::bind(&path).unwrap();
    drop(old);
    assert!(path.exists());
}

#[tokio::test]
async fn a_passed_listener_is_served_by_its_new_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let descriptor = bind(&path).unwrap().into_descriptor().unwrap();
    assert!(path.exists());
    let _early = Stream::connect(&path).await.unwrap();
    let listener =
        Listener::from_bound(BoundSocket::from_listen_fd(descriptor, Some(&path)).unwrap()).unwrap();
    listener.accept().await.unwrap();
    let mut listener = listener;
    listener.keep_file();
    drop(listener);
    assert!(path.exists());
}

#[test]
fn what_does_not_listen_is_no_listener() {
    let (near, _far) = BlockingStream::pair().unwrap();
    let error = BoundSocket::from_listen_fd(near.into_owned_fd(), None).unwrap_err();
    assert!(matches!(error, BindError::NotAListener { .. }), "{error}");
    let file = fs::File::open("/dev/null").unwrap();
    assert!(matches!(BoundSocket::from_listen_fd(file.into(), None), Err(BindError::NotAListener { .. })));
}

#[tokio::test]
async fn a_failed_connect_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let kind = |path: PathBuf| async move { Stream::connect(&path).await.unwrap_err().kind };
    assert_eq!(kind(dir.path().join("absent")).await, ConnectErrorKind::NotFound);
    let stale = dir.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    assert_eq!(kind(stale.clone()).await, ConnectErrorKind::Refused);
    let error = BlockingStream::connect(&stale, None).unwrap_err();
    assert_eq!(error.kind, ConnectErrorKind::Refused);
    assert!(error.to_string().contains("stale"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_socket_is_abandoned_once_nobody_is_bound_to_it_whether_or_not_anybody_listened() {
    use broker_transport::listener::is_abandoned;
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a socket");
    let bound = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&bound, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    assert!(!is_abandoned(&path).unwrap(), "it is about to listen");
    symlink(dir.path(), dir.path().join("link")).unwrap();
    listen(&bound, 1).unwrap();
    for way in ["a socket", "link/a socket"] {
        assert!(!is_abandoned(dir.path().join(way)).unwrap(), "{way}");
    }
    drop(bound);
    assert!(is_abandoned(&path).unwrap());
    assert!(is_abandoned(dir.path().join("absent")).is_err());
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(!is_abandoned(&file).unwrap(), "it is no socket");
}

#[test]
fn an_endpoint_is_in_use_from_the_first_connection_to_the_end_of_the_last() {
    let dir = tempfile::tempdir().unwrap();
    // macOS has its temporary directory behind a link.
    let real = dir.path().canonicalize().unwrap();
    let path = real.join("a socket");
    let listener = UnixListener::bind(&path).unwrap();
    assert!(!has_connections(&path).unwrap(), "it is only listened on");
    let clients = [(); 2].map(|()| BlockingStream::connect(&path, None).unwrap());
    assert!(!has_connections(&path).unwrap(), "nobody serves them yet, and who hangs never will");
    let mut accepted = vec![listener.accept().unwrap(), listener.accept().unwrap()];
    assert!(has_connections(&path).unwrap());
    symlink(&real, real.join("link")).unwrap();
    assert!(has_connections(real.join("link/a socket")).unwrap(), "another way to the same socket");
    for other in ["a", "link"] {
        assert!(has_connections(real.join(other)).is_err(), "nobody listens there");
    }
    drop((clients, accepted.pop()));
    assert!(has_connections(&path).unwrap(), "the backend has not let go of it");
    drop(accepted);
    assert!(!has_connections(&path).unwrap());
}
