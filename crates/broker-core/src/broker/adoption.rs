//! Backends that a former broker has left running (behaviour.md 4, "Broker restart").
//!
//! What was left is found and looked at by the shell; meanwhile nobody has another one started. Invariants: a
//! backend is adopted only in a place where nothing is; one that is not who it should be is forgotten, not ended.

use broker_protocol::wire::EventKind;
use broker_protocol::{ServiceName, Severity, Version};

use super::Broker;
use super::requests::DefinitionCheck;
use crate::backends::{BackendState, LiveBackend, Origin};
use crate::entropy::Entropy;
use crate::events::EventDraft;
use crate::handoff::BackendSlot;
use crate::time::Now;

impl<E: Entropy> Broker<E> {
    /// A former broker may have left a backend of this version; whether it has, is told as `Adopted`. `None` where
    /// its place is taken.
    pub fn expect_adoption(
        &mut self,
        now: Now,
        service: &ServiceName,
        version: &Version,
        definition: DefinitionCheck,
    ) -> Option<BackendSlot> {
        let slot = self.entry_of(now, service, version, definition);
        let backend = self.backends.get_mut(slot)?;
        if backend.registration.is_some() || !matches!(backend.state, BackendState::Absent) {
            return None;
        }
        backend.state = BackendState::Probing;
        Some(slot)
    }

    /// The entry of a backend that the broker knows of by other means than a Hello.
    pub(super) fn entry_of(
        &mut self,
        now: Now,
        service: &ServiceName,
        version: &Version,
        definition: DefinitionCheck,
    ) -> BackendSlot {
        // One whose definition is bad by now keeps running, and its next Hello is told so.
        let _ = self.take_definition(now, service.as_str(), definition);
        let definition = self.handler.definition(service.as_str()).cloned();
        let is_named = definition.as_ref().is_some_and(|definition| definition.policy().names(version));
        let label = if is_named { version.to_string() } else { crate::metrics::OTHER.to_owned() };
        let metrics = &mut self.metrics;
        let slot = self.backends.entry(service, version, || metrics.series_of(service.as_str(), &label));
        if let Some(backend) = self.backends.get_mut(slot) {
            backend.definition = definition;
        }
        slot
    }

    /// What was left by a former broker was looked at: its process and where it listens, or why it is not used.
    pub(super) fn adopted(&mut self, now: Now, slot: BackendSlot, outcome: Result<(u32, String), String>) {
        let Some(backend) = self.backends.get_mut(slot) else { return };
        if backend.state != BackendState::Probing {
            return;
        }
        let (service, version) = (backend.service.to_string(), backend.version.clone());
        let draft = EventDraft::new(now, EventKind::Spawn, Severity::Info, &self.instance)
            .service(&service)
            .extra("version", &version)
            .extra("adopted", true);
        match outcome {
            Ok((pid, endpoint)) => {
                // It may have announced itself meanwhile; it is more than that to us. Another that has is nothing
                // to us, and what the operator has named comes after it.
                if backend.announced_by.is_some_and(|announced| announced != pid) {
                    self.end_control(slot);
                } else if std::mem::take(&mut backend.is_self_registered) {
                    backend.registration = None;
                }
                self.emit(draft.pid(Some(pid)).reason("a former broker has left it running"));
                self.now_running(
                    now,
                    slot,
                    LiveBackend { pid: Some(pid), endpoint, origin: Origin::Adopted },
                );
            }
            Err(cause) => {
                backend.state = BackendState::Absent;
                backend.last_error = Some(cause.clone());
                let reason = format!("what a former broker has left is not used: {cause}");
                let draft = EventDraft::new(now, EventKind::SpawnAttempt, Severity::Warn, &self.instance);
                self.emit(draft.service(&service).reason(reason).extra("version", &version));
                self.bring_up_for_waiters(now, slot);
            }
        }
        self.advance_drain(now);
    }

    /// A manifest is damaged; it is left alone.
    pub fn manifest_damaged(&mut self, now: Now, reason: String) {
        let kind = EventKind::CacheCorruptionDetected;
        let draft = EventDraft::new(now, kind, Severity::Warn, &self.instance);
        self.emit(draft.reason(reason));
    }

    /// Sees to those who wait for a backend that is not there: by what has announced itself, or a start.
    fn bring_up_for_waiters(&mut self, now: Now, slot: BackendSlot) {
        let Some(backend) = self.backends.get(slot) else { return };
        if backend.waiters.is_empty() {
            self.forget(now, slot);
        } else if let Some(endpoint) = backend.registration.as_ref().map(|known| known.endpoint.clone()) {
            self.probe(slot, endpoint);
        } else {
            self.start_for_waiters(now, slot);
        }
    }
}
