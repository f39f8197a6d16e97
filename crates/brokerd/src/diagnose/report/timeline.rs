//! Events over time, one lane for each kind.

use maud::{Markup, html};

use super::charts::{WIDTH, px};
use super::model::Event;
use crate::diagnose::utc;

const LEFT: f64 = 8.0;
const RIGHT: f64 = 472.0;
/// Of a lane: its name, and its dots below that.
const LANE: f64 = 34.0;

/// The events, the oldest first.
pub(super) fn chart(events: &[Event]) -> Markup {
    let stamps = events.iter().map(|event| event.ts_ms);
    let (first, last) = (stamps.clone().min().unwrap_or(0), stamps.max().unwrap_or(0));
    let place = |event: &Event| {
        let share = (event.ts_ms - first) as f64 / (last - first).max(1) as f64;
        LEFT + share * (RIGHT - LEFT)
    };
    let mut kinds: Vec<_> = events.iter().map(Event::title).collect();
    kinds.sort();
    kinds.dedup();
    let height = LANE * kinds.len() as f64 + 26.0;
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (px(height)) } role="img" aria-labelledby="time-title time-desc" {
            title id="time-title" { "Events over time" }
            desc id="time-desc" {
                (events.len()) " events of " (kinds.len()) " kinds, from " (utc::text(first)) " to " (utc::text(last))
                ". The table below has each of them."
            }
            @for (lane, kind) in kinds.iter().enumerate() {
                @let of_kind: Vec<_> = events.iter().filter(|event| event.title() == *kind).collect();
                @let top = LANE * lane as f64;
                @let y = px(top + 24.0);
                text.label x=(px(LEFT)) y=(px(top + 13.0)) { (kind) }
                text.label x=(px(RIGHT)) y=(px(top + 13.0)) text-anchor="end" { (of_kind.len()) }
                line.grid x1=(px(LEFT)) x2=(px(RIGHT)) y1=(y) y2=(y) {}
                @for event in of_kind {
                    circle class=(event.class()) cx=(px(place(event))) cy=(y) r="4" {
                        title { (utc::text(event.ts_ms)) " " (event.service_name) " " (event.reason) }
                    }
                }
            }
            text.label x=(px(LEFT)) y=(px(height - 6.0)) { (short(first)) }
            text.label x=(px(RIGHT)) y=(px(height - 6.0)) text-anchor="end" { (short(last)) }
        }
    }
}

pub(super) fn legend() -> Markup {
    html! {
        p.legend { span.key.info { "information" } span.key.warn { "warning" } span.key.error { "error" } }
    }
}

/// `2026-01-31 12:00:00`.
fn short(unix_ms: u64) -> String {
    utc::text(unix_ms).get(..19).unwrap_or_default().replace('T', " ")
}
