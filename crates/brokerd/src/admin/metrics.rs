//! `metrics`: OpenMetrics text (behaviour.md 8), rendered from the numbers that the broker keeps.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_core::broker::Broker;
use broker_core::entropy::Entropy;
use broker_core::metrics::{BUCKETS, HandoffOutcome, HelloOutcome, Histogram, Metrics, OTHER};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::Facts;

const PREFIX: &str = "running_process_broker_v1";

type Pairs<'a> = [(&'static str, &'a str)];

/// The numbers at one moment, in the order in which they are printed.
#[derive(Debug, Default)]
struct Snapshot {
    hellos: Vec<([String; 3], u64)>,
    durations: Vec<(String, Histogram)>,
    handoffs: Vec<([String; 2], u64)>,
    handoff_durations: Vec<(String, Histogram)>,
    active: Vec<(String, u64)>,
    spawns: Vec<([String; 3], u64)>,
    budgets: Vec<([String; 2], u64)>,
    rejected: Vec<(&'static str, u64)>,
    rate_limited: u64,
    connections: u64,
    descriptors: f64,
    uptime: f64,
    events_dropped: u64,
    descriptors_discarded: u64,
}

/// Renders all metrics.
pub(super) fn render<E: Entropy>(broker: &Broker<E>, facts: &Facts<'_>) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Snapshot::take(broker, facts)));
    let mut out = String::new();
    match text::encode(&mut out, &registry) {
        Ok(()) => out,
        Err(_) => "# EOF\n".to_owned(), // writing to a String cannot fail
    }
}

impl Snapshot {
    fn take<E: Entropy>(broker: &Broker<E>, facts: &Facts<'_>) -> Self {
        let mut snapshot = Self {
            rate_limited: broker.metrics().rate_limited_total(),
            connections: broker.connections_open() as u64,
            descriptors: facts.descriptors_used,
            uptime: facts.uptime.as_secs_f64(),
            events_dropped: facts.events_dropped,
            descriptors_discarded: facts.descriptors_discarded,
            rejected: broker.metrics().peer_rejected_total().collect(),
            ..Self::default()
        };
        snapshot.rejected.sort_unstable();
        snapshot.take_series(broker.metrics());
        let mut active: BTreeMap<String, u64> = BTreeMap::new();
        let mut budgets: BTreeMap<[String; 2], u64> = BTreeMap::new();
        for backend in broker.backends() {
            let labels = broker.labels_of(backend).map(str::to_owned);
            let is_running = u64::from(backend.state().as_str() == "running");
            *active.entry(backend.service().to_string()).or_default() += is_running;
            // Where several share a label, the one that is worst off is shown.
            let remaining = u64::from(backend.budget().remaining(facts.now.monotonic));
            budgets.entry(labels).and_modify(|least| *least = remaining.min(*least)).or_insert(remaining);
        }
        snapshot.budgets.extend(budgets);
        snapshot.active.extend(active);
        snapshot
    }

    fn take_series(&mut self, metrics: &Metrics) {
        let mut durations: BTreeMap<String, Histogram> = BTreeMap::new();
        let mut handoffs: BTreeMap<[String; 2], u64> = BTreeMap::new();
        let mut handoff_durations: BTreeMap<String, Histogram> = BTreeMap::new();
        for series in metrics.series() {
            let labels =
                |last: &str| [series.service().to_owned(), series.version().to_owned(), last.to_owned()];
            for outcome in HelloOutcome::all() {
                let count = series.hellos(outcome);
                if count > 0 {
                    self.hellos.push((labels(outcome.label()), count));
                }
            }
            durations.entry(series.service().to_owned()).or_default().add(series.hello_duration());
            for outcome in HandoffOutcome::ALL {
                let service = series.service().to_owned();
                *handoffs.entry([service, outcome.label().to_owned()]).or_default() +=
                    series.handoffs(outcome);
            }
            let service = series.service().to_owned();
            handoff_durations.entry(service).or_default().add(series.handoff_duration());
            let (succeeded, failed) = series.spawns();
            if succeeded + failed > 0 || series.version() != OTHER {
                self.spawns.push((labels("success"), succeeded));
                self.spawns.push((labels("failure"), failed));
            }
        }
        self.durations.extend(durations);
        self.handoffs.extend(handoffs.into_iter().filter(|(_, count)| *count > 0));
        let is_used = |histogram: &Histogram| histogram.counts().iter().any(|count| *count > 0);
        self.handoff_durations.extend(handoff_durations.into_iter().filter(|(_, took)| is_used(took)));
    }
}

type Encoded = Result<(), std::fmt::Error>;

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    kind: MetricType,
    fill: impl FnOnce(&mut MetricEncoder<'_>) -> Encoded,
) -> Encoded {
    fill(&mut encoder.encode_descriptor(name, help, unit, kind)?)
}

fn counter(encoder: &mut MetricEncoder<'_>, labels: &Pairs<'_>, value: u64) -> Encoded {
    ConstCounter::new(value).encode(encoder.encode_family(&labels)?)
}

fn gauge(encoder: &mut MetricEncoder<'_>, labels: &Pairs<'_>, value: f64) -> Encoded {
    ConstGauge::new(value).encode(encoder.encode_family(&labels)?)
}

fn histogram(encoder: &mut MetricEncoder<'_>, service: &str, histogram: &Histogram) -> Encoded {
    let mut buckets: Vec<(f64, u64)> =
        BUCKETS.iter().map(Duration::as_secs_f64).zip(*histogram.counts()).collect();
    buckets.push((f64::INFINITY, histogram.counts()[BUCKETS.len()]));
    let labels: &Pairs<'_> = &[("service", service)];
    encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
        histogram.sum().as_secs_f64(),
        histogram.counts().iter().sum(),
        &buckets,
        None,
    )
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let encoder = &mut encoder;
        family(encoder, ("hello", "Hellos answered", None), MetricType::Counter, |family| {
            self.hellos.iter().try_for_each(|([service, version, outcome], count)| {
                counter(family, &[("service", service), ("version", version), ("outcome", outcome)], *count)
            })
        })?;
        let seconds = Some(&Unit::Seconds);
        let described = ("hello_duration", "Time from accept to the reply being ready", seconds);
        family(encoder, described, MetricType::Histogram, |family| {
            self.durations.iter().try_for_each(|(service, took)| histogram(family, service, took))
        })?;
        family(encoder, ("active_backends", "Backends that run", None), MetricType::Gauge, |family| {
            self.active
                .iter()
                .try_for_each(|(service, count)| gauge(family, &[("service", service)], *count as f64))
        })?;
        family(
            encoder,
            ("spawn_attempts", "Backends started, or not", None),
            MetricType::Counter,
            |family| {
                self.spawns.iter().try_for_each(|([service, version, outcome], count)| {
                    counter(
                        family,
                        &[("service", service), ("version", version), ("outcome", outcome)],
                        *count,
                    )
                })
            },
        )?;
        let described = ("spawn_budget_remaining", "Starts left in the current window", None);
        family(encoder, described, MetricType::Gauge, |family| {
            self.budgets.iter().try_for_each(|([service, version], remaining)| {
                gauge(family, &[("service", service), ("version", version)], *remaining as f64)
            })
        })?;
        family(encoder, ("connections_open", "Connections open now", None), MetricType::Gauge, |family| {
            gauge(family, &[], self.connections as f64)
        })?;
        family(
            encoder,
            ("fd_usage_ratio", "Open descriptors by the soft limit", None),
            MetricType::Gauge,
            |family| gauge(family, &[], self.descriptors),
        )?;
        family(encoder, ("uptime", "Time since the start", seconds), MetricType::Gauge, |family| {
            gauge(family, &[], self.uptime)
        })?;
        let described = ("rate_limited", "Hellos refused because their peer's budget was spent", None);
        family(encoder, described, MetricType::Counter, |family| counter(family, &[], self.rate_limited))?;
        let described = ("peer_rejected", "Peers and requests turned away", None);
        family(encoder, described, MetricType::Counter, |family| {
            self.rejected
                .iter()
                .try_for_each(|(reason, count)| counter(family, &[("reason", reason)], *count))
        })?;
        let described = ("handoff", "Connections passed to backends, or not", None);
        family(encoder, described, MetricType::Counter, |family| {
            self.handoffs.iter().try_for_each(|([service, outcome], count)| {
                counter(family, &[("service", service), ("outcome", outcome)], *count)
            })
        })?;
        let described = ("handoff_duration", "Time from an offer to its acknowledgement", seconds);
        family(encoder, described, MetricType::Histogram, |family| {
            self.handoff_durations.iter().try_for_each(|(service, took)| histogram(family, service, took))
        })?;
        let described = ("events_dropped", "Lifecycle events that could not be written", None);
        family(encoder, described, MetricType::Counter, |family| counter(family, &[], self.events_dropped))?;
        let described =
            ("descriptors_discarded", "Messages whose descriptors belonged nowhere and were closed", None);
        family(encoder, described, MetricType::Counter, |family| {
            counter(family, &[], self.descriptors_discarded)
        })
    }
}
