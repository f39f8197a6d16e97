//! The Hellos of the last hour, as `dump` tells them.
//!
//! Invariant: there is a row for a minute in which something happened and none for any other, so the answer of
//! an idle broker stays short.

use std::collections::BTreeMap;

use broker_core::broker::Broker;
use broker_core::entropy::Entropy;
use broker_core::metrics::{BUCKETS, HelloOutcome, MINUTE};
use broker_core::time::Now;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct History {
    minute_ms: u64,
    /// Upper bounds of the first counts in `latency_counts`; the last one is for what took longer.
    latency_bounds_us: Vec<u64>,
    /// The oldest first.
    minutes: Vec<Minute>,
}

#[derive(Serialize)]
struct Minute {
    /// 0 is the minute that is not over yet.
    minutes_ago: u64,
    began_unix_ms: u64,
    accepted: u32,
    /// By the label of the code.
    refused: BTreeMap<&'static str, u32>,
    latency_counts: Vec<u32>,
}

pub(super) fn of<E: Entropy>(broker: &Broker<E>, now: Now) -> History {
    let minutes = broker.metrics().history().minutes(now.monotonic).map(|(minutes_ago, minute)| {
        let since = now.monotonic.duration_since(minute.began());
        let refused = HelloOutcome::all().filter(|outcome| *outcome != HelloOutcome::Negotiated);
        let refused = refused.map(|outcome| (outcome.label(), minute.hellos(outcome)));
        Minute {
            minutes_ago,
            began_unix_ms: now.unix.get().saturating_sub(since.as_millis() as u64),
            accepted: minute.hellos(HelloOutcome::Negotiated),
            refused: refused.filter(|(_, count)| *count > 0).collect(),
            latency_counts: minute.latencies().to_vec(),
        }
    });
    History {
        minute_ms: MINUTE.as_millis() as u64,
        latency_bounds_us: BUCKETS.iter().map(|bound| bound.as_micros() as u64).collect(),
        minutes: minutes.collect(),
    }
}
