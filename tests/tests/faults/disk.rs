//! File systems that are full or read-only (behaviour.md 9: they never stop a Hello).

use std::path::Path;

use broker_protocol::prost::Message;
use broker_protocol::wire::LifecycleEvent;
use broker_tests::linux::{self, after, may_mount, seen_by};
use broker_tests::{Daemon, World};

use crate::{does_not_begin, is_served, serve};

/// What a file system of its own is like.
const READ_ONLY: &str = "ro,mode=700";
const WITHOUT_INODES: &str = "nr_inodes=1,mode=700";
const ONE_PAGE: &str = "size=4k,mode=700";

const FULL: &str = "No space left on device";
const CLOSED: &str = "Read-only file system";

/// Mounts at a path, which is made.
fn mounted(options: &str, at: &Path) -> String {
    format!("mkdir -p -m 700 {0}\nmount -t tmpfs -o {options} none {0}", at.display())
}

fn filled(at: &Path) -> String {
    format!("head -c 65536 /dev/zero >{}/filling 2>/dev/null || true", at.display())
}

#[test]
fn a_broker_without_a_place_for_its_sockets_says_so() {
    if !may_mount("runtime directories that are full or read-only") {
        return;
    }
    let cases = [
        ("xdg", READ_ONLY, "", "xdg/running-process", CLOSED),
        ("xdg", WITHOUT_INODES, "", "xdg/running-process", FULL),
        ("run", READ_ONLY, "", "run/s.sock.lock", CLOSED),
        ("run", WITHOUT_INODES, "", "run/s.sock.lock", FULL),
        ("run", "nr_inodes=2,mode=700", "", "run/s.sock", FULL),
        ("run", ONE_PAGE, "fill", "run/s.sock.lock", FULL),
    ];
    for (at, options, fill, named, said) in cases {
        let world = World::new();
        let place = world.path(at);
        let mut commands = mounted(options, &place);
        if !fill.is_empty() {
            commands = format!("{commands}\n{}", filled(&place));
        }
        let named = world.path(named);
        let case = format!("{at} {options} {fill}");
        does_not_begin(&case, &mut after(&commands, &serve(&world)), &[named.to_str().unwrap(), said]);
    }
}

#[test]
fn a_broker_that_cannot_write_its_events_serves_counts_them_and_says_so_once() {
    if !may_mount("state directories that are full or read-only") {
        return;
    }
    let state = ".local/state";
    let events = "running-process/broker/events";
    let cases = [
        // Not even the directories can be made.
        (READ_ONLY, ""),
        (WITHOUT_INODES, ""),
        // They are there.
        ("nr_inodes=4,mode=700", "make"),
        (ONE_PAGE, "make and fill"),
        ("mode=700", "make and close"),
    ];
    for (options, then) in cases {
        let world = World::new();
        world.define("cache", &[]);
        let place = world.path(state);
        let mut commands = mounted(options, &place);
        if then.contains("make") {
            let directory = place.join(events);
            let directories = directory.ancestors().take(3).collect::<Vec<_>>();
            for directory in directories.iter().rev() {
                commands += &format!("\nmkdir -m 700 {}", directory.display());
            }
        }
        if then.contains("fill") {
            commands += &format!("\n{}", filled(&place));
        }
        if then.contains("close") {
            commands += &format!("\nmount -o remount,ro {}", place.display());
        }
        let mut broker = Daemon::start(&mut after(&commands, &serve(&world)));
        is_served(&world);
        broker.wait_for_line("lifecycle events are dropped until the log can be written again");
        let dropped = || {
            let metrics = world.run(&["metrics", "--socket", world.socket().to_str().unwrap()]).stdout;
            let line = metrics.lines().find_map(|line| line.split_once("events_dropped_total ")).unwrap();
            line.1.parse::<u64>().unwrap()
        };
        // A start, what came of it, and the Hello.
        linux::wait_until("events", || (dropped() < 4).then(|| dropped().to_string()));
        is_served(&world);
        linux::wait_until("events", || (dropped() < 5).then(|| dropped().to_string()));
        broker.signal(broker_tests::Signal::TERM);
        let mut more = 0;
        while !broker.next_line().contains("ended") {
            more += u32::from(broker.last_line().contains("lifecycle events are dropped"));
        }
        assert_eq!((broker.wait(), more), (Some(0), 0), "{options} {then}");
    }
}

#[test]
fn events_are_written_again_once_there_is_room() {
    if !may_mount("a state directory that is full for a while") {
        return;
    }
    let world = World::new();
    world.define("cache", &[]);
    let state = world.path(".local/state");
    let commands = format!("{}\n{}", mounted("size=8k,mode=700", &state), filled(&state));
    let mut broker = Daemon::start(&mut after(&commands, &serve(&world)));
    is_served(&world);
    broker.wait_for_line("lifecycle events are dropped");
    std::fs::remove_file(seen_by(broker.pid(), &state.join("filling"))).unwrap();
    let log = seen_by(broker.pid(), &world.state_dir().join("events/lifecycle.pb"));
    // The next event is on disk, whole, and nothing before it.
    linux::wait_until("an event", || {
        is_served(&world);
        let bytes = std::fs::read(&log).unwrap_or_default();
        let event = LifecycleEvent::decode_length_delimited(&bytes[..]);
        (bytes.is_empty() || event.is_err()).then(|| format!("{} bytes", bytes.len()))
    });
    broker.stop();
}

#[test]
fn definitions_on_a_read_only_file_system_are_served() {
    if !may_mount("definitions on a read-only file system") {
        return;
    }
    let world = World::new();
    world.define("cache", &[]);
    let definitions = world.definitions();
    let bind = format!("mount --bind {0} {0}\nmount -o remount,bind,ro {0}", definitions.display());
    let broker = Daemon::start(&mut after(&bind, &serve(&world)));
    is_served(&world);
    broker.stop();
}

#[test]
fn where_no_definitions_can_be_made_a_broker_still_serves_what_is_registered() {
    if !may_mount("a configuration directory on a read-only file system") {
        return;
    }
    let world = World::new();
    let commands = mounted(READ_ONLY, &world.path(".config"));
    let broker = Daemon::start(&mut after(&commands, &serve(&world)));
    let healthy = world.run(&["healthz", "--socket", world.socket().to_str().unwrap()]);
    assert_eq!((healthy.code(), healthy.stdout.as_str()), (0, "ok\n"));
    broker.stop();
}

#[test]
fn an_archive_that_a_disk_has_no_room_for_leaves_nothing_there() {
    if !may_mount("archives on disks that are full or read-only") {
        return;
    }
    for (options, said) in
        [(ONE_PAGE, "the disk is full"), (WITHOUT_INODES, "the disk is full"), (READ_ONLY, CLOSED)]
    {
        let world = World::new();
        let place = world.path("small");
        let broker = Daemon::start(&mut after(&mounted(options, &place), &serve(&world)));
        let output = place.join("diagnose.tar.gz");
        let socket = world.socket();
        let command =
            ["diagnose", "--socket", socket.to_str().unwrap(), "--output", output.to_str().unwrap()];
        let failed = world.run(&command);
        assert_eq!((failed.code(), failed.stdout.as_str()), (1, ""), "{options}: {failed:?}");
        for text in [said, output.to_str().unwrap(), "\n  next: "] {
            assert!(failed.stderr.contains(text), "{options}: {failed:?}");
        }
        let left = std::fs::read_dir(seen_by(broker.pid(), &place)).unwrap().count();
        assert_eq!(left, 0, "{options}");
        broker.stop();
    }
}
