//! The effective settings of a broker, and where each value comes from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use broker_core::admission::{ConnectionLimits, RateLimit};
use broker_core::backends::Registration;
use broker_core::broker::{BackendsOnExit, Reconfiguration};
use broker_protocol::BrokerInstance;
use broker_transport::limits;
use broker_transport::private_dir::{self, PrivateDirError};
use serde::{Serialize, Serializer};

use crate::backend_arg::BackendArg;
use crate::cli::LogFormat;
use crate::config::keys::{self, Change, Key};
use crate::definitions::DefinitionDir;
use crate::failure::Failure;

/// Descriptors kept for everything that is not a client's connection: backends, files, the event loop. Where
/// there are fewer than twice as many, half of them.
pub(crate) const RESERVED_DESCRIPTORS: u64 = 64;
/// Connections that a broker takes however few descriptors it has: one peer's and another's.
const FEWEST_CONNECTIONS: u32 = 2;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Found out while running.
    Runtime,
    /// Nobody said otherwise.
    Default,
    /// Fixed by the wire protocol.
    Protocol,
    /// Fixed by the layout of files and answers.
    Schema,
    /// The configuration file.
    File(Arc<Path>),
    /// This environment variable.
    Env(&'static str),
    /// This option.
    Flag(&'static str),
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Runtime => serializer.serialize_str("runtime"),
            Self::Default => serializer.serialize_str("default"),
            Self::Protocol => serializer.serialize_str("protocol-v1"),
            Self::Schema => serializer.serialize_str("schema-v1"),
            Self::File(path) => serializer.collect_str(&format_args!("file:{}", path.display())),
            Self::Env(name) => serializer.collect_str(&format_args!("env:{name}")),
            Self::Flag(name) => serializer.collect_str(&format_args!("flag:{name}")),
        }
    }
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Sourced<T> {
    pub(crate) value: T,
    pub(crate) source: Source,
}

impl<T> Sourced<T> {
    pub(crate) const fn new(value: T, source: Source) -> Self {
        Self { value, source }
    }

    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Sourced<U> {
        Sourced { value: change(self.value), source: self.source }
    }
}

/// What a broker runs with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) config_file: Sourced<Option<PathBuf>>,
    /// What that file said when it was read.
    pub(crate) config_text: Option<Arc<str>>,
    pub(crate) instance: Sourced<BrokerInstance>,
    pub(crate) socket: Sourced<PathBuf>,
    pub(crate) service_dir: Sourced<PathBuf>,
    pub(crate) state_dir: Sourced<PathBuf>,
    /// Where the manifests of running backends are.
    pub(crate) manifest_dir: Sourced<PathBuf>,
    pub(crate) log: Sourced<LogFormat>,
    pub(crate) log_level: Sourced<String>,
    pub(crate) keep_backends: Sourced<bool>,
    pub(crate) sandbox: Sourced<bool>,
    pub(crate) hello_timeout: Sourced<Duration>,
    pub(crate) max_connections: Sourced<u32>,
    pub(crate) hello_burst: Sourced<u32>,
    pub(crate) hello_refill: Sourced<u32>,
    pub(crate) drain: Sourced<Duration>,
    pub(crate) backends: Vec<Sourced<BackendArg>>,
    /// Whether every trust domain is served, because the socket was chosen by hand.
    pub(crate) serves_every_domain: bool,
}

impl Settings {
    /// Takes no more connections than fit under the limit of descriptors.
    pub(crate) fn fit_into(&mut self, descriptors: DescriptorLimit) {
        let Some(most) = descriptors.0 else { return };
        if self.max_connections.value > most {
            let wanted = self.max_connections.value;
            tracing::warn!(
                wanted,
                most,
                "fewer connections than wanted fit under the limit of file descriptors"
            );
            self.max_connections = Sourced::new(most, Source::Runtime);
        }
    }

    /// What a state machine that runs is told of these settings.
    pub(crate) fn reconfiguration(&self) -> Reconfiguration {
        let registrations = self.backends.iter().map(|backend| Registration {
            service: backend.value.service.clone(),
            version: backend.value.version.clone(),
            endpoint: backend.value.endpoint.clone(),
            handoff_endpoint: backend.value.handoff.clone(),
        });
        Reconfiguration {
            rate_limit: RateLimit::new(self.hello_burst.value, self.hello_refill.value),
            connections: ConnectionLimits::of_total(self.max_connections.value as usize),
            drain: self.drain.value,
            on_exit: if self.keep_backends.value { BackendsOnExit::Keep } else { BackendsOnExit::Stop },
            registrations: registrations.collect(),
        }
    }

    /// Follows on `former` in a broker that runs: what cannot change there stays as it was.
    pub(crate) fn succeed(&mut self, former: &Self) -> Changes {
        let mut changes = Changes::default();
        changes.settle(&keys::INSTANCE, &former.instance, &mut self.instance);
        changes.settle(&keys::SOCKET, &former.socket, &mut self.socket);
        self.serves_every_domain = former.serves_every_domain;
        changes.settle(&keys::SERVICE_DIR, &former.service_dir, &mut self.service_dir);
        changes.settle(&keys::STATE_DIR, &former.state_dir, &mut self.state_dir);
        changes.settle(&keys::SANDBOX, &former.sandbox, &mut self.sandbox);
        changes.settle(&keys::LOG_FORMAT.key, &former.log, &mut self.log);
        changes.settle(&keys::LOG_LEVEL, &former.log_level, &mut self.log_level);
        changes.settle(&keys::KEEP_BACKENDS, &former.keep_backends, &mut self.keep_backends);
        changes.settle(&keys::HELLO_TIMEOUT_MS.key, &former.hello_timeout, &mut self.hello_timeout);
        let connections = (&former.max_connections, &mut self.max_connections);
        changes.settle(&keys::MAX_CONNECTIONS_OPEN.key, connections.0, connections.1);
        changes.settle(&keys::HELLO_BURST.key, &former.hello_burst, &mut self.hello_burst);
        changes.settle(&keys::HELLO_REFILL.key, &former.hello_refill, &mut self.hello_refill);
        changes.settle(&keys::DRAIN_MS.key, &former.drain, &mut self.drain);
        let named = |backends: &[Sourced<BackendArg>]| -> Vec<_> {
            backends.iter().map(|backend| backend.value.clone()).collect()
        };
        if named(&former.backends) != named(&self.backends) {
            changes.at_once.push(keys::BACKEND.to_owned());
        }
        changes
    }

    /// Stays where a predecessor listens, whatever the file says by now.
    pub(crate) fn stay_at(
        &mut self,
        socket: PathBuf,
        instance: Option<BrokerInstance>,
        serves_every_domain: bool,
    ) {
        let Some(instance) = instance else {
            self.socket = Sourced::new(socket, self.socket.source.clone());
            return;
        };
        if self.socket.value == socket && self.instance.value == instance {
            return;
        }
        tracing::warn!(
            socket = %socket.display(),
            %instance,
            "another socket or instance takes effect at the next start, not with an upgrade"
        );
        self.socket = Sourced::new(socket, Source::Runtime);
        self.instance = Sourced::new(instance, Source::Runtime);
        self.serves_every_domain = serves_every_domain;
    }

    pub(crate) fn definitions(&self) -> DefinitionDir {
        DefinitionDir::new(self.service_dir.value.clone())
    }

    /// Where the lifecycle events are appended.
    pub(crate) fn event_log(&self) -> PathBuf {
        self.state_dir.value.join("events").join("lifecycle.pb")
    }

    /// Makes the directories that a broker needs. A disk that is full or read-only stops no Hello: what is not
    /// there is done without.
    ///
    /// # Errors
    /// The first that is not private, or cannot be entered.
    pub(crate) fn prepare_directories(&self) -> Result<(), Failure> {
        let state = &self.state_dir.value;
        let directories = [
            (&self.service_dir.value, "--service-dir DIR"),
            (state, "--state-dir DIR"),
            (&state.join("events"), "--state-dir DIR"),
        ];
        for (path, option) in directories {
            match private_dir::ensure_private_dir(path) {
                Ok(()) => {}
                Err(error) if error.is_of_the_disk() => tracing::warn!(%error, "going on without"),
                Err(error) => {
                    let advice = format!("make that possible, or choose another directory with {option}");
                    return Err(unusable_directory(error, advice));
                }
            }
        }
        let manifests = &self.manifest_dir.value;
        // Those that write nothing there need it as little as it needs them.
        if self.keep_backends.value
            && let Err(error) = private_dir::ensure_private_dir(manifests)
        {
            tracing::warn!(%error, "the next broker will not find this one's backends");
        }
        if state.exists() {
            private_dir::refuse_network_filesystem(state).map_err(Failure::refused)?;
        }
        Ok(())
    }
}

/// Which keys have other values.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) at_once: Vec<String>,
    pub(crate) at_next_start: Vec<String>,
}

impl Changes {
    /// Takes a value as the table of keys says: at once, or at the next start.
    fn settle<T: Clone + PartialEq>(&mut self, key: &Key, former: &Sourced<T>, new: &mut Sourced<T>) {
        if former.value == new.value {
            return;
        }
        match key.change {
            Change::AtOnce => self.at_once.push(key.path()),
            Change::NextStart => {
                self.at_next_start.push(key.path());
                new.clone_from(former);
            }
        }
    }
}

/// As many connections as the limit of descriptors permits, where that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DescriptorLimit(Option<u32>);

impl DescriptorLimit {
    /// Raises the limit as far as it goes.
    pub(crate) fn raise() -> Self {
        match limits::raise_descriptor_limit() {
            Ok(limit) => Self(Some(most_connections(limit))),
            Err(error) => {
                tracing::warn!(%error, "the limit of file descriptors is unknown");
                Self(None)
            }
        }
    }
}

/// As many connections as fit, so that newcomers are served in place of who holds most and not turned away for
/// want of a descriptor.
fn most_connections(descriptors: u64) -> u32 {
    let reserved = RESERVED_DESCRIPTORS.min(descriptors / 2);
    u32::try_from(descriptors - reserved).unwrap_or(u32::MAX).max(FEWEST_CONNECTIONS)
}

/// A directory that will not do. What is wrong with one mostly says what to do; what the system says does not.
pub(super) fn unusable_directory(error: PrivateDirError, advice: String) -> Failure {
    let failure = Failure::refused(&error);
    if matches!(error, PrivateDirError::Io { .. }) { failure.next(advice) } else { failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_few_descriptors_and_all_but_the_reserve_of_many_are_for_connections() {
        let counted = [0, 3, 64, 127, 128, 129, 1_024].map(most_connections);
        assert_eq!(counted, [2, 2, 32, 64, 64, 65, 960]);
        assert_eq!(most_connections(u64::MAX), u32::MAX);
    }
}
