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

fn is_found_by(bug: Bug, invariant: &str) {
    let violation = first_violation(bug);
    assert_eq!(violation.invariant, invariant, "{violation}");
    // The same history without the bug breaks nothing, and with it the same once more.
    assert!(run(violation.seed, Telling::Figures).is_ok());
    let again = run_with(violation.seed, Telling::Figures, &|broker| broker.with_bug(bug));
    assert_eq!(again.err(), Some(violation));
}

#[test]
fn a_second_reply_is_found() {
    is_found_by(Bug::SecondReply, "a Hello ends in exactly one reply");
}

#[test]
fn a_second_start_is_found() {
    is_found_by(Bug::SecondStart, "one live backend per key");
}

#[test]
fn a_second_owner_is_found() {
    is_found_by(Bug::SecondOwner, "a connection has at most one owner");
}

#[test]
fn a_leaked_connection_is_found() {
    is_found_by(Bug::LeakedConnection, "memory is linear in live things");
}

#[test]
fn an_endless_drain_is_found() {
    is_found_by(Bug::EndlessDrain, "a drain ends");
}

#[test]
fn each_bug_that_can_be_planted_has_its_test() {
    assert_eq!(Bug::ALL.len(), 5);
}
