//! What the report takes from `dump`, and sums over the last hour.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Dump {
    pub(super) broker_instance: String,
    pub(super) broker_pid: u32,
    pub(super) uptime_seconds: u64,
    pub(super) accepting_hello: bool,
    pub(super) connections_open: u64,
    pub(super) fd_pressure: FdPressure,
    pub(super) effective_config: Config,
    pub(super) backend_table: Vec<Backend>,
    pub(super) recent_lifecycle_events: Vec<Event>,
    pub(super) history: History,
}

impl Dump {
    pub(super) fn version(&self) -> &str {
        let version = self.effective_config.values.get("broker").map(|broker| &broker["version"]["value"]);
        version.and_then(Value::as_str).unwrap_or("unknown")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FdPressure {
    pub(super) demoted: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) values: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Backend {
    pub(super) service_name: String,
    pub(super) service_version: String,
    pub(super) pid: Option<u32>,
    pub(super) backend_pipe: Option<String>,
    pub(super) last_active_unix_ms: Option<u64>,
    pub(super) state: String,
    pub(super) waiting_hellos: u64,
    pub(super) handoff: String,
    pub(super) last_error: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    pub(super) ts_ms: u64,
    pub(super) kind: String,
    pub(super) pid: u32,
    pub(super) service_name: String,
    pub(super) reason: String,
    pub(super) severity: String,
    pub(super) broker_instance: String,
    pub(super) extra: BTreeMap<String, String>,
}

impl Event {
    /// `Hello refused`, as a person says it.
    pub(super) fn title(&self) -> String {
        let words = self.kind.replace('_', " ").to_lowercase();
        let mut letters = words.chars();
        match letters.next() {
            Some(first) => {
                first.to_uppercase().chain(letters).collect::<String>().replace(" def ", " definition ")
            }
            None => words,
        }
    }

    /// One of three classes of the page.
    pub(super) fn class(&self) -> &'static str {
        match self.severity.as_str() {
            "ERROR" | "FATAL" => "error",
            "WARN" => "warn",
            _ => "info",
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct History {
    pub(super) latency_bounds_us: Vec<u64>,
    pub(super) minutes: Vec<Minute>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Minute {
    pub(super) minutes_ago: u64,
    pub(super) began_unix_ms: u64,
    pub(super) accepted: u64,
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) latency_counts: Vec<u64>,
}

impl Minute {
    pub(super) fn refused(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// Sums over the hour.
#[derive(Debug, Default)]
pub(super) struct Hour {
    accepted: u64,
    /// The most frequent first.
    pub(super) refusals: Vec<(String, u64)>,
    pub(super) latencies: Vec<u64>,
}

impl Hour {
    pub(super) fn of(history: &History) -> Self {
        let mut refusals = BTreeMap::<_, u64>::new();
        let mut latencies = vec![0; history.latency_bounds_us.len() + 1];
        for minute in &history.minutes {
            for (reason, count) in &minute.refused {
                *refusals.entry(reason.clone()).or_default() += count;
            }
            for (sum, count) in latencies.iter_mut().zip(&minute.latency_counts) {
                *sum += count;
            }
        }
        let mut refusals: Vec<_> = refusals.into_iter().collect();
        refusals.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Self { accepted: history.minutes.iter().map(|minute| minute.accepted).sum(), refusals, latencies }
    }

    pub(super) fn refused(&self) -> u64 {
        self.refusals.iter().map(|(_, count)| count).sum()
    }

    pub(super) fn total(&self) -> u64 {
        self.accepted + self.refused()
    }

    /// The bound of the bucket that holds the Hello so far up among the fastest.
    pub(super) fn latency(&self, history: &History, share: f64) -> Option<String> {
        let all: u64 = self.latencies.iter().sum();
        let rank = (all as f64 * share).ceil() as u64;
        let mut sum = 0;
        let bucket = self.latencies.iter().position(|count| {
            sum += count;
            sum >= rank
        })?;
        (all > 0).then(|| bucket_label(&history.latency_bounds_us, bucket))
    }
}

/// `≤ 250 µs`, or `> 10 s` for the last one.
pub(super) fn bucket_label(bounds_us: &[u64], bucket: usize) -> String {
    let text = |us: u64| match us {
        us if us >= 1_000_000 => format!("{} s", us as f64 / 1e6),
        us if us >= 1_000 => format!("{} ms", us as f64 / 1e3),
        us => format!("{us} \u{b5}s"),
    };
    match (bounds_us.get(bucket), bounds_us.last()) {
        (Some(bound), _) => format!("\u{2264} {}", text(*bound)),
        (None, Some(last)) => format!("> {}", text(*last)),
        (None, None) => String::new(),
    }
}
