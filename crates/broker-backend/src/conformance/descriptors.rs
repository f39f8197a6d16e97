//! How many descriptors the service's process has open, where that can be seen (`/proc/PID/fd`, proc(5)).
//!
//! Invariant: a count that cannot be had, or that says nothing about the service, is a skipped check, never
//! a guess.

use std::io;
use std::time::Duration;

use broker_transport::endpoint::Platform;
use tokio::time::{Instant, sleep};

use super::report::{Outcome, failed, skipped};
use super::subject::Subject;

/// What a service may open once and for all while it works, such as a log or a runtime's own descriptors.
const SLACK: usize = 10;

/// First and longest pause between two counts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A count before something is done.
#[derive(Debug)]
pub(super) struct Count {
    pid: u32,
    before: usize,
}

impl Count {
    pub(super) fn of(subject: &Subject) -> Outcome<Self> {
        let Some(pid) = subject.pid else {
            return Err(skipped("the kernel does not say which process listens there"));
        };
        if pid == std::process::id() {
            return Err(skipped(
                "the service runs in the test's own process, whose descriptors are not its alone",
            ));
        }
        if Platform::CURRENT == Platform::Windows {
            return Err(skipped(
                "a process's handles are also those of its threads and its events, which come and go",
            ));
        }
        Ok(Self { pid, before: open(pid).map_err(|error| cannot_count(pid, &error))? })
    }

    /// That there are no more than before, as soon as what was done has been cleaned up.
    pub(super) async fn settles(self, patience: Duration, rounds: usize) -> Outcome {
        let deadline = Instant::now() + patience;
        let mut pause = PAUSE.0;
        loop {
            let now = open(self.pid).map_err(|error| cannot_count(self.pid, &error))?;
            if now <= self.before + SLACK {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(failed(
                    format_args!("about {} open descriptors, as before {rounds} offers", self.before),
                    format_args!("{now}"),
                ));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

fn cannot_count(pid: u32, error: &io::Error) -> super::report::Stop {
    skipped(format_args!("the descriptors of process {pid} cannot be counted: {error}"))
}

fn open(pid: u32) -> io::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
