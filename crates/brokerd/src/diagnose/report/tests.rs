//! The page as text. Whether a browser shows it is for `tests/tests/report.rs`.

use serde_json::{Value, json};

use super::*;
use crate::redact::Redactor;

const PLANTED: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;";

fn page_of(dump: Value, log: Option<Vec<Value>>) -> String {
    let redactor = Redactor::of_this_user();
    let log = log.map(|log| log.into_iter().map(|row| redactor.json(row)).collect::<Vec<_>>());
    page(&redactor.json(dump), log.as_deref(), UnixMillis::new(1_769_860_800_250)).as_str().to_owned()
}

/// A dump with the same text wherever a text can be.
fn dump_of(text: &str) -> Value {
    json!({
        "broker_instance": text,
        "accepting_hello": false,
        "backend_table": [{
            "service_name": text, "service_version": text, "state": text, "handoff": text,
            "backend_pipe": text, "last_error": text, "pid": 7, "last_active_unix_ms": 1_769_860_000_000_u64,
        }],
        "effective_config": {"values": {text: {text: {"value": text, "source": text}}}},
        "recent_lifecycle_events": [event(text, 1_769_860_000_000)],
        "history": {
            "latency_bounds_us": [10, 1_000],
            "minutes": [{
                "minutes_ago": 0, "began_unix_ms": 1_769_860_000_000_u64, "accepted": 3, "refused": {text: 2},
                "latency_counts": [1, 3, 1],
            }],
        },
    })
}

fn event(text: &str, ts_ms: u64) -> Value {
    json!({
        "ts_ms": ts_ms, "kind": text, "pid": 7, "service_name": text, "reason": text, "severity": text,
        "broker_instance": text, "extra": {text: text},
    })
}

#[test]
fn whatever_a_text_says_it_is_shown_and_not_understood() {
    let page = page_of(dump_of(PLANTED), Some(vec![event(PLANTED, 1), event(PLANTED, 2)]));
    assert!(page.contains("&lt;script&gt;"));
    for markup in ["<script", "<img", "onerror=alert(1)>", "\"'>"] {
        assert!(!page.contains(markup), "{markup} is in\n{page}");
    }
}

#[test]
fn nothing_is_loaded_from_anywhere() {
    let page = page_of(dump_of("x"), None);
    for way in ["http:", "https:", "src=", "href=", "url(", "@import", "<link", "<script"] {
        assert!(!page.contains(way), "{way}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn a_broker_that_nobody_asked_has_a_report_too() {
    for dump in [json!({}), json!({"effective_config": {}, "history": {"latency_bounds_us": [1]}})] {
        let page = page_of(dump, None);
        assert!(page.contains("There were none.") && page.contains("None is known."), "{page}");
        assert!(!page.contains("NaN") && !page.contains("\"inf"));
    }
}

#[test]
fn what_cannot_be_read_is_said() {
    let page = page_of(json!({"broker_pid": "seven"}), None);
    assert!(page.contains("could not be read") && page.ends_with("</html>"), "{page}");
}

#[test]
fn of_more_events_than_it_shows_it_has_the_last_ones_and_says_so() {
    let log = (0..EVENTS as u64 + 1).map(|at| event(&format!("event-{at}-"), at)).collect();
    let page = page_of(dump_of("x"), Some(log));
    assert!(page.contains("event-1-") && !page.contains("event-0-"));
    assert!(page.contains("The last 250 of 251"));
}

#[test]
fn the_hour_is_summed_up() {
    let page = page_of(dump_of("rate_limited"), None);
    for shown in [">5<", "\u{2264} 1 ms", "> 1 ms", "rate limited", "width:100.0%", "It is draining"] {
        assert!(page.contains(&shown.replace("> 1", "&gt; 1")), "{shown}");
    }
}
