//! Times as people read them, in UTC.

use std::time::{Duration, UNIX_EPOCH};

/// The last second of the year 9999: later ones have no such text, and only a damaged file names them.
const LATEST: u64 = 253_402_300_799_000;

/// `2026-01-31T12:00:00.250Z`.
pub(super) fn text(unix_ms: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms.min(LATEST))).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_millis(time).to_string()
}

/// The same as a file may be called on every system: `20260131T120000.250Z`.
pub(super) fn file_name(unix_ms: u64) -> String {
    text(unix_ms).replace(['-', ':'], "")
}

/// Only the time of day, to the second.
pub(crate) fn time_of_day(unix_ms: u64) -> String {
    text(unix_ms).get(11..19).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_text_whatever_it_is() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(file_name(1_769_860_800_250), "20260131T120000.250Z");
        assert_eq!(time_of_day(1_769_860_800_250), "12:00:00");
        assert_eq!(text(u64::MAX), "9999-12-31T23:59:59.000Z");
    }
}
