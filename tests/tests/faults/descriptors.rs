//! Few descriptors (EMFILE). That a broker with many connections lives through it is told in `hostile.rs`.

use broker_tests::linux::with_descriptors;
use broker_tests::{Daemon, World};

use crate::{does_not_begin, is_served, serve};

#[test]
fn a_broker_with_too_few_descriptors_says_so_and_does_not_panic() {
    for most in 4..=24 {
        let world = World::new();
        let mut command = with_descriptors(most, &serve(&world));
        does_not_begin(&most.to_string(), &mut command, &["file descriptors"]);
    }
}

#[test]
fn a_broker_with_just_enough_descriptors_serves() {
    let world = World::new();
    world.define("cache", &[]);
    let broker = Daemon::start(&mut with_descriptors(64, &serve(&world)));
    is_served(&world);
    broker.stop();
}
