//! Finding the backends that a former broker has left running, and taking them over (behaviour.md 4, "Broker
//! restart").
//!
//! Invariants: before the first client is served it is known where a backend may be; what answers is the very
//! process that was written down, by its number, its boot, its start and its executable; what is not is forgotten,
//! and never signalled; what only does not answer yet is asked again, and stays written down until another is started
//! in its place.

use std::fmt::Display;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use broker_core::backends::Origin;
use broker_core::broker::{Exit, Input};
use broker_core::handoff::BackendSlot;
use broker_protocol::wire::DaemonProcess;
use broker_protocol::{ServiceName, Version};
use broker_transport::identity;
use broker_transport::probe::{Expectation, probe_identity};
use broker_transport::process::{ProcessWatch, WatchError};
use tokio::time::Instant;

use super::backend_process::Process;
use super::backends;
use super::executable::{self, Unlike};
use super::records::{self, Note};
use super::shell::Shell;
use crate::manifests::{ManifestError, State};

/// How long a process that lives may take to answer: it may be stopped, or have nothing to run on for a while.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How long until it is asked for the second time; each time after that takes twice as long.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Why what was written down is not adopted.
#[derive(Debug)]
enum NotAdopted {
    /// It is there no more, or never was.
    Gone(String),
    /// It may be there.
    Silent(String),
}

/// A backend that was written down.
struct Left {
    service: ServiceName,
    version: Version,
    daemon: DaemonProcess,
}

/// Looks for what was left. Returns when it is known which places may be taken; what is there shows later.
/// How many they are.
pub(super) async fn begin(shell: &Rc<Shell>) -> usize {
    let dir = shell.records().dir().clone();
    let found = match tokio::task::spawn_blocking(move || dir.all()).await {
        Ok(Ok((found, left_out))) => {
            if left_out > 0 {
                tracing::warn!(left_out, "there are more manifests than are read");
            }
            found
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "what a former broker has left is not known");
            return 0;
        }
        Err(_) => return 0,
    };
    let mut expected = 0;
    for manifest in found {
        match manifest.content {
            Ok(content) if shell.records().owner().has_written(&content) => {
                if let Some(left) = left(content) {
                    expected += usize::from(expect(shell, left).await);
                }
            }
            // Another broker's, or a service's own.
            Ok(_) => {}
            // It may be another broker's to report: this is said, and no event.
            Err(error @ (ManifestError::Seal { .. } | ManifestError::Name { .. })) => {
                records::report(shell, &error);
            }
            Err(error) => tracing::debug!(%error, "a manifest is not read"),
        }
    }
    expected
}

fn left(manifest: broker_protocol::wire::CacheManifest) -> Option<Left> {
    match State::of(&manifest) {
        State::NoProcess => return None,
        State::OtherBoot => {
            let (service, version) = (&manifest.service_name, &manifest.service_version);
            tracing::info!(service, version, "a manifest of another boot is left alone");
            return None;
        }
        State::Ended | State::MayRun => {}
    }
    Some(Left {
        service: manifest.service_name.parse().ok()?,
        version: manifest.service_version.parse().ok()?,
        daemon: manifest.current_daemon?,
    })
}

/// Whether it may be there.
async fn expect(shell: &Rc<Shell>, left: Left) -> bool {
    let definition = shell.definitions().check(left.service.as_str(), None).await;
    let slot =
        shell.call(|broker, now| broker.expect_adoption(now, &left.service, &left.version, definition));
    // A predecessor in this process may have handed it over.
    let Some(slot) = slot else { return false };
    tokio::task::spawn_local(adopt(Rc::clone(shell), slot, left));
    true
}

/// Takes a backend over if it is still there, and stays with it until it ends.
async fn adopt(shell: Rc<Shell>, slot: BackendSlot, left: Left) {
    let Left { service, version, daemon } = left;
    let (pid, endpoint) = (daemon.pid, daemon.ipc_endpoint.as_ref().map(|endpoint| endpoint.path.clone()));
    let endpoint = endpoint.unwrap_or_default();
    match find_patiently(&shell, &daemon, &endpoint).await {
        Ok(watch) => {
            let process = Process::adopted(Rc::clone(&watch), PathBuf::from(&endpoint));
            shell.add_process(slot, &process);
            shell.tell(Input::Adopted { slot, outcome: Ok((pid, endpoint)) });
            if let Err(error) = watch.died().await {
                tracing::warn!(pid, %error, "an adopted backend is not watched any more");
            }
            drop(watch);
            let ended = Input::Exited { slot, pid, origin: Origin::Adopted, exit: Exit::Unknown };
            backends::clear_away(&shell, slot, &process, ended).await;
            drop(process);
            shell.watches().forget(pid);
        }
        Err(NotAdopted::Gone(cause)) => shell.tell(Input::Adopted { slot, outcome: Err(cause) }),
        Err(NotAdopted::Silent(cause)) => {
            shell.tell(Input::Adopted { slot, outcome: Err(cause) });
            // It lives: the next broker may get an answer.
            return;
        }
    }
    shell.records().note(Note::Ended { service, version, pid });
}

/// Asks again for a while whoever does not answer, and lives.
async fn find_patiently(
    shell: &Rc<Shell>,
    daemon: &DaemonProcess,
    endpoint: &str,
) -> Result<Rc<ProcessWatch>, NotAdopted> {
    let deadline = Instant::now() + ANSWERS_WITHIN;
    let mut pause = ASKED_AGAIN_AFTER;
    loop {
        match find(shell, daemon, endpoint).await {
            Err(NotAdopted::Silent(cause)) if Instant::now() + pause < deadline => {
                tracing::debug!(pid = daemon.pid, cause, "what a former broker has left is asked again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            found => return found,
        }
    }
}

/// The process that was written down, held on to from before it answers.
async fn find(shell: &Shell, daemon: &DaemonProcess, endpoint: &str) -> Result<Rc<ProcessWatch>, NotAdopted> {
    let watch = shell.watches().on(daemon.pid).map_err(|error| match error {
        WatchError::NoSuchProcess { .. } => NotAdopted::Gone(error.to_string()),
        WatchError::NoPeer | WatchError::Io(_) => NotAdopted::Silent(error.to_string()),
    })?;
    let answers = answers(shell, daemon, endpoint).await;
    match (watch.is_dead(), answers) {
        (Ok(true), _) => Err(NotAdopted::Gone(format!("process {} has ended", daemon.pid))),
        (Ok(false), Ok(())) => Ok(watch),
        (_, Err(why)) => Err(why),
        (Err(error), Ok(())) => Err(NotAdopted::Silent(error.to_string())),
    }
}

/// Whether the process that was written down is the one that answers.
async fn answers(shell: &Shell, daemon: &DaemonProcess, endpoint: &str) -> Result<(), NotAdopted> {
    let silent = |error: &dyn Display| NotAdopted::Silent(error.to_string());
    let gone = |mismatch: &dyn Display| NotAdopted::Gone(mismatch.to_string());
    let exe_hash = daemon.exe_hash.as_slice().try_into();
    let expectation = Expectation {
        pid: Some(daemon.pid),
        boot_id: Some(identity::boot_id().map_err(|error| silent(&error))?),
        exe_hash: Some(exe_hash.map_err(|_| gone(&"its executable was not written down"))?),
        endpoint: Some(endpoint.to_owned()),
    };
    let answer = probe_identity(endpoint).await;
    let answer = answer.map_err(|error| if error.may_pass() { silent(&error) } else { gone(&error) })?;
    expectation.check(&answer).map_err(|mismatch| gone(&mismatch))?;
    if answer.started_at_unix_ms != daemon.started_at_unix_ms {
        return Err(NotAdopted::Gone(format!(
            "process {} answers, which was started at {} and not at {} (Unix ms)",
            daemon.pid, answer.started_at_unix_ms, daemon.started_at_unix_ms
        )));
    }
    // What it says of itself is not all: the process that is watched must execute that very file.
    let hash = executable::hash_of(shell.spawner().clone(), daemon.pid).await;
    match executable::is_running(&answer, hash).await {
        Ok(()) => Ok(()),
        Err(Unlike::Unknown(why)) => Err(NotAdopted::Silent(why)),
        Err(Unlike::Another(why)) => Err(NotAdopted::Gone(why)),
    }
}
