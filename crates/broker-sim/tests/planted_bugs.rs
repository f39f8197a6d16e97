//! The simulator finds bugs: each of those that are planted, by the invariant that it breaks.
#![cfg(feature = "planted-bugs")]
#![allow(clippy::panic, missing_docs, reason = "a test may end at any surprise")]

use broker_core::broker::planted::Bug;
use broker_sim::{Telling, Violation, run, run_with};

/// In how many histories a bug has to show.
const SEEDS: u64 = 2_000;

/// The first violation in a broker with this bug.
fn first_violation(bug: Bug) -> Violation {
    let found =
        (0..SEEDS).find_map(|seed| run_with(seed, Telling::Figures, &|broker| broker.with_bug(bug)).err());
    match found {
        Some(violation) => violation,
        None => panic!("{bug:?} is not found in {SEEDS} histories"),
    }
}

/// What each of them breaks.
const fn broken_by(bug: Bug) -> &'static str {
    match bug {
        Bug::SecondReply => "a Hello ends in exactly one reply",
        Bug::SecondStart | Bug::ForgottenBackend => "one live backend per key",
        Bug::SecondOwner => "a connection has at most one owner",
        Bug::LeakedConnection => "memory is linear in live things",
        Bug::EndlessDrain => "a drain ends",
    }
}

#[test]
fn each_planted_bug_is_found_by_the_invariant_that_it_breaks() {
    for bug in Bug::ALL {
        let violation = first_violation(bug);
        assert_eq!(violation.invariant, broken_by(bug), "{violation}");
        // The same history without the bug breaks nothing, and with it the same once more.
        assert!(run(violation.seed, Telling::Figures).is_ok());
        let again = run_with(violation.seed, Telling::Figures, &|broker| broker.with_bug(bug));
        assert_eq!(again.err(), Some(violation));
    }
}
