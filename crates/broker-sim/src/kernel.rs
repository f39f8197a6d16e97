//! Processes of backends, and the numbers that the kernel gives them.
//!
//! There are few numbers, so that each is soon somebody else's.

use std::collections::BTreeMap;

use broker_core::backends::ControlKey;
use broker_core::handoff::BackendSlot;
use broker_protocol::Capabilities;

use crate::starts::StartNumber;

/// The lowest process id of a backend; clients have those below.
const FIRST_PID: u32 = 100;

/// A process, unlike any other there ever was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Incarnation(u64);

/// Who has made a process.
#[derive(Clone, Debug)]
pub(crate) enum Parent {
    /// The broker, on this order.
    Broker(StartNumber),
    /// Somebody else.
    Nobody,
}

/// A process of a backend that runs.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: Parent,
    pub(crate) service: usize,
    pub(crate) version: usize,
    pub(crate) endpoint: String,
    /// Its end of a control connection, and what it has announced there.
    pub(crate) control: Option<(ControlKey, Capabilities)>,
    /// Where the broker watches for its end because it has answered a probe there.
    pub(crate) watched_in: Vec<BackendSlot>,
    pub(crate) is_stubborn: bool,
}

/// The processes that run.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    processes: BTreeMap<Incarnation, Process>,
    /// Those that have ended, until their parent is told.
    ended: BTreeMap<Incarnation, Process>,
    next: u64,
}

impl Kernel {
    /// Makes a process; its number is the lowest that is free.
    pub(crate) fn fork(&mut self, process: impl FnOnce(u32) -> Process) -> Incarnation {
        let taken: Vec<u32> = self
            .processes
            .values()
            .chain(self.ended.values().filter(is_zombie))
            .map(|process| process.pid)
            .collect();
        let pid = (FIRST_PID..).find(|pid| !taken.contains(pid)).unwrap_or(FIRST_PID);
        let incarnation = Incarnation(self.next);
        self.next += 1;
        self.processes.insert(incarnation, process(pid));
        incarnation
    }

    pub(crate) fn get(&self, incarnation: Incarnation) -> Option<&Process> {
        self.processes.get(&incarnation)
    }

    pub(crate) fn get_mut(&mut self, incarnation: Incarnation) -> Option<&mut Process> {
        self.processes.get_mut(&incarnation)
    }

    /// Ends a process; `None` where it has ended before.
    pub(crate) fn end(&mut self, incarnation: Incarnation) -> Option<Process> {
        let process = self.processes.remove(&incarnation)?;
        self.ended.insert(incarnation, process.clone());
        Some(process)
    }

    /// Takes note of an end, which frees its number.
    pub(crate) fn reap(&mut self, incarnation: Incarnation) -> Option<Process> {
        self.ended.remove(&incarnation)
    }

    /// The process that serves an endpoint.
    pub(crate) fn serving(&self, endpoint: &str) -> Option<Incarnation> {
        self.processes
            .iter()
            .find(|(_, process)| process.endpoint == endpoint)
            .map(|(incarnation, _)| *incarnation)
    }

    /// Whoever has watched for ends is there no more.
    pub(crate) fn nobody_watches(&mut self) {
        let all = self.processes.values_mut().chain(self.ended.values_mut());
        all.for_each(|process| process.watched_in.clear());
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (Incarnation, &Process)> {
        self.processes.iter().map(|(incarnation, process)| (*incarnation, process))
    }
}

/// Whether the number of a process that has ended is still its own: its parent has not asked for its end yet.
fn is_zombie(process: &&Process) -> bool {
    matches!(process.parent, Parent::Broker(_))
}
