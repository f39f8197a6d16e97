//! Handing a running broker's affairs to its successor in the same process (behaviour.md 4, "Replacement of the
//! broker itself").
//!
//! The connections are the shell's to move; here is what the state machine knows of backends, and when it has
//! nothing under way that could not go along. Invariants: no token outlives the broker that issued it; what the
//! successor does not inherit is nobody's promise: permits, budgets and counts begin anew.

use broker_protocol::wire::EventKind;
use broker_protocol::{BoundedEvent, ConnectionId, ServiceName, Severity, Version};

use super::planted::Bug;
use super::requests::DefinitionCheck;
use super::{Broker, KILL_AFTER};
use crate::backends::{BackendState, LiveBackend, Origin, StopReason};
use crate::entropy::Entropy;
use crate::events::EventDraft;
use crate::handoff::BackendSlot;
use crate::hello::Tokens;
use crate::time::{Monotonic, Now, UnixMillis};

/// A backend that the broker has started, as its successor gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InheritedBackend {
    /// The service it serves.
    pub service: ServiceName,
    /// The version it serves.
    pub version: Version,
    /// Its process id.
    pub pid: u32,
    /// Where it listens.
    pub endpoint: String,
    /// When it was last asked for.
    pub last_hello: (Monotonic, UnixMillis),
    /// When it was last seen to have connections.
    pub last_use: Option<Monotonic>,
    /// Whether it was told to end, and has not yet.
    pub is_ending: bool,
}

/// What of a broker goes to its successor beside its backends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estate {
    /// The last connection id that was given out, as none is given out twice in a process's life.
    pub last_id: Option<ConnectionId>,
    /// The last events, oldest first.
    pub recent: Vec<BoundedEvent>,
}

impl<E: Entropy> Broker<E> {
    /// Issues no more tokens, so that in a moment no handoff is pending, or does so again. Whoever says Hello
    /// meanwhile dials the backend.
    pub fn set_tokens(&mut self, tokens: Tokens) {
        self.handler.set_tokens(tokens);
    }

    /// Whether nothing is under way that cannot go to a successor: no handoff is pending, and no backend is being
    /// started.
    pub fn is_settled(&self) -> bool {
        let is_starting =
            |state: &BackendState| matches!(state, BackendState::Spawning | BackendState::Probing);
        self.handler.pending_handoffs() == 0
            && self
                .backends
                .iter()
                .all(|backend| backend.started_for.is_none() && !is_starting(&backend.state))
    }

    /// What the successor gets beside the backends.
    pub fn estate(&self) -> Estate {
        Estate { last_id: self.handler.last_id(), recent: self.recent_events().collect() }
    }

    /// Every backend that was started here and may live.
    pub fn bequests(&self) -> Vec<(BackendSlot, InheritedBackend)> {
        let started = self.backends.sorted().into_iter().filter_map(|backend| {
            let live = backend.state.live().filter(|live| live.origin == Origin::Started)?;
            let is_ending = matches!(backend.state, BackendState::Draining(..));
            if is_ending && self.has_bug(Bug::ForgottenBackend) {
                return None;
            }
            let inherited = InheritedBackend {
                service: backend.service.clone(),
                version: backend.version.clone(),
                pid: live.pid?,
                endpoint: live.endpoint.clone(),
                last_hello: backend.last_hello.unwrap_or_default(),
                last_use: backend.last_use,
                is_ending,
            };
            Some((backend.slot, inherited))
        });
        started.collect()
    }

    /// Takes over what the predecessor has left, before anything else.
    pub fn take_over(&mut self, now: Now, estate: &Estate) {
        if let Some(last) = estate.last_id {
            self.handler.continue_ids_after(last);
        }
        for event in &estate.recent {
            self.recent.push(event);
        }
        let draft = EventDraft::new(now, EventKind::ReplacedByNewer, Severity::Info, &self.instance);
        self.emit(draft.reason("the broker goes on as another program, in the same process"));
    }

    /// Takes over a backend, given its service's definition as it is now.
    pub fn inherit(
        &mut self,
        now: Now,
        inherited: InheritedBackend,
        definition: DefinitionCheck,
    ) -> BackendSlot {
        let InheritedBackend { service, version, pid, endpoint, last_hello, last_use, is_ending: _ } =
            inherited;
        let slot = self.entry_of(now, &service, &version, definition);
        let live = LiveBackend { pid: Some(pid), endpoint, origin: Origin::Started };
        self.now_running(now, slot, live);
        if let Some(backend) = self.backends.get_mut(slot) {
            backend.last_hello = Some(last_hello);
            backend.last_use = last_use;
        }
        slot
    }

    /// Tells a backend to end that was told so by the predecessor, now that it can be told.
    pub fn end_inherited(&mut self, now: Now, slot: BackendSlot) {
        self.stop(now, slot, StopReason::Idle, KILL_AFTER);
    }
}
