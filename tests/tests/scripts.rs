//! What a script may rely on: JSON with stable keys, exit codes, data on standard output and nothing else there.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::collections::BTreeSet;
use std::io::BufReader;
use std::process::Stdio;

use broker_tests::{Finished, World, agreed, hello};
use serde_json::Value;

/// The keys that every answer begins with.
const HEAD: [&str; 3] = ["schema_version", "command", "generated_at_unix_ms"];

/// A command, the keys of its JSON beside the head, and its exit code.
struct Row {
    words: &'static str,
    /// Whether it goes to the broker of the test.
    asks: bool,
    code: i32,
    keys: &'static [&'static str],
}

const fn asks(words: &'static str, code: i32, keys: &'static [&'static str]) -> Row {
    Row { words, asks: true, code, keys }
}

const fn alone(words: &'static str, code: i32, keys: &'static [&'static str]) -> Row {
    Row { words, asks: false, code, keys }
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
const TEXT: &[&str] = &["ok", "content_type", "text"];

/// In this order; the last one ends the broker.
const TABLE: &[Row] = &[
    alone("service add cache --binary BACKEND", 0, DEFINITION),
    alone("service show cache", 0, DEFINITION),
    alone("service list", 0, &["services"]),
    alone("service validate", 0, &["services"]),
    asks("hello cache 1.0.0", 0, &["negotiated"]),
    asks("hello nothing 1.0.0", 1, &["refused"]),
    alone("service remove cache", 0, &["removed"]),
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
    alone("config check", 0, &["file", "found", "ok", "error", "problems"]),
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
    alone("completions bash", 0, &["shell", "script"]),
    alone("man", 0, &["page"]),
    alone("man --out PAGES", 0, &["files"]),
    alone(
        "demo",
        0,
        &["directory", "backend_pipe", "started_in_ms", "found_in_us", "answer", "handoffs", "refusals"],
    ),
    asks("shutdown", 0, TEXT),
];

/// What is not in the table: a daemon goes on after its answer, and has a test of its own; `help` is for people.
const NOT_TABLED: [&str; 2] = ["serve", "help"];

/// It takes a manifest, which only a broker with `--keep-backends` writes (`survival.rs`).
const SHOW: &str = "manifest show";

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
    let (archive, pages) = (world.path("archive.tar.gz"), world.path("pages"));
    let word = |word: &str| match word {
        "BACKEND" => backend.to_str().unwrap().to_owned(),
        "ARCHIVE" => archive.to_str().unwrap().to_owned(),
        "PAGES" => pages.to_str().unwrap().to_owned(),
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

/// What an answer says of itself: that it is one of this command, now, in this form.
fn assert_head(answer: &Value, command: &str, keys: &[&str]) {
    let expected: BTreeSet<&str> = HEAD.iter().chain(keys).copied().collect();
    let found: BTreeSet<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, expected, "{command}");
    assert_eq!((&answer["schema_version"], &answer["command"]), (&1.into(), &command.into()));
    assert!(answer["generated_at_unix_ms"].as_u64().unwrap() > 1_700_000_000_000, "{command}");
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
        let has_commands = ["service ", "manifest ", "config "].iter().any(|of| row.words.starts_with(of));
        assert_head(&answer, &first(row.words, 1 + usize::from(has_commands)).replace(' ', "-"), row.keys);
    }
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn a_broker_says_once_where_it_listens_when_it_does() {
    let world = World::new();
    world.define("cache", &[]);
    let socket = world.socket();
    let mut command = world.brokerd(&["serve", "--json", "--socket", socket.to_str().unwrap()]);
    let mut broker = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(broker.stdout.take().unwrap());
    let mut answers = serde_json::Deserializer::from_reader(&mut said).into_iter::<Value>();
    let answer = answers.next().unwrap().unwrap();
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    let keys = ["broker_instance", "broker_pid", "socket", "service_dir", "state_dir"];
    assert_head(&answer, "serve", &keys);
    assert_eq!(answer["socket"], socket.to_str().unwrap());
    assert_eq!((&answer["broker_instance"], &answer["broker_pid"]), (&"shared".into(), &broker.id().into()));
    // Nor does its successor say it again.
    for command in ["upgrade", "shutdown"] {
        let done = world.run(&[command, "--socket", socket.to_str().unwrap()]);
        assert!(done.is_success(), "{done:?}");
    }
    assert!(answers.next().is_none());
    assert!(broker.wait().unwrap().success());
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
        assert!(NOT_TABLED.contains(&&*name) || tabled.contains(&name), "{name}");
    }
    for group in ["service", "manifest", "config"] {
        for name in shown(&[group]) {
            let words = format!("{group} {name}");
            assert!(name == "help" || words == SHOW || tabled.contains(&words), "{words}");
        }
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
            assert_eq!(done.code(), *code, "{words}: {done:?}");
            assert_eq!(done.stdout, "", "{words}");
            assert!(done.stderr.starts_with("error: "), "{words}: {done:?}");
            assert!(!done.stderr.contains("panicked") && !done.stderr.contains("backtrace"), "{done:?}");
            assert!(done.stderr.contains(said), "{words}: {said}: {done:?}");
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

// A device that takes nothing.
#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_cannot_be_written_is_a_failure_and_told() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = world.serve(&[]);
    let socket = world.socket();
    let asks = ["--socket", socket.to_str().unwrap()];
    for words in [
        "dump",
        "metrics",
        "healthz",
        "config",
        "service list",
        "man",
        "completions bash",
        "hello cache 1.0.0",
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut arguments: Vec<&str> = words.split(' ').collect();
        if !["service", "man", "completions"].contains(&arguments[0]) {
            arguments.extend(asks);
        }
        let ended = world.brokerd(&arguments).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{words}: {said}");
        assert!(said.contains("cannot write to standard output: No space left on device"), "{words}: {said}");
    }
}

#[test]
fn a_hint_names_the_broker_that_was_asked_for() {
    let world = World::new();
    let socket = world.socket();
    let place = ["--socket", socket.to_str().unwrap()];
    for words in [&["status"][..], &["top", "--once"], &["hello", "cache", "1.0.0"]] {
        let failed = world.run(&[words, &place].concat());
        assert!(
            failed.stderr.contains(&format!("`brokerd serve --socket {}`", socket.display())),
            "{failed:?}"
        );
    }
    // What listens and does not speak is not mended by another broker.
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let failed = std::thread::scope(|scope| {
        scope.spawn(|| drop(listener.accept()));
        world.run(&["status", "--socket", socket.to_str().unwrap()])
    });
    assert!(failed.stderr.contains("`brokerd doctor --socket"), "{failed:?}");
    assert!(!failed.stderr.contains("serve"), "{failed:?}");
}

#[test]
fn brokers_are_listed_whether_or_not_the_shared_one_runs() {
    let world = World::new();
    let _broker = broker_tests::Daemon::start(&mut world.brokerd(&["serve", "--instance", "svc:cache"]));
    let listed = world.run(&["list-instances"]);
    assert!(listed.is_success(), "{listed:?}");
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_head(&listed, "list-instances", &["instances"]);
    assert_eq!(listed["instances"][0]["broker_instance"], "svc:cache");
    assert_eq!(listed["instances"][0]["state"], "running");
    assert_eq!(world.run(&["list-instances", "--instance", "inst:absent"]).code(), 1, "that one was named");
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
