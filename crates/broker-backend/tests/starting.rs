//! How a backend comes by its endpoint. Children that a broker would start are this test binary itself.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod common;

#[cfg(unix)]
use std::fs;
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use broker_backend::{
    Backend, Environment, EnvironmentError, Request, StartError, StopRequests, environment,
};
#[cfg(unix)]
use broker_transport::endpoint::EndpointError;
use broker_transport::endpoint::Platform;
use broker_transport::identity;
use broker_transport::listener::BindError;
#[cfg(unix)]
use broker_transport::listener::{BindOptions, BoundSocket};
use broker_transport::lock::LockError;
#[cfg(unix)]
use broker_transport::private_dir::PrivateDirError;
use broker_transport::probe::{Expectation, wait_ready};
#[cfg(unix)]
use broker_transport::probe::{PROBE_TIMEOUT, probe_identity_within};
use broker_transport::process::{ChildProcess, SpawnCommand, Spawner, StopSignal};
use broker_transport::stream::Stream;

use common::wine::goes_without;
use common::{Place, read_body, request, response};

fn told(endpoint: &Path) -> [(&'static str, String); 5] {
    [
        (environment::SERVICE_NAME, "build-cache".into()),
        (environment::SERVICE_VERSION, "1.2.3".into()),
        (environment::BACKEND_PIPE, endpoint.to_str().unwrap().into()),
        (environment::BACKEND_NAMESPACE, "namespace".into()),
        (environment::INSTANCE, "shared".into()),
    ]
}

/// A backend as a broker starts it.
fn command(endpoint: &Path) -> SpawnCommand {
    let mut command = SpawnCommand::new(std::env::current_exe().unwrap());
    for arg in ["--ignored", "--exact", "--nocapture", "it_serves_until_it_is_asked_to_end"] {
        command = command.arg(arg);
    }
    for (name, value) in told(endpoint) {
        command = command.env(name, value);
    }
    command
}

async fn start(command: SpawnCommand) -> ChildProcess {
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
    // On Windows nobody is asked.
    let is_asked = Platform::CURRENT != Platform::Windows;
    assert_eq!(exit.is_success(), is_asked, "{exit}: {}", child.stderr().text());
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
    let place = Place::new();
    let endpoint = place.endpoint("be.sock");
    let child = start(command(&endpoint)).await;
    let limit = std::time::Duration::from_secs(60);
    let process = wait_ready(&endpoint, &child, &expectation(&child, &endpoint), limit).await.unwrap();
    assert_eq!(process.ipc_endpoint.unwrap().namespace_id, "namespace");
    let client = Stream::connect(&endpoint).await.unwrap();
    client.send_all(&request(b"who?")).await.unwrap();
    assert_eq!(read_body(&client).await, response(b"build-cache"));
    end(&child).await;
    place.assert_left_empty();
}

#[cfg(unix)] // An instance of a pipe is no listener.
#[tokio::test]
async fn a_passed_listener_serves_those_who_came_before_the_process() {
    let place = Place::new();
    let endpoint = place.endpoint("be.sock");
    let listener = BoundSocket::bind(&endpoint, &BindOptions::default()).unwrap();
    let early = Stream::connect(&endpoint).await.unwrap();
    early.send_all(&request(b"who?")).await.unwrap();
    let mut command = command(&endpoint);
    command.listen_fd = Some(listener.into_descriptor().unwrap());
    let child = start(command).await;
    assert_eq!(read_body(&early).await, response(b"build-cache"));
    let process = probe_identity_within(&endpoint, PROBE_TIMEOUT * 100).await.unwrap();
    expectation(&child, &endpoint).check(&process).unwrap();
    end(&child).await;
    place.assert_left_empty();
}

#[tokio::test]
async fn without_a_passed_listener_the_endpoint_is_bound() {
    let place = Place::new();
    let endpoint = place.endpoint("be.sock");
    let environment = Environment::parse(|variable| {
        told(&endpoint).into_iter().find(|(name, _)| *name == variable).map(|(_, value)| value.into())
    });
    let environment = environment.unwrap();
    let backend = Backend::from_environment(environment.clone()).unwrap();
    assert_eq!((backend.endpoint(), backend.environment()), (&*endpoint, Some(&environment)));
    Stream::connect(&endpoint).await.unwrap();
    if !goes_without("know of a pipe's first instance") {
        let error = Backend::from_environment(environment).unwrap_err();
        assert!(matches!(error, StartError::Bind(BindError::InUse { .. })), "{error}");
    }
    drop(backend);
    place.assert_left_empty();
}

#[test]
fn a_process_that_no_broker_started_is_told_so() {
    let error = Backend::from_env().unwrap_err();
    assert!(matches!(error, StartError::Environment(EnvironmentError::NoBroker)), "{error}");
}

#[test]
fn an_endpoint_of_ones_own_is_served_by_one_process_at_a_time() {
    let place = Place::new();
    let endpoint = place.endpoint("be.sock");
    let backend = Backend::bind(&endpoint).unwrap();
    let error = Backend::bind(&endpoint).unwrap_err();
    let own = std::process::id();
    assert!(
        matches!(error, StartError::Lock(LockError::Held { pid: Some(pid), .. }) if pid == own),
        "{error}"
    );
    drop(backend);
    place.assert_left_empty();
    Backend::bind(&endpoint).unwrap();
}

#[cfg(unix)] // Pipes leave nothing behind, and lie in no directory.
#[test]
fn a_stale_socket_is_no_obstacle_and_missing_directories_are_made() {
    let place = Place::new();
    let endpoint = place.endpoint("missing/directories/be.sock");
    drop(Backend::bind(&endpoint).unwrap());
    let mode = fs::metadata(endpoint.parent().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(std::os::unix::net::UnixListener::bind(&endpoint).unwrap());
    Backend::bind(&endpoint).unwrap();
}

#[cfg(unix)] // A pipe lies in no directory.
#[test]
fn an_endpoint_has_to_lie_in_a_private_directory() {
    let place = Place::new();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o770)).unwrap();
    let error = Backend::bind(place.endpoint("be.sock")).unwrap_err();
    assert!(matches!(error, StartError::Directory(PrivateDirError::WritableByOthers { .. })), "{error}");
    let error = Backend::bind("relative/be.sock").unwrap_err();
    assert!(matches!(error, StartError::Directory(PrivateDirError::NotAbsolute { .. })), "{error}");
    assert!(matches!(Backend::bind("/"), Err(StartError::Namespace(EndpointError::NoDirectory { .. }))));
}
