//! Whether a process executes what it says it does.

use std::io;

use broker_protocol::wire::DaemonProcess;
use broker_protocol::{SpawnFailure, SpawnStage};
use broker_transport::identity::{self, IdentityError};
use broker_transport::probe::Expectation;
use broker_transport::process::Spawner;
use tokio::task::JoinHandle;

/// Begins to hash the file that a process executes.
pub(super) async fn hash_of(
    spawner: Spawner,
    pid: u32,
) -> Result<JoinHandle<io::Result<[u8; 32]>>, IdentityError> {
    let file = spawner.open_executable(pid).await?;
    Ok(tokio::task::spawn_blocking(move || identity::hash_file(file)))
}

/// Why a process is not taken for the one that it says it is.
#[derive(Debug)]
pub(super) enum Unlike {
    /// What it executes cannot be found out.
    Unknown(String),
    /// It executes something else.
    Another(String),
}

impl From<Unlike> for SpawnFailure {
    fn from(unlike: Unlike) -> Self {
        let (Unlike::Unknown(why) | Unlike::Another(why)) = unlike;
        Self::new(SpawnStage::Identity, why)
    }
}

/// Whether the process that answered runs the executable with this hash.
pub(super) async fn is_running(
    answer: &DaemonProcess,
    hash: Result<JoinHandle<io::Result<[u8; 32]>>, IdentityError>,
) -> Result<(), Unlike> {
    let hash = hash.map_err(|error| unidentified(&error))?;
    let hash = hash.await.map_err(|error| unidentified(&error))?.map_err(|error| unidentified(&error))?;
    let expectation = Expectation { exe_hash: Some(hash), ..Expectation::default() };
    expectation.check(answer).map_err(|mismatch| Unlike::Another(mismatch.to_string()))
}

pub(super) fn unidentified(error: &dyn std::error::Error) -> Unlike {
    Unlike::Unknown(format!("its identity cannot be found out: {error}"))
}
