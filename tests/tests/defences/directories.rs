//! Directories that a group may write to.

use std::fs;
use std::path::PathBuf;

use broker_tests::{World, agreed, hello};

use super::{refusal, serve_in_vain, set_mode};

#[test]
fn no_directory_of_a_broker_may_be_group_writable_when_it_starts() {
    let directories: [fn(&World) -> PathBuf; 5] = [
        // The socket and the lock.
        |world| world.path("run"),
        // The sockets of backends.
        |world| world.path("xdg/running-process/broker"),
        World::state_dir,
        |world| world.state_dir().join("events"),
        World::definitions,
    ];
    for directory in directories {
        let world = World::new();
        world.serve(&[]).stop();
        let directory = directory(&world);
        set_mode(&directory, 0o770);
        let said = serve_in_vain(&world, &world.socket());
        let remedy = format!("chmod 700 {}", directory.display());
        assert!(said.contains(&remedy), "{said}");
        set_mode(&directory, 0o700);
        world.serve(&[]).stop();
    }
}

#[test]
fn a_directory_that_becomes_group_writable_is_noticed_before_anything_from_it_is_used() {
    let world = World::new();
    let versions = world.path("versions");
    fs::create_dir(&versions).unwrap();
    for version in ["1.0.0", "2.0.0"] {
        let binary = versions.join(version).join("echo");
        fs::create_dir(versions.join(version)).unwrap();
        fs::copy(World::program("echo-backend"), &binary).unwrap();
    }
    let binary = versions.join("1.0.0/echo");
    let options = ["--binary", binary.to_str().unwrap(), "--version-dir", versions.to_str().unwrap()];
    let added = world.run(&[&["service", "add", "cache"][..], &options].concat());
    assert!(added.is_success(), "{added:?}");
    let _broker = world.serve(&[]);
    agreed(world.connect().say(&hello("cache", "1.0.0")));

    set_mode(&versions.join("2.0.0"), 0o775);
    let refused = refusal(&world, "2.0.0");
    assert_eq!(&refused.details["stage"], "resolve", "{refused:?}");
    assert!(refused.details["cause"].contains("others may write to it"), "{refused:?}");
    set_mode(&versions.join("2.0.0"), 0o755);
    agreed(world.connect().say(&hello("cache", "2.0.0")));

    set_mode(&world.definitions(), 0o770);
    // It is looked at whenever a definition is read anew.
    let definition = world.definitions().join("cache.servicedef");
    fs::write(&definition, fs::read(&definition).unwrap()).unwrap();
    assert_eq!(&refusal(&world, "2.0.0").details["rule"], "directory");
}
