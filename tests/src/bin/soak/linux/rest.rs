//! What there is when nobody asks for anything, and whether it is that again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use broker_tests::{World, linux};

use super::broker::Broker;
use super::clients;

/// How long things may take to come to rest; clients give up on a backend after a second, the broker on an offer
/// after five.
const COMING_TO_REST: Duration = Duration::from_secs(30);
/// Descriptors that a broker has for each backend it started: its control connection, its stderr, its process.
const PER_BACKEND: usize = 3;
/// The file of the events, which is opened when there is one.
const EVENTS: usize = 1;

/// Descriptors of processes that have nothing to do.
pub(super) struct Rest {
    /// With one backend.
    broker: usize,
    backend: usize,
}

impl Rest {
    /// Measures a fresh broker with its first backend. One that has not served yet may still be opening what it
    /// needs.
    pub(super) fn measure(world: &World, broker: &Broker) -> Self {
        let lowest = |pid: u32| {
            let counts = (0..200).map(|_| {
                std::thread::yield_now();
                linux::open_descriptors(pid)
            });
            counts.min().unwrap()
        };
        let backend = clients::start_one(world);
        Self { broker: lowest(broker.pid()), backend: lowest(backend) }
    }

    /// What does not go away.
    pub(super) fn look(&self, world: &World, broker: &Broker) -> Vec<String> {
        let deadline = Instant::now() + COMING_TO_REST;
        loop {
            let left = self.left(world, broker);
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn left(&self, world: &World, broker: &Broker) -> Vec<String> {
        let mut left = Vec::new();
        let processes = linux::processes_of(&world.path(""));
        let (own, others): (Vec<_>, Vec<_>) =
            processes.into_iter().partition(|process| [process.pid, process.parent].contains(&broker.pid()));
        left.extend(others.into_iter().map(|process| format!("nobody's process {process:?}")));
        left.extend(linux::zombies_of(broker.pid()).into_iter().map(|zombie| format!("zombie {zombie:?}")));
        let backends: Vec<u32> =
            own.iter().map(|process| process.pid).filter(|pid| *pid != broker.pid()).collect();
        let most = self.broker + EVENTS + PER_BACKEND * backends.len() - PER_BACKEND;
        let open = linux::open_descriptors(broker.pid());
        if open > most {
            left.push(format!(
                "the broker has {open} descriptors open, {most} at rest: {}",
                list(broker.pid())
            ));
        }
        for backend in &backends {
            let open = linux::open_descriptors(*backend);
            if open > self.backend {
                let most = self.backend;
                left.push(format!(
                    "backend {backend} has {open} descriptors open, {most} at rest: {}",
                    list(*backend)
                ));
            }
        }
        let sockets = linux::sockets_in(&runtime_dir(world));
        if sockets.len() > backends.len() {
            left.push(format!("{} backends, and the sockets {sockets:?}", backends.len()));
        }
        left
    }
}

pub(super) fn runtime_dir(world: &World) -> PathBuf {
    world.path("xdg/running-process/broker")
}

fn list(pid: u32) -> String {
    let entries = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"));
    let links =
        entries.into_iter().flatten().flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let mut texts: Vec<String> = links.map(|link| link.display().to_string()).collect();
    texts.sort_unstable();
    texts.join(" ")
}
