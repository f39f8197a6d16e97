//! What is shown, made of what the broker told.
//!
//! Pure: samples in, a [`Picture`] out. Invariants: a picture outlives its broker, so the last one stays when
//! nobody answers; and there is no rate over a moment at which the broker began to count anew.

use std::collections::BTreeMap;

use serde::Serialize;

use super::counters::Counters;
use super::latency::Percentiles;
use super::plain::Plain;
use super::sample::{Backend, Details, Event, Sample, State};

/// Minutes of the history that a dump tells, the one that is not over included.
pub(super) const MINUTES: usize = 60;
/// Minutes that the calmer percentiles are taken from.
pub(super) const RECENT_MINUTES: u64 = 5;

const HELLO_REFUSED: &str = "HELLO_REFUSED";
const HELLO_ACCEPTED: &str = "HELLO_ACCEPTED";

/// Everything that is shown of a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Picture {
    pub(super) broker: Broker,
    /// Between the last two samples; `None` where there are not two that belong together.
    pub(super) rates: Option<Rates>,
    /// Hellos by the minute, the current one last.
    pub(super) hellos_per_minute: Vec<u64>,
    /// Between the last two samples.
    pub(super) latency_now: Option<Percentiles>,
    pub(super) latency_last_minutes: Option<Percentiles>,
    pub(super) backends: Vec<BackendRow>,
    /// The most frequent first.
    pub(super) refusals: Vec<ReasonRow>,
    /// The newest first. A broker remembers some of each second.
    pub(super) last_refused: Vec<Event>,
    /// All but those of Hellos, the newest first.
    pub(super) events: Vec<Event>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Broker {
    pub(super) at_unix_ms: u64,
    pub(super) instance: Plain,
    pub(super) pid: u32,
    pub(super) version: Plain,
    pub(super) uptime_seconds: u64,
    pub(super) is_accepting: bool,
    pub(super) connections_open: u64,
    pub(super) descriptors_used_ratio: f64,
    /// New Hellos are refused for want of descriptors.
    pub(super) is_short_of_descriptors: bool,
    pub(super) events_dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Rates {
    /// What they are taken over.
    pub(super) seconds: f64,
    pub(super) negotiated_per_second: f64,
    pub(super) refused_per_second: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct BackendRow {
    pub(super) service: Plain,
    pub(super) version: Plain,
    pub(super) state: Plain,
    pub(super) pid: Option<u32>,
    pub(super) last_hello_seconds_ago: Option<u64>,
    pub(super) hellos_per_second: Option<f64>,
    /// Of all versions of its service: the broker counts no others.
    pub(super) handoffs_of_service: u64,
    pub(super) last_error: Option<Plain>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ReasonRow {
    pub(super) reason: Plain,
    pub(super) since_start: u64,
    pub(super) last_hour: u64,
}

/// The picture, and what the next one needs of this one.
#[derive(Debug, Default)]
pub(super) struct Model {
    picture: Picture,
    counters: Option<Counters>,
    details: Details,
}

impl Model {
    pub(super) const fn picture(&self) -> &Picture {
        &self.picture
    }

    /// Takes the next look at the broker.
    pub(super) fn take(&mut self, sample: Sample) {
        let Sample { counters, state, details } = sample;
        if let Some(details) = details {
            self.details = details;
        }
        // Another process is another broker, whatever it has counted.
        let earlier = self.counters.take().filter(|_| self.picture.broker.pid == state.broker_pid);
        let since = earlier.as_ref().and_then(|earlier| Some((earlier, counters.seconds_since(earlier)?)));
        self.picture = Picture {
            broker: broker(&counters, &state, &self.details),
            rates: since.map(|(earlier, seconds)| rates(&counters, earlier, seconds)),
            hellos_per_minute: self.hellos_per_minute(),
            latency_now: since.and_then(|(earlier, _)| {
                let (bounds, counts) = counters.latencies_since(earlier);
                Percentiles::of(&bounds, &counts)
            }),
            latency_last_minutes: self.latency_last_minutes(),
            backends: state
                .backends
                .iter()
                .map(|backend| self.backend(backend, &state, &counters, since))
                .collect(),
            refusals: self.refusals(&counters),
            last_refused: self.events(|kind| kind == HELLO_REFUSED),
            events: self.events(|kind| kind != HELLO_REFUSED && kind != HELLO_ACCEPTED),
        };
        self.counters = Some(counters);
    }

    /// Nobody has answered: what was counted until now is no measure for what comes.
    pub(super) fn lose(&mut self) {
        self.counters = None;
    }

    fn hellos_per_minute(&self) -> Vec<u64> {
        let mut minutes = vec![0; MINUTES];
        for minute in &self.details.history.minutes {
            let ago = usize::try_from(minute.minutes_ago).unwrap_or(MINUTES);
            if let Some(place) = (MINUTES - 1).checked_sub(ago) {
                minutes[place] = minute.hellos();
            }
        }
        minutes
    }

    fn latency_last_minutes(&self) -> Option<Percentiles> {
        let history = &self.details.history;
        let mut counts = vec![0_u64; history.latency_bounds_us.len() + 1];
        for minute in history.minutes.iter().filter(|minute| minute.minutes_ago < RECENT_MINUTES) {
            for (sum, count) in counts.iter_mut().zip(&minute.latency_counts) {
                *sum = sum.saturating_add(*count);
            }
        }
        Percentiles::of(&history.latency_bounds_us, &counts)
    }

    fn backend(
        &self,
        backend: &Backend,
        state: &State,
        counters: &Counters,
        since: Option<(&Counters, f64)>,
    ) -> BackendRow {
        let key = (backend.service_name.clone(), backend.service_version.clone());
        let count = |counters: &Counters| counters.negotiated.get(&key).copied().unwrap_or(0);
        let details = self.details.backend_table.iter();
        let mut details =
            details.filter(|row| row.service_name == backend.service_name && row.service_version == key.1);
        BackendRow {
            service: backend.service_name.clone(),
            version: backend.service_version.clone(),
            state: backend.state.clone(),
            pid: backend.pid,
            last_hello_seconds_ago: backend
                .last_active_unix_ms
                .map(|at| state.generated_at_unix_ms.saturating_sub(at) / 1_000),
            hellos_per_second: since
                .map(|(earlier, seconds)| count(counters).saturating_sub(count(earlier)) as f64 / seconds),
            handoffs_of_service: counters.handed_over.get(&backend.service_name).copied().unwrap_or(0),
            last_error: details.next().and_then(|row| row.last_error.clone()),
        }
    }

    fn refusals(&self, counters: &Counters) -> Vec<ReasonRow> {
        let mut last_hour: BTreeMap<&Plain, u64> = BTreeMap::new();
        for (reason, count) in self.details.history.minutes.iter().flat_map(|minute| &minute.refused) {
            let sum = last_hour.entry(reason).or_default();
            *sum = sum.saturating_add(*count);
        }
        let rows = counters.refused.iter().map(|(reason, count)| ReasonRow {
            reason: reason.clone(),
            since_start: *count,
            last_hour: last_hour.get(reason).copied().unwrap_or(0),
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|a, b| b.since_start.cmp(&a.since_start).then_with(|| a.reason.cmp(&b.reason)));
        rows
    }

    fn events(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<Event> {
        let events = self.details.recent_lifecycle_events.iter().rev();
        events.filter(|event| is_wanted(event.kind.as_str())).cloned().collect()
    }
}

fn broker(counters: &Counters, state: &State, details: &Details) -> Broker {
    Broker {
        at_unix_ms: state.generated_at_unix_ms,
        instance: state.broker_instance.clone(),
        pid: state.broker_pid,
        version: details.version().clone(),
        uptime_seconds: counters.uptime_seconds as u64,
        is_accepting: state.accepting_hello,
        connections_open: state.connections_open,
        descriptors_used_ratio: counters.descriptors_used,
        is_short_of_descriptors: state.fd_pressure.demoted,
        events_dropped: counters.events_dropped,
    }
}

fn rates(now: &Counters, earlier: &Counters, seconds: f64) -> Rates {
    let per_second = |total: fn(&Counters) -> u64| total(now).saturating_sub(total(earlier)) as f64 / seconds;
    Rates {
        seconds,
        negotiated_per_second: per_second(Counters::negotiated_total),
        refused_per_second: per_second(Counters::refused_total),
    }
}

#[cfg(test)]
mod tests;
