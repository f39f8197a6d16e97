//! Finding the backends that a former broker has left running, and taking them over (behaviour.md 4, "Broker
//! restart").
//!
//! Invariants: before the first client is served it is known where a backend may be; what answers is the very
//! process that was written down, by its number, its boot, its start and its executable; what is not is forgotten,
//! and never signalled.

use std::path::PathBuf;
use std::rc::Rc;

use broker_core::backends::Origin;
use broker_core::broker::{Exit, Input};
use broker_core::handoff::BackendSlot;
use broker_protocol::wire::DaemonProcess;
use broker_protocol::{ServiceName, Version};
use broker_transport::identity;
use broker_transport::probe::{Expectation, probe_identity};
use broker_transport::process::ProcessWatch;

use super::backends::{self, Process};
use super::records::{self, Note};
use super::shell::Shell;
use crate::manifests::{ManifestError, State};

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
    match find(&shell, &daemon, &endpoint).await {
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
        Err(cause) => shell.tell(Input::Adopted { slot, outcome: Err(cause) }),
    }
    shell.records().note(Note::Ended { service, version, pid });
}

/// The process that was written down, held on to from before it answers.
async fn find(shell: &Shell, daemon: &DaemonProcess, endpoint: &str) -> Result<Rc<ProcessWatch>, String> {
    let watch = shell.watches().on(daemon.pid).map_err(|error| error.to_string())?;
    let exe_hash = daemon.exe_hash.as_slice().try_into();
    let expectation = Expectation {
        pid: Some(daemon.pid),
        boot_id: Some(identity::boot_id().map_err(|error| error.to_string())?),
        exe_hash: Some(exe_hash.map_err(|_| "its executable was not written down".to_owned())?),
        endpoint: Some(endpoint.to_owned()),
    };
    let answer = probe_identity(endpoint).await.map_err(|error| error.to_string())?;
    expectation.check(&answer).map_err(|mismatch| mismatch.to_string())?;
    if answer.started_at_unix_ms != daemon.started_at_unix_ms {
        return Err(format!(
            "process {} answers, which was started at {} and not at {} (Unix ms)",
            daemon.pid, answer.started_at_unix_ms, daemon.started_at_unix_ms
        ));
    }
    // What it says of itself is not all: the process that is watched must execute that very file.
    let hash = backends::executable_hash(shell.spawner().clone(), daemon.pid).await;
    backends::is_running(&answer, hash).await.map_err(|failure| failure.to_string())?;
    match watch.is_dead() {
        Ok(false) => Ok(watch),
        Ok(true) => Err(format!("process {} has ended", daemon.pid)),
        Err(error) => Err(error.to_string()),
    }
}
