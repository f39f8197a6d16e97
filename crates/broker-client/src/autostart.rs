//! When a broker that does not run is started, and when it is started again.
//!
//! Any number of clients may do so at once: the brokers' own lock lets one of them live, and each client
//! waits for whichever that is. A broker on its way out has removed its socket but still holds the lock, so a
//! start that meets it comes to nothing and is repeated. Invariant: the broker is asked between two starts,
//! and one attempt to connect has at most one started broker that runs.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use broker_transport::endpoint::lock_path;
use broker_transport::stream::{ConnectError, ConnectErrorKind};

use crate::attempt::Broker;
use crate::connector::SessionError;
use crate::link::{ExchangeError, Limit};
#[cfg(feature = "tokio")]
use crate::link::{Party, Place};
use crate::negotiation::HelloError;
use crate::start_error::{KnownEnd, StartFault};
use crate::started::{Fate, Launch, Started};

/// Pause between two looks whether a broker listens by now.
const PAUSE: Duration = Duration::from_millis(5);

/// Pause before the first repeated start. It doubles with each, up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LONGEST_BACKOFF: Duration = Duration::from_millis(250);

/// What has been done in one attempt to connect so that a broker runs.
#[derive(Debug)]
pub(crate) struct Autostart {
    program: PathBuf,
    stage: Stage,
    schedule: Schedule,
    closed: Closed,
}

/// How far it is with the last start.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Nothing was started.
    Idle,
    /// It runs, as far as is known.
    Started(Started),
    /// It has come to nothing.
    Ended { pid: u32, end: KnownEnd },
}

/// How often a connection has ended without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    Never,
    Once,
}

/// What to do before the broker is asked again.
pub(crate) enum Remedy<'a> {
    /// Let this time pass.
    Wait(Duration),
    /// Start it, and keep it there.
    Start { stage: &'a mut Stage, launch: Launch },
}

impl Autostart {
    pub(crate) const fn new(program: PathBuf) -> Self {
        Self { program, stage: Stage::Idle, schedule: Schedule::new(), closed: Closed::Never }
    }

    /// What to do about a Hello that failed.
    ///
    /// # Errors
    /// Nothing helps, or not within the limit.
    pub(crate) fn recover(
        &mut self,
        broker: &Broker,
        error: HelloError,
        limit: Limit,
    ) -> Result<Remedy<'_>, SessionError> {
        match Trouble::of(&error) {
            Trouble::Absent => self.replace(broker, error, limit),
            // A broker that ends takes nothing back that it has done for a Hello, and whoever asks once more
            // gets the same answer or finds that it is gone. Twice is no coincidence.
            Trouble::Closed if self.closed == Closed::Never && limit.has_room_for(PAUSE) => {
                self.closed = Closed::Once;
                Ok(Remedy::Wait(PAUSE))
            }
            Trouble::Closed | Trouble::Other => Err(broker.failed(error)),
        }
    }

    fn replace(
        &mut self,
        broker: &Broker,
        error: HelloError,
        limit: Limit,
    ) -> Result<Remedy<'_>, SessionError> {
        let launch = Launch { program: self.program.clone(), arguments: broker.arguments().to_vec() };
        let now = Instant::now();
        if let Stage::Started(started) = &mut self.stage {
            let end = match started.fate() {
                Fate::Runs => None,
                Fate::MadeWay => Some(KnownEnd::MadeWay),
                Fate::Unknown => Some(KnownEnd::Unknown),
                Fate::Ended(status) => return Err(launch.failed(StartFault::Ended { status }).into()),
            };
            if let Some(end) = end {
                self.stage = Stage::Ended { pid: started.pid, end };
                self.schedule.note_end(now);
            }
        }
        if !limit.has_room_for(PAUSE) {
            return Err(match self.fault(broker, now) {
                Some(fault) => launch.failed(fault).into(),
                None => broker.failed(error),
            });
        }
        match self.stage {
            Stage::Started(_) => Ok(Remedy::Wait(PAUSE)),
            Stage::Idle | Stage::Ended { .. } if !self.schedule.is_due(now) => Ok(Remedy::Wait(PAUSE)),
            Stage::Idle | Stage::Ended { .. } => Ok(Remedy::Start { stage: &mut self.stage, launch }),
        }
    }

    /// What is wrong where the time is up; none where nothing was started.
    fn fault(&self, broker: &Broker, now: Instant) -> Option<StartFault> {
        let endpoint = broker.endpoint().to_path_buf();
        match self.stage {
            Stage::Idle => None,
            Stage::Started(Started { pid, since, .. }) => {
                Some(StartFault::NotListening { pid, endpoint, since_start: now.duration_since(since) })
            }
            Stage::Ended { pid, end } => {
                let lock = lock_path(&endpoint).unwrap_or_else(|_| endpoint.clone());
                Some(StartFault::Displaced { pid, end, lock, endpoint })
            }
        }
    }
}

impl Remedy<'_> {
    /// Does it, in this thread.
    pub(crate) fn carry_out_blocking(self) -> Result<(), SessionError> {
        match self {
            Self::Wait(pause) => std::thread::sleep(pause),
            Self::Start { stage, launch } => *stage = Stage::Started(launch.run()?),
        }
        Ok(())
    }

    /// Does it; a fork, which takes the longer the more memory this process has, on another thread.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time enabled.
    #[cfg(feature = "tokio")]
    pub(crate) async fn carry_out(self, broker: &Broker, limit: Limit) -> Result<(), SessionError> {
        match self {
            Self::Wait(pause) => tokio::time::sleep(pause).await,
            Self::Start { stage, launch } => {
                let run = launch.clone();
                let run = async { Ok(tokio::task::spawn_blocking(move || run.run()).await) };
                let place = Place::new(Party::Broker, broker.endpoint());
                let not_run = |source| launch.failed(StartFault::NotExecuted { source });
                let started = match limit.bound::<_, ExchangeError>(place, run).await {
                    Ok(ran) => ran.map_err(|error| not_run(error.into()))??,
                    Err(_) => return Err(not_run(late()).into()),
                };
                *stage = Stage::Started(started);
            }
        }
        Ok(())
    }
}

/// A runtime has so many threads that may block, and other work may keep each of them.
#[cfg(feature = "tokio")]
fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no thread of the runtime came to it in time")
}

/// A Hello's failure, as far as a start matters to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Nobody listens.
    Absent,
    /// Whoever listened has left without a reply.
    Closed,
    Other,
}

impl Trouble {
    fn of(error: &HelloError) -> Self {
        let HelloError::Exchange(error) = error else { return Self::Other };
        match error {
            ExchangeError::Connect(ConnectError {
                kind: ConnectErrorKind::NotFound | ConnectErrorKind::Refused,
                ..
            }) => Self::Absent,
            ExchangeError::Closed { .. } => Self::Closed,
            ExchangeError::Io { source, .. } if source.kind() == io::ErrorKind::ConnectionReset => {
                Self::Closed
            }
            // It left before it was known.
            ExchangeError::UnknownListener { source, .. } if source.kind() == io::ErrorKind::NotConnected => {
                Self::Closed
            }
            ExchangeError::Connect(_)
            | ExchangeError::Io { .. }
            | ExchangeError::RequestTooLong { .. }
            | ExchangeError::UnknownListener { .. }
            | ExchangeError::ForeignListener { .. }
            | ExchangeError::TimedOut { .. } => Self::Other,
        }
    }
}

/// When a start that came to nothing is repeated.
#[derive(Debug)]
struct Schedule {
    backoff: Duration,
    /// None before the first start.
    due: Option<Instant>,
}

impl Schedule {
    const fn new() -> Self {
        Self { backoff: FIRST_BACKOFF, due: None }
    }

    /// A start has come to nothing.
    fn note_end(&mut self, now: Instant) {
        self.due = Some(now + self.backoff);
        self.backoff = LONGEST_BACKOFF.min(self.backoff * 2);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Party;

    #[test]
    fn a_start_is_repeated_after_a_pause_that_doubles_up_to_the_longest() {
        let mut schedule = Schedule::new();
        let mut now = Instant::now();
        assert!(schedule.is_due(now), "the first start waits for nothing");
        for pause in [10, 20, 40, 80, 160, 250, 250].map(Duration::from_millis) {
            schedule.note_end(now);
            now += pause;
            assert!(!schedule.is_due(now - Duration::from_nanos(1)) && schedule.is_due(now), "{pause:?}");
        }
    }

    #[test]
    fn a_connection_that_is_reset_is_one_that_is_closed() {
        let failed = |kind: io::ErrorKind| {
            let (operation, endpoint) = ("read from", PathBuf::new());
            let party = Party::Broker;
            Trouble::of(&ExchangeError::Io { operation, party, endpoint, source: kind.into() }.into())
        };
        assert_eq!(failed(io::ErrorKind::ConnectionReset), Trouble::Closed);
        assert_eq!(failed(io::ErrorKind::OutOfMemory), Trouble::Other);
    }

    #[test]
    fn a_connection_whose_listener_left_before_it_was_known_is_one_that_is_closed() {
        let unknown = |kind: io::ErrorKind| {
            let endpoint = PathBuf::new();
            Trouble::of(&ExchangeError::UnknownListener { endpoint, source: kind.into() }.into())
        };
        assert_eq!(unknown(io::ErrorKind::NotConnected), Trouble::Closed);
        assert_eq!(unknown(io::ErrorKind::NotFound), Trouble::Other);
    }
}
