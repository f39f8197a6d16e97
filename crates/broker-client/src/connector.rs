//! From a service's name to a conversation with its backend: which broker to ask, whether to ask it at
//! all, and what the answer is remembered for.
//!
//! It dials nothing itself; [`Session`](crate::blocking::Session) and its async twin do, in the same
//! steps. Invariant: where the environment switches the broker off, nothing is dialled.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use broker_protocol::Capabilities;
use broker_transport::peer::PeerCredentials;
use broker_transport::stream::{ConnectError, ConnectErrorKind};
use thiserror::Error;

use crate::agreement::Agreement;
use crate::autostart::{Autostart, Remedy};
use crate::config::{ConfigError, DISABLE_VARIABLE, broker_is_enabled, round_trip_timeout};
use crate::conversation::{Conversation, Origin};
use crate::discovery::{DiscoveryError, broker_of};
use crate::disk_cache::{DiskCache, Moment};
use crate::hello::Hello;
use crate::link::{ExchangeError, Limit};
use crate::memory::{Known, Memory};
use crate::negotiation::HelloError;
use crate::refused::RefusedKind;
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
    /// A session dials the backend itself, so the offers of a handoff in `hello` are left out.
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
    /// `hello-skip` beside the user's sockets.
    ///
    /// For a program that is a new process each time, such as a compiler's wrapper: connecting then reads
    /// one small file where this process remembers nothing, and writes one after a Hello, both in the
    /// thread that calls. A cache that cannot be used is done without: where the directory is not the user's
    /// alone, on a full disk, and so far on every platform but Linux, as no other tells one boot from the
    /// next.
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

    pub(crate) const fn hello(&self) -> &Hello {
        &self.hello
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
        Ok(Attempt { connector: self, memory, timeout, limit: Limit::from_now(timeout), autostart })
    }
}

/// One attempt to connect.
pub(crate) struct Attempt<'a> {
    connector: &'a Connector,
    memory: Memory,
    timeout: Duration,
    pub(crate) limit: Limit,
    autostart: Option<Autostart>,
}

impl Attempt<'_> {
    /// Where to try first.
    pub(crate) fn known(&self) -> Option<Known> {
        let here = self.memory.recall(Instant::now());
        here.or_else(|| self.memory.disk()?.recall(Moment::now()))
    }

    /// The conversation with a backend that was known, if it is the one that has been dialled.
    pub(crate) fn resume<S>(
        &self,
        known: &Known,
        dialled: Result<(S, PeerCredentials), ExchangeError>,
    ) -> Option<(S, Conversation)> {
        match dialled {
            Ok((stream, listener)) if known.is_served_by(listener) => {
                self.memory.keep(known);
                Some((stream, self.conversation(Arc::clone(known.agreement()), known.origin())))
            }
            Ok(_) | Err(_) => {
                self.memory.forget(known.agreement());
                None
            }
        }
    }

    /// What to do before the broker is asked again, after a Hello that failed.
    ///
    /// # Errors
    /// The attempt was the last one.
    pub(crate) fn recover(&mut self, broker: &Broker, error: HelloError) -> Result<Remedy<'_>, SessionError> {
        if let Some(pause) = self.patience(&error) {
            return Ok(Remedy::Wait(pause));
        }
        match &mut self.autostart {
            Some(autostart) => autostart.recover(broker, error, self.limit),
            None => Err(broker.failed(error)),
        }
    }

    /// How long a broker that refuses for the moment asks to wait; none where that is the last word.
    fn patience(&self, error: &HelloError) -> Option<Duration> {
        let HelloError::Refused(refused) = error else { return None };
        let is_worth_it = match refused.kind {
            RefusedKind::RateLimited { .. } | RefusedKind::ShuttingDown { .. } | RefusedKind::FdPressure => {
                true
            }
            RefusedKind::VersionUnsupported
            | RefusedKind::VersionBlocked
            | RefusedKind::ServiceUnknown
            | RefusedKind::SpawnFailed
            | RefusedKind::PeerRejected
            | RefusedKind::Internal
            | RefusedKind::Other(_) => false,
        };
        let pause = refused.retry_after.filter(|_| is_worth_it && self.connector.asks_again)?;
        self.limit.has_room_for(pause).then_some(pause)
    }

    /// The broker to ask.
    pub(crate) fn broker(&self) -> Result<Broker, SessionError> {
        match &self.connector.broker {
            Some(endpoint) => {
                // One that cannot be made absolute is not found either.
                let socket = std::path::absolute(endpoint).unwrap_or_else(|_| endpoint.clone());
                let arguments = ["serve".into(), "--socket".into(), socket.into_os_string()];
                Ok(Broker { arguments, endpoint: endpoint.clone() })
            }
            None => {
                let broker = broker_of(self.connector.hello.service())?;
                let arguments = ["serve".into(), "--instance".into(), broker.instance.to_string().into()];
                Ok(Broker { arguments, endpoint: broker.endpoint })
            }
        }
    }

    /// The conversation with a backend that was agreed upon, which is remembered.
    pub(crate) fn start<S>(
        &self,
        agreement: Agreement,
        dialled: Result<(S, PeerCredentials), ExchangeError>,
    ) -> Result<(S, Conversation), SessionError> {
        let (stream, listener) = dialled.map_err(SessionError::Backend)?;
        let agreement = Arc::new(agreement);
        let known = Known::new(&agreement, listener, Instant::now());
        if let (Some(disk), Some(known)) = (self.memory.disk(), &known) {
            disk.remember(known, SystemTime::now());
        }
        self.memory.remember(known);
        Ok((stream, self.conversation(agreement, Origin::Broker)))
    }

    fn conversation(&self, agreement: Arc<Agreement>, origin: Origin) -> Conversation {
        Conversation::new(agreement, origin, self.memory.clone(), self.timeout)
    }
}

/// A broker, and how to run it where it does not.
pub(crate) struct Broker {
    endpoint: PathBuf,
    arguments: [OsString; 3],
}

impl Broker {
    pub(crate) fn endpoint(&self) -> &Path {
        &self.endpoint
    }

    /// What to call its program with.
    pub(crate) const fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    fn command(&self) -> String {
        let words = self.arguments.iter().map(|word| word.to_string_lossy());
        words.fold("brokerd".to_owned(), |command, word| format!("{command} {word}"))
    }

    pub(crate) fn failed(&self, error: HelloError) -> SessionError {
        match error {
            HelloError::Exchange(ExchangeError::Connect(source))
                if matches!(source.kind, ConnectErrorKind::NotFound | ConnectErrorKind::Refused) =>
            {
                SessionError::NoBroker { command: self.command(), source }
            }
            error => SessionError::Hello(error),
        }
    }
}
