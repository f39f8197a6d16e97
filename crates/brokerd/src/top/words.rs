//! Numbers and times in few characters.

use std::time::Duration;

use crate::diagnose::utc;

use super::latency::Percentiles;

/// `2h 03m`.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {:02}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes:02}m"),
        (days, hours, _) => format!("{days}d {hours:02}h"),
    }
}

/// A rate, to three digits or so.
pub(super) fn rate(per_second: f64) -> String {
    if per_second < 100.0 { format!("{per_second:.1}/s") } else { format!("{per_second:.0}/s") }
}

/// `every 2s`.
pub(super) fn interval(interval: Duration) -> String {
    format!("every {}s", interval.as_secs())
}

/// `p50 ≤ 50µs  p90 ≤ 100µs  p99 ≤ 2.5ms`.
pub(super) fn percentiles(told: Option<Percentiles>) -> String {
    told.map_or_else(
        || "no Hellos".to_owned(),
        |told| format!("p50 {}  p90 {}  p99 {}", told.p50, told.p90, told.p99),
    )
}

/// The time of day, in UTC.
pub(super) fn time(unix_ms: u64) -> String {
    utc::time_of_day(unix_ms)
}

/// A number, or a dash.
pub(super) fn or_dash<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_its_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 00s"),
            (3_599, "59m 59s"),
            (7_380, "2h 03m"),
            (90_000, "1d 01h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn a_small_rate_has_a_fraction_and_a_large_one_has_none() {
        assert_eq!(
            (rate(0.25).as_str(), rate(99.94).as_str(), rate(1234.5).as_str()),
            ("0.2/s", "99.9/s", "1234/s")
        );
    }
}
