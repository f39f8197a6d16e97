//! The admin verbs, over the socket (behaviour.md 7 and 8).
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use broker_tests::{World, agreed, hello, refused};
use serde_json::Value;

/// A broker with one backend, one refusal behind it, and one connection open: the one that asks.
fn world() -> (World, broker_tests::Daemon) {
    let world = World::new();
    world.define("cache", &["--allow-version", "1.0.0", "--allow-version", "2.0.0"]);
    let broker = world.serve(&["--instance", "inst:test"]);
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    refused(world.connect().say(&hello("unknown", "1.0.0")));
    (world, broker)
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn text(world: &World, arguments: &[&str]) -> String {
    let mut all = arguments.to_vec();
    let socket = world.socket();
    all.extend(["--socket", socket.to_str().unwrap()]);
    let finished = world.run(&all);
    assert!(finished.is_success(), "{finished:?}");
    finished.stdout
}

#[test]
fn status_tells_who_the_broker_is_and_what_runs() {
    let (world, broker) = world();
    let status = world.ask("status");
    let head = ["schema_version", "command", "generated_at_unix_ms"];
    let body = [
        "broker_instance",
        "broker_pid",
        "uptime_seconds",
        "accepting_hello",
        "connections_open",
        "fd_pressure",
        "inode_pressure",
        "backends",
    ];
    assert_eq!(keys(&status), [&head[..], &body[..]].concat());
    assert_eq!(status["schema_version"], 1);
    assert_eq!(
        (&status["command"], &status["broker_instance"]),
        (&Value::from("status"), &Value::from("inst:test"))
    );
    assert_eq!(status["broker_pid"], broker.pid());
    assert_eq!(
        (&status["accepting_hello"], &status["connections_open"]),
        (&Value::from(true), &Value::from(1))
    );
    assert_eq!(status["fd_pressure"]["demoted"], false);
    assert_eq!(
        keys(&status["inode_pressure"]),
        ["supported", "inodes_total", "inodes_free", "inodes_used", "used_ratio"]
    );
    let backend = &status["backends"][0];
    assert_eq!(
        keys(backend),
        ["service_name", "service_version", "pid", "backend_pipe", "last_active_unix_ms", "state"]
    );
    assert_eq!(
        (&backend["service_name"], &backend["state"]),
        (&Value::from("cache"), &Value::from("running"))
    );
    assert!(backend["pid"].as_u64().unwrap() > 0 && backend["last_active_unix_ms"].as_u64().unwrap() > 0);

    let table = text(&world, &["status"]);
    assert!(table.contains("inst:test") && table.contains("cache") && table.contains("running"), "{table}");
}

#[test]
fn dump_holds_budgets_and_the_events_that_happened() {
    let (world, _broker) = world();
    let dump = world.ask("dump");
    assert_eq!(dump["command"], "dump");
    assert_eq!(dump["backend_table"][0]["service_name"], "cache");
    let budget = &dump["spawn_budgets"][0];
    assert_eq!(
        keys(budget),
        [
            "broker_instance",
            "service_name",
            "service_version",
            "attempts_used",
            "remaining",
            "in_flight",
            "retry_after_ms"
        ]
    );
    assert_eq!((&budget["attempts_used"], &budget["remaining"]), (&Value::from(0), &Value::from(3)));
    let kinds: Vec<&str> = dump["recent_lifecycle_events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["SERVICE_DEF_LOADED", "SPAWN_ATTEMPT", "SPAWN", "HELLO_ACCEPTED", "HELLO_REFUSED"]);
    assert!(dump["effective_config"]["values"]["limits"].is_object());
}

#[test]
fn dump_tells_the_hellos_of_the_last_hour_by_the_minute() {
    let (world, _broker) = world();
    let history = world.ask("dump")["history"].clone();
    assert_eq!(keys(&history), ["minute_ms", "latency_bounds_us", "minutes"]);
    let bounds = history["latency_bounds_us"].as_array().unwrap();
    let minutes = history["minutes"].as_array().unwrap();
    let sum = |count: &dyn Fn(&Value) -> Option<u64>| minutes.iter().filter_map(count).sum::<u64>();
    assert_eq!(sum(&|minute| minute["accepted"].as_u64()), 1);
    assert_eq!(sum(&|minute| minute["refused"]["service_unknown"].as_u64()), 1);
    for minute in minutes {
        assert_eq!(keys(minute), ["minutes_ago", "began_unix_ms", "accepted", "refused", "latency_counts"]);
        assert_eq!(minute["latency_counts"].as_array().unwrap().len(), bounds.len() + 1);
    }
    assert_eq!(
        sum(&|minute| Some(minute["latency_counts"].as_array()?.iter().filter_map(Value::as_u64).sum())),
        2
    );
}

#[test]
fn config_names_the_source_of_every_value() {
    let world = World::new();
    let mut command =
        world.brokerd(&["serve", "--socket", world.socket().to_str().unwrap(), "--hello-burst", "7"]);
    command.env("RUNNING_PROCESS_BROKER_HELLO_TIMEOUT_MS", "1234");
    let _broker = broker_tests::Daemon::start(&mut command);
    let config = world.ask("config");
    let values = &config["values"];
    assert_eq!(keys(values), ["broker", "protocol", "limits", "paths", "spawn_budget", "diagnostics"]);
    let leaf =
        |group: &str, key: &str| (values[group][key]["value"].clone(), values[group][key]["source"].clone());
    assert_eq!(leaf("limits", "hello_burst"), (7.into(), "flag:--hello-burst".into()));
    assert_eq!(
        leaf("limits", "hello_timeout_ms"),
        (1234.into(), "env:RUNNING_PROCESS_BROKER_HELLO_TIMEOUT_MS".into())
    );
    assert_eq!(leaf("limits", "hello_refill_per_second"), (256.into(), "default".into()));
    assert_eq!(leaf("limits", "hello_body_bytes"), (65_536.into(), "protocol-v1".into()));
    for (key, limit) in [
        ("connections_per_peer", 512),
        ("buffered_bytes_per_peer", 1_048_576),
        ("pending_starts_per_peer", 32),
        ("pending_handoffs", 1_024),
        ("pending_handoffs_per_backend", 64),
        ("pending_handoffs_per_peer", 128),
    ] {
        assert_eq!(leaf("limits", key).0, limit, "{key}");
    }
    assert_eq!(leaf("paths", "socket").1, "flag:--socket");
    assert_eq!(leaf("diagnostics", "event_log_bytes"), (8_388_608.into(), "schema-v1".into()));
    assert_eq!(leaf("broker", "pid").1, "runtime");
    for (_, group) in values.as_object().unwrap() {
        for (key, leaf) in group.as_object().unwrap() {
            assert_eq!(keys(leaf), ["value", "source"], "{key}");
        }
    }
}

#[test]
fn metrics_are_openmetrics_with_the_numbers_that_happened() {
    let (world, _broker) = world();
    agreed(world.connect().say(&hello("cache", "1.0.0")));
    let metrics = text(&world, &["metrics"]);
    assert!(metrics.ends_with("# EOF\n"));
    let prefix = "running_process_broker_v1_";
    let expected = [
        r#"hello_total{service="cache",version="1.0.0",outcome="negotiated"} 2"#,
        r#"hello_total{service="other",version="other",outcome="service_unknown"} 1"#,
        r#"hello_duration_seconds_count{service="cache"} 2"#,
        r#"hello_duration_seconds_bucket{le="+Inf",service="cache"} 2"#,
        r#"active_backends{service="cache"} 1"#,
        r#"spawn_attempts_total{service="cache",version="1.0.0",outcome="success"} 1"#,
        r#"spawn_attempts_total{service="cache",version="1.0.0",outcome="failure"} 0"#,
        r#"spawn_budget_remaining{service="cache",version="1.0.0"} 3"#,
        "connections_open 1",
        "rate_limited_total 0",
        "events_dropped_total 0",
        "descriptors_discarded_total 0",
    ];
    for line in expected {
        assert!(
            metrics.lines().any(|found| found.starts_with(&format!("{prefix}{line}"))),
            "{line}\n{metrics}"
        );
    }
    for family in ["handoff counter", "handoff_duration_seconds histogram"] {
        assert!(metrics.contains(&format!("# TYPE {prefix}{family}")), "{family}\n{metrics}");
    }
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{prefix}{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    if !broker_tests::goes_without("how many handles a process has: GetProcessHandleCount tells 0") {
        assert!(value("fd_usage_ratio") > 0.0 && value("fd_usage_ratio") < 1.0);
    }
    assert!(value("uptime_seconds") > 0.0);
}

#[test]
fn a_service_s_backends_and_the_user_s_brokers_are_listed() {
    let (world, broker) = world();
    let health: Value = serde_json::from_str(&text(&world, &["backend-health", "cache"])).unwrap();
    assert_eq!(health["service_name"], "cache");
    let backend = &health["backends"][0];
    assert_eq!(keys(backend), ["service_version", "pid", "state", "last_hello_unix_ms", "last_error"]);
    assert_eq!(backend["last_error"], Value::Null);

    let shared = broker_tests::Daemon::start(&mut world.brokerd(&["serve"]));
    let instances = world.ask("list-instances");
    let found: Vec<_> = instances["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|instance| {
            (
                instance["broker_instance"].as_str().unwrap(),
                instance["pid"].as_u64(),
                instance["state"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("inst:test", Some(broker.pid().into()), "running"),
            ("shared", Some(shared.pid().into()), "running")
        ]
    );
}

#[test]
fn without_a_broker_the_error_says_where_it_looked_and_what_to_do() {
    let world = World::new();
    for verb in ["status", "healthz", "metrics", "shutdown"] {
        let failed = world.run(&[verb, "--socket", world.socket().to_str().unwrap()]);
        assert_eq!(failed.code(), 1);
        assert!(failed.stderr.contains(world.socket().to_str().unwrap()), "{}", failed.stderr);
        assert!(failed.stderr.contains("brokerd serve"), "{}", failed.stderr);
    }
}
