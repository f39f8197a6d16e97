//! One look at the broker: its counters, its state and, now and then, what only a dump tells.
//!
//! Everything is optional but what was asked for: a broker of another version may say more or less. Invariant:
//! whatever text is in here is [`Plain`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counters::Counters;
use super::plain::Plain;

/// What a broker told at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) counters: Counters,
    pub(super) state: State,
    /// Only where it was asked for.
    pub(super) details: Option<Details>,
}

/// What `status` tells.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub(super) generated_at_unix_ms: u64,
    pub(super) broker_instance: Plain,
    pub(super) broker_pid: u32,
    pub(super) accepting_hello: bool,
    pub(super) connections_open: u64,
    pub(super) fd_pressure: Pressure,
    pub(super) backends: Vec<Backend>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pressure {
    pub(super) demoted: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Backend {
    pub(super) service_name: Plain,
    pub(super) service_version: Plain,
    pub(super) pid: Option<u32>,
    pub(super) last_active_unix_ms: Option<u64>,
    pub(super) state: Plain,
}

/// What `dump` tells beyond that.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Details {
    effective_config: Effective,
    pub(super) backend_table: Vec<BackendDetails>,
    pub(super) recent_lifecycle_events: Vec<Event>,
    pub(super) history: History,
}

impl Details {
    /// The broker's version.
    pub(super) const fn version(&self) -> &Plain {
        &self.effective_config.values.broker.version.value
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Effective {
    values: Values,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Values {
    broker: BrokerValues,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct BrokerValues {
    version: Leaf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Leaf {
    value: Plain,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct BackendDetails {
    pub(super) service_name: Plain,
    pub(super) service_version: Plain,
    pub(super) last_error: Option<Plain>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Event {
    #[serde(rename(serialize = "at_unix_ms"))]
    pub(super) ts_ms: u64,
    pub(super) kind: Plain,
    pub(super) service_name: Plain,
    pub(super) reason: Plain,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct History {
    pub(super) latency_bounds_us: Vec<u64>,
    pub(super) minutes: Vec<Minute>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Minute {
    pub(super) minutes_ago: u64,
    pub(super) accepted: u64,
    pub(super) refused: BTreeMap<Plain, u64>,
    pub(super) latency_counts: Vec<u64>,
}

impl Minute {
    /// All Hellos of this minute, whatever became of them.
    pub(super) fn hellos(&self) -> u64 {
        self.refused.values().fold(self.accepted, |sum, count| sum.saturating_add(*count))
    }
}
