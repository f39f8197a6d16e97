//! The effective settings of a broker, and where each value comes from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use broker_protocol::BrokerInstance;
use broker_transport::private_dir::{self, PrivateDirError};
use broker_transport::{endpoint, limits};
use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::{Serialize, Serializer};

use crate::cli::{BackendArg, LogFormat, ServeArgs};
use crate::definitions::DefinitionDir;
use crate::failure::Failure;

/// Descriptors kept for everything that is not a client's connection: backends, files, the event loop. Where
/// there are fewer than twice as many, half of them.
pub(crate) const RESERVED_DESCRIPTORS: u64 = 64;
/// Connections that a broker takes however few descriptors it has: one peer's and another's.
const FEWEST_CONNECTIONS: u32 = 2;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Found out while running.
    Runtime,
    /// Nobody said otherwise.
    Default,
    /// Fixed by the wire protocol.
    Protocol,
    /// Fixed by the layout of files and answers.
    Schema,
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
            Self::Env(name) => serializer.collect_str(&format_args!("env:{name}")),
            Self::Flag(name) => serializer.collect_str(&format_args!("flag:{name}")),
        }
    }
}

/// A value and where it comes from.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sourced<T> {
    pub(crate) value: T,
    pub(crate) source: Source,
}

impl<T> Sourced<T> {
    pub(crate) const fn new(value: T, source: Source) -> Self {
        Self { value, source }
    }
}

/// The sources of the `serve` options, as clap saw them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a>(pub(crate) &'a ArgMatches);

impl Sources<'_> {
    fn of(self, id: &str, flag: &'static str, variable: &'static str) -> Source {
        match self.0.value_source(id) {
            Some(ValueSource::CommandLine) => Source::Flag(flag),
            Some(ValueSource::EnvVariable) => Source::Env(variable),
            _ => Source::Default,
        }
    }
}

/// What a broker runs with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) instance: Sourced<BrokerInstance>,
    pub(crate) socket: Sourced<PathBuf>,
    pub(crate) service_dir: Sourced<PathBuf>,
    pub(crate) state_dir: Sourced<PathBuf>,
    /// Where the manifests of running backends are.
    pub(crate) manifest_dir: Sourced<PathBuf>,
    pub(crate) log: Sourced<LogFormat>,
    pub(crate) keep_backends: Sourced<bool>,
    pub(crate) sandbox: Sourced<bool>,
    pub(crate) hello_timeout: Sourced<Duration>,
    pub(crate) max_connections: Sourced<u32>,
    pub(crate) hello_burst: Sourced<u32>,
    pub(crate) hello_refill: Sourced<u32>,
    pub(crate) drain: Sourced<Duration>,
    pub(crate) backends: Vec<BackendArg>,
    /// Whether every trust domain is served, because the socket was chosen by hand.
    pub(crate) serves_every_domain: bool,
}

impl Settings {
    /// Works out what was not said.
    ///
    /// # Errors
    /// A place that cannot be derived from the environment.
    pub(crate) fn resolve(args: ServeArgs, sources: Sources<'_>) -> Result<Self, Failure> {
        let serves_every_domain = args.socket.is_some();
        let socket = match args.socket {
            Some(path) => {
                let path = endpoint::absolute(&path).map_err(|error| not_absolute(&path, &error))?;
                Sourced::new(path, Source::Flag("--socket"))
            }
            None => Sourced::new(
                endpoint::broker_endpoint(&args.instance).map_err(Failure::usage)?,
                Source::Default,
            ),
        };
        let service_dir = Sourced::new(
            absolute(crate::service::definition_dir(args.service_dir.as_ref())?.path())?,
            sources.of("service_dir", "--service-dir", "RUNNING_PROCESS_SERVICE_DEF_DIR"),
        );
        let state_dir = match args.state_dir {
            Some(path) => Sourced::new(absolute(&path)?, Source::Flag("--state-dir")),
            None => {
                let derived = endpoint::state_dir().map_err(|error| {
                    Failure::usage(error).next("pass --state-dir DIR, or set that variable")
                })?;
                Sourced::new(derived, Source::Default)
            }
        };
        let manifest_dir = Sourced::new(endpoint::manifest_dir().map_err(Failure::usage)?, Source::Default);
        let limit = |id, flag| sources.of(id, flag, "");
        Ok(Self {
            instance: Sourced::new(args.instance, limit("instance", "--instance")),
            socket,
            service_dir,
            state_dir,
            manifest_dir,
            log: Sourced::new(args.log, limit("log", "--log")),
            keep_backends: Sourced::new(args.keep_backends, limit("keep_backends", "--keep-backends")),
            sandbox: Sourced::new(args.sandbox, limit("sandbox", "--sandbox")),
            hello_timeout: Sourced::new(
                Duration::from_millis(args.limits.hello_timeout_ms),
                sources.of(
                    "hello_timeout_ms",
                    "--hello-timeout-ms",
                    "RUNNING_PROCESS_BROKER_HELLO_TIMEOUT_MS",
                ),
            ),
            max_connections: Sourced::new(
                args.limits.max_connections,
                limit("max_connections", "--max-connections"),
            ),
            hello_burst: Sourced::new(args.limits.hello_burst, limit("hello_burst", "--hello-burst")),
            hello_refill: Sourced::new(args.limits.hello_refill, limit("hello_refill", "--hello-refill")),
            drain: Sourced::new(Duration::from_millis(args.limits.drain_ms), limit("drain_ms", "--drain-ms")),
            backends: args.backends,
            serves_every_domain,
        })
    }

    /// Raises the descriptor limit as far as it goes, and takes no more connections than fit under it.
    pub(crate) fn fit_into_descriptor_limit(&mut self) {
        let limit = match limits::raise_descriptor_limit() {
            Ok(limit) => limit,
            Err(error) => {
                tracing::warn!(%error, "the limit of file descriptors is unknown");
                return;
            }
        };
        let most = most_connections(limit);
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

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| not_absolute(path, &error))
}

fn not_absolute(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("{}: {error}", path.display()))
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
