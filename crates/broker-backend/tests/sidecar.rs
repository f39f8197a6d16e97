//! The file beside an endpoint that tells who serves it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod common;

use std::fs;
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
#[cfg(target_os = "linux")]
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use broker_backend::{
    Backend, DaemonProcess, Extent, Identity, IdentitySidecar, MAX_SIDECAR, Request, SidecarReadError,
    SidecarWriteError, Standing,
};
use broker_protocol::prost::Message;
use broker_transport::endpoint::lock_path;
#[cfg(target_os = "linux")]
use broker_transport::files::FileKind;
use broker_transport::identity;
use broker_transport::probe::{Mismatch, probe_identity};

use common::{Place, Served, read_body, request, response};

async fn echo(request: Request) -> broker_backend::bytes::Bytes {
    request.into_payload()
}

fn process() -> DaemonProcess {
    DaemonProcess { pid: 42, boot_id: "boot".into(), ..DaemonProcess::default() }
}

/// What is read at a place with this content.
fn read(content: &[u8]) -> Result<Option<IdentitySidecar>, SidecarReadError> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("be.sock.identity");
    fs::write(&path, content).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    IdentitySidecar::read(&path)
}

/// The truth about a process, as if it served `endpoint`.
fn truth(pid: u32, endpoint: &Path) -> IdentitySidecar {
    let process = DaemonProcess {
        pid,
        boot_id: identity::boot_id().unwrap(),
        exe_hash_algorithm: "blake3".into(),
        exe_hash: identity::hash_process_executable(pid).unwrap().to_vec(),
        ipc_endpoint: Some(broker_protocol::wire::Endpoint {
            namespace_id: String::new(),
            path: endpoint.to_str().unwrap().into(),
        }),
        ..DaemonProcess::default()
    };
    IdentitySidecar { process, extent: Extent::Whole }
}

/// Far beyond what anything here takes: reaching it is a failure, not a matter of speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for the file, whose coming nobody announces.
async fn sidecar_of(endpoint: &Path) -> IdentitySidecar {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(sidecar) = IdentitySidecar::read(IdentitySidecar::path_for(endpoint).unwrap()).unwrap() {
            return sidecar;
        }
        assert!(Instant::now() < give_up, "there is no sidecar");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_backend_tells_who_it_is_for_as_long_as_it_serves() {
    let served = Served::start_with(echo, Backend::with_identity_sidecar);
    let sidecar = sidecar_of(&served.endpoint).await;
    assert_eq!(sidecar.extent, Extent::Whole);
    assert_eq!(sidecar.process, probe_identity(&served.endpoint).await.unwrap());
    assert_eq!(sidecar.standing(&served.endpoint).unwrap(), Standing::Current);
    #[cfg(unix)]
    {
        let path = IdentitySidecar::path_for(&served.endpoint).unwrap();
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    served.stop().await;
}

#[tokio::test]
async fn a_stop_may_come_at_any_moment_of_the_start() {
    let place = Place::new();
    for turns in 0..50 {
        // The same endpoint each time: neither the file nor the lock is in the successor's way.
        let backend = Backend::bind(place.endpoint("be.sock"))
            .unwrap()
            .with_identity(Identity::fixed(process()))
            .with_identity_sidecar();
        let stop = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        backend.serve_until(echo, stop).await.unwrap();
        place.assert_left_empty();
    }
}

#[tokio::test]
async fn dropping_the_backend_takes_the_file_with_it() {
    let place = Place::new();
    let backend = Backend::bind(place.endpoint("be.sock")).unwrap().with_identity_sidecar();
    let endpoint = backend.endpoint().to_owned();
    tokio::select! {
        result = backend.serve(echo) => panic!("{result:?}"),
        sidecar = sidecar_of(&endpoint) => assert_eq!(sidecar.process.pid, std::process::id()),
    }
    // It may have been read before its directory had reached the disk, which its writer awaits still.
    let give_up = Instant::now() + PATIENCE;
    while IdentitySidecar::path_for(&endpoint).unwrap().exists() || lock_path(&endpoint).unwrap().exists() {
        assert!(Instant::now() < give_up, "it stays behind");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    place.assert_left_empty();
}

#[tokio::test]
async fn nothing_is_told_unasked() {
    let served = Served::start(echo);
    probe_identity(&served.endpoint).await.unwrap();
    assert!(IdentitySidecar::read(IdentitySidecar::path_for(&served.endpoint).unwrap()).unwrap().is_none());
    served.stop().await;
}

#[tokio::test]
async fn a_backend_that_cannot_write_it_serves_without_and_leaves_what_is_there() {
    let place = Place::new();
    let backend = Backend::bind(place.endpoint("be.sock")).unwrap().with_identity_sidecar();
    let endpoint = backend.endpoint().to_owned();
    let occupied = IdentitySidecar::path_for(&endpoint).unwrap();
    fs::create_dir(&occupied).unwrap();
    let client = broker_backend::Stream::connect(&endpoint).await.unwrap();
    let conversation = async {
        // Once its identity is known, the file is next.
        probe_identity(&endpoint).await.unwrap();
        client.send_all(&request(b"served")).await.unwrap();
        assert_eq!(read_body(&client).await, response(b"served"));
    };
    backend.serve_until(echo, conversation).await.unwrap();
    assert!(occupied.is_dir());
    fs::remove_dir(occupied).unwrap();
}

#[tokio::test]
async fn a_backend_replaces_what_a_killed_one_left_and_removes_only_its_own() {
    let place = Place::new();
    let backend = Backend::bind(place.endpoint("be.sock")).unwrap().with_identity_sidecar();
    let endpoint = backend.endpoint().to_owned();
    let path = IdentitySidecar::path_for(&endpoint).unwrap();
    IdentitySidecar::write(&path, &process()).unwrap();
    let until_replaced = async {
        while sidecar_of(&endpoint).await.process == process() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        IdentitySidecar::write(&path, &process()).unwrap();
    };
    backend.serve_until(echo, until_replaced).await.unwrap();
    assert_eq!(IdentitySidecar::read(&path).unwrap().unwrap().process, process());
    fs::remove_file(path).unwrap();
}

#[test]
fn what_is_written_is_read_and_where_nothing_is_there_is_nothing() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("be.sock.identity");
    #[cfg(unix)] // What belongs to a pipe does not lie beside it.
    assert_eq!(path, IdentitySidecar::path_for(place.path().join("be.sock")).unwrap());
    assert!(IdentitySidecar::read(&path).unwrap().is_none());
    assert!(IdentitySidecar::read(place.path().join("missing/be.sock.identity")).unwrap().is_none());
    for pid in [42, 43] {
        let process = DaemonProcess { pid, idle_timeout_secs: Some(0), ..process() };
        IdentitySidecar::write(&path, &process).unwrap();
        let expected = IdentitySidecar { process, extent: Extent::Whole };
        assert_eq!(IdentitySidecar::read(&path).unwrap().unwrap(), expected);
    }
    #[cfg(unix)]
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "a temporary file stayed");
}

#[test]
fn the_longest_sidecar_is_written_and_read_and_one_byte_more_is_neither() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("be.sock.identity");
    let of_length = |length: usize| {
        let bare = DaemonProcess { exe_path: "x".repeat(MAX_SIDECAR / 2), ..process() };
        let exe_path = "x".repeat(MAX_SIDECAR / 2 + length - bare.encoded_len());
        let process = DaemonProcess { exe_path, ..process() };
        assert_eq!(process.encoded_len(), length);
        process
    };
    let longest = of_length(MAX_SIDECAR);
    IdentitySidecar::write(&path, &longest).unwrap();
    assert_eq!(IdentitySidecar::read(&path).unwrap().unwrap().process, longest);

    let too_long = of_length(MAX_SIDECAR + 1);
    let error = IdentitySidecar::write(&path, &too_long).unwrap_err();
    assert!(matches!(error, SidecarWriteError::TooLong { actual: 65_537, .. }), "{error}");
    assert_eq!(IdentitySidecar::read(&path).unwrap().unwrap().process, longest, "the old one stays");
    let error = read(&too_long.encode_to_vec()).unwrap_err();
    assert!(matches!(error, SidecarReadError::TooLong { actual: 65_537, .. }), "{error}");
}

#[test]
fn garbage_and_half_an_identity_are_told_from_one() {
    let whole = process().encode_to_vec();
    for garbage in [&b"not protobuf"[..], &[0xFF; 40], &whole[..whole.len() - 1]] {
        let error = read(garbage).unwrap_err();
        assert!(matches!(error, SidecarReadError::NotAProcess { .. }), "{error}");
    }
    for (process, expected) in [
        (DaemonProcess::default(), "a process id"),
        (DaemonProcess { pid: 0, ..process() }, "a process id"),
        (DaemonProcess { boot_id: String::new(), ..process() }, "a boot id"),
    ] {
        let error = read(&process.encode_to_vec()).unwrap_err();
        assert!(
            matches!(error, SidecarReadError::Incomplete { missing, .. } if missing == expected),
            "{error}"
        );
    }
}

#[test]
fn fields_of_a_later_version_are_passed_over_and_said_to_be_there() {
    // Field 1000 as a varint; and an unknown field 3 inside of the endpoint.
    let top = [&process().encode_to_vec()[..], &[0xC0, 0x3E, 5]].concat();
    let inner = [&process().encode_to_vec()[..], &[0x22, 2, 0x18, 1]].concat();
    assert_eq!(
        read(&top).unwrap().unwrap(),
        IdentitySidecar { process: process(), extent: Extent::UnknownFields }
    );
    assert_eq!(read(&inner).unwrap().unwrap().extent, Extent::UnknownFields);
}

#[cfg(target_os = "linux")] // Modes, links and special files.
#[test]
fn what_is_not_a_private_file_is_not_believed() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("be.sock.identity");
    let target = place.path().join("target");
    let found = || match IdentitySidecar::read(&path).unwrap_err() {
        SidecarReadError::NotAFile { found, .. } => found,
        error => panic!("{error}"),
    };
    IdentitySidecar::write(&target, &process()).unwrap();
    symlink(&target, &path).unwrap();
    assert_eq!(found(), FileKind::Symlink);
    // And writing takes the link's place, not its target's.
    let other = DaemonProcess { pid: 43, ..process() };
    IdentitySidecar::write(&path, &other).unwrap();
    assert_eq!(IdentitySidecar::read(&target).unwrap().unwrap().process, process());

    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
    let error = IdentitySidecar::read(&path).unwrap_err();
    assert!(matches!(error, SidecarReadError::NotPrivate { .. }), "{error}");

    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(found(), FileKind::Directory);
    fs::remove_dir(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    assert_eq!(found(), FileKind::Other);
    fs::remove_file(&path).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert_eq!(found(), FileKind::Socket);
}

/// A process of another program, which waits until its standard input ends.
fn other_program() -> Child {
    let (program, options): (_, &[&str]) = match std::env::var_os("ComSpec") {
        Some(shell) if cfg!(windows) => (shell, &["/q"]),
        _ => ("/bin/cat".into(), &[]),
    };
    Command::new(program).args(options).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Waits for its end. On Unix it is not reaped; on Windows it is there for as long as somebody holds it.
fn ends(child: &mut Child) {
    drop(child.stdin.take());
    #[cfg(unix)]
    {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
    }
    #[cfg(windows)]
    child.wait().unwrap();
}

#[test]
fn a_sidecar_of_another_boot_endpoint_or_program_is_not_current() {
    let endpoint = Path::new("/run/be.sock");
    let own = truth(std::process::id(), endpoint);
    assert_eq!(own.standing(endpoint).unwrap(), Standing::Current);

    let mut rebooted = own.clone();
    rebooted.process.boot_id = "00000000-0000-0000-0000-000000000000".into();
    let standing = rebooted.standing(endpoint).unwrap();
    assert!(matches!(standing, Standing::Other(Mismatch::BootId { .. })), "{standing:?}");

    let standing = own.standing("/run/copied.sock").unwrap();
    assert!(matches!(standing, Standing::Other(Mismatch::Endpoint { .. })), "{standing:?}");

    // Its process id has become another program's.
    let mut child = other_program();
    let mut reused = own;
    reused.process.pid = child.id();
    let standing = reused.standing(endpoint).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(standing, Standing::Other(Mismatch::Executable { .. })), "{standing:?}");
}

#[test]
fn a_process_that_has_ended_is_gone_even_before_it_is_reaped() {
    let endpoint = Path::new("/run/be.sock");
    let mut child = other_program();
    let sidecar = IdentitySidecar {
        process: DaemonProcess { pid: child.id(), ..truth(std::process::id(), endpoint).process },
        extent: Extent::Whole,
    };
    ends(&mut child);
    assert_eq!(sidecar.standing(endpoint).unwrap(), Standing::Gone);
    child.wait().unwrap();
}
