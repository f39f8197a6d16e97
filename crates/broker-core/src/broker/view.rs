//! Looking at a broker: what the admin verbs and the metrics show.

use broker_protocol::BoundedEvent;

use super::{Broker, BrokerConfig};
use crate::admission::PeerKey;
use crate::backends::Backend;
use crate::entropy::Entropy;
use crate::handoff::BackendSlot;
use crate::metrics::Metrics;
use crate::time::Now;

/// How much a broker keeps of each thing at the moment: what its memory grows and shrinks with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Open connections.
    pub connections: usize,
    /// Hellos that wait for a start.
    pub hellos_waiting: usize,
    /// Entries of the backend table.
    pub backends: usize,
    /// Things that become due.
    pub timers: usize,
    /// Handoffs that are not settled.
    pub handoffs: usize,
    /// Actions that nobody has fetched.
    pub actions: usize,
    /// Peers with a start under way.
    pub starters: usize,
}

impl<E: Entropy> Broker<E> {
    /// How much it keeps at the moment.
    pub fn footprint(&mut self) -> Footprint {
        Footprint {
            connections: self.connections.len(),
            hellos_waiting: self.waiting.len(),
            backends: self.backends.len(),
            timers: self.timers.len(),
            handoffs: self.handler.handoffs().len(),
            actions: self.actions.len(),
            starters: self.starts.peers(),
        }
    }

    /// Connections, kept bytes, starts under way and pending handoffs of one peer, in this order.
    pub fn held_by(&mut self, peer: PeerKey) -> [usize; 4] {
        [
            self.connections.held_by(peer),
            self.connections.buffered_by(peer),
            self.starts.held_by(peer),
            self.handler.handoffs().held_by(peer),
        ]
    }

    /// Handoffs to this backend that are not settled.
    pub fn handoffs_to(&mut self, slot: BackendSlot) -> usize {
        self.handler.handoffs().outstanding(slot)
    }

    /// What is configured.
    pub const fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// Every backend it knows, in order of service and version.
    pub fn backends(&self) -> Vec<&Backend> {
        self.backends.sorted()
    }

    /// The backend in this place.
    pub fn backend(&self, slot: BackendSlot) -> Option<&Backend> {
        self.backends.get(slot)
    }

    /// Connections open right now.
    pub fn connections_open(&self) -> usize {
        self.connections.len()
    }

    /// Hellos that wait for a start right now.
    pub fn hellos_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether Hellos are refused for want of descriptors.
    pub fn is_under_descriptor_pressure(&self, now: Now) -> bool {
        self.pressure.is_demoted(now.monotonic)
    }

    /// The last events, oldest first.
    pub fn recent_events(&self) -> impl Iterator<Item = BoundedEvent> {
        self.recent.iter()
    }

    /// All numbers.
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The labels that a backend is counted under: its service and, where a definition names it, its version.
    pub fn labels_of<'a>(&'a self, backend: &'a Backend) -> [&'a str; 2] {
        let version = self.metrics.version_label(backend.series());
        [backend.service().as_str(), version]
    }

    /// Peers that the rate limiter remembers.
    pub fn known_peers(&self) -> usize {
        self.handler.known_peers()
    }
}
