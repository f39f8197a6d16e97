//! From a service's name to a conversation with its backend: which broker to ask, whether to ask it at
//! all, and what the answer is remembered for.
//!
//! It dials nothing itself; [`Session`](crate::blocking::Session) and its async twin do, in the same
//! steps. Invariant: where the environment switches the broker off, nothing is dialled.

use std::path::PathBuf;
use std::time::Duration;

use broker_protocol::Capabilities;
use broker_transport::stream::{ConnectError, ConnectErrorKind};
use thiserror::Error;

use crate::attempt::{Attempt, Patience};
use crate::autostart::Autostart;
use crate::config::{ConfigError, DISABLE_VARIABLE, broker_is_enabled, round_trip_timeout};
use crate::discovery::DiscoveryError;
use crate::disk_cache::DiskCache;
use crate::hello::Hello;
use crate::link::ExchangeError;
use crate::memory::Memory;
use crate::negotiation::HelloError;
use crate::start_error::StartError;

/// Why there is no session.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The environment says to do without a broker; nothing was dialled.
    #[error("{DISABLE_VARIABLE}=1 switches the broker off; unset it, or reach the service without a broker")]
    Disabled,
    /// A variable is not understood; nothing was dialled.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It is not known which broker serves the service.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The broker does not run.
    #[error("{source}; run the broker with `{command}`")]
    NoBroker {
        /// The command that runs it.
        command: String,
        /// What became of the attempt.
        source: ConnectError,
    },
    /// The broker does not run, and was [started](Connector::start_broker) in vain.
    #[error(transparent)]
    NotStarted(#[from] StartError),
    /// The Hello did not end in an agreement.
    #[error(transparent)]
    Hello(HelloError),
    /// There is an agreement, but the backend it names cannot be reached.
    #[error("the broker named a backend that cannot be reached: {0}{advice}", advice = backend_advice(.0))]
    Backend(#[source] ExchangeError),
}

/// A broker hears of a backend's end a moment after it; of anything else it need not hear at all.
fn backend_advice(error: &ExchangeError) -> &'static str {
    match error {
        ExchangeError::Connect(error)
            if matches!(error.kind, ConnectErrorKind::NotFound | ConnectErrorKind::Refused) =>
        {
            "; it may just have ended, so connect again"
        }
        _ => "",
    }
}

/// What is wanted, and how to reach it; makes any number of sessions.
///
/// It remembers where its last session found the backend, and tries there first, so that most sessions do
/// without a Hello. It asks the broker again when that fails or takes longer than a tenth of a second,
/// when another process listens there, and when the agreement's keepalive or half a minute is over.
/// Clones share what is remembered, but for one that is given another [broker](Self::broker).
#[derive(Clone, Debug)]
pub struct Connector {
    hello: Hello,
    broker: Option<PathBuf>,
    timeout: Option<Duration>,
    asks_again: bool,
    program: Option<PathBuf>,
    memory: Memory,
    disk_cache: Option<DiskCache>,
}

impl Connector {
    /// Reaches the service and version that `hello` asks for, through the broker that the service's
    /// definition names.
    ///
    /// The offers of a handoff in `hello` are left out: [`with_handoff`](Self::with_handoff) makes them.
    pub fn new(hello: Hello) -> Self {
        let handoff = Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA;
        let rest = hello.offered() - handoff;
        Self {
            hello: hello.capabilities(rest),
            broker: None,
            timeout: None,
            asks_again: true,
            program: None,
            memory: Memory::default(),
            disk_cache: None,
        }
    }

    /// Asks the broker at this endpoint, whatever the definition says.
    #[must_use]
    pub fn broker(self, endpoint: impl Into<PathBuf>) -> Self {
        Self { broker: Some(endpoint.into()), memory: Memory::default(), ..self }
    }

    /// Takes over the connection to the broker where the broker passes it to the backend, instead of dialling
    /// that anew. Where nothing comes of it, the backend is dialled as ever.
    ///
    /// A session whose connection was passed on leaves nothing to remember, as nobody was dialled: the next
    /// one asks the broker again.
    #[must_use]
    pub fn with_handoff(self) -> Self {
        let offered = self.hello.offered() | Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA;
        Self { hello: self.hello.capabilities(offered), ..self }
    }

    /// How long connecting may take, from the Hello to the open session, and how long each request
    /// after that; [`round_trip_timeout`] where this is not called.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Gives a refusal back at once. Where this is not called, a broker that asks for patience (too many
    /// Hellos, too many starts of a backend that failed, a shutdown, too few descriptors) is asked again after
    /// the time that it names, as long as that is within the [timeout](Self::timeout). After failed starts that
    /// is up to 30 s: whoever would rather hear at once that a backend does not come up calls this.
    #[must_use]
    pub fn without_retry(self) -> Self {
        Self { asks_again: false, ..self }
    }

    /// Remembers on disk too, for the next process of this user that wants the same, in the directory
    /// `hello-skip` beside the user's sockets, or where Windows has the files of pipes.
    ///
    /// For a program that is a new process each time, such as a compiler's wrapper: connecting then reads
    /// one small file where this process remembers nothing, and writes one after a Hello, both in the
    /// thread that calls. A cache that cannot be used is done without: where the directory is not the user's
    /// alone, and on a full disk.
    #[must_use]
    pub fn with_disk_cache(self) -> Self {
        Self { disk_cache: Some(DiskCache::DefaultPlace), ..self }
    }

    /// As [`with_disk_cache`](Self::with_disk_cache), in this directory, which is created where it is
    /// missing. It serves only if its path is absolute and nobody else may write to it; it should hold
    /// nothing else.
    #[must_use]
    pub fn with_disk_cache_in(self, dir: impl Into<PathBuf>) -> Self {
        Self { disk_cache: Some(DiskCache::In(dir.into())), ..self }
    }

    /// Starts the broker where it does not run: this program, usually `brokerd`. One with a slash is taken from
    /// the directory that this process is in when it connects; a bare name is looked for in those directories
    /// of `PATH` that are absolute (on Windows, where the system looks for it).
    ///
    /// The broker outlives this process, has its environment, and writes to no log. On Unix it has none of its
    /// descriptors, and no signal blocked or ignored; on Windows it inherits handles that are marked as
    /// inheritable. Connecting waits for it within the [timeout](Self::timeout), and meanwhile repeats a start
    /// that met another broker on its way out. A connection that a broker on its way out has closed without a
    /// reply is made anew, once.
    ///
    /// A thread of this process waits for the end of each broker that it has started.
    #[must_use]
    pub fn start_broker(self, program: impl Into<PathBuf>) -> Self {
        Self { program: Some(program.into()), ..self }
    }

    /// Begins to connect.
    pub(crate) fn begin(&self) -> Result<Attempt<'_>, SessionError> {
        if !broker_is_enabled()? {
            return Err(SessionError::Disabled);
        }
        let timeout = self.timeout.map_or_else(round_trip_timeout, Ok)?;
        let cache = self.disk_cache.as_ref();
        let disk = cache.and_then(|cache| cache.slot(self.broker.as_deref(), &self.hello));
        let memory = self.memory.backed_by(disk);
        let autostart = self.program.clone().map(Autostart::new);
        let patience = if self.asks_again { Patience::AsksAgain } else { Patience::None };
        let hello = self.hello.clone();
        Ok(Attempt::new(self.broker.as_deref(), hello, memory, timeout, autostart, patience))
    }
}
