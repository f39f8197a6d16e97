//! The backends a broker knows: one entry per (service, version), and what state each is in.
//!
//! Invariant: an entry has at most one process, because only an entry that is `Absent` or `Failed` is
//! ever started. The entry's waiters share the outcome of that one start.

use std::collections::HashMap;
use std::sync::Arc;

use broker_protocol::{Capabilities, ServiceName, SpawnFailure, Version};
use foldhash::fast::RandomState;

use super::budget::SpawnBudget;
use crate::admission::{ConnectionKey, PeerKey};
use crate::handoff::BackendSlot;
use crate::hello::{Asker, BackendHandoff};
use crate::metrics::SeriesId;
use crate::services::Definition;
use crate::time::{Monotonic, UnixMillis};

/// How a backend came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The broker started it.
    Started,
    /// A former broker started it.
    Adopted,
    /// It ran already and was registered.
    Registered,
}

impl Origin {
    /// Whether the broker answers for its process.
    pub const fn is_ours(self) -> bool {
        match self {
            Self::Started | Self::Adopted => true,
            Self::Registered => false,
        }
    }
}

/// Why the broker ends a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Nobody asked for it during its idle timeout, and nobody is connected to it.
    Idle,
    /// The broker shuts down.
    Shutdown,
}

/// A process that answered its probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveBackend {
    /// Its process id, where it is known.
    pub pid: Option<u32>,
    /// Where it listens.
    pub endpoint: String,
    /// How it came to be known.
    pub origin: Origin,
}

/// A control connection, unlike any other of its broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ControlKey(u64);

impl ControlKey {
    /// The connection with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
}

/// The state of a backend's control connection (protocol.md, "Extensions").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ControlState {
    /// It has none: it is plain v1.
    #[default]
    None,
    /// It takes offers there.
    Open,
    /// It has let an offer expire and said nothing since. It is plain v1 until it does.
    Silent,
}

/// What a backend is doing (behaviour.md 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// There is none.
    Absent,
    /// A registered endpoint is being probed.
    Probing,
    /// A process is being started.
    Spawning,
    /// It is there.
    Running(LiveBackend),
    /// It was told to end.
    Draining(LiveBackend, StopReason),
    /// The last start failed.
    Failed(SpawnFailure),
}

impl BackendState {
    /// The state's stable word, as `status` shows it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Probing | Self::Spawning => "spawning",
            Self::Running(_) => "running",
            Self::Draining(..) => "draining",
            Self::Failed(_) => "failed",
        }
    }

    /// The process, where there is one that answered its probe.
    pub const fn live(&self) -> Option<&LiveBackend> {
        match self {
            Self::Running(live) | Self::Draining(live, _) => Some(live),
            Self::Absent | Self::Probing | Self::Spawning | Self::Failed(_) => None,
        }
    }
}

/// An endpoint that the operator, or the backend itself, told the broker of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The service it serves.
    pub service: ServiceName,
    /// The version it serves.
    pub version: Version,
    /// Where it listens.
    pub endpoint: String,
    /// Where it takes offers, if it does.
    pub handoff_endpoint: Option<String>,
}

/// A client that waits for a start.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) connection: ConnectionKey,
    pub(crate) asker: Asker,
    /// The client's own name for its request, for events; bounded.
    pub(crate) request_id: String,
    /// When its connection was accepted.
    pub(crate) accepted: Monotonic,
    /// When it began to wait.
    pub(crate) arrived: Monotonic,
    pub(crate) deadline: Monotonic,
}

/// The trace that a start belongs to.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceContext {
    pub(crate) parent: String,
    pub(crate) state: String,
}

/// One (service, version).
#[derive(Debug)]
pub struct Backend {
    pub(crate) slot: BackendSlot,
    pub(crate) service: ServiceName,
    pub(crate) version: Version,
    pub(crate) state: BackendState,
    pub(crate) budget: SpawnBudget,
    pub(crate) definition: Option<Arc<Definition>>,
    pub(crate) registration: Option<Registration>,
    /// The endpoint that is being probed.
    pub(crate) probed: Option<String>,
    /// The process that has registered itself over its control connection.
    pub(crate) announced_by: Option<u32>,
    /// Whether its registration is that process's own, and goes with it.
    pub(crate) is_self_registered: bool,
    pub(crate) control: ControlState,
    pub(crate) control_key: Option<ControlKey>,
    /// What it has announced there.
    pub(crate) announced: Capabilities,
    pub(crate) waiters: Vec<Waiter>,
    /// Whose Hello its start is charged to, while it is under way.
    pub(crate) started_for: Option<PeerKey>,
    /// Of the Hello that first waited, for the process that is started because of it.
    pub(crate) trace: TraceContext,
    pub(crate) series: SeriesId,
    pub(crate) last_hello: Option<(Monotonic, UnixMillis)>,
    pub(crate) last_error: Option<String>,
    /// When it was last seen to have connections.
    pub(crate) last_use: Option<Monotonic>,
    pub(crate) idle_check: Option<Monotonic>,
    pub(crate) kill_at: Option<Monotonic>,
}

impl Backend {
    /// Its place in the table.
    pub const fn slot(&self) -> BackendSlot {
        self.slot
    }

    /// The service.
    pub const fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The version.
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// What it is doing.
    pub const fn state(&self) -> &BackendState {
        &self.state
    }

    /// Its spawn budget.
    pub const fn budget(&self) -> &SpawnBudget {
        &self.budget
    }

    /// When it was last asked for.
    pub fn last_hello(&self) -> Option<UnixMillis> {
        self.last_hello.map(|(_, unix)| unix)
    }

    /// What went wrong last.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// The series that it is counted in.
    pub const fn series(&self) -> SeriesId {
        self.series
    }

    /// Whether it, or somebody for it, has said that it runs already.
    pub const fn is_registered(&self) -> bool {
        self.registration.is_some()
    }

    /// Its control connection.
    pub const fn control(&self) -> ControlState {
        self.control
    }

    /// How it takes connections that are passed to it.
    pub fn handoff(&self) -> BackendHandoff {
        let takes_offers = self.announced.contains(Capabilities::HANDLE_PASSING);
        match self.control {
            ControlState::Open if takes_offers && self.announced.contains(Capabilities::EARLY_DATA) => {
                BackendHandoff::Control
            }
            ControlState::Open if takes_offers => BackendHandoff::ControlOffers,
            ControlState::Open | ControlState::None | ControlState::Silent => {
                if self.handoff_endpoint().is_some() {
                    BackendHandoff::Plain
                } else {
                    BackendHandoff::DialOnly
                }
            }
        }
    }

    /// Where it is dialled for offers: as it was registered, or as its definition says.
    pub fn handoff_endpoint(&self) -> Option<&str> {
        // One that was started has nothing to do with a registration that led nowhere.
        let is_started = self.state.live().is_some_and(|live| live.origin.is_ours());
        let registration = self.registration.as_ref().filter(|_| !is_started);
        let registered = registration.and_then(|registered| registered.handoff_endpoint.as_deref());
        let defined = || self.definition.as_ref()?.settings().handoff_endpoint.as_deref();
        registered.or_else(defined)
    }

    /// How many clients wait for it.
    pub const fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Whether the broker answers for its process: it was started here and may still run.
    pub(crate) const fn is_ours_to_stop(&self) -> bool {
        match &self.state {
            BackendState::Spawning => true,
            BackendState::Running(live) | BackendState::Draining(live, _) => live.origin.is_ours(),
            BackendState::Absent | BackendState::Probing | BackendState::Failed(_) => false,
        }
    }
}

/// Every backend the broker knows.
#[derive(Debug, Default)]
pub(crate) struct BackendTable {
    backends: HashMap<BackendSlot, Backend, RandomState>,
    index: HashMap<(ServiceName, Version), BackendSlot, RandomState>,
    next_slot: u32,
}

impl BackendTable {
    pub(crate) fn get_mut(&mut self, slot: BackendSlot) -> Option<&mut Backend> {
        self.backends.get_mut(&slot)
    }

    pub(crate) fn get(&self, slot: BackendSlot) -> Option<&Backend> {
        self.backends.get(&slot)
    }

    /// The entry of (service, version), made when there is none.
    pub(crate) fn entry(
        &mut self,
        service: &ServiceName,
        version: &Version,
        series: impl FnOnce() -> SeriesId,
    ) -> BackendSlot {
        let key = (service.clone(), version.clone());
        if let Some(slot) = self.index.get(&key) {
            return *slot;
        }
        let slot = BackendSlot::new(self.next_slot);
        self.next_slot = self.next_slot.wrapping_add(1);
        self.index.insert(key, slot);
        let backend = Backend {
            slot,
            service: service.clone(),
            version: version.clone(),
            state: BackendState::Absent,
            budget: SpawnBudget::default(),
            definition: None,
            registration: None,
            probed: None,
            announced_by: None,
            is_self_registered: false,
            control: ControlState::None,
            control_key: None,
            announced: Capabilities::empty(),
            waiters: Vec::new(),
            started_for: None,
            trace: TraceContext::default(),
            series: series(),
            last_hello: None,
            last_error: None,
            last_use: None,
            idle_check: None,
            kill_at: None,
        };
        self.backends.insert(slot, backend);
        slot
    }

    /// The entry of (service, version), where there is one.
    pub(crate) fn find(&self, service: &ServiceName, version: &Version) -> Option<&Backend> {
        let slot = self.index.get(&(service.clone(), version.clone()))?;
        self.backends.get(slot)
    }

    pub(crate) fn remove(&mut self, slot: BackendSlot) {
        if let Some(backend) = self.backends.remove(&slot) {
            self.index.remove(&(backend.service, backend.version));
        }
    }

    /// Every backend, in order of service and version.
    pub(crate) fn sorted(&self) -> Vec<&Backend> {
        let mut all: Vec<&Backend> = self.backends.values().collect();
        all.sort_unstable_by(|left, right| {
            (&left.service, &left.version).cmp(&(&right.service, &right.version))
        });
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.backends.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Backend> {
        self.backends.values()
    }

    /// The slots of the backends that are ours to stop, in a stable order.
    pub(crate) fn ours_to_stop(&self) -> Vec<BackendSlot> {
        let mut slots: Vec<_> = self
            .backends
            .values()
            .filter(|backend| backend.is_ours_to_stop())
            .map(|backend| backend.slot)
            .collect();
        slots.sort_unstable();
        slots
    }
}
