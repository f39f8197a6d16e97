//! Asking the broker, again and again, in a thread of its own.
//!
//! A look is a `metrics` and a `status`. Instead of the second it is a `dump`, which costs the broker more, only
//! where something has changed that a dump alone tells, and then at most every [`DETAILS_AFTER`]; otherwise every
//! [`DETAILS_AT_LATEST`]. Invariants: there are never two requests at once, and between two looks there is a
//! second.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use broker_client::{AdminError, blocking};
use broker_protocol::wire::{AdminReply, AdminRequest, AdminVerb};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Message;
use super::counters::Counters;
use super::plain::Plain;
use super::sample::{Details, Sample, State};

/// How long a broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon one that is gone is looked for again.
const RETRY: Duration = Duration::from_secs(1);
/// No look is nearer to the one before.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);
const DETAILS_AFTER: Duration = Duration::from_secs(2);
const DETAILS_AT_LATEST: Duration = Duration::from_secs(10);

/// How the looks go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Every(Duration),
    Paused,
}

/// Looks at the broker at this pace until nobody listens any more.
pub(super) fn run(mut observer: Observer, mut pace: Pace, paces: &Receiver<Pace>, to: &Sender<Message>) {
    loop {
        let looked = observer.look(Instant::now());
        let is_there = looked.is_ok();
        let message = looked.map_or_else(Message::Lost, |sample| Message::Sample(Box::new(sample)));
        if to.send(message).is_err() {
            return;
        }
        let looked_at = Instant::now();
        loop {
            let next = match pace {
                Pace::Every(interval) if is_there => {
                    paces.recv_timeout(rest(interval.max(SHORTEST), looked_at))
                }
                Pace::Every(interval) => paces.recv_timeout(rest(interval.clamp(SHORTEST, RETRY), looked_at)),
                Pace::Paused => paces.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(changed) => pace = changed,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

fn rest(interval: Duration, looked_at: Instant) -> Duration {
    interval.saturating_sub(looked_at.elapsed())
}

/// Who looks, and what it remembers of the last time.
#[derive(Debug)]
pub(super) struct Observer {
    socket: PathBuf,
    detailed: Option<(Instant, Noticed)>,
    state: State,
}

/// What shows without a dump that there is something in it that was not there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Noticed {
    broker_pid: u32,
    refused: u64,
    starts: u64,
    backends: Vec<(Plain, Plain, Plain)>,
}

impl Noticed {
    fn of(counters: &Counters, state: &State) -> Self {
        let backends = state.backends.iter().map(|backend| {
            (backend.service_name.clone(), backend.service_version.clone(), backend.state.clone())
        });
        Self {
            broker_pid: state.broker_pid,
            refused: counters.refused_total(),
            starts: counters.starts,
            backends: backends.collect(),
        }
    }
}

/// The whole of a dump.
#[derive(Deserialize)]
struct Dump {
    #[serde(flatten)]
    state: State,
    #[serde(flatten)]
    details: Details,
}

impl Observer {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket, detailed: None, state: State::default() }
    }

    /// What the broker tells now, or why it tells nothing.
    pub(super) fn look(&mut self, now: Instant) -> Result<Sample, Plain> {
        let looked = self.try_look(now);
        if looked.is_err() {
            self.detailed = None;
        }
        looked
    }

    fn try_look(&mut self, now: Instant) -> Result<Sample, Plain> {
        let counters = Counters::parse(&self.ask(AdminVerb::Metrics)?.body);
        if self.wants_details(now, &counters) {
            let Dump { state, details } = self.json(AdminVerb::Dump)?;
            self.detailed = Some((now, Noticed::of(&counters, &state)));
            self.state = state.clone();
            return Ok(Sample { counters, state, details: Some(details) });
        }
        let state: State = self.json(AdminVerb::Status)?;
        if state.broker_pid != self.state.broker_pid {
            // Another one, of which nothing is known; with that forgotten, this looks but once more.
            self.detailed = None;
            return self.try_look(now);
        }
        self.state = state.clone();
        Ok(Sample { counters, state, details: None })
    }

    fn wants_details(&self, now: Instant, counters: &Counters) -> bool {
        let Some((at, noticed)) = &self.detailed else { return true };
        let age = now.duration_since(*at);
        age >= DETAILS_AT_LATEST || age >= DETAILS_AFTER && *noticed != Noticed::of(counters, &self.state)
    }

    fn ask(&self, verb: AdminVerb) -> Result<AdminReply, Plain> {
        let request = AdminRequest { verb: verb.into(), json: true, ..AdminRequest::default() };
        let reply = blocking::admin_within(&self.socket, &request, PATIENCE);
        reply.map_err(|error: AdminError| Plain::of(&error.to_string()))
    }

    fn json<T: DeserializeOwned>(&self, verb: AdminVerb) -> Result<T, Plain> {
        let reply = self.ask(verb)?;
        serde_json::from_str(&reply.body).map_err(|error| {
            Plain::of(&format!("its answer to {} is not understood: {error}", verb.as_str_name()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(refused: u64) -> Counters {
        let mut counters = Counters::default();
        counters.refused.insert(Plain::of("internal"), refused);
        counters
    }

    #[test]
    fn a_dump_is_asked_for_where_something_is_new_and_not_too_often() {
        let mut observer = Observer::new(PathBuf::new());
        let begin = Instant::now();
        assert!(observer.wants_details(begin, &counters(0)), "of a broker that nothing is known of");
        observer.detailed = Some((begin, Noticed::of(&counters(0), &observer.state)));
        let after = |millis| begin + Duration::from_millis(millis);
        assert!(!observer.wants_details(after(1_999), &counters(1)));
        assert!(observer.wants_details(after(2_000), &counters(1)), "a refusal has a reason");
        assert!(!observer.wants_details(after(9_999), &counters(0)), "nothing has happened");
        assert!(observer.wants_details(after(10_000), &counters(0)));
        observer.state.backends.push(super::super::sample::Backend::default());
        assert!(observer.wants_details(after(2_000), &counters(0)), "a backend has an event");
    }
}
