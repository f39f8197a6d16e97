//! The histories of some seeds, and that they are always the same.
#![allow(clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use broker_sim::{Figures, Telling, run};

/// How many seeds a test run lives through.
const SEEDS: u64 = 2_000;

#[test]
fn every_invariant_holds_in_every_history() {
    let mut all = Figures::default();
    for seed in 0..SEEDS {
        match run(seed, Telling::Figures) {
            Ok(outcome) => all.add(&outcome.figures),
            Err(violation) => panic!("{violation}; replay it with `cargo xtask sim --replay {seed}`"),
        }
    }
    // A world in which nothing happens keeps every promise.
    let Figures { events, agreements, refusals, adoptions, emitted, closed_silently, succeeded, crashed } =
        all;
    for figure in [events, agreements, refusals, adoptions, emitted, closed_silently, succeeded, crashed] {
        assert!(figure > SEEDS / 10, "{all:?}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..50 {
        let [once, again] = [(); 2].map(|()| run(seed, Telling::Fingerprint));
        assert_eq!(once, again, "seed {seed}");
        assert_ne!(
            once.map(|outcome| outcome.fingerprint),
            run(seed + 1, Telling::Fingerprint).map(|outcome| outcome.fingerprint)
        );
    }
}
