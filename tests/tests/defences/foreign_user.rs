//! A client process of another user.

use std::os::unix::process::CommandExt;

use broker_protocol::wire::EventKind;
use broker_tests::{Finished, World};

use super::{events, is_root, set_mode};

/// `nobody`.
const NOBODY: u32 = 65_534;

#[test]
fn a_client_process_of_another_user_is_kept_out_by_modes_and_turned_away_by_the_kernel_s_word() {
    if !is_root("starting a process as nobody") {
        return;
    }
    let world = World::new();
    world.define("cache", &[]);
    let mut broker = world.serve(&[]);
    // A copy that nobody may execute: where this workspace lies may be closed to others.
    let open = tempfile::Builder::new().prefix("b").tempdir_in("/tmp").unwrap();
    set_mode(open.path(), 0o755);
    let program = open.path().join("client");
    std::fs::copy(World::program("brokerd"), &program).unwrap();
    set_mode(&program, 0o755);
    let ask = || {
        let mut client = world.command(&program);
        client.args(["hello", "cache", "1.0.0", "--socket", world.socket().to_str().unwrap()]);
        Finished::of(client.uid(NOBODY).gid(NOBODY))
    };

    // The home of the test is no part of what the broker has made.
    set_mode(&world.path(""), 0o755);
    let no_way_in = ask();
    assert!(no_way_in.stderr.contains("permission denied"), "by its directory: {no_way_in:?}");
    set_mode(&world.path("run"), 0o755);
    let no_right_to_write = ask();
    assert!(no_right_to_write.stderr.contains("permission denied"), "by its socket: {no_right_to_write:?}");

    set_mode(&world.socket(), 0o666);
    let dropped = ask();
    assert_eq!(dropped.code(), 1, "{dropped:?}");
    assert!(dropped.stdout.is_empty() && !dropped.stderr.contains("permission denied"), "{dropped:?}");
    broker.wait_for_line("SECURITY_VIOLATION");
    let metrics = world.run(&["metrics", "--socket", world.socket().to_str().unwrap()]).stdout;
    assert!(!metrics.contains("hello_total{"), "its Hello was not read: {metrics}");
    broker.stop();

    let violations: Vec<_> =
        events(&world).into_iter().filter(|event| event.kind() == EventKind::SecurityViolation).collect();
    assert_eq!(violations.len(), 1, "only who gets as far as the kernel's word is told of: {violations:?}");
    assert!(format!("{:?}", violations[0]).contains(&NOBODY.to_string()), "it says who: {violations:?}");
}
