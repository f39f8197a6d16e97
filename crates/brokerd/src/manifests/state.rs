//! What a manifest's process is doing, as far as can be told without asking it.

use broker_protocol::wire::CacheManifest;
use broker_transport::identity;
use serde::Serialize;

/// What has become of the process in a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It names none.
    NoProcess,
    /// There is a process with its number, in this boot.
    MayRun,
    /// There is none.
    Ended,
    /// It ran before the machine was started last.
    OtherBoot,
}

impl State {
    /// Looks.
    pub(crate) fn of(manifest: &CacheManifest) -> Self {
        let Some(daemon) = &manifest.current_daemon else { return Self::NoProcess };
        match identity::boot_id() {
            Ok(boot_id) if boot_id != daemon.boot_id => Self::OtherBoot,
            // One that is dead and not reaped has no executable any more.
            Ok(_) | Err(_) => match identity::process_executable(daemon.pid) {
                Err(error) if error.is_not_found() => Self::Ended,
                Ok(_) | Err(_) => Self::MayRun,
            },
        }
    }

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::NoProcess => "no process",
            Self::MayRun => "may run",
            Self::Ended => "ended",
            Self::OtherBoot => "of another boot",
        }
    }
}
