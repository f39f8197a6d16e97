//! `brokerd top` in a real terminal, which tmux is, and without one.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[path = "top/pane.rs"]
mod pane;

use broker_protocol::wire::Hello;
use broker_tests::{Daemon, Finished, Signal, World, agreed, hello, refused};
use pane::Pane;
use serde_json::Value;

/// What a terminal would carry out: it clears the screen, changes the colour by a C1 sequence, sets a title.
const HOSTILE: &str = "1.0.0\u{1b}[2J\u{9b}31m\u{1b}]2;planted\u{7}\u{202e}";

fn world() -> (World, Daemon) {
    let world = World::new();
    world.define("cache", &["--allow-version", "1.0.0"]);
    let broker = world.serve(&WATCHED);
    (world, broker)
}

/// One Hello that is agreed to, and one that is not.
/// A broker that answers however often it is asked: Hellos are said until they are seen.
const WATCHED: [&str; 6] =
    ["--instance", "inst:test", "--hello-burst", "1000000", "--hello-refill", "1000000"];

fn say_hellos(world: &World) {
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    refused(world.connect().say(&hello("cache", "2.0.0")));
}

fn top(world: &World, options: &[&str]) -> Finished {
    let socket = world.socket();
    world.run(&[&["top", "--socket", socket.to_str().unwrap()], options].concat())
}

/// Whether a frame has a rate after this word that is more than nothing.
fn has_rate(frame: &str, word: &str) -> bool {
    frame.lines().any(|line| {
        let rate = line.split_once(word).and_then(|(_, rest)| rest.trim_start().split_once("/s"));
        let rate = rate.map_or(0.0, |(rate, _)| rate.parse().unwrap());
        assert!(rate >= 0.0, "{frame}");
        rate > 0.0
    })
}

#[test]
fn a_terminal_shows_what_happens_in_whatever_size_it_has() {
    if !pane::has_tmux() {
        return;
    }
    let (world, broker) = world();
    let pane = Pane::top(&world, &["--interval", "1"]);
    pane.wait_for("inst:test");
    // A rate is that of the last second.
    let frame = pane.wait_while(
        || say_hellos(&world),
        |frame| {
            has_rate(frame, "negotiated ")
                && has_rate(frame, "refused ")
                && frame.contains("p99 ≤ ")
                && frame.contains("version_blocked")
        },
    );
    for shown in ["accepting", &format!("pid {}", broker.pid()), "cache", "1.0.0", "running", "p50 ≤ "] {
        assert!(frame.contains(shown), "no {shown:?} in\n{frame}");
    }
    // Its reason comes with the next dump.
    pane.wait_until(|frame| {
        let refusals = frame.lines().skip_while(|line| !line.contains("Last refusals"));
        refusals.clone().any(|line| line.contains("2.0.0"))
    });
    pane.wait_for("SPAWN_ATTEMPT");
    for (width, height) in [(60, 20), (40, 10), (120, 40)] {
        pane.resize(width, height);
        let frame = pane.wait_until(|frame| {
            let is_full =
                frame.lines().count() == height && frame.contains("q quit") && frame.contains("Backends (1)");
            is_full
                && (frame.contains("Events (") == (width == 120))
                && (frame.contains("PID") == (width > 40))
        });
        assert!(frame.lines().all(|line| line.chars().count() <= width), "{frame}");
    }
    pane.press("?");
    pane.wait_for("q, Esc, ctrl-c");
    pane.press("?");
    pane.press("p");
    pane.wait_for("PAUSED");
    pane.press("p");
    pane.wait_until(|frame| !frame.contains("PAUSED"));
    pane.press("q");
    pane.is_given_back(0);
}

#[test]
fn a_broker_that_is_gone_is_said_to_be_so_and_shown_again_when_another_one_is_there() {
    if !pane::has_tmux() {
        return;
    }
    let (world, mut broker) = world();
    say_hellos(&world);
    say_hellos(&world);
    let pane = Pane::top(&world, &["--interval", "1"]);
    pane.wait_until(|frame| frame.contains(&format!("pid {}", broker.pid())) && frame.contains("running"));
    broker.kill();
    broker.wait();
    let frame = pane.wait_for("no broker since");
    assert!(frame.contains("inst:test") && frame.contains("cache"), "the last picture stays:\n{frame}");
    let broker = world.serve(&WATCHED);
    let new = format!("pid {}", broker.pid());
    pane.wait_until(|frame| frame.contains(&new) && !frame.contains("no broker"));
    // No rate on the way is less than nothing: each frame is looked through.
    pane.wait_while(|| say_hellos(&world), |frame| has_rate(frame, "negotiated "));
    pane.press("Escape");
    pane.is_given_back(0);
}

#[test]
fn a_broker_that_goes_on_as_another_program_is_watched_on() {
    if !pane::has_tmux() {
        return;
    }
    let (world, broker) = world();
    say_hellos(&world);
    let pane = Pane::top(&world, &["--interval", "1"]);
    pane.wait_for(&format!("pid {}", broker.pid()));
    let upgraded = world.run(&["upgrade", "--socket", world.socket().to_str().unwrap()]);
    assert!(upgraded.is_success(), "{upgraded:?}");
    pane.wait_for("REPLACED_BY_NEWER");
    pane.wait_while(|| say_hellos(&world), |frame| has_rate(frame, "negotiated "));
    pane.press("C-c");
    pane.is_given_back(0);
}

#[test]
fn a_request_to_end_gives_the_terminal_back_also_where_there_is_no_broker() {
    if !pane::has_tmux() {
        return;
    }
    let world = World::new();
    let pane = Pane::top(&world, &[]);
    pane.wait_for("no broker since");
    pane.signal(Signal::TERM);
    pane.is_given_back(0);
}

#[test]
fn what_a_client_wrote_is_shown_and_not_carried_out() {
    let (world, _broker) = world();
    refused(world.connect().say(&Hello { wanted_version: HOSTILE.into(), ..hello("cache", "1.0.0") }));
    refused(world.connect().say(&Hello { service_name: HOSTILE.into(), ..hello("cache", "1.0.0") }));
    for options in [&["--once", "--interval", "1"][..], &["--once", "--interval", "1", "--json"]] {
        let printed = top(&world, options);
        assert!(printed.is_success(), "{printed:?}");
        assert!(printed.stdout.contains("planted"), "{printed:?}");
        let is_hidden = |char: char| char.is_control() && char != '\n' || char == '\u{202e}';
        assert!(!printed.stdout.chars().any(is_hidden), "{printed:?}");
    }
    if !pane::has_tmux() {
        return;
    }
    let pane = Pane::top(&world, &["--interval", "1"]);
    let frame = pane.wait_until(|frame| frame.contains("inst:test") && frame.contains("[2J"));
    assert!(frame.contains("Backends (0)"), "it was not cleared:\n{frame}");
    assert!(!pane.title().contains("planted"));
    pane.press("q");
    pane.is_given_back(0);
}

#[test]
fn no_color_is_honoured() {
    if !pane::has_tmux() {
        return;
    }
    let has_colour = |frame: &str| frame.contains("\u{1b}[38;5;");
    for (no_color, is_coloured) in [("", true), ("1", false)] {
        let (world, _broker) = world();
        let pane = Pane::with(&world, ["NO_COLOR", no_color], &["--interval", "1"]);
        pane.wait_for("accepting");
        let frame = pane.coloured();
        assert_eq!(has_colour(&frame), is_coloured, "{frame:?}");
    }
}

#[test]
fn where_a_screen_cannot_be_drawn_the_error_says_what_can() {
    let (world, _broker) = world();
    let failed = top(&world, &[]);
    assert_eq!(failed.code(), 2);
    assert!(failed.stderr.contains("terminal") && failed.stderr.contains("--once"), "{failed:?}");
    let failed = top(&world, &["--json"]);
    assert_eq!(failed.code(), 2);
    assert!(failed.stderr.contains("--once"), "{failed:?}");
    assert_eq!(top(&world, &["--interval", "0"]).code(), 2);
    if !pane::has_tmux() {
        return;
    }
    let pane = Pane::with(&world, ["TERM", "dumb"], &[]);
    pane.wait_for("--once");
    pane.is_given_back(2);
}

#[test]
fn one_frame_is_printed_as_text_or_as_json() {
    let (world, broker) = world();
    say_hellos(&world);
    let text = top(&world, &["--once", "--interval", "1"]);
    assert!(text.is_success(), "{text:?}");
    for shown in [
        "inst:test",
        "accepting",
        "negotiated 0.0/s",
        "5 min  p50 ≤ ",
        "running",
        "version_blocked",
        "2.0.0",
        "SPAWN",
    ] {
        assert!(text.stdout.contains(shown), "no {shown:?} in\n{}", text.stdout);
    }
    let printed = top(&world, &["--once", "--interval", "1", "--json"]);
    let frame: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!((&frame["schema_version"], &frame["command"]), (&1.into(), &"top".into()));
    assert!(frame["generated_at_unix_ms"].as_u64().unwrap() > 0);
    assert_eq!(frame["broker"]["pid"], broker.pid());
    assert_eq!(frame["broker"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(frame["rates"]["refused_per_second"], 0.0);
    assert!(frame["rates"]["seconds"].as_f64().unwrap() >= 1.0, "{frame}");
    assert_eq!(frame["latency_now"], Value::Null);
    assert_eq!(frame["latency_last_minutes"]["hellos"], 2);
    assert_eq!(frame["backends"][0]["state"], "running");
    let row = serde_json::json!({ "reason": "version_blocked", "since_start": 1, "last_hour": 1 });
    assert_eq!(frame["refusals"], Value::from(vec![row]));
    assert_eq!(frame["last_refused"][0]["service_name"], "cache");
    let minutes = frame["hellos_per_minute"].as_array().unwrap();
    assert_eq!((minutes.len(), minutes.iter().filter_map(Value::as_u64).sum::<u64>()), (60, 2));
}

#[test]
fn one_frame_of_no_broker_is_an_error_that_says_what_to_do() {
    let world = World::new();
    let failed = top(&world, &["--once"]);
    assert_eq!(failed.code(), 1);
    assert!(failed.stderr.contains(world.socket().to_str().unwrap()), "{failed:?}");
    assert!(failed.stderr.contains("brokerd serve"), "{failed:?}");
}
