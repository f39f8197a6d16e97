//! Files and directories that their user may not open (EACCES).

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use broker_protocol::wire::ErrorCode;
use broker_tests::linux::with_rights_of_a_user;
use broker_tests::{Daemon, World, hello, refused};

use crate::{does_not_begin, is_served, serve};

const DENIED: &str = "Permission denied";

fn close(path: &Path) {
    set_permissions(path, Permissions::from_mode(0o000)).unwrap();
}

fn open(path: &Path) {
    set_permissions(path, Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_broker_that_may_not_enter_its_directories_says_which_and_does_not_begin() {
    let world = World::new();
    world.serve(&[]).stop();
    for directory in [world.path("run"), world.state_dir(), world.path("xdg/running-process")] {
        close(&directory);
        let named = directory.to_str().unwrap();
        does_not_begin(named, &mut with_rights_of_a_user(&serve(&world)), &[named, DENIED]);
        open(&directory);
    }
    std::fs::write(world.lock(), "").unwrap();
    close(&world.lock());
    let lock = world.lock();
    let named = lock.to_str().unwrap();
    does_not_begin(named, &mut with_rights_of_a_user(&serve(&world)), &[named, DENIED]);
}

#[test]
fn a_backend_that_may_not_bind_its_endpoint_is_refused_with_the_reason() {
    let world = World::new();
    world.define("cache", &[]);
    world.serve(&[]).stop();
    let directory = world.path("xdg/running-process/broker");
    close(&directory);
    let _broker = Daemon::start(&mut with_rights_of_a_user(&serve(&world)));
    let refusal = refused(world.connect().say(&hello("cache", "1.0.0")));
    assert_eq!(refusal.code(), ErrorCode::ErrorBackendSpawnFailed, "{refusal:?}");
    assert!(format!("{refusal:?}").contains(DENIED), "{refusal:?}");
    open(&directory);
    is_served(&world);
}

#[test]
fn events_that_may_not_be_written_are_dropped_and_told_once() {
    let world = World::new();
    world.define("cache", &[]);
    let events = world.state_dir().join("events");
    world.serve(&[]).stop();
    std::fs::write(events.join("lifecycle.pb"), "").unwrap();
    close(&events.join("lifecycle.pb"));
    let mut broker = Daemon::start(&mut with_rights_of_a_user(&serve(&world)));
    is_served(&world);
    let told = broker.wait_for_line("lifecycle events are dropped");
    assert!(told.contains(events.to_str().unwrap()) && told.contains(DENIED), "{told}");
}

#[test]
fn a_definition_that_may_not_be_read_is_refused_until_it_may() {
    let world = World::new();
    world.define("cache", &[]);
    let _broker = Daemon::start(&mut with_rights_of_a_user(&serve(&world)));
    for path in [world.definitions().join("cache.servicedef"), world.definitions()] {
        close(&path);
        let refusal = refused(world.connect().say(&hello("cache", "1.0.0")));
        assert_eq!(refusal.code(), ErrorCode::ErrorInternal, "{refusal:?}");
        assert!(format!("{refusal:?}").contains(DENIED), "{refusal:?}");
        open(&path);
        is_served(&world);
    }
}
