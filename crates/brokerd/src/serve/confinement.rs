//! What a broker gives up once it has everything it needs (decision 14).
//!
//! Invariant: called while this thread and the spawner's are the only ones, so every other thread is confined
//! and no backend is.

use broker_transport::endpoint;
use broker_transport::sandbox::{self, InForce, Sandbox, SandboxError};

use super::settings::Settings;
use crate::failure::Failure;

/// Confines this thread, and all that it will start.
///
/// # Errors
/// A sandbox was asked for, and this system does not offer it.
pub(super) fn confine(settings: &Settings) -> Result<(), Failure> {
    sandbox::forbid_new_privileges()
        .map_err(|error| Failure::refused(format!("cannot give up gaining privileges: {error}")))?;
    if settings.sandbox.value { enter_sandbox(settings) } else { Ok(()) }
}

#[cold]
fn enter_sandbox(settings: &Settings) -> Result<(), Failure> {
    let beside_socket = endpoint::dir_beside(&settings.socket.value).map_err(Failure::usage)?;
    let backends = endpoint::current_runtime_dir().map_err(Failure::usage)?;
    let mut writable = vec![beside_socket, backends];
    let state = &settings.state_dir.value;
    if state.is_dir() {
        writable.push(state.clone());
    } else {
        tracing::warn!(path = %state.display(), "it is not there, and cannot be made from within the sandbox");
    }
    let manifests = &settings.manifest_dir.value;
    if manifests.is_dir() {
        writable.push(manifests.clone());
    }
    let sandbox = Sandbox { writable };
    match sandbox.enter().map_err(|error| refused(&error))? {
        InForce::Whole => tracing::info!("the sandbox is in force"),
        InForce::ByOlderRules => {
            tracing::warn!("the sandbox is in force as far as this kernel's older Landlock goes");
        }
    }
    Ok(())
}

fn refused(error: &SandboxError) -> Failure {
    let failure = Failure::refused(format!("no sandbox: {error}"));
    match error {
        SandboxError::NotOffered { .. } | SandboxError::Unsupported(_) => {
            failure.next("serve without --sandbox, which changes nothing else")
        }
        SandboxError::Directory { .. } | SandboxError::Refused { .. } => failure,
    }
}
