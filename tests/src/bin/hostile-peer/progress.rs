//! How much was done, told after each round and at the end.
//!
//! Invariant: the last line is the whole count, also where standard input ends in the middle of a round.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is done so far, of how much.
pub(crate) struct Progress {
    done: AtomicU64,
    count: u64,
    round: u64,
}

impl Progress {
    /// Nothing is done yet. Ends the process when `count` is, or when standard input ends.
    pub(crate) fn start(count: u64, round: u64) -> &'static Self {
        let progress: &'static Self = Box::leak(Box::new(Self { done: AtomicU64::new(0), count, round }));
        std::thread::spawn(move || {
            // Nothing is ever written there.
            let _ = std::io::stdin().read(&mut [0]);
            progress.end();
        });
        progress
    }

    /// One more is done.
    pub(crate) fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done == self.count {
            self.end();
        }
        if done.is_multiple_of(self.round) {
            println!("{done}");
        }
    }

    /// Does nothing any more, and keeps what it has until standard input ends.
    pub(crate) fn keep(&self) -> ! {
        loop {
            std::thread::park();
        }
    }

    fn end(&self) -> ! {
        println!("{}", self.done.load(Ordering::Relaxed));
        // With everything that is open, and whatever another thread is at.
        std::process::exit(0)
    }
}
