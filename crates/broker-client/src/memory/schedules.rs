//! The memory in many schedules: sessions that share it fail, find an entry on disk and reach a backend at
//! the same time, and what was reached last is what is remembered.
//!
//! Shuttle chooses at every lock which thread goes on (see `schedules` in broker-transport). Invariant: the
//! same numbers try the same schedules.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may end at any surprise")]

use std::panic::catch_unwind;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner, thread};

use super::tests::{KEEPALIVE, agreement, listener};
use super::*;

/// How many schedules the schedulers that choose at random try, unless [`VARIABLE`] says otherwise.
const SCHEDULES: usize = 2_000;

/// For a longer search.
const VARIABLE: &str = "BROKER_SCHEDULES";

const SEED: u64 = 1;

/// How many threads must take turns in one order for a bug to show, as PCT has it.
const DEPTH: usize = 3;

fn schedules() -> usize {
    std::env::var(VARIABLE).map_or(SCHEDULES, |number| number.parse().unwrap())
}

fn random() -> RandomScheduler {
    RandomScheduler::new_from_seed(SEED, schedules())
}

fn pct() -> PctScheduler {
    PctScheduler::new_from_seed(SEED, DEPTH, schedules())
}

fn run(scheduler: impl Scheduler + 'static, persistence: FailurePersistence) {
    let mut config = Config::new();
    config.failure_persistence = persistence;
    Runner::new(scheduler, config).run(three_sessions);
}

/// One fails with what is old, one reads the disk, and one reaches what is new.
fn three_sessions() {
    let (memory, now) = (Memory::default(), Instant::now());
    let (old, new) = (agreement(KEEPALIVE), agreement(KEEPALIVE));
    memory.remember(Known::new(&old, listener(7), now));
    let on_disk = Known::from_disk(&agreement(KEEPALIVE), listener(7), Duration::ZERO, now).unwrap();
    let of_one = memory.clone();
    let one = thread::spawn(move || of_one.forget(&old));
    let of_another = memory.clone();
    let another = thread::spawn(move || of_another.keep(&on_disk));
    memory.remember(Known::new(&new, listener(7), now));
    one.join().unwrap();
    another.join().unwrap();
    let remembered = memory.recall(now).map(|known| Arc::ptr_eq(known.agreement(), &new));
    assert_eq!(remembered, Some(true), "the newest agreement is remembered");
}

fn find(bug: Bug) {
    let searches: [(&str, fn()); 2] = [
        ("random", || run(random(), FailurePersistence::None)),
        ("PCT", || run(pct(), FailurePersistence::None)),
    ];
    for (name, search) in searches {
        let Err(failure) = bug.planted(|| catch_unwind(search)) else {
            panic!("{bug:?} is not found by {name} in {} schedules", schedules());
        };
        let said = failure.downcast_ref::<String>().map_or("", String::as_str);
        assert!(said.contains("the newest agreement"), "{bug:?} shows to {name} as something else: {said}");
    }
}

#[test]
fn the_newest_agreement_is_remembered_in_every_schedule() {
    run(DfsScheduler::new(None, false), FailurePersistence::Print);
}

#[test]
fn a_memory_that_is_unlocked_before_it_forgets_is_found() {
    find(Bug::UnlockedBeforeForget);
}

#[test]
fn a_memory_that_is_unlocked_before_it_keeps_is_found() {
    find(Bug::UnlockedBeforeKeep);
}
