//! The command line, as a person or a script meets it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use broker_tests::{World, agreed, hello};
use serde_json::Value;

fn echo() -> String {
    World::program("echo-backend").to_str().unwrap().to_owned()
}

#[test]
fn a_service_is_added_listed_shown_validated_and_removed() {
    let world = World::new();
    let added = world.run(&[
        "service",
        "add",
        "cache",
        "--binary",
        &echo(),
        "--isolation",
        "instance:ci",
        "--min-version",
        "1.2.0",
        "--allow-version",
        "1.2.0",
        "--allow-version",
        "2.0.0",
        "--label",
        "idle.timeout_secs=60",
    ]);
    assert_eq!(added.code(), 0, "{added:?}");
    assert!(
        added.stdout.contains("cache.servicedef") && added.stdout.contains("inst:ci"),
        "{}",
        added.stdout
    );

    let shown: Value =
        serde_json::from_str(&world.run(&["service", "show", "cache", "--json"]).stdout).unwrap();
    assert_eq!(shown["binary_path"], echo());
    assert_eq!(shown["version_allow_list"], serde_json::json!(["1.2.0", "2.0.0"]));
    assert_eq!(shown["labels"]["idle.timeout_secs"], "60");

    let listed: Value = serde_json::from_str(&world.run(&["service", "list", "--json"]).stdout).unwrap();
    assert_eq!(
        (&listed["services"][0]["service_name"], &listed["services"][0]["valid"]),
        (&Value::from("cache"), &Value::from(true))
    );
    assert_eq!(world.run(&["service", "validate"]).code(), 0);
    assert_eq!(world.run(&["service", "remove", "cache"]).code(), 0);
    let missing = world.run(&["service", "remove", "cache"]);
    assert_eq!(missing.code(), 1);
    assert!(missing.stderr.contains("cache.servicedef"), "{}", missing.stderr);
}

#[test]
fn a_definition_that_cannot_work_is_not_written() {
    let world = World::new();
    let plain_file = world.path("plain");
    std::fs::write(&plain_file, "").unwrap();
    let plain = plain_file.to_str().unwrap();
    let (absent, directory) = (world.path("absent"), world.path(""));
    let cases: [(&[&str], &str); 6] = [
        (&["--binary", absent.to_str().unwrap()], "no such file"),
        (&["--binary", plain], "not executable"),
        (&["--binary", directory.to_str().unwrap()], "not a regular file"),
        (&["--binary", &echo(), "--label", "spawn.timeout_ms=soon"], "milliseconds from 1 to 3600000"),
        (&["--binary", &echo(), "--min-version", "1.2"], "1.2"),
        (&["--binary", &echo(), "--isolation", "own"], "private, shared or instance:NAME"),
    ];
    for (options, said) in cases {
        let failed = world.run(&[&["service", "add", "cache"], options].concat());
        assert_eq!(failed.code(), 2, "{failed:?}");
        assert!(failed.stderr.contains(said), "{said}: {}", failed.stderr);
        assert_eq!(failed.stdout, "");
    }
    assert!(!world.definitions().join("cache.servicedef").exists());
    let listed: Value = serde_json::from_str(&world.run(&["service", "list", "--json"]).stdout).unwrap();
    assert_eq!(listed["services"], serde_json::json!([]));
}

#[test]
fn a_definition_that_is_broken_fails_validation_with_its_rule() {
    let world = World::new();
    world.define("good", &[]);
    let dir = world.definitions();
    std::fs::copy(dir.join("good.servicedef"), dir.join("renamed.servicedef")).unwrap();
    let failed = world.run(&["service", "validate", "--json"]);
    assert_eq!(failed.code(), 1);
    let standings: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!(
        (&standings["services"][1]["valid"], &standings["services"][1]["rule"]),
        (&Value::from(false), &Value::from("file-stem"))
    );
    assert_eq!(world.run(&["service", "validate", "good"]).code(), 0);
}

#[test]
fn hello_prints_where_the_backend_listens_and_refusals_with_advice() {
    let world = World::new();
    world.define("cache", &["--isolation", "shared"]);
    let _broker = broker_tests::Daemon::start(&mut world.brokerd(&["serve"]));
    // Without a socket, the definition says which broker is meant.
    let said = world.run(&["hello", "cache", "1.0.0", "--json"]);
    assert_eq!(said.code(), 0, "{said:?}");
    let answer: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(answer["negotiated"]["daemon_version"], "1.0.0");
    let pipe = answer["negotiated"]["backend_pipe"].as_str().unwrap();
    assert_eq!(broker_tests::Wire::connect(pipe.as_ref()).tell("x"), "x");
    let people = world.run(&["hello", "cache", "1.0.0"]);
    assert!(people.stdout.contains(pipe), "{}", people.stdout);

    world.define("cache", &["--isolation", "shared", "--min-version", "2.0.0"]);
    let refused = world.run(&["hello", "cache", "1.0.0", "--json"]);
    assert_eq!(refused.code(), 1);
    let answer: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(answer["refused"]["code"], "ERROR_VERSION_BLOCKED");
    assert_eq!(answer["refused"]["details"]["min_version"], "2.0.0");
    let people = world.run(&["hello", "cache", "1.0.0"]);
    assert_eq!((people.code(), &people.stdout[..]), (1, ""));
    assert!(people.stderr.contains("2.0.0"), "{}", people.stderr);

    world.define("alone", &[]);
    let nobody = world.run(&["hello", "alone", "1.0.0"]);
    assert_eq!(nobody.code(), 1);
    assert!(nobody.stderr.contains("`brokerd serve --instance svc:alone`"), "{}", nobody.stderr);

    let undefined = world.run(&["hello", "nothing", "1.0.0"]);
    assert_eq!(undefined.code(), 1);
    assert!(undefined.stderr.contains("brokerd service add nothing"), "{}", undefined.stderr);
}

#[test]
fn the_demo_shows_a_whole_round_and_leaves_nothing_behind() {
    let world = World::new();
    let mut command = world.brokerd(&["demo"]);
    command.env_remove("RUNNING_PROCESS_BROKER_ALLOW_PRIVILEGED");
    let shown = broker_tests::Finished::of(&mut command);
    assert_eq!(shown.code(), 0, "{shown:?}");
    for said in ["Negotiated", "Refused", "SERVICE_UNKNOWN", "drained"] {
        assert!(shown.stdout.contains(said), "{said}: {}", shown.stdout);
    }
    let dir = shown.stdout.lines().find_map(|line| line.strip_prefix("A private directory: ")).unwrap();
    assert!(!std::path::Path::new(dir).exists(), "{dir} was left behind");
}

#[test]
fn the_demo_says_at_once_when_clients_are_kept_from_brokers() {
    let world = World::new();
    for (value, code, said) in [("1", 1, "env -u RUNNING_PROCESS_DISABLE"), ("no", 2, "\"no\"")] {
        let shown =
            broker_tests::Finished::of(world.brokerd(&["demo"]).env("RUNNING_PROCESS_DISABLE", value));
        assert_eq!((shown.code(), shown.stdout.as_str()), (code, ""), "{shown:?}");
        assert!(shown.stderr.contains(said), "{shown:?}");
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let world = World::new();
    for arguments in [
        &["serve", "--instance", "mine"][..],
        &["serve", "--backend", "service=a"],
        &["serve", "--hello-timeout-ms", "0"],
        &["hello", "Cache", "1.0.0"],
        &["hello", "cache", "1"],
        &["frobnicate"],
    ] {
        assert_eq!(world.run(arguments).code(), 2, "{arguments:?}");
    }
    for (variable, value, arguments) in [
        ("RUNNING_PROCESS_BROKER_CLIENT_TIMEOUT_MS", "soon", &["status"][..]),
        ("RUNNING_PROCESS_SERVICE_DEF_DIR", "relative", &["hello", "cache", "1.0.0"]),
    ] {
        let failed = broker_tests::Finished::of(world.brokerd(arguments).env(variable, value));
        assert_eq!(failed.code(), 2, "{failed:?}");
        assert!(failed.stderr.contains(variable) && failed.stderr.contains(value), "{}", failed.stderr);
    }
    assert_eq!(world.run(&["--version"]).code(), 0);
    assert_eq!(world.run(&["serve", "--help"]).code(), 0);
}

#[test]
fn an_empty_variable_is_taken_for_one_that_is_not_set() {
    let world = World::new();
    world.define("cache", &[]);
    let without = |command: &mut std::process::Command| {
        command.env("RUNNING_PROCESS_SERVICE_DEF_DIR", "").env("RUNNING_PROCESS_BROKER_HELLO_TIMEOUT_MS", "");
    };
    let mut list = world.brokerd(&["service", "list", "--json"]);
    without(&mut list);
    let listed = broker_tests::Finished::of(&mut list);
    assert!(listed.is_success() && listed.stdout.contains("\"cache\""), "{listed:?}");
    let socket = world.socket();
    let mut serve = world.brokerd(&["serve", "--socket", socket.to_str().unwrap()]);
    without(&mut serve);
    let broker = broker_tests::Daemon::start(&mut serve);
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    let config = world.ask("config");
    let limits = config.to_string();
    assert!(!limits.contains("env:"), "nothing comes from an empty variable: {config}");
    broker.stop();
}

#[test]
fn the_json_log_is_one_object_a_line() {
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&["--log", "json"]);
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    let line = broker.wait_for_line("SPAWN_ATTEMPT");
    let entry: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&entry["service"], &entry["version"]), (&Value::from("cache"), &Value::from("1.0.0")));
}
