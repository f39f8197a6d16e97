//! The broker's counters at one moment, read from its OpenMetrics text.
//!
//! Only what is shown is taken; what is unknown is passed over, as a newer broker may count more. The uptime is in
//! the same text, so a rate is over the broker's own time and no transport is in it. Invariant: a line that is not
//! understood changes nothing.

use std::collections::BTreeMap;

use super::plain::Plain;

const PREFIX: &str = "running_process_broker_v1_";
const NEGOTIATED: &str = "negotiated";

/// What the counters say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counters {
    pub(super) uptime_seconds: f64,
    /// Share of the descriptors that the broker may open.
    pub(super) descriptors_used: f64,
    pub(super) events_dropped: u64,
    /// Negotiated, by service and version.
    pub(super) negotiated: BTreeMap<(Plain, Plain), u64>,
    /// Refused, by the label of the code.
    pub(super) refused: BTreeMap<Plain, u64>,
    /// Turned away before anything else was looked at, by reason; those are among the refused.
    pub(super) rejected: BTreeMap<Plain, u64>,
    /// Connections passed on, by service.
    pub(super) handed_over: BTreeMap<Plain, u64>,
    /// Starts of backends, whatever became of them.
    pub(super) starts: u64,
    /// Hellos by the upper bound of their time in microseconds; what took longer than all is not told apart here.
    buckets: BTreeMap<u64, u64>,
    /// All Hellos that were timed.
    timed: u64,
}

impl Counters {
    pub(super) fn parse(text: &str) -> Self {
        let mut counters = Self::default();
        for series in text.lines().filter_map(Series::parse) {
            counters.take(&series);
        }
        counters
    }

    fn take(&mut self, series: &Series<'_>) {
        let add = |place: &mut u64| *place = place.saturating_add(series.value as u64);
        match series.name {
            "uptime_seconds" => self.uptime_seconds = series.value,
            "fd_usage_ratio" => self.descriptors_used = series.value,
            "events_dropped_total" => add(&mut self.events_dropped),
            "hello_total" if series.raw_label("outcome") == Some(NEGOTIATED) => {
                let key = (series.label("service"), series.label("version"));
                add(self.negotiated.entry(key).or_default());
            }
            "hello_total" => add(self.refused.entry(series.label("outcome")).or_default()),
            "peer_rejected_total" => add(self.rejected.entry(series.label("reason")).or_default()),
            "handoff_total" if series.raw_label("outcome") == Some("accepted") => {
                add(self.handed_over.entry(series.label("service")).or_default());
            }
            "spawn_attempts_total" => add(&mut self.starts),
            "hello_duration_seconds_count" => add(&mut self.timed),
            "hello_duration_seconds_bucket" => {
                let bound = series.raw_label("le").and_then(|bound| bound.parse().ok());
                if let Some(bound) = bound.filter(|bound: &f64| bound.is_finite()) {
                    add(self.buckets.entry((bound * 1e6).round() as u64).or_default());
                }
            }
            _ => {}
        }
    }

    pub(super) fn negotiated_total(&self) -> u64 {
        self.negotiated.values().sum()
    }

    pub(super) fn refused_total(&self) -> u64 {
        self.refused.values().sum()
    }

    /// The bounds in microseconds, and how many Hellos since `earlier` fell into each bucket, the one without an end
    /// last.
    pub(super) fn latencies_since(&self, earlier: &Self) -> (Vec<u64>, Vec<u64>) {
        let bounds = self.buckets.keys().copied().collect();
        let up_to =
            |bound| self.buckets[bound].saturating_sub(earlier.buckets.get(bound).copied().unwrap_or(0));
        let cumulative: Vec<u64> = self.buckets.keys().map(up_to).collect();
        let all = std::iter::once(self.timed.saturating_sub(earlier.timed));
        let mut below = 0;
        let counts = cumulative.into_iter().chain(all).map(|count| {
            let own = count.saturating_sub(below);
            below = below.max(count);
            own
        });
        (bounds, counts.collect())
    }

    /// How long after `earlier` these were taken; `None` where the broker began to count anew in between.
    pub(super) fn seconds_since(&self, earlier: &Self) -> Option<f64> {
        let seconds = self.uptime_seconds - earlier.uptime_seconds;
        let grew = |earlier: &BTreeMap<_, u64>, now: &BTreeMap<_, u64>| {
            earlier.iter().all(|(key, count)| now.get(key).is_some_and(|now| now >= count))
        };
        let goes_on = seconds > 0.0
            && grew(&earlier.refused, &self.refused)
            && self.timed >= earlier.timed
            && self.starts >= earlier.starts
            && earlier
                .negotiated
                .iter()
                .all(|(key, count)| self.negotiated.get(key).is_some_and(|now| now >= count));
        goes_on.then_some(seconds)
    }
}

/// One line of the text: a name without the prefix, labels, a value.
struct Series<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

impl<'a> Series<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let line = line.strip_prefix(PREFIX)?;
        let (series, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        Some(Self { name, labels, value })
    }

    /// A label's value as it stands there. Neither services, versions nor outcomes have a character that would be
    /// escaped.
    fn raw_label(&self, name: &str) -> Option<&'a str> {
        self.labels
            .split(',')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
    }

    fn label(&self, name: &str) -> Plain {
        Plain::of(self.raw_label(name).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(uptime: f64, negotiated: u64, slow: u64) -> String {
        let all = negotiated + slow;
        format!(
            "# TYPE running_process_broker_v1_hello counter\n\
            running_process_broker_v1_uptime_seconds {uptime}\n\
            running_process_broker_v1_fd_usage_ratio 0.25\n\
            running_process_broker_v1_hello_total{{service=\"cache\",version=\"1.0.0\",outcome=\"negotiated\"}} {negotiated}\n\
            running_process_broker_v1_hello_total{{service=\"cache\",version=\"other\",outcome=\"version_blocked\"}} 1\n\
            running_process_broker_v1_hello_total{{service=\"other\",version=\"other\",outcome=\"version_blocked\"}} 2\n\
            running_process_broker_v1_hello_duration_seconds_bucket{{le=\"0.00005\",service=\"cache\"}} {negotiated}\n\
            running_process_broker_v1_hello_duration_seconds_bucket{{le=\"0.0025\",service=\"cache\"}} {all}\n\
            running_process_broker_v1_hello_duration_seconds_bucket{{le=\"+Inf\",service=\"cache\"}} {all}\n\
            running_process_broker_v1_hello_duration_seconds_count{{service=\"cache\"}} {all}\n\
            running_process_broker_v1_handoff_total{{service=\"cache\",outcome=\"accepted\"}} 4\n\
            running_process_broker_v1_handoff_total{{service=\"cache\",outcome=\"lost\"}} 9\n\
            # EOF\n"
        )
    }

    #[test]
    fn the_text_is_read_and_its_services_are_added_up() {
        let counters = Counters::parse(&text(2.5, 7, 1));
        assert_eq!((counters.uptime_seconds, counters.descriptors_used), (2.5, 0.25));
        assert_eq!((counters.negotiated_total(), counters.refused_total()), (7, 3));
        assert_eq!(counters.refused[&Plain::of("version_blocked")], 3);
        assert_eq!(counters.handed_over[&Plain::of("cache")], 4);
    }

    #[test]
    fn what_happened_between_two_texts_is_told_by_the_bucket() {
        let (earlier, later) = (Counters::parse(&text(1.0, 7, 1)), Counters::parse(&text(3.0, 10, 6)));
        assert_eq!(later.seconds_since(&earlier), Some(2.0));
        assert_eq!(later.latencies_since(&earlier), (vec![50, 2_500], vec![3, 5, 0]));
    }

    #[test]
    fn a_broker_that_counts_anew_has_no_time_between() {
        let earlier = Counters::parse(&text(9.0, 7, 1));
        for later in [text(1.0, 9, 1), text(9.5, 6, 9), text(9.0, 7, 1), "# EOF\n".to_owned()] {
            assert_eq!(Counters::parse(&later).seconds_since(&earlier), None, "{later}");
        }
    }

    #[test]
    fn a_line_that_is_not_understood_changes_nothing() {
        let hello = format!("{PREFIX}hello_total");
        for line in
            ["", " ", "x 1", &hello, &format!("{hello}{{ 1"), &format!("{hello} NaN"), &format!("{hello} -1")]
        {
            assert_eq!(Counters::parse(line), Counters::default(), "{line}");
        }
    }
}
