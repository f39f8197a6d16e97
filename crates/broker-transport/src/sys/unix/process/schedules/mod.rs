//! Searching the schedules of a few threads for one that breaks what they promise.
//!
//! Shuttle runs them as coroutines on one thread, and chooses at every lock who goes on: at random, and by
//! PCT, which gives the threads priorities and changes them at a few places, so that bugs that take few
//! changes show soon. What orders of memory a processor permits is not tried: only locks are in what is
//! searched. Invariant: the same numbers try the same schedules, so what fails once fails again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may end at any surprise")]

mod requests;
mod stderr;

use std::panic::{AssertUnwindSafe, catch_unwind};

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use super::planted::Bug;

/// How many schedules each scheduler tries, unless [`VARIABLE`] says otherwise.
const SCHEDULES: usize = 2_000;

/// For a longer search.
const VARIABLE: &str = "BROKER_SCHEDULES";

/// Where both begin.
const SEED: u64 = 1;

/// How many threads must take turns in one order for a bug to show, as PCT has it.
const DEPTH: usize = 3;

/// Far more steps than any schedule here takes: whoever takes them waits for what does not come.
const MOST_STEPS: usize = 20_000;

fn schedules() -> usize {
    std::env::var(VARIABLE).map_or(SCHEDULES, |number| number.parse().unwrap())
}

/// Runs `scene` in every schedule that is tried; what it asserts holds in all of them.
fn hold(scene: fn()) {
    run(random(), FailurePersistence::Print, scene);
    run(pct(), FailurePersistence::Print, scene);
}

/// Runs `scene` in every schedule there is. It must be small: two threads, and a few locks.
fn hold_in_all(scene: fn()) {
    run(DfsScheduler::new(None, false), FailurePersistence::Print, scene);
}

/// Runs `scene` with a bug; both schedulers find a schedule in which it shows, and says what was expected.
fn find(bug: Bug, scene: fn(), expected: &str) {
    shows("random", || run(random(), FailurePersistence::None, scene), bug, expected);
    shows("PCT", || run(pct(), FailurePersistence::None, scene), bug, expected);
}

fn random() -> RandomScheduler {
    RandomScheduler::new_from_seed(SEED, schedules())
}

fn pct() -> PctScheduler {
    PctScheduler::new_from_seed(SEED, DEPTH, schedules())
}

fn run(scheduler: impl Scheduler + 'static, persistence: FailurePersistence, scene: fn()) {
    let mut config = Config::new();
    config.failure_persistence = persistence;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    Runner::new(scheduler, config).run(scene);
}

fn shows(scheduler: &str, search: impl FnOnce(), bug: Bug, expected: &str) {
    let Err(failure) = bug.planted(|| catch_unwind(AssertUnwindSafe(search))) else {
        panic!("{bug:?} is not found by {scheduler} in {} schedules", schedules());
    };
    let said = failure.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| failure.downcast_ref::<&str>().copied()).unwrap_or_default();
    assert!(said.contains(expected), "{bug:?} shows to {scheduler} as something else: {said}");
}
