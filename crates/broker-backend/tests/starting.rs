//! How a backend comes by its endpoint. Children that a broker would start are this test binary itself.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use broker_backend::{
    Backend, Environment, EnvironmentError, Request, StartError, StopRequests, environment,
};
use broker_transport::endpoint::EndpointError;
use broker_transport::identity;
use broker_transport::listener::{BindError, BindOptions, BoundSocket};
use broker_transport::lock::LockError;
use broker_transport::private_dir::PrivateDirError;
use broker_transport::probe::{Expectation, PROBE_TIMEOUT, probe_identity_within, wait_ready};
use broker_transport::process::{ChildProcess, SpawnCommand, Spawner, StopSignal};
use broker_transport::stream::Stream;

use common::{assert_left_empty, read_body, request, response};

fn told(endpoint: &Path) -> [(&'static str, String); 5] {
    [
        (environment::SERVICE_NAME, "build-cache".into()),
        (environment::SERVICE_VERSION, "1.2.3".into()),
        (environment::BACKEND_PIPE, endpoint.to_str().unwrap().into()),
        (environment::BACKEND_NAMESPACE, "namespace".into()),
        (environment::INSTANCE, "shared".into()),
    ]
}

/// Starts a backend as a broker does, with a listener or without.
async fn start(endpoint: &Path, listener: Option<BoundSocket>) -> ChildProcess {
    let mut command = SpawnCommand::new(std::env::current_exe().unwrap());
    for arg in ["--ignored", "--exact", "--nocapture", "it_serves_until_it_is_asked_to_end"] {
        command = command.arg(arg);
    }
    for (name, value) in told(endpoint) {
        command = command.env(name, value);
    }
    command.listen_fd = listener.map(|listener| listener.into_descriptor().unwrap());
    Spawner::start().unwrap().spawn(command).await.unwrap()
}

#[tokio::test]
#[ignore = "the child of other tests"]
async fn it_serves_until_it_is_asked_to_end() {
    let mut stop = StopRequests::listen().unwrap();
    let backend = Backend::from_env().unwrap();
    let service = backend.environment().unwrap().service.clone();
    let handler = move |_: Request| {
        let service = service.to_string();
        async move { service }
    };
    let asked = async { assert_eq!(stop.next().await, "SIGTERM") };
    backend.serve_until(handler, asked).await.unwrap();
}

async fn end(child: &ChildProcess) {
    child.signal(StopSignal::Terminate).unwrap();
    let exit = child.wait().await.unwrap();
    assert!(exit.is_success(), "{exit}: {}", child.stderr().text());
}

fn expectation(child: &ChildProcess, endpoint: &Path) -> Expectation {
    Expectation {
        pid: Some(child.pid()),
        boot_id: Some(identity::boot_id().unwrap()),
        exe_hash: Some(identity::hash_process_executable(child.pid()).unwrap()),
        endpoint: Some(endpoint.to_str().unwrap().into()),
    }
}

#[tokio::test]
async fn a_started_backend_becomes_ready_and_goes_without_a_trace() {
    let place = tempfile::tempdir().unwrap();
    let endpoint = place.path().join("be.sock");
    let child = start(&endpoint, None).await;
    let limit = std::time::Duration::from_secs(60);
    let process = wait_ready(&endpoint, &child, &expectation(&child, &endpoint), limit).await.unwrap();
    assert_eq!(process.ipc_endpoint.unwrap().namespace_id, "namespace");
    let client = Stream::connect(&endpoint).await.unwrap();
    client.send_all(&request(b"who?")).await.unwrap();
    assert_eq!(read_body(&client).await, response(b"build-cache"));
    end(&child).await;
    assert_left_empty(place.path());
}

#[tokio::test]
async fn a_passed_listener_serves_those_who_came_before_the_process() {
    let place = tempfile::tempdir().unwrap();
    let endpoint = place.path().join("be.sock");
    let listener = BoundSocket::bind(&endpoint, &BindOptions::default()).unwrap();
    let early = Stream::connect(&endpoint).await.unwrap();
    early.send_all(&request(b"who?")).await.unwrap();
    let child = start(&endpoint, Some(listener)).await;
    assert_eq!(read_body(&early).await, response(b"build-cache"));
    let process = probe_identity_within(&endpoint, PROBE_TIMEOUT * 100).await.unwrap();
    expectation(&child, &endpoint).check(&process).unwrap();
    end(&child).await;
    assert_left_empty(place.path());
}

#[tokio::test]
async fn without_a_passed_listener_the_endpoint_is_bound() {
    let place = tempfile::tempdir().unwrap();
    let endpoint = place.path().join("be.sock");
    let environment = Environment::parse(|variable| {
        told(&endpoint).into_iter().find(|(name, _)| *name == variable).map(|(_, value)| value.into())
    });
    let environment = environment.unwrap();
    let backend = Backend::from_environment(environment.clone()).unwrap();
    assert_eq!((backend.endpoint(), backend.environment()), (&*endpoint, Some(&environment)));
    Stream::connect(&endpoint).await.unwrap();
    let error = Backend::from_environment(environment).unwrap_err();
    assert!(matches!(error, StartError::Bind(BindError::InUse { .. })), "{error}");
    drop(backend);
    assert_left_empty(place.path());
}

#[test]
fn a_process_that_no_broker_started_is_told_so() {
    let error = Backend::from_env().unwrap_err();
    assert!(matches!(error, StartError::Environment(EnvironmentError::NoBroker)), "{error}");
}

#[test]
fn an_endpoint_of_ones_own_is_served_by_one_process_at_a_time() {
    let place = tempfile::tempdir().unwrap();
    let endpoint = place.path().join("missing/directories/be.sock");
    let backend = Backend::bind(&endpoint).unwrap();
    let mode = fs::metadata(endpoint.parent().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let error = Backend::bind(&endpoint).unwrap_err();
    let own = std::process::id();
    assert!(
        matches!(error, StartError::Lock(LockError::Held { pid: Some(pid), .. }) if pid == own),
        "{error}"
    );
    drop(backend);
    assert_left_empty(endpoint.parent().unwrap());

    // A stale socket is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&endpoint).unwrap());
    Backend::bind(&endpoint).unwrap();
}

#[test]
fn an_endpoint_has_to_lie_in_a_private_directory() {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o770)).unwrap();
    let error = Backend::bind(place.path().join("be.sock")).unwrap_err();
    assert!(matches!(error, StartError::Directory(PrivateDirError::WritableByOthers { .. })), "{error}");
    let error = Backend::bind("relative/be.sock").unwrap_err();
    assert!(matches!(error, StartError::Directory(PrivateDirError::NotAbsolute { .. })), "{error}");
    assert!(matches!(Backend::bind("/"), Err(StartError::Namespace(EndpointError::NoDirectory { .. }))));
}
