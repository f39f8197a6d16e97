//! One attempt to connect: what is tried in which order, and what is done about what fails.
//!
//! What both kinds of session share; they carry it out. Invariants: a Hello is said again only where the
//! one before did nothing, or nothing that a second one would do twice; a request that may have been carried
//! out is never sent again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use broker_protocol::bytes::Bytes;
use broker_protocol::{Capabilities, PayloadProtocol};
use broker_transport::endpoint;
use broker_transport::peer::PeerCredentials;
use broker_transport::stream::ConnectErrorKind;

use crate::agreement::Agreement;
use crate::autostart::{Autostart, Remedy};
use crate::connector::SessionError;
use crate::conversation::{Conversation, FirstRequestError, Origin, Question, RequestError};
use crate::discovery::broker_of;
use crate::disk_cache::Moment;
use crate::handover::{ADOPTION_LIMIT, Handover};
use crate::hello::Hello;
use crate::link::{ExchangeError, Limit, Party, Place};
use crate::memory::{Known, Memory};
use crate::negotiation::HelloError;
use crate::refused::RefusedKind;

/// What a client offers that takes over its connection to the broker.
const HANDOFF: Capabilities = Capabilities::HANDLE_PASSING.union(Capabilities::EARLY_DATA);

/// How long to wait each time a broker names a backend that is not there. It hears of a backend's end a
/// moment after it.
const MISSING_BACKEND_PAUSES: [Duration; 3] =
    [Duration::from_millis(2), Duration::from_millis(10), Duration::from_millis(50)];

/// One attempt to connect.
pub(crate) struct Attempt<'a> {
    /// Where to ask, whatever the definition says.
    named_broker: Option<&'a Path>,
    hello: Hello,
    patience: Patience,
    memory: Memory,
    timeout: Duration,
    pub(crate) limit: Limit,
    autostart: Option<Autostart>,
    pauses: std::slice::Iter<'static, Duration>,
}

/// Whether a broker that refuses for the moment is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It is, after the time that it names.
    AsksAgain,
    /// It is not.
    None,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(
        named_broker: Option<&'a Path>,
        hello: Hello,
        memory: Memory,
        timeout: Duration,
        autostart: Option<Autostart>,
        patience: Patience,
    ) -> Self {
        let (limit, pauses) = (Limit::from_now(timeout), MISSING_BACKEND_PAUSES.iter());
        Self { named_broker, hello, patience, memory, timeout, limit, autostart, pauses }
    }

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
        if let Some(pause) = self.pause_of(&error) {
            return Ok(Remedy::Wait(pause));
        }
        if self.gives_up_handoff(&error) {
            return Ok(Remedy::Wait(Duration::ZERO));
        }
        match &mut self.autostart {
            Some(autostart) => autostart.recover(broker, error, self.limit),
            None => Err(broker.failed(error)),
        }
    }

    /// What to say.
    pub(crate) const fn hello(&self) -> &Hello {
        &self.hello
    }

    /// How long a Hello may take that has nothing behind it. Where its reply may come from a backend, that is
    /// not waited for longer than any news of a handoff; then the broker is asked, which may be starting one.
    pub(crate) fn limit_of_hello(&self) -> Limit {
        if self.hello.offered().intersects(HANDOFF) { self.limit.share(ADOPTION_LIMIT) } else { self.limit }
    }

    /// Whether a request may be sent right behind the Hello. A broker that knows nothing of that could pass
    /// the connection on in a way that does not tell whether the request was carried out.
    pub(crate) fn may_send_early_data(&self) -> bool {
        self.hello.offered().contains(Capabilities::EARLY_DATA) && self.memory.takes_early_data()
    }

    /// A backend that was to write the reply may have ended before it did: nothing was asked of it yet, so
    /// the Hello is said again, and this time the broker answers.
    fn gives_up_handoff(&mut self, error: &HelloError) -> bool {
        let is_unanswered = matches!(
            error,
            HelloError::Exchange(ExchangeError::Closed { .. } | ExchangeError::TimedOut { .. })
        );
        let may_be_lost = is_unanswered && self.hello.offered().intersects(HANDOFF);
        if may_be_lost {
            let rest = self.hello.offered() - HANDOFF;
            self.hello = self.hello.clone().capabilities(rest);
        }
        may_be_lost
    }

    /// The conversation with a backend that has the connection to the broker.
    pub(crate) fn adopt<S>(&self, agreement: Agreement, stream: S) -> (S, Conversation) {
        (stream, self.conversation(Arc::new(agreement), Origin::Handoff))
    }

    /// A request that is to be sent right behind the Hello.
    pub(crate) fn question(
        &self,
        broker: &Broker,
        lane: PayloadProtocol,
        payload: Bytes,
    ) -> Result<Question, ExchangeError> {
        Question::new(broker.place(), lane, payload, &self.hello.trace(), self.limit)
    }

    /// The error of a Hello that had a request behind it, where nobody can have carried that out.
    ///
    /// # Errors
    /// Somebody can.
    pub(crate) fn unasked(&self, error: HelloError) -> Result<HelloError, FirstRequestError> {
        match error {
            HelloError::Refused(_) | HelloError::FieldTooLong { .. } => Ok(error),
            HelloError::Exchange(
                ExchangeError::RequestTooLong { .. }
                | ExchangeError::Connect(_)
                | ExchangeError::UnknownListener { .. }
                | ExchangeError::ForeignListener { .. },
            ) => Ok(error),
            HelloError::Exchange(
                lost @ (ExchangeError::TimedOut { .. }
                | ExchangeError::Closed { .. }
                | ExchangeError::Io { .. }),
            ) => {
                self.memory.note_early_data(false);
                Err(RequestError::Exchange(lost).into())
            }
            HelloError::Protocol(broken) => Err(RequestError::Protocol(broken).into()),
        }
    }

    /// How long to wait before the broker is asked again that has named a backend which is not there: it may
    /// have ended a moment ago.
    ///
    /// # Errors
    /// It has been asked often enough, or something else is wrong.
    pub(crate) fn pause_before_next(&mut self, error: ExchangeError) -> Result<Duration, SessionError> {
        let is_missing = matches!(&error, ExchangeError::Connect(error)
            if matches!(error.kind, ConnectErrorKind::NotFound | ConnectErrorKind::Refused));
        match self.pauses.next().filter(|pause| is_missing && self.limit.has_room_for(**pause)) {
            Some(pause) => Ok(*pause),
            None => Err(SessionError::Backend(error)),
        }
    }

    /// Takes note of what a reply tells of its broker.
    pub(crate) fn note(&self, agreement: &Agreement) {
        self.memory.note_early_data(agreement.handover() == Handover::Done);
    }

    /// How long a broker that refuses for the moment asks to wait; none where that is the last word.
    fn pause_of(&self, error: &HelloError) -> Option<Duration> {
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
        let pause = refused.retry_after.filter(|_| is_worth_it && self.patience == Patience::AsksAgain)?;
        self.limit.has_room_for(pause).then_some(pause)
    }

    /// The broker to ask.
    pub(crate) fn broker(&self) -> Result<Broker, SessionError> {
        match self.named_broker {
            Some(named) => {
                // One that cannot be made absolute is not found either.
                let socket = endpoint::absolute(named).unwrap_or_else(|_| named.to_path_buf());
                let arguments = ["serve".into(), "--socket".into(), socket.into_os_string()];
                Ok(Broker { arguments, endpoint: named.to_path_buf() })
            }
            None => {
                let broker = broker_of(self.hello.service())?;
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
        Conversation::new(agreement, origin, self.memory.clone(), self.timeout, self.hello.trace())
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

    pub(crate) fn place(&self) -> Place<'_> {
        Place::new(Party::Broker, &self.endpoint)
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
