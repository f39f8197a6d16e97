//! What happened, in numbers; rendering them is somebody else's.
//!
//! Invariant: the label sets are bounded. A series exists for services with a definition and for
//! versions with a backend; everything else, and everything past [`MAX_SERIES`], is counted under
//! [`OTHER`].

mod history;

use std::collections::HashMap;
use std::time::Duration;

use broker_protocol::wire::ErrorCode;
use foldhash::fast::RandomState;

pub use self::history::{HISTORY_MINUTES, History, MINUTE, Minute};
use crate::time::Monotonic;

/// The label value of what has no series of its own.
pub const OTHER: &str = "other";
/// Series kept, the one for everything else included.
pub const MAX_SERIES: usize = 4_096;
/// Upper bounds of the histogram's buckets; one more bucket takes what is longer.
pub const BUCKETS: [Duration; 14] = [
    Duration::from_micros(10),
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(10),
];

/// How many buckets there are, the one without an upper bound included.
const LATENCIES: usize = BUCKETS.len() + 1;

/// The bucket of a duration.
fn latency_bucket(duration: Duration) -> usize {
    BUCKETS.iter().position(|bound| duration <= *bound).unwrap_or(BUCKETS.len())
}

/// How long something took, how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; LATENCIES],
    sum: Duration,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&mut self, duration: Duration) {
        self.observe_in(latency_bucket(duration), duration);
    }

    fn observe_in(&mut self, bucket: usize, duration: Duration) {
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(duration);
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        for (own, others) in self.counts.iter_mut().zip(other.counts) {
            *own += others;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many fell into each bucket, the one without an upper bound last. Not cumulative.
    pub const fn counts(&self) -> &[u64; LATENCIES] {
        &self.counts
    }

    /// All durations together.
    pub const fn sum(&self) -> Duration {
        self.sum
    }
}

/// How a Hello ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloOutcome {
    /// Negotiated.
    Negotiated,
    /// Refused with this code.
    Refused(ErrorCode),
}

/// How many outcomes there are: negotiated, and the ten codes.
const OUTCOMES: usize = 11;

impl HelloOutcome {
    const fn index(self) -> usize {
        match self {
            Self::Negotiated => 0,
            Self::Refused(code) => 1 + code as usize,
        }
    }

    /// The outcome's label value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Negotiated => "negotiated",
            Self::Refused(code) => match code {
                ErrorCode::Unspecified => "unspecified",
                ErrorCode::ErrorVersionUnsupported => "version_unsupported",
                ErrorCode::ErrorServiceUnknown => "service_unknown",
                ErrorCode::ErrorBackendSpawnFailed => "backend_spawn_failed",
                ErrorCode::ErrorRateLimited => "rate_limited",
                ErrorCode::ErrorShuttingDown => "shutting_down",
                ErrorCode::ErrorPeerRejected => "peer_rejected",
                ErrorCode::ErrorInternal => "internal",
                ErrorCode::ErrorVersionBlocked => "version_blocked",
                ErrorCode::ErrorFdPressure => "fd_pressure",
            },
        }
    }

    /// Every outcome.
    pub fn all() -> impl Iterator<Item = Self> {
        let codes = (0..10).filter_map(|code| ErrorCode::try_from(code).ok()).map(Self::Refused);
        std::iter::once(Self::Negotiated).chain(codes)
    }
}

/// How an attempt to pass a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoffOutcome {
    /// The backend took the connection.
    Accepted,
    /// It did not, and said so.
    Rejected,
    /// It said nothing in time.
    Expired,
    /// It, or the way to it, was gone before it said anything.
    Lost,
    /// The offer never left.
    Unsent,
}

impl HandoffOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Accepted, Self::Rejected, Self::Expired, Self::Lost, Self::Unsent];

    /// The outcome's label value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Lost => "lost",
            Self::Unsent => "unsent",
        }
    }
}

/// Which series something is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesId(usize);

impl SeriesId {
    /// The series of everything that has none of its own.
    pub const OTHER: Self = Self(0);
}

/// The numbers of one (service, version).
#[derive(Clone, Debug, Default)]
pub struct Series {
    service: Box<str>,
    version: Box<str>,
    hellos: [u64; OUTCOMES],
    hello_duration: Histogram,
    spawns_succeeded: u64,
    spawns_failed: u64,
    handoffs: [u64; HandoffOutcome::ALL.len()],
    handoff_duration: Histogram,
}

impl Series {
    /// The `service` label.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The `version` label.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Hellos that ended like this.
    pub const fn hellos(&self, outcome: HelloOutcome) -> u64 {
        self.hellos[outcome.index()]
    }

    /// Time from accept to the reply being ready.
    pub const fn hello_duration(&self) -> &Histogram {
        &self.hello_duration
    }

    /// Handoffs that ended like this.
    pub const fn handoffs(&self, outcome: HandoffOutcome) -> u64 {
        self.handoffs[outcome as usize]
    }

    /// Time from an offer to its answer.
    pub const fn handoff_duration(&self) -> &Histogram {
        &self.handoff_duration
    }

    /// Starts that ended with a ready backend, and those that did not.
    pub const fn spawns(&self) -> (u64, u64) {
        (self.spawns_succeeded, self.spawns_failed)
    }
}

/// All numbers of a broker.
#[derive(Debug)]
pub struct Metrics {
    series: Vec<Series>,
    index: HashMap<(Box<str>, Box<str>), SeriesId, RandomState>,
    rate_limited: u64,
    peer_rejected: HashMap<&'static str, u64, RandomState>,
    history: History,
}

impl Default for Metrics {
    fn default() -> Self {
        let other = Series { service: OTHER.into(), version: OTHER.into(), ..Series::default() };
        Self {
            series: vec![other],
            index: HashMap::default(),
            rate_limited: 0,
            peer_rejected: HashMap::default(),
            history: History::default(),
        }
    }
}

impl Metrics {
    /// The series of a loaded service and a version of it, made on first use.
    pub(crate) fn series_of(&mut self, service: &str, version: &str) -> SeriesId {
        let key = (Box::from(service), Box::from(version));
        if let Some(id) = self.index.get(&key) {
            return *id;
        }
        if self.series.len() == MAX_SERIES {
            return SeriesId::OTHER;
        }
        let id = SeriesId(self.series.len());
        self.series.push(Series { service: key.0.clone(), version: key.1.clone(), ..Series::default() });
        self.index.insert(key, id);
        id
    }

    /// Counts a Hello that was accepted at one time and ended at another.
    pub(crate) fn hello(&mut self, id: SeriesId, outcome: HelloOutcome, accepted: Monotonic, now: Monotonic) {
        let took = now.duration_since(accepted);
        let bucket = latency_bucket(took);
        let series = &mut self.series[id.0];
        series.hellos[outcome.index()] += 1;
        series.hello_duration.observe_in(bucket, took);
        self.history.count(now, outcome, bucket);
    }

    pub(crate) fn spawned(&mut self, id: SeriesId) {
        self.series[id.0].spawns_succeeded += 1;
    }

    pub(crate) fn spawn_failed(&mut self, id: SeriesId) {
        self.series[id.0].spawns_failed += 1;
    }

    pub(crate) fn handoff(&mut self, id: SeriesId, outcome: HandoffOutcome) {
        self.series[id.0].handoffs[outcome as usize] += 1;
    }

    pub(crate) fn handoff_took(&mut self, id: SeriesId, took: Duration) {
        self.series[id.0].handoff_duration.observe(took);
    }

    pub(crate) const fn rate_limited(&mut self) {
        self.rate_limited += 1;
    }

    pub(crate) fn peer_rejected(&mut self, reason: &'static str) {
        *self.peer_rejected.entry(reason).or_default() += 1;
    }

    /// The `version` label of a series.
    pub fn version_label(&self, id: SeriesId) -> &str {
        self.series.get(id.0).map_or(OTHER, Series::version)
    }

    /// Every series, the one for everything else first.
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// The last hour.
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// Hellos refused because a peer's budget was spent.
    pub const fn rate_limited_total(&self) -> u64 {
        self.rate_limited
    }

    /// Peers and their requests turned away, by reason.
    pub fn peer_rejected_total(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.peer_rejected.iter().map(|(reason, count)| (*reason, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        histogram.observe(BUCKETS[0]);
        histogram.observe(BUCKETS[0] + Duration::from_nanos(1));
        histogram.observe(BUCKETS[13] + Duration::from_nanos(1));
        assert_eq!(histogram.counts()[..2], [1, 1]);
        assert_eq!(histogram.counts()[BUCKETS.len()], 1);
        assert_eq!(histogram.sum(), BUCKETS[0] * 2 + BUCKETS[13] + Duration::from_nanos(2));
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let mut metrics = Metrics::default();
        let last = (1..MAX_SERIES).map(|n| metrics.series_of("cache", &n.to_string())).last().unwrap();
        assert_eq!(last, SeriesId(MAX_SERIES - 1));
        assert_eq!(metrics.series_of("cache", "one-more"), SeriesId::OTHER);
        assert_eq!(metrics.series_of("cache", "1"), SeriesId(1), "what has a series keeps it");
        assert_eq!(metrics.series().len(), MAX_SERIES);
    }

    #[test]
    fn every_outcome_has_a_label_and_a_place_of_its_own() {
        let labels: std::collections::BTreeSet<_> = HelloOutcome::all().map(HelloOutcome::label).collect();
        assert_eq!(labels.len(), OUTCOMES);
        let mut metrics = Metrics::default();
        for outcome in HelloOutcome::all() {
            metrics.hello(SeriesId::OTHER, outcome, Monotonic::default(), Monotonic::default());
        }
        assert!(HelloOutcome::all().all(|outcome| metrics.series()[0].hellos(outcome) == 1));
        let minutes: Vec<_> = metrics.history().minutes(Monotonic::default()).collect();
        assert_eq!(minutes.len(), 1);
        assert_eq!(u64::from(minutes[0].1.latencies()[0]), metrics.series()[0].hello_duration().counts()[0]);
        assert!(HelloOutcome::all().all(|outcome| minutes[0].1.hellos(outcome) == 1));
    }
}
