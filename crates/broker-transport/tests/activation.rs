//! Taking over a listener that was passed at the start. The children are this test binary itself.
#![cfg(all(unix, feature = "tokio"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod common;

use std::path::{Path, PathBuf};

use broker_transport::activation::{ActivationError, take_listener};
use broker_transport::descriptor::OwnedDescriptor;
use broker_transport::listener::{BindError, BindOptions, BoundSocket, Listener};
use broker_transport::process::{ChildProcess, SpawnCommand};
use broker_transport::stream::{BlockingStream, Stream};

use common::spawn;

const PLACE: &str = "BROKER_TEST_SOCKET";

/// Runs one of the ignored tests below in a process of its own, which is passed `listener`.
async fn start(test: &str, path: &Path, listener: OwnedDescriptor) -> ChildProcess {
    let mut command = SpawnCommand::new(std::env::current_exe().unwrap()).env(PLACE, path);
    for arg in ["--ignored", "--exact", "--nocapture", test] {
        command = command.arg(arg);
    }
    command.listen_fd = Some(listener);
    spawn(command).await
}

async fn succeeds(child: ChildProcess) {
    let exit = child.wait().await.unwrap();
    assert!(exit.is_success(), "{exit}: {}", child.stderr().text());
}

fn place() -> PathBuf {
    PathBuf::from(std::env::var_os(PLACE).unwrap())
}

#[tokio::test]
async fn a_client_that_came_before_the_process_is_served_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let bound = BoundSocket::bind(&path, &BindOptions::default()).unwrap();
    let early = Stream::connect(&path).await.unwrap();
    let child = start("it_serves_the_listener_once", &path, bound.into_descriptor().unwrap()).await;
    let mut answer = [0; 6];
    assert_eq!(early.read_some(&mut answer).await.unwrap(), 6);
    assert_eq!(&answer, b"served");
    succeeds(child).await;
    assert!(!path.exists(), "the process removes the socket that it was given");
}

#[tokio::test]
#[ignore = "the child of another test"]
async fn it_serves_the_listener_once() {
    let bound = take_listener(Some(&place())).unwrap().unwrap();
    assert!(matches!(take_listener(None), Err(ActivationError::Taken)));
    let accepted = Listener::from_bound(bound).unwrap().accept().await.unwrap();
    accepted.stream.send_all(b"served").await.unwrap();
}

#[tokio::test]
async fn what_is_no_listener_is_refused_and_stays_open() {
    let (_near, far) = BlockingStream::pair().unwrap();
    succeeds(start("it_refuses_what_does_not_listen", Path::new("/"), far.into_owned_fd()).await).await;
}

#[test]
#[ignore = "the child of another test"]
fn it_refuses_what_does_not_listen() {
    for _ in 0..2 {
        let error = take_listener(None).unwrap_err();
        let named = matches!(error, ActivationError::Listener(BindError::NotAListener { descriptor: 3, .. }));
        assert!(named, "{error}");
    }
    use std::os::unix::fs::FileTypeExt;
    assert!(std::fs::metadata("/dev/fd/3").unwrap().file_type().is_socket());
}

#[test]
fn a_process_that_was_passed_nothing_has_nothing_to_take() {
    assert!(take_listener(None).unwrap().is_none());
}
