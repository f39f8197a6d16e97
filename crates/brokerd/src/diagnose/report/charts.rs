//! The rate and the latency of Hellos, as pictures.
//!
//! Coordinates are those of a picture [`WIDTH`] wide; the browser scales it.

use broker_core::metrics::HISTORY_MINUTES;
use broker_core::time::UnixMillis;
use maud::{Markup, html};

use super::model::{History, Hour, bucket_label};
use crate::diagnose::utc;

/// Of every picture.
pub(super) const WIDTH: u32 = 480;

/// Where the bars of the rate are.
const LEFT: f64 = 54.0;
const RIGHT: f64 = 472.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 190.0;

/// Accepted and refused Hellos by the minute.
pub(super) fn rate(history: &History, now: UnixMillis) -> Markup {
    let busiest = history.minutes.iter().map(|minute| minute.accepted + minute.refused()).max().unwrap_or(0);
    let most = round_up(busiest);
    let height = |count: u64| count as f64 / most as f64 * (BOTTOM - TOP);
    let step = (RIGHT - LEFT) / HISTORY_MINUTES as f64;
    let place = |minutes_ago: u64| RIGHT - (minutes_ago as f64 + 1.0) * step;
    let lines = if most == 1 { vec![0, 1] } else { vec![0, most / 2, most] };
    html! {
        svg viewBox={ "0 0 " (WIDTH) " 220" } role="img" aria-labelledby="rate-title rate-desc" {
            title id="rate-title" { "Hellos per minute over the last hour" }
            desc id="rate-desc" { "The busiest minute had " (busiest) " Hellos. It ends at " (utc::text(now.get())) "." }
            @for line in lines {
                @let y = px(BOTTOM - height(line));
                line.grid x1=(px(LEFT)) x2=(px(RIGHT)) y1=(y) y2=(y) {}
                text.label x=(px(LEFT - 6.0)) y=(y) text-anchor="end" dominant-baseline="middle" { (compact(line)) }
            }
            @for minute in &history.minutes {
                @let (x, refused) = (place(minute.minutes_ago), minute.refused());
                g {
                    title { (utc::time_of_day(minute.began_unix_ms)) ": " (minute.accepted) " accepted, " (refused) " refused" }
                    (bar(x, BOTTOM - height(minute.accepted), step, height(minute.accepted), "accepted"))
                    (bar(x, BOTTOM - height(minute.accepted + refused), step, height(refused), "refused"))
                }
            }
            @for ago in [60, 45, 30, 15, 0] {
                @let x = RIGHT - f64::from(ago) * step;
                @let anchor = if ago == 0 { "end" } else { "middle" };
                text.label x=(px(x)) y=(px(BOTTOM + 20.0)) text-anchor=(anchor) {
                    @if ago == 0 { "now" } @else { "\u{2212}" (ago) " min" }
                }
            }
        }
    }
}

fn bar(x: f64, y: f64, step: f64, height: f64, class: &str) -> Markup {
    html! {
        // One Hello among many thousands is seen, too.
        @if height > 0.0 {
            rect class=(class) x=(px(x + 0.5)) y=(px(y.min(BOTTOM - 1.0))) width=(px(step - 1.0)) height=(px(height.max(1.0))) {}
        }
    }
}

/// How many Hellos took how long.
pub(super) fn latency(history: &History, hour: &Hour) -> Markup {
    const ROW: f64 = 20.0;
    const BARS: f64 = 82.0;
    const BARS_END: f64 = 412.0;
    let most = hour.latencies.iter().copied().max().unwrap_or(0).max(1);
    let height = ROW * hour.latencies.len() as f64 + 4.0;
    let half = hour.latency(history, 0.5).unwrap_or_default();
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (px(height)) } role="img" aria-labelledby="latency-title latency-desc" {
            title id="latency-title" { "Latency of the Hellos of the last hour" }
            desc id="latency-desc" { "A histogram of " (hour.total()) " Hellos. Half of them took " (half) "." }
            @for (bucket, count) in hour.latencies.iter().enumerate() {
                @let y = ROW * bucket as f64 + 2.0;
                @let length = *count as f64 / most as f64 * (BARS_END - BARS);
                text.label x=(px(BARS - 8.0)) y=(px(y + ROW / 2.0)) text-anchor="end" dominant-baseline="middle" {
                    (bucket_label(&history.latency_bounds_us, bucket))
                }
                line.grid x1=(px(BARS)) x2=(px(BARS)) y1=(px(y)) y2=(px(y + ROW)) {}
                @if *count > 0 {
                    rect.accepted x=(px(BARS)) y=(px(y + 3.0)) width=(px(length.max(1.0))) height=(px(ROW - 6.0)) {}
                    text.value x=(px(BARS + length.max(1.0) + 6.0)) y=(px(y + ROW / 2.0)) dominant-baseline="middle" {
                        (compact(*count))
                    }
                }
            }
        }
    }
}

/// A coordinate, to a tenth.
pub(super) fn px(value: f64) -> String {
    format!("{value:.1}")
}

/// The next of 1, 2, 5, 10, 20 and so on.
fn round_up(count: u64) -> u64 {
    let mut unit = 1_u64;
    loop {
        for step in [1, 2, 5] {
            let rounded = unit.saturating_mul(step);
            if rounded >= count {
                return rounded;
            }
        }
        unit = unit.saturating_mul(10);
    }
}

/// `1 250 000`, with narrow spaces.
pub(super) fn grouped(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        _ => format!("{}\u{202F}{:03}", grouped(count / 1_000), count % 1_000),
    }
}

/// `1 250`, and `12k` from ten thousand on.
fn compact(count: u64) -> String {
    match count {
        0..10_000 => grouped(count),
        10_000..1_000_000 => format!("{}k", count / 1_000),
        _ => format!("{:.1}M", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_ends_at_a_round_number_that_nothing_exceeds() {
        let counts = [0, 1, 2, 3, 5, 6, 11, 49, 51, 1_001];
        assert_eq!(counts.map(round_up), [1, 1, 2, 5, 5, 10, 20, 50, 100, 2_000]);
        assert_eq!(round_up(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_count_is_short_enough_to_stand_beside_a_bar() {
        let counts = [0, 999, 1_000, 9_999, 10_000, 999_999, 1_250_000];
        let expected = ["0", "999", "1\u{202F}000", "9\u{202F}999", "10k", "999k", "1.2M"];
        assert_eq!(counts.map(compact), expected);
        assert_eq!(grouped(1_250_007), "1\u{202F}250\u{202F}007");
    }
}
