//! What the world knows by itself: simple counts beside the broker's clever ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use broker_core::admission::{PeerKey, RateLimit};
use broker_core::backends::{Origin, SPAWN_ATTEMPTS, SPAWN_WINDOW};
use broker_core::broker::{DefinitionCheck, Input};
use broker_core::handoff::BackendSlot;
use broker_core::hello::Negotiation;
use broker_core::services::Definition;
use broker_core::time::{Monotonic, Now};
use broker_protocol::ConnectionId;

use crate::plan::Plan;

/// Where the broker was last told that a backend is.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) pid: u32,
    pub(crate) endpoint: String,
    origin: Origin,
}

/// The plain book-keeping.
#[derive(Debug)]
pub(crate) struct Ledger {
    burst: u64,
    refill: u64,
    /// Hellos that were let through, per peer.
    admitted: BTreeMap<u32, u64>,
    began: Monotonic,
    tokens: BTreeSet<[u8; 16]>,
    issued: BTreeMap<ConnectionId, bool>,
    ids: BTreeSet<u64>,
    /// When each backend was started, since it was last ready.
    attempts: BTreeMap<BackendSlot, VecDeque<Monotonic>>,
    pub(crate) live: BTreeMap<BackendSlot, Told>,
    /// The definition that the broker has of each service.
    pub(crate) definitions: BTreeMap<String, std::sync::Arc<Definition>>,
    pub(crate) adoptions: u64,
}

impl Ledger {
    pub(crate) fn new(plan: &Plan) -> Self {
        let rate = plan.config.hello.rate_limit;
        Self {
            burst: rate.burst().into(),
            refill: rate.refill_per_second().into(),
            admitted: BTreeMap::new(),
            began: Monotonic::from_nanos(0),
            tokens: BTreeSet::new(),
            issued: BTreeMap::new(),
            ids: BTreeSet::new(),
            attempts: BTreeMap::new(),
            live: BTreeMap::new(),
            definitions: BTreeMap::new(),
            adoptions: 0,
        }
    }

    /// Other limits hold. A peer may have had what the former ones gave it, so the higher ones are what counts.
    pub(crate) fn limited_to(&mut self, rate: RateLimit) {
        self.burst = self.burst.max(rate.burst().into());
        self.refill = self.refill.max(rate.refill_per_second().into());
    }

    /// Another broker has taken over: permits and budgets begin anew, and what was issued is never good again.
    pub(crate) fn begins_anew(&mut self, now: Now) {
        self.admitted.clear();
        self.began = now.monotonic;
        self.attempts.clear();
        self.live.clear();
        self.definitions.clear();
    }

    /// Another broker has begun, which knows nothing of the former one.
    pub(crate) fn forgets_everything(&mut self, now: Now) {
        self.begins_anew(now);
        self.ids.clear();
        self.issued.clear();
    }

    /// A backend runs that the broker has not started.
    pub(crate) fn runs(&mut self, slot: BackendSlot, pid: u32, endpoint: String) {
        self.live.insert(slot, Told { pid, endpoint, origin: Origin::Started });
    }

    /// A Hello got a permit.
    pub(crate) fn hello_admitted(&mut self, peer: PeerKey) {
        *self.admitted.entry(peer.pid().map_or(0, std::num::NonZeroU32::get)).or_default() += 1;
    }

    /// Whether more Hellos of one peer were let through than its permits allow in all that time.
    pub(crate) fn is_over_rate(&self, now: Now) -> bool {
        let passed = now.monotonic.duration_since(self.began);
        let refilled = passed.as_nanos().saturating_mul(u128::from(self.refill)) / 1_000_000_000;
        let most = u128::from(self.burst) + refilled + 1;
        self.admitted.values().any(|admitted| u128::from(*admitted) > most)
    }

    pub(crate) fn definition_read(&mut self, service: &str, check: &DefinitionCheck) {
        match check {
            DefinitionCheck::Loaded(definition, _) => {
                self.definitions.insert(service.to_owned(), std::sync::Arc::clone(definition));
            }
            DefinitionCheck::Absent => {
                self.definitions.remove(service);
            }
            DefinitionCheck::Unchanged | DefinitionCheck::Invalid(_) | DefinitionCheck::Unusable(..) => {}
        }
    }

    /// An agreement is made.
    pub(crate) fn agreed(&mut self, agreed: &Negotiation) -> Result<(), String> {
        if !self.ids.insert(agreed.connection_id.get()) {
            return Err(format!("connection id {} is given twice", agreed.connection_id));
        }
        if let Some(token) = &agreed.token {
            self.issued.insert(agreed.connection_id, false);
            if !self.tokens.insert(*token.as_bytes()) {
                return Err(format!("the token of connection {} is another's", agreed.connection_id));
            }
        }
        Ok(())
    }

    /// An offer is settled.
    pub(crate) fn settled(&mut self, connection: ConnectionId) -> Result<(), String> {
        match self.issued.insert(connection, true) {
            Some(false) => Ok(()),
            Some(true) => Err(format!("the token of connection {connection} was good twice")),
            None => Err(format!("connection {connection} never had a token")),
        }
    }

    pub(crate) fn adopted(&mut self) {
        self.adoptions += 1;
    }

    /// A start is ordered; how many there were in the last window, this one included.
    pub(crate) fn start_ordered(&mut self, now: Now, slot: BackendSlot) -> Result<(), String> {
        let attempts = self.attempts.entry(slot).or_default();
        attempts.push_back(now.monotonic);
        let window = |first: &Monotonic| now.monotonic.duration_since(*first) >= SPAWN_WINDOW;
        while attempts.front().is_some_and(window) {
            attempts.pop_front();
        }
        if attempts.len() > SPAWN_ATTEMPTS as usize {
            return Err(format!("{slot:?} is started {} times in {SPAWN_WINDOW:?}", attempts.len()));
        }
        Ok(())
    }

    /// The broker is told something.
    pub(crate) fn told(&mut self, input: &Input) {
        match input {
            Input::Listening { slot, pid, endpoint } | Input::Started { slot, pid, endpoint } => {
                if matches!(input, Input::Started { .. }) {
                    self.attempts.remove(slot);
                }
                self.live
                    .insert(*slot, Told { pid: *pid, endpoint: endpoint.clone(), origin: Origin::Started });
            }
            Input::Exited { slot, pid, origin, .. } => {
                if self.live.get(slot).is_some_and(|told| told.pid == *pid && told.origin == *origin) {
                    self.live.remove(slot);
                }
            }
            Input::StartFailed { slot, .. } => {
                self.live.remove(slot);
            }
            Input::Adopted { slot, outcome: Ok((pid, endpoint)) } => {
                self.live
                    .insert(*slot, Told { pid: *pid, endpoint: endpoint.clone(), origin: Origin::Adopted });
            }
            Input::Adopted { outcome: Err(_), .. }
            | Input::Probed { .. }
            | Input::Looked { .. }
            | Input::ControlOpened { .. }
            | Input::ControlSilent { .. }
            | Input::ControlClosed { .. }
            | Input::Quiesced { .. }
            | Input::DescriptorPressure
            | Input::Reconfigured(_)
            | Input::Drain { .. } => {}
        }
    }
}
