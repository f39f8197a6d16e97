//! Frames of several sizes, drawn into memory.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::*;
use crate::top::counters::Counters;
use crate::top::input::Wish;
use crate::top::plain::Plain;
use crate::top::sample::Sample;

const HOSTILE: &str = "\u{1b}[2J\u{9b}31mno";

fn metrics(uptime: u32, negotiated: u32, refused: u32) -> Counters {
    Counters::parse(&format!(
        "running_process_broker_v1_uptime_seconds {uptime}\n\
        running_process_broker_v1_fd_usage_ratio 0.031\n\
        running_process_broker_v1_hello_total{{service=\"cache\",version=\"1.0.0\",outcome=\"negotiated\"}} {negotiated}\n\
        running_process_broker_v1_hello_total{{service=\"cache\",version=\"other\",outcome=\"version_blocked\"}} {refused}\n\
        running_process_broker_v1_hello_duration_seconds_bucket{{le=\"0.00005\",service=\"cache\"}} {negotiated}\n\
        running_process_broker_v1_hello_duration_seconds_count{{service=\"cache\"}} {negotiated}\n"
    ))
}

/// An app with a broker that has done something.
fn app() -> App {
    let mut app = App::new(Plain::of("/run/s.sock"), Duration::from_secs(2));
    let state = serde_json::json!({
        "generated_at_unix_ms": 1_769_860_800_250_u64, "broker_instance": "inst:test", "broker_pid": 4711,
        "accepting_hello": true, "connections_open": 3,
        "backends": (1..=30).map(|number| serde_json::json!({
            "service_name": "cache", "service_version": format!("1.0.{number}"), "pid": number, "state": "running",
            "last_active_unix_ms": 1_769_860_790_250_u64,
        })).collect::<Vec<_>>(),
    });
    let details = serde_json::json!({
        "recent_lifecycle_events": [
            { "ts_ms": 1_769_860_799_000_u64, "kind": "SPAWN", "service_name": "cache", "reason": "asked for" },
            { "ts_ms": 1_769_860_800_000_u64, "kind": "HELLO_REFUSED", "service_name": HOSTILE, "reason": HOSTILE },
        ],
        "history": { "minutes": [{ "minutes_ago": 3, "accepted": 123, "refused": {}, "latency_counts": [] }] },
    });
    for (uptime, negotiated, details) in [(100, 10, Some(details)), (102, 35, None)] {
        app.take(Sample {
            counters: metrics(uptime, negotiated, 5),
            state: serde_json::from_value(state.clone()).unwrap(),
            details: details.map(|details| serde_json::from_value(details).unwrap()),
        });
    }
    app
}

fn terminal(app: &App, width: u16, height: u16, palette: Palette) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app, palette)).unwrap();
    terminal
}

fn frame(app: &App, width: u16, height: u16) -> String {
    terminal(app, width, height, Palette::Coloured).backend().to_string()
}

#[track_caller]
fn shows(frame: &str, texts: &[&str]) {
    for text in texts {
        assert!(frame.contains(text), "no {text:?} in\n{frame}");
    }
}

#[test]
fn a_large_terminal_shows_everything() {
    let frame = frame(&app(), 120, 40);
    shows(
        &frame,
        &[
            "inst:test  accepting  pid 4711  up 1m 42s",
            "connections 3  descriptors 3%  12:00:00 UTC  every 2s",
            "negotiated 12.5/s  refused 0.0/s",
            "p50 ≤ 50µs  p90 ≤ 50µs  p99 ≤ 50µs",
            "upper bounds",
            "Hellos/min, most 123",
            "█",
            "Backends (30)",
            "SVC HANDOFFS",
            "1.0.1 ",
            "Refusals by reason (1)",
            "version_blocked",
            "Last refusals (1)",
            "Events (1)",
            "11:59:59 SPAWN",
            "q quit",
        ],
    );
}

#[test]
fn smaller_terminals_show_less_of_it() {
    let app = app();
    let middle = frame(&app, 60, 20);
    shows(&middle, &["inst:test", "12.5/s", "Backends (30)", "Refusals by reason", "PID", "q quit"]);
    assert!(!middle.contains("SVC HANDOFFS") && !middle.contains("Events ("), "{middle}");
    let small = frame(&app, 40, 10);
    shows(
        &small,
        &[
            "inst:test  accepting",
            "12.5/s",
            "p50 ≤ 50µs  p90 ≤ 50µs",
            "Backends (30)",
            "LAST HELLO",
            "1.0.4",
            "q quit",
        ],
    );
    assert!(!small.contains("Refusals"), "{small}");
}

#[test]
fn the_table_that_scrolls_is_always_there() {
    let mut app = app();
    for title in ["Backends (", "Refusals by", "Last refusals (", "Events ("] {
        shows(&frame(&app, 40, 10), &[title]);
        shows(&frame(&app, 60, 20), &[title]);
        shows(&frame(&app, 110, 20), &[title]);
        app.apply(Wish::NextTable);
    }
    app.apply(Wish::PageDown);
    let scrolled = frame(&app, 40, 10);
    shows(&scrolled, &["Backends (30, from 11)", "1.0.11"]);
    assert!(!scrolled.contains("1.0.10 "), "{scrolled}");
}

#[test]
fn no_size_is_too_small_to_be_drawn_into() {
    let mut app = app();
    for help in [false, true] {
        app.shows_help = help;
        for (width, height) in
            [1, 9, 40, 100].into_iter().flat_map(|width| (1..=12).map(move |height| (width, height)))
        {
            frame(&app, width, height);
        }
    }
}

#[test]
fn what_clients_wrote_does_not_reach_the_terminal() {
    for (width, height) in [(120, 40), (60, 40)] {
        let frame = frame(&app(), width, height);
        shows(&frame, &["\u{FFFD}[2J\u{FFFD}31mno"]);
        assert!(!frame.chars().any(|char| char.is_control() && char != '\n'), "{frame:?}");
    }
}

#[test]
fn a_broker_that_is_gone_is_said_to_be_so_over_its_last_picture() {
    let mut app = app();
    app.lose(Plain::of("nobody listens"), 1_769_860_800_000);
    for (width, height) in [(120, 40), (60, 20), (40, 10)] {
        shows(&frame(&app, width, height), &["inst:test", "no broker since 12:00:00", "Backends (30)"]);
    }
}

#[test]
fn a_broker_that_was_never_there_is_asked_for_at_its_place() {
    let app = App::new(Plain::of("/run/s.sock"), Duration::from_secs(2));
    shows(&frame(&app, 40, 10), &["brokerd top", "asking /run/s.sock", "Backends (0)"]);
}

#[test]
fn a_pause_and_the_help_are_shown_in_every_size() {
    let mut app = app();
    app.apply(Wish::Pause);
    for (width, height) in [(120, 40), (60, 20), (40, 10)] {
        shows(&frame(&app, width, height), &["PAUSED"]);
    }
    app.apply(Wish::Help);
    shows(&frame(&app, 80, 24), &["q, Esc, ctrl-c", "quit", "upper bounds"]);
    shows(&frame(&app, 40, 10), &["q, Esc, ctrl-c"]);
}

#[test]
fn without_colours_nothing_is_coloured() {
    let mut app = app();
    app.lose(Plain::of("nobody listens"), 0);
    let has_colour = |palette| {
        let terminal = terminal(&app, 120, 40, palette);
        terminal
            .backend()
            .buffer()
            .content
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(has_colour(Palette::Coloured));
    assert!(!has_colour(Palette::Plain));
    let wanted = |value: Option<&str>| Palette::of(value.map(std::ffi::OsStr::new));
    assert_eq!(
        [wanted(None), wanted(Some("")), wanted(Some("1"))],
        [Palette::Coloured, Palette::Coloured, Palette::Plain]
    );
}

#[test]
fn what_one_table_does_not_need_goes_to_the_others() {
    assert_eq!(shares(vec![4, 30, 3], 30), [4, 23, 3]);
    assert_eq!(shares(vec![40, 3, 50], 31), [14, 3, 14]);
    assert_eq!(shares(vec![2, 2], 10), [2, 8], "and to the last one what nobody needs");
    assert_eq!(shares(vec![9, 9], 1), [0, 1]);
    assert!(shares(Vec::new(), 5).is_empty());
}
