//! Where the settings of a broker come from, and what is said of a bad file (docs/configuration.md).
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::path::Path;

use broker_tests::{Daemon, World, agreed, hello};
use serde_json::{Value, json};

/// One value of each kind: where `config` shows it, what `serve` calls it, and what the file, the environment and
/// the command line say.
struct Layered {
    shown: [&'static str; 2],
    table: &'static str,
    key: &'static str,
    variable: &'static str,
    flag: &'static str,
    /// By default, in the file, in the environment, on the command line.
    values: [Value; 4],
}

fn layered(world: &World) -> Vec<Layered> {
    let dir = |name: &str| json!(world.path(name).to_str().unwrap());
    vec![
        Layered {
            shown: ["limits", "hello_burst"],
            table: "limits",
            key: "hello-burst",
            variable: "RUNNING_PROCESS_BROKER_HELLO_BURST",
            flag: "--hello-burst",
            values: [json!(256), json!(11), json!(12), json!(13)],
        },
        Layered {
            shown: ["broker", "keep_backends"],
            table: "",
            key: "keep-backends",
            variable: "RUNNING_PROCESS_BROKER_KEEP_BACKENDS",
            flag: "--keep-backends",
            values: [json!(false), json!(true), json!(false), json!(true)],
        },
        Layered {
            shown: ["diagnostics", "log_format"],
            table: "log",
            key: "format",
            variable: "RUNNING_PROCESS_BROKER_LOG",
            flag: "--log",
            values: [json!("text"), json!("json"), json!("text"), json!("json")],
        },
        Layered {
            shown: ["paths", "service_dir"],
            table: "paths",
            key: "service-dir",
            variable: "RUNNING_PROCESS_SERVICE_DEF_DIR",
            flag: "--service-dir",
            values: [json!(world.definitions().to_str().unwrap()), dir("file"), dir("variable"), dir("flag")],
        },
        Layered {
            shown: ["paths", "state_dir"],
            table: "paths",
            key: "state-dir",
            variable: "RUNNING_PROCESS_BROKER_STATE_DIR",
            flag: "--state-dir",
            values: [json!(world.state_dir().to_str().unwrap()), dir("f"), dir("v"), dir("g")],
        },
    ]
}

impl Layered {
    fn in_file(&self) -> String {
        let section = if self.table.is_empty() { String::new() } else { format!("{}.", self.table) };
        // Literal strings take no escapes, of which paths of Windows are full.
        let value = self.values[1].as_str().map_or(self.values[1].to_string(), |text| format!("'{text}'"));
        format!("{section}{} = {value}\n", self.key)
    }

    /// As a variable or an option has it.
    fn bare(value: &Value) -> String {
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }
}

fn value_and_source(world: &World, [group, key]: [&str; 2]) -> (Value, Value) {
    let leaf = &world.ask("config")["values"][group][key];
    (leaf["value"].clone(), leaf["source"].clone())
}

#[test]
fn flags_outweigh_variables_and_these_the_file_and_it_the_defaults() {
    let world = World::new();
    let all = layered(&world);
    let socket = world.socket();
    let serve = ["serve", "--socket", socket.to_str().unwrap()];
    let file = format!("file:{}", world.config_file().display());
    for layer in 0..4 {
        if layer == 1 {
            world.configure(&all.iter().map(Layered::in_file).collect::<String>());
        }
        let mut command = world.brokerd(&serve);
        for setting in &all {
            if layer >= 2 {
                command.env(setting.variable, Layered::bare(&setting.values[2]));
            }
            if layer == 3 {
                command.arg(format!("{}={}", setting.flag, Layered::bare(&setting.values[3])));
            }
        }
        let broker = Daemon::start(&mut command);
        for setting in &all {
            let source = match layer {
                0 => "default".to_owned(),
                1 => file.clone(),
                2 => format!("env:{}", setting.variable),
                _ => format!("flag:{}", setting.flag),
            };
            let expected = (setting.values[layer].clone(), json!(source));
            assert_eq!(value_and_source(&world, setting.shown), expected, "{}", setting.key);
        }
        broker.stop();
    }
}

#[test]
fn a_switch_that_the_file_has_on_can_be_turned_off_by_a_flag() {
    let world = World::new();
    world.configure("keep-backends = true\n");
    let _broker = world.serve(&["--keep-backends=false"]);
    let expected = (json!(false), json!("flag:--keep-backends"));
    assert_eq!(value_and_source(&world, ["broker", "keep_backends"]), expected);
}

#[test]
fn the_log_has_the_level_of_the_variable_or_else_of_the_file() {
    let world = World::new();
    world.configure("[log]\nlevel = 'warn,brokerd=debug'\n");
    let socket = world.socket();
    let mut command = world.brokerd(&["serve", "--socket", socket.to_str().unwrap()]);
    let broker = Daemon::start(&mut command);
    let file = format!("file:{}", world.config_file().display());
    let shown = ["diagnostics", "log_level"];
    assert_eq!(value_and_source(&world, shown), (json!("warn,brokerd=debug"), json!(file)));
    broker.stop();
    let broker = Daemon::start(command.env("RUST_LOG", "info"));
    assert_eq!(value_and_source(&world, shown), (json!("info"), json!("env:RUST_LOG")));
    broker.stop();
}

fn registered(world: &World, version: &str, endpoint: &Path) -> String {
    std::fs::create_dir_all(world.path("own")).unwrap();
    format!(
        "[[backend]]\nservice = 'cache'\nversion = '{version}'\nendpoint = '{}'\n",
        endpoint.to_str().unwrap()
    )
}

#[test]
fn backends_of_the_file_are_used_and_a_flag_outweighs_it_about_the_same_version() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--fail 3"]);
    let [one, two, other] = ["own/1.sock", "own/2.sock", "own/3.sock"].map(|name| world.endpoint(name));
    let (_one, _two) = (world.run_backend(&one), world.run_backend(&two));
    world.configure(&(registered(&world, "1.0.0", &one) + &registered(&world, "2.0.0", &other)));
    let flag = format!("service=cache,version=2.0.0,endpoint={}", two.to_str().unwrap());
    let _broker = world.serve(&["--backend", &flag]);
    for (version, endpoint) in [("1.0.0", &one), ("2.0.0", &two)] {
        let pipe = agreed(world.connect().say(&hello("cache", version))).backend_pipe;
        assert_eq!(Path::new(&pipe), endpoint);
    }
    let (value, _) = value_and_source(&world, ["broker", "backends"]);
    let file = format!("file:{}", world.config_file().display());
    assert_eq!(
        (&value[0]["service_version"], &value[0]["source"]),
        (&json!("2.0.0"), &json!("flag:--backend"))
    );
    assert_eq!((&value[1]["service_version"], &value[1]["source"]), (&json!("1.0.0"), &json!(file)));
}

#[test]
fn a_file_that_is_named_is_read_instead_and_may_say_which_broker_it_is() {
    let world = World::new();
    world.configure("limits.hello-burst = 1\n");
    let named = world.path("ci.toml");
    let socket = world.socket();
    let text = format!("instance = 'inst:ci'\npaths.socket = '{}'\n", socket.to_str().unwrap());
    std::fs::write(&named, text).unwrap();
    for by_flag in [true, false] {
        let mut command = world.brokerd(&["serve"]);
        let source = if by_flag {
            command.arg("--config").arg(&named);
            "flag:--config"
        } else {
            command.env("RUNNING_PROCESS_BROKER_CONFIG", &named);
            "env:RUNNING_PROCESS_BROKER_CONFIG"
        };
        let mut broker = Daemon::start(&mut command);
        assert_eq!(world.ask("status")["broker_instance"], "inst:ci");
        let file = json!(named.to_str().unwrap());
        assert_eq!(value_and_source(&world, ["paths", "config_file"]), (file, json!(source)));
        assert_eq!(value_and_source(&world, ["limits", "hello_burst"]).0, 256);
        let ended = world.run(&["shutdown", "--socket", socket.to_str().unwrap()]);
        assert!(ended.is_success(), "{ended:?}");
        assert_eq!(broker.wait(), Some(0));
    }
}

#[test]
fn serve_ends_with_2_and_says_where_what_and_what_is_known() {
    let world = World::new();
    let file = world.config_file();
    let path = file.to_str().unwrap();
    for (text, told) in [
        (
            "[limits]\nhello_burst = 1\n",
            "2:1: unknown key `limits.hello_burst`; did you mean `limits.hello-burst`?",
        ),
        (
            "\n[limits]\nmax-connections = 1\n",
            "3:19: limits.max-connections: expected a whole number from 2 to 1000000 (connections), got 1",
        ),
        ("keep-backends = 'yes'\n", "1:17: keep-backends: expected true or false, got the string \"yes\""),
        ("[limits\n", "1:8: this is no TOML: unclosed table, expected `]`"),
        ("instance = 'inst:ci'\n", "1:1: instance: every broker of this user reads this file"),
        ("[[backend]]\nservice = 'cache'\nversion = '1.0.0'\n", "1:1: backend.endpoint: it is missing"),
    ] {
        world.configure(text);
        let refused = world.run(&["serve"]);
        assert_eq!(refused.code(), 2);
        assert!(refused.stderr.contains(&format!("{path}:{told}")), "{}", refused.stderr);
        assert!(refused.stderr.contains("brokerd config check"), "{}", refused.stderr);
    }
    world.configure("a = 1\nb = 2\n");
    let refused = world.run(&["serve"]);
    assert!(refused.stderr.contains(&format!("{path}: 2 problems\n")), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("1:1: unknown key `a`") && refused.stderr.contains("2:1: unknown key `b`")
    );
}

#[test]
fn a_flag_and_a_variable_are_held_to_the_range_of_the_file() {
    let world = World::new();
    let by_flag = world.run(&["serve", "--max-connections", "1"]);
    let by_variable = broker_tests::Finished::of(
        world.brokerd(&["serve"]).env("RUNNING_PROCESS_BROKER_MAX_CONNECTIONS", "1"),
    );
    for refused in [by_flag, by_variable] {
        assert_eq!(refused.code(), 2);
        assert!(refused.stderr.contains("1 is not in 2..=1000000"), "{}", refused.stderr);
    }
}

#[test]
fn a_named_file_that_is_not_there_is_an_error_and_the_usual_one_is_not() {
    let world = World::new();
    let absent = world.path("absent.toml");
    let refused = world.run(&["serve", "--config", absent.to_str().unwrap()]);
    assert_eq!(refused.code(), 2);
    let told = format!("{}: there is no such file", absent.display());
    assert!(refused.stderr.contains(&told), "{}", refused.stderr);
    let _broker = world.serve(&[]);
    assert_eq!(value_and_source(&world, ["paths", "config_file"]), (Value::Null, json!("default")));
}

#[test]
fn config_check_tells_everything_and_asks_no_broker() {
    let world = World::new();
    let path = world.config_file();
    let path = path.to_str().unwrap();
    let absent = world.run(&["config", "check"]);
    assert_eq!((absent.code(), absent.stdout.contains("the defaults hold")), (0, true), "{absent:?}");
    let named = world.run(&["config", "check", path]);
    assert_eq!((named.code(), named.stdout.contains("there is no such file")), (2, true), "{named:?}");

    world.configure("sandbox = 1\n[limits]\ndrain = 3\n");
    for arguments in [&["config", "check"][..], &["config", "check", path]] {
        let bad = world.run(arguments);
        assert_eq!(bad.code(), 1);
        let told = [
            format!("{path}:1:11: sandbox: expected true or false, got 1"),
            format!("{path}:3:1: unknown key `limits.drain`; did you mean `limits.drain-ms`?"),
        ];
        assert_eq!(bad.stdout.lines().collect::<Vec<_>>(), told);
    }
    let bad = world.run(&["config", "check", "--json"]);
    let report: Value = serde_json::from_str(&bad.stdout).unwrap();
    assert_eq!(
        (&report["command"], &report["ok"], &report["file"]),
        (&json!("config-check"), &json!(false), &json!(path))
    );
    assert_eq!(
        report["problems"][1],
        json!({
            "line": 3,
            "column": 1,
            "key": "limits.drain",
            "message": "unknown key `limits.drain`",
            "suggestion": "limits.drain-ms",
        })
    );

    world.configure("[limits]\ndrain-ms = 3\n");
    let good = world.run(&["config", "check", "--json"]);
    let report: Value = serde_json::from_str(&good.stdout).unwrap();
    assert_eq!((good.code(), &report["ok"], &report["problems"]), (0, &json!(true), &json!([])));
}

#[test]
fn config_with_and_without_its_name_is_what_holds_in_the_broker_that_runs() {
    let world = World::new();
    let _broker = world.serve(&["--hello-burst", "7"]);
    let socket = world.socket();
    let plain = world.ask("config");
    let named = world.run(&["config", "--effective", "--socket", socket.to_str().unwrap()]);
    let named: Value = serde_json::from_str(&named.stdout).unwrap();
    assert_eq!(named["values"]["limits"], plain["values"]["limits"]);
    assert_eq!(named["values"]["limits"]["hello_burst"]["value"], 7);
}
