//! Links where a broker writes, and where it reads what it trusts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use broker_tests::{World, agreed, hello};

use super::{event_log, refusal, serve_in_vain};

/// What a link leads to.
const PRECIOUS: &str = "somebody's own";

/// How a second name is given to a file.
#[derive(Clone, Copy, Debug)]
enum Link {
    Symbolic,
    Hard,
}

/// A file that must stay as it is, and a link to it at `path`.
fn plant(world: &World, link: Link, path: &PathBuf) -> PathBuf {
    let precious = world.path("precious");
    fs::write(&precious, PRECIOUS).unwrap();
    match link {
        Link::Symbolic => symlink(&precious, path).unwrap(),
        Link::Hard => fs::hard_link(&precious, path).unwrap(),
    }
    precious
}

#[test]
fn a_link_in_the_place_of_a_socket_or_lock_is_refused_and_what_it_leads_to_is_left_alone() {
    for link in [Link::Symbolic, Link::Hard] {
        for place in [World::socket, World::lock] {
            let world = World::new();
            // Once served, so that all directories are there.
            world.serve(&[]).stop();
            let path = place(&world);
            let precious = plant(&world, link, &path);
            let said = serve_in_vain(&world, &world.socket());
            let case = format!("{link:?} at {}: {said}", path.display());
            assert!(said.contains(path.to_str().unwrap()), "where: {case}");
            assert!(said.contains("remove it"), "what to do: {case}");
            assert_eq!(fs::read_to_string(&precious).unwrap(), PRECIOUS, "{case}");
            assert!(path.symlink_metadata().is_ok(), "it is not removed behind somebody's back: {case}");
        }
    }
}

#[test]
fn a_link_to_another_broker_s_socket_is_not_taken_for_an_own_one() {
    for link in [Link::Symbolic, Link::Hard] {
        let world = World::new();
        let _other = world.serve(&[]);
        let path = world.path("run/second.sock");
        match link {
            Link::Symbolic => symlink(world.socket(), &path).unwrap(),
            Link::Hard => fs::hard_link(world.socket(), &path).unwrap(),
        }
        let said = serve_in_vain(&world, &path);
        assert!(said.contains(path.to_str().unwrap()), "{link:?}: {said}");
        assert_eq!(world.ask("status")["accepting_hello"], true, "the other one serves as before");
    }
}

#[test]
fn a_link_in_the_place_of_the_event_log_gets_no_event_and_stops_no_hello() {
    for link in [Link::Symbolic, Link::Hard] {
        let world = World::new();
        world.define("cache", &[]);
        world.serve(&[]).stop();
        assert!(!event_log(&world).exists(), "it is made for the first event");
        let precious = plant(&world, link, &event_log(&world));
        let mut broker = world.serve(&[]);
        agreed(world.connect().say(&hello("cache", "1.0.0")));
        let told = broker.wait_for_line("lifecycle events are dropped");
        assert!(told.contains(event_log(&world).to_str().unwrap()), "{told}");
        broker.stop();
        assert_eq!(fs::read_to_string(&precious).unwrap(), PRECIOUS, "{link:?}");
    }
}

#[test]
fn a_definition_that_is_a_link_is_not_used_and_one_that_is_written_takes_the_link_s_place() {
    for (link, rule) in [(Link::Symbolic, "unreadable"), (Link::Hard, "untrusted")] {
        let world = World::new();
        world.define("cache", &[]);
        let definition = world.definitions().join("cache.servicedef");
        let elsewhere = world.path("elsewhere");
        fs::rename(&definition, &elsewhere).unwrap();
        match link {
            Link::Symbolic => symlink(&elsewhere, &definition).unwrap(),
            Link::Hard => fs::hard_link(&elsewhere, &definition).unwrap(),
        }
        let good = fs::read(&elsewhere).unwrap();
        let broker = world.serve(&[]);
        let refused = refusal(&world, "1.0.0");
        assert_eq!(&refused.details["rule"], rule, "{link:?}: {refused:?}");
        assert!(refused.reason.contains(definition.to_str().unwrap()), "{link:?}: {refused:?}");
        // Written by renaming: whatever the name led to before stays as it was.
        world.define("cache", &["--label", "owner=me"]);
        assert_eq!(fs::read(&elsewhere).unwrap(), good, "{link:?}");
        agreed(world.connect().say(&hello("cache", "1.0.0")));
        broker.stop();
    }
}

#[test]
fn a_directory_that_is_a_link_is_refused() {
    let directories: [fn(&World) -> PathBuf; 5] = [
        |world| world.path("run"),
        |world| world.path("xdg/running-process/broker"),
        World::state_dir,
        |world| world.state_dir().join("events"),
        World::definitions,
    ];
    for directory in directories {
        let world = World::new();
        world.serve(&[]).stop();
        let (directory, elsewhere) = (directory(&world), world.path("elsewhere"));
        fs::rename(&directory, &elsewhere).unwrap();
        symlink(&elsewhere, &directory).unwrap();
        let said = serve_in_vain(&world, &world.socket());
        assert!(said.contains(&format!("{} is a symbolic link", directory.display())), "{said}");
    }
}

#[test]
fn a_link_in_the_place_of_an_archive_is_neither_followed_nor_replaced() {
    let world = World::new();
    let _broker = world.serve(&[]);
    let nowhere = world.path("nowhere.tar.gz");
    symlink(world.path("not there"), &nowhere).unwrap();
    let linked = world.path("linked.tar.gz");
    let precious = plant(&world, Link::Symbolic, &linked);
    for output in [nowhere, linked] {
        let socket = world.socket();
        let refused = world.run(&[
            "diagnose",
            "--socket",
            socket.to_str().unwrap(),
            "--output",
            output.to_str().unwrap(),
        ]);
        assert_eq!(refused.code(), 1);
        let said = format!("a symbolic link is at {} already", output.display());
        assert!(refused.stderr.contains(&said), "{refused:?}");
        assert!(output.is_symlink());
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), PRECIOUS);
    assert!(!world.path("not there").exists());
}
