//! Reading the configuration again while the broker runs, and which files are trusted (docs/configuration.md).
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use broker_protocol::PayloadProtocol;
use broker_protocol::prost::Message;
use broker_protocol::wire::{ErrorCode, Frame};
use broker_tests::{Daemon, PATIENCE, Signal, Wire, World, agreed, hello, refused, reply_of};
use serde_json::{Value, json};

const READ: &str = "the configuration was read again";
const KEPT: &str = "the configuration stays as it was";

fn reload(broker: &mut Daemon, outcome: &str) {
    broker.signal(Signal::HUP);
    broker.wait_for_line(outcome);
}

fn limit(world: &World, key: &str) -> Value {
    world.ask("config")["values"]["limits"][key]["value"].clone()
}

/// What the broker says of its last reload, once it says anything.
fn last_reload(world: &World) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = world.ask("config")["values"]["broker"]["last_reload"]["value"].clone();
        if !told.is_null() {
            return told;
        }
        assert!(Instant::now() < deadline, "it says nothing");
    }
}

const MANY: &str = "[limits]\nhello-burst = 1000000\nhello-refill = 1000000\n";

#[test]
fn not_one_hello_fails_and_no_connection_is_lost_while_the_configuration_changes() {
    const CLIENTS: usize = 4;
    let world = World::new();
    world.define("cache", &[]);
    world.configure(MANY);
    let mut broker = world.serve(&[]);
    // Silent so far, and one that has been answered by a backend that stays.
    let mut silent = world.connect();
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    let mut session = Wire::connect(Path::new(&pipe));
    let pid = session.tell("?pid");
    let (is_over, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    agreed(world.connect().say(&hello("cache", "1.0.0")));
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..10 {
            // A bad one in between.
            let (text, outcome) = match round % 3 {
                2 => (format!("{MANY}drain-ms = 'soon'\n"), KEPT),
                _ => (format!("{MANY}max-connections = {}\ndrain-ms = {round}\n", 100 - round), READ),
            };
            world.configure(&text);
            reload(&mut broker, outcome);
            let before = served.load(Ordering::Relaxed);
            while served.load(Ordering::Relaxed) < before + 50 {
                std::thread::yield_now();
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    agreed(silent.say(&hello("cache", "1.0.0")));
    assert_eq!(session.tell("?pid"), pid);
    let last = last_reload(&world);
    assert_eq!(last["applied"], true, "{last}");
    assert_eq!(limit(&world, "connections"), 91);
    broker.stop();
}

/// Says so many Hellos at once; how many of them are refused for coming too often.
fn refused_of_many(world: &World) -> usize {
    const MANY: usize = 30;
    let frame = Frame::request(PayloadProtocol::CONTROL, 7, hello("absent", "1.0.0").encode_to_vec());
    let mut wires: Vec<_> = (0..MANY).map(|_| world.connect()).collect();
    wires.iter_mut().for_each(|wire| wire.send(&frame));
    let codes = wires.iter_mut().map(|wire| refused(reply_of(&wire.receive())).code);
    codes.filter(|code| *code == ErrorCode::ErrorRateLimited as i32).count()
}

#[test]
fn rates_and_times_hold_from_the_reload_on() {
    let world = World::new();
    world.configure("[limits]\nhello-burst = 1\nhello-refill = 1\nhello-timeout-ms = 3_600_000\n");
    let mut broker = world.serve(&[]);
    assert!(refused_of_many(&world) > 0);
    world.configure("[limits]\nhello-burst = 1000\nhello-refill = 1000\nhello-timeout-ms = 3_600_000\n");
    reload(&mut broker, READ);
    assert_eq!(refused_of_many(&world), 0);
    let changed = last_reload(&world)["changed"].clone();
    assert_eq!(changed, json!(["limits.hello-burst", "limits.hello-refill"]));
    // Whoever says nothing is closed after a moment, and not after the hour that was.
    world.configure("[limits]\nhello-timeout-ms = 1\n");
    reload(&mut broker, READ);
    assert_eq!(world.connect().rest(), [0; 0]);
    broker.stop();
}

#[test]
fn fewer_connections_close_none_that_is_open() {
    let world = World::new();
    let mut broker = world.serve(&[]);
    let mut open: Vec<_> = (0..8).map(|_| world.connect()).collect();
    world.configure("limits.max-connections = 4\n");
    reload(&mut broker, READ);
    for wire in &mut open {
        refused(wire.say(&hello("absent", "1.0.0")));
    }
    broker.stop();
}

#[test]
fn backends_come_and_go_with_the_file_and_whoever_is_connected_stays() {
    let world = World::new();
    world.define("cache", &["--label", "spawn.args=--fail 3"]);
    let endpoint = world.endpoint("own/b.sock");
    let backend = world.run_backend(&endpoint);
    let mut broker = world.serve(&[]);
    refused(world.connect().say(&hello("cache", "1.0.0")));
    world.configure(&format!(
        "[[backend]]\nservice = 'cache'\nversion = '1.0.0'\nendpoint = '{}'\n",
        endpoint.to_str().unwrap()
    ));
    reload(&mut broker, READ);
    let pipe = agreed(world.connect().say(&hello("cache", "1.0.0"))).backend_pipe;
    let mut session = Wire::connect(Path::new(&pipe));
    assert_eq!(session.tell("?pid").parse(), Ok(backend.pid()));
    world.configure("");
    reload(&mut broker, READ);
    refused(world.connect().say(&hello("cache", "1.0.0")));
    assert_eq!(session.tell("?pid").parse(), Ok(backend.pid()));
    assert_eq!(last_reload(&world)["changed"], json!(["backend"]));
    broker.stop();
}

#[test]
fn a_bad_file_changes_nothing_and_is_told_until_it_is_good() {
    let world = World::new();
    world.configure("limits.hello-burst = 300\n");
    let mut broker = world.serve(&[]);
    let before = world.ask("config")["values"]["limits"].clone();
    world.configure("limits.hello-burst = 400\nlimits.hello-refil = 1\n");
    broker.signal(Signal::HUP);
    let told = format!(
        "{}:2:8: unknown key `limits.hello-refil`; did you mean `limits.hello-refill`?",
        world.config_file().display()
    );
    broker.wait_for_line(&told);
    broker.wait_for_line(KEPT);
    assert_eq!(world.ask("config")["values"]["limits"], before);
    let last = last_reload(&world);
    assert_eq!((&last["applied"], &last["problems"]), (&json!(false), &json!([told])));
    assert_eq!(world.ask("status")["config_errors"], json!([told]));
    let table = world.run(&["status", "--socket", world.socket().to_str().unwrap()]).stdout;
    assert!(table.contains("not in force") && table.contains(&told), "{table}");

    std::fs::remove_file(world.config_file()).unwrap();
    reload(&mut broker, READ);
    assert_eq!(limit(&world, "hello_burst"), 256, "without a file the defaults hold");
    assert_eq!(world.ask("status").get("config_errors"), None);
    broker.stop();
}

#[test]
fn what_cannot_change_is_named_and_stays_until_the_next_start() {
    let world = World::new();
    let mut broker = world.serve(&[]);
    let state = world.path("elsewhere");
    world.configure(&format!(
        "sandbox = true\npaths.state-dir = '{0}'\npaths.service-dir = '{0}'\nlog.format = 'json'\n\
         limits.drain-ms = 5\n",
        state.display()
    ));
    broker.signal(Signal::HUP);
    for key in ["paths.service-dir", "paths.state-dir", "sandbox", "log.format"] {
        let line = broker.wait_for_line("takes effect at the next start").to_owned();
        assert!(line.contains(key), "{line}");
    }
    let values = &world.ask("config")["values"];
    assert_eq!(values["paths"]["state_dir"]["value"], json!(world.state_dir().to_str().unwrap()));
    assert_eq!(
        (&values["broker"]["sandbox"]["value"], &values["limits"]["drain_ms"]["value"]),
        (&json!(false), &json!(5))
    );
    assert!(!state.exists());
    broker.stop();
}

#[test]
fn flags_and_variables_outweigh_the_file_at_every_reload() {
    let world = World::new();
    let socket = world.socket();
    let mut command = world.brokerd(&["serve", "--socket", socket.to_str().unwrap(), "--hello-burst", "21"]);
    let mut broker = Daemon::start(command.env("RUNNING_PROCESS_BROKER_HELLO_REFILL", "22"));
    world.configure("[limits]\nhello-burst = 31\nhello-refill = 32\ndrain-ms = 33\n");
    reload(&mut broker, READ);
    let limits = ["hello_burst", "hello_refill_per_second", "drain_ms"].map(|key| limit(&world, key));
    assert_eq!(limits, [json!(21), json!(22), json!(33)]);
    broker.stop();
}

#[test]
fn the_level_of_the_log_changes_at_once() {
    let world = World::new();
    world.define("cache", &[]);
    world.configure("log.level = 'error'\n");
    let socket = world.socket();
    let mut broker = Daemon::spawn(&mut world.brokerd(&["serve", "--socket", socket.to_str().unwrap()]));
    let deadline = Instant::now() + PATIENCE;
    while !broker_tests::is_listening(&socket) {
        assert!(Instant::now() < deadline, "it does not listen");
        std::thread::yield_now();
    }
    // Its handler is there before it answers anybody.
    refused(world.connect().say(&hello("absent", "1.0.0")));
    world.configure("log.level = 'info'\n");
    broker.signal(Signal::HUP);
    assert!(broker.next_line().contains(READ), "{}", broker.last_line());
    broker.stop();
}

#[test]
fn a_broker_in_its_sandbox_reads_its_file_again() {
    let world = World::new();
    let mut broker = Daemon::spawn(
        world
            .brokerd(&["serve", "--sandbox", "--socket", world.socket().to_str().unwrap()])
            .env("RUST_LOG", "info"),
    );
    let first = broker.wait_for_line("").to_owned();
    if first.contains("no sandbox") {
        println!("not tested, as this system has no sandbox: {first}");
        return;
    }
    broker.wait_for_line("serving");
    world.configure("limits.drain-ms = 77\n");
    reload(&mut broker, READ);
    assert_eq!(limit(&world, "drain_ms"), 77);
    broker.stop();
}

#[test]
fn a_request_to_reload_does_not_keep_a_broker_from_ending() {
    let world = World::new();
    let mut broker = world.serve(&[]);
    broker.signal(Signal::HUP);
    broker.signal(Signal::TERM);
    broker.signal(Signal::HUP);
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn an_upgrade_takes_the_file_as_it_is_by_then_and_refuses_a_bad_one() {
    let world = World::new();
    let mut broker = world.serve(&[]);
    let socket = world.socket();
    let upgrade = ["upgrade", "--socket", socket.to_str().unwrap()];
    world.configure("limits.hello-burst = 'x'\n");
    let refused = world.run(&upgrade);
    assert_eq!(refused.code(), 1);
    let told = format!("{}:1:22: limits.hello-burst: expected a whole number", world.config_file().display());
    assert!(refused.stdout.contains(&told), "{refused:?}");
    assert_eq!(limit(&world, "hello_burst"), 256);

    world.configure("limits.hello-burst = 44\n");
    let upgraded = world.run(&upgrade);
    assert!(upgraded.is_success(), "{upgraded:?}");
    assert_eq!(limit(&world, "hello_burst"), 44);
    // And it still hears.
    broker.wait_for_line("serving");
    world.configure("limits.hello-burst = 45\n");
    reload(&mut broker, READ);
    assert_eq!(limit(&world, "hello_burst"), 45);
    broker.stop();
}

#[test]
fn an_upgrade_stays_where_and_who_it_was_whatever_the_file_says() {
    let world = World::new();
    let named = world.path("own.toml");
    let file = |instance: &str, socket: &Path| {
        format!("instance = '{instance}'\npaths.socket = '{}'\n", socket.display())
    };
    std::fs::write(&named, file("inst:one", &world.socket())).unwrap();
    let mut command = world.brokerd(&["serve", "--config", named.to_str().unwrap()]);
    let mut broker = Daemon::start(&mut command);
    std::fs::write(&named, file("inst:two", &world.endpoint("run/t.sock"))).unwrap();
    let socket = world.socket();
    let upgraded = world.run(&["upgrade", "--socket", socket.to_str().unwrap()]);
    assert!(upgraded.is_success(), "{upgraded:?}");
    broker.wait_for_line("takes effect at the next start");
    let status = world.ask("status");
    assert_eq!(
        (&status["broker_instance"], &status["broker_pid"]),
        (&json!("inst:one"), &json!(broker.pid()))
    );
    let paths = &world.ask("config")["values"]["paths"]["socket"];
    assert_eq!(paths["value"], json!(socket.to_str().unwrap()));
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_file_that_others_may_write_to_or_that_is_none_is_not_read() {
    let world = World::new();
    world.configure("limits.hello-burst = 1\n");
    let file = world.config_file();
    let named = |path: &Path| world.run(&["config", "check", path.to_str().unwrap()]);
    let told = |path: &Path, what: &str| {
        let checked = named(path);
        assert_eq!(checked.code(), 1, "{checked:?}");
        assert!(checked.stdout.contains(what), "{checked:?}");
        let serve = world.run(&["serve", "--config", path.to_str().unwrap()]);
        assert_eq!(serve.code(), 2);
        assert!(serve.stderr.contains(what), "{serve:?}");
    };
    for mode in [0o620, 0o602] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        told(&file, "others may write to it");
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    // A link is as good as what it leads to.
    let link = world.path("link.toml");
    symlink(&file, &link).unwrap();
    assert_eq!(named(&link).code(), 0);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    told(&link, "others may write to it");

    told(&world.path(""), "expected a regular file, got a directory");
    let long = world.path("long.toml");
    std::fs::write(&long, vec![b'#'; 256 * 1024 + 1]).unwrap();
    told(&long, "expected at most 262144");
    std::fs::write(&long, vec![b'#'; 256 * 1024]).unwrap();
    assert_eq!(named(&long).code(), 0);
    let latin = world.path("latin.toml");
    std::fs::write(&latin, b"# caf\xe9\n").unwrap();
    told(&latin, ":1:6: this is no UTF-8");
    let dangling = world.path("dangling.toml");
    symlink(world.path("absent"), &dangling).unwrap();
    assert_eq!(named(&dangling).code(), 2);
}
