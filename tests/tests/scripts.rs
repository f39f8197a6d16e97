//! What a script may rely on: JSON with stable keys, exit codes, data on standard output and nothing else there.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::collections::BTreeSet;
use std::process::Stdio;

use broker_tests::{Finished, World};
use serde_json::Value;

/// The keys that every answer begins with.
const HEAD: [&str; 3] = ["schema_version", "command", "generated_at_unix_ms"];

/// A command, the keys of its JSON beside the head, and its exit code.
struct Row {
    words: &'static str,
    /// Whether it goes to the broker of the test.
    asks: bool,
    code: i32,
    has_head: bool,
    keys: &'static [&'static str],
}

const fn asks(words: &'static str, code: i32, keys: &'static [&'static str]) -> Row {
    Row { words, asks: true, code, has_head: true, keys }
}

const fn alone(words: &'static str, code: i32, keys: &'static [&'static str]) -> Row {
    Row { words, asks: false, code, has_head: true, keys }
}

/// From before the head was everywhere.
const fn plain(words: &'static str, asks: bool, code: i32, keys: &'static [&'static str]) -> Row {
    Row { words, asks, code, has_head: false, keys }
}

const DEFINITION: &[&str] = &[
    "service_name",
    "binary_path",
    "broker_instance",
    "broker_endpoint",
    "per_version_binary_dir",
    "min_version",
    "version_allow_list",
    "labels",
    "warnings",
];
const STANDING: &[&str] = &["service_name", "valid", "broker_instance", "warnings"];
const TEXT: &[&str] = &["ok", "content_type", "text"];

/// In this order; the last one ends the broker.
const TABLE: &[Row] = &[
    plain("service add cache --binary BACKEND", false, 0, DEFINITION),
    plain("service show cache", false, 0, DEFINITION),
    plain("service list", false, 0, STANDING),
    plain("service validate", false, 0, STANDING),
    plain("hello cache 1.0.0", true, 0, &["negotiated"]),
    plain("hello nothing 1.0.0", true, 1, &["refused"]),
    plain("service remove cache", false, 0, &["removed"]),
    asks(
        "status",
        0,
        &[
            "broker_instance",
            "broker_pid",
            "uptime_seconds",
            "accepting_hello",
            "connections_open",
            "fd_pressure",
            "inode_pressure",
            "backends",
        ],
    ),
    alone("doctor", 0, &["checks", "summary"]),
    asks(
        "dump",
        0,
        &[
            "broker_instance",
            "broker_pid",
            "uptime_seconds",
            "accepting_hello",
            "connections_open",
            "fd_pressure",
            "inode_pressure",
            "backends",
            "effective_config",
            "backend_table",
            "spawn_budgets",
            "recent_lifecycle_events",
            "history",
        ],
    ),
    asks("list-instances", 0, &["instances"]),
    asks("healthz", 0, TEXT),
    asks("readyz", 0, TEXT),
    asks("metrics", 0, TEXT),
    asks("backend-health cache", 0, &["service_name", "backends"]),
    asks("release-handles cache", 0, &["service_name", "backends"]),
    asks("config", 0, &["values"]),
    asks("diagnose --output ARCHIVE", 0, &["output", "bundle", "files", "redactions", "redaction_policy"]),
    asks(
        "top --once",
        0,
        &[
            "broker",
            "rates",
            "hellos_per_minute",
            "latency_now",
            "latency_last_minutes",
            "backends",
            "refusals",
            "last_refused",
            "events",
        ],
    ),
    alone("manifest list", 0, &["directory", "manifests"]),
    alone("manifest verify", 0, &["directory", "manifests"]),
    alone("manifest prune --dry-run", 0, &["directory", "manifests"]),
    asks("upgrade --binary /absent", 1, &["upgraded", "broker_pid", "detail"]),
    asks(
        "upgrade",
        0,
        &["upgraded", "broker_pid", "from_version", "to_version", "backends_kept", "connections_kept"],
    ),
    alone("install-units --dry-run", 0, &["dry_run", "files", "next"]),
    alone(
        "demo",
        0,
        &["directory", "backend_pipe", "started_in_ms", "found_in_us", "answer", "handoffs", "refusals"],
    ),
    asks("shutdown", 0, TEXT),
];

/// What prints no answer: a daemon's log has `--log json`, and a script or a page is what it is.
const NO_ANSWER: [&str; 4] = ["serve", "completions", "man", "help"];

/// Which fails, and how.
const FAILURES: &[(&str, i32, &str)] = &[
    ("service show nothing", 1, "nothing.servicedef"),
    ("service remove nothing", 1, "nothing.servicedef"),
    ("service validate nothing", 1, "nothing.servicedef"),
    ("service add cache --binary /absent", 2, "no such file"),
    ("hello nothing 1.0.0", 1, "brokerd service add nothing"),
    ("status", 1, "is a broker running?"),
    ("shutdown", 1, "is a broker running?"),
    ("upgrade", 1, "is a broker running?"),
    ("release-handles cache", 1, "is a broker running?"),
    ("status --instance nobody", 2, "nobody"),
    ("status --color", 2, "--color"),
    ("frobnicate", 2, "frobnicate"),
    ("completions cobol", 2, "cobol"),
    ("man --out /dev/null/x", 1, "--out DIR"),
    ("serve --takeover 99", 1, "brokerd upgrade"),
];

fn arguments(world: &World, row: &Row) -> Vec<String> {
    let backend = World::program("echo-backend");
    let archive = world.path("archive.tar.gz");
    let word = |word: &str| match word {
        "BACKEND" => backend.to_str().unwrap().to_owned(),
        "ARCHIVE" => archive.to_str().unwrap().to_owned(),
        word => word.to_owned(),
    };
    let mut arguments: Vec<String> = row.words.split(' ').map(word).collect();
    if row.asks {
        arguments.extend(["--socket".to_owned(), world.socket().to_str().unwrap().to_owned()]);
    }
    arguments
}

fn run(world: &World, row: &Row, more: &[&str]) -> Finished {
    let arguments = arguments(world, row);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Finished::of(world.brokerd(&arguments).env("RUST_BACKTRACE", "1"))
}

/// The keys of an object, or of the objects of a list.
fn keys(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::Array(all) => all.iter().flat_map(keys).collect(),
        Value::Object(object) => object.keys().map(String::as_str).collect(),
        other => panic!("neither an object nor a list: {other}"),
    }
}

#[test]
fn every_command_has_json_with_its_keys_and_its_exit_code() {
    let world = World::new();
    std::fs::create_dir(world.path("xdg")).unwrap();
    let mut broker = world.serve(&[]);
    for row in TABLE {
        let done = run(&world, row, &["--json"]);
        assert_eq!(done.code(), row.code, "{}: {done:?}", row.words);
        assert_eq!(done.stderr, "", "{}", row.words);
        let answer: Value = serde_json::from_str(&done.stdout)
            .unwrap_or_else(|error| panic!("{}: {error}: {done:?}", row.words));
        let head = if row.has_head { &HEAD[..] } else { &[] };
        let expected: BTreeSet<&str> = head.iter().chain(row.keys).copied().collect();
        assert_eq!(keys(&answer), expected, "{}", row.words);
        if row.has_head {
            let command = row.words.split(' ').next().unwrap();
            assert_eq!((&answer["schema_version"], &answer["command"]), (&1.into(), &command.into()));
        }
    }
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn no_command_is_missing_from_the_table() {
    let world = World::new();
    let shown = |words: &[&str]| {
        let help = world.run(&[words, &["--help"]].concat());
        let commands =
            help.stdout.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
        let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let tabled: BTreeSet<String> =
        TABLE.iter().flat_map(|row| [1, 2].map(|count| first(row.words, count))).collect();
    for name in shown(&[]) {
        assert!(NO_ANSWER.contains(&&*name) || tabled.contains(&name), "{name}");
    }
    for name in shown(&["service"]) {
        assert!(name == "help" || tabled.contains(&format!("service {name}")), "service {name}");
    }
}

fn first(words: &str, count: usize) -> String {
    words.split(' ').take(count).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_failure_is_told_to_a_person_with_an_exit_code_and_no_trace() {
    let world = World::new();
    for (words, code, said) in FAILURES {
        for more in [&[][..], &["--json"]] {
            let arguments: Vec<&str> = words.split(' ').chain(more.iter().copied()).collect();
            let done = Finished::of(world.brokerd(&arguments).env("RUST_BACKTRACE", "1"));
            // Some have no --json, which is a wrong command line.
            let has_json = !NO_ANSWER.contains(&arguments[0]) || more.is_empty();
            assert_eq!(done.code(), if has_json { *code } else { 2 }, "{words}: {done:?}");
            assert_eq!(done.stdout, "", "{words}");
            assert!(done.stderr.starts_with("error: "), "{words}: {done:?}");
            assert!(!done.stderr.contains("panicked") && !done.stderr.contains("backtrace"), "{done:?}");
            assert!(!has_json || done.stderr.contains(said), "{words}: {said}: {done:?}");
        }
    }
}

#[test]
fn who_stops_reading_changes_no_exit_code() {
    let world = World::new();
    std::fs::create_dir(world.path("xdg")).unwrap();
    world.define("cache", &["--label", "spawn.colour=red"]);
    let mut broker = world.serve(&[]);
    let deaf = || Stdio::from(std::io::pipe().unwrap().1);
    for row in TABLE.iter().filter(|row| row.words != "shutdown") {
        // What changes something is done more than once here.
        let is_once_only = row.words == "service remove cache" || row.words.starts_with("diagnose");
        let code = (!is_once_only).then_some(row.code);
        let (arguments, mut ends) = (arguments(&world, row), Vec::new());
        for json in [&[][..], &["--json"]] {
            let words: Vec<&str> = arguments.iter().map(String::as_str).chain(json.iter().copied()).collect();
            let mut command = world.brokerd(&words);
            let child = command.stdout(deaf()).stderr(Stdio::piped()).spawn().unwrap();
            let ended = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(!said.contains("panicked"), "{}: {said}", row.words);
            ends.push(ended.status.code());
            ends.push(world.brokerd(&words).stdout(deaf()).stderr(deaf()).status().unwrap().code());
        }
        for end in ends {
            assert!(end == code || (code.is_none() && matches!(end, Some(0 | 1))), "{}: {end:?}", row.words);
        }
    }
    let done = world.run(&["shutdown", "--socket", world.socket().to_str().unwrap()]);
    assert!(done.is_success(), "{done:?}");
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn nothing_is_coloured_where_nobody_wants_that() {
    let world = World::new();
    let terminal = |command: &str, no_color: &str| {
        let mut script = world.command("script".as_ref());
        let program = World::program("brokerd");
        script.args(["-qec", &format!("'{}' {command}", program.display()), "/dev/null"]);
        Finished::of(script.env("TERM", "xterm").env("NO_COLOR", no_color)).stdout
    };
    for command in ["--help", "frobnicate", "doctor"] {
        assert!(terminal(command, "").contains('\x1b'), "{command}: it is a terminal");
        assert!(!terminal(command, "1").contains('\x1b'), "{command}");
        assert!(!world.run(&[command]).stdout.contains('\x1b'), "{command}");
    }
}
