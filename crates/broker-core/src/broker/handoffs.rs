//! Offers to backends, and what they answer (behaviour.md 2, "Handoff tokens"; protocol.md,
//! "Conversations" 4 to 6).
//!
//! Which connection may be offered is decided with the Hello; here is what comes after. Invariants: every
//! offer is counted under exactly one outcome; one that was not answered in time is abandoned, never
//! taken back.

use broker_protocol::Capabilities;
use broker_protocol::handoff::{Acknowledgement, Verdict};

use super::planted::Bug;
use super::{Action, Broker};
use crate::backends::{ControlKey, ControlState};
use crate::entropy::Entropy;
use crate::handoff::{AckError, BackendSlot, OfferError, Settlement, Stage};
use crate::hello::Negotiation;
use crate::metrics::HandoffOutcome;
use crate::time::Now;

impl<E: Entropy> Broker<E> {
    /// A connection is about to be offered; to be called before the first byte of the offer is sent.
    ///
    /// # Errors
    /// [`OfferError`], and the offer must not be sent.
    pub fn offering(&mut self, now: Now, negotiation: &Negotiation) -> Result<(), OfferError> {
        self.handler.handoffs().offered(now.monotonic, negotiation.connection_id)
    }

    /// A connection was not offered after all: not a byte of the offer was sent.
    pub fn not_offered(&mut self, negotiation: &Negotiation) {
        if self.handler.handoffs().revoke(negotiation.connection_id).is_some() {
            self.count_handoff(negotiation.route.slot(), HandoffOutcome::Unsent);
        }
    }

    /// The way to a backend broke after an offer had left and before it was answered.
    pub fn answer_lost(&mut self, negotiation: &Negotiation) {
        if self.handler.handoffs().revoke(negotiation.connection_id).is_some() {
            self.count_handoff(negotiation.route.slot(), HandoffOutcome::Lost);
        }
    }

    /// A backend has answered an offer.
    ///
    /// # Errors
    /// [`AckError`]: it settles nothing. The offer, if there is one, is waited for as before.
    pub fn answered(
        &mut self,
        now: Now,
        slot: BackendSlot,
        answer: &Acknowledgement,
    ) -> Result<Settlement, AckError> {
        let handoffs = self.handler.handoffs();
        if handoffs.backend_of(answer.connection) != Some(slot) {
            return Err(AckError::NotPending);
        }
        let (settled, outcome, settlement) = match answer.verdict {
            Verdict::Accepted => (
                handoffs.acknowledge(now.monotonic, answer.connection, &answer.token)?,
                HandoffOutcome::Accepted,
                Settlement::accepted(answer.connection),
            ),
            Verdict::Rejected { .. } => (
                handoffs.reject(now.monotonic, answer.connection, &answer.token)?,
                HandoffOutcome::Rejected,
                Settlement::rejected(answer.connection),
            ),
        };
        if let Some(series) = self.backends.get(slot).map(|backend| backend.series) {
            self.metrics.handoff(series, outcome);
            self.metrics.handoff_took(series, settled.waited);
        }
        if self.has_bug(Bug::SecondOwner) {
            return Ok(Settlement::rejected(answer.connection));
        }
        Ok(settlement)
    }

    /// Where a backend is dialled for offers, and its process, where it is known.
    pub fn offers_taken_at(&self, slot: BackendSlot) -> Option<(&str, Option<u32>)> {
        let backend = self.backends.get(slot)?;
        Some((backend.handoff_endpoint()?, backend.state.live()?.pid))
    }

    pub(super) fn control_opened(&mut self, slot: BackendSlot, control: ControlKey, announced: Capabilities) {
        if let Some(backend) = self.backends.get_mut(slot) {
            backend.announced = announced;
            backend.control_key = Some(control);
        }
        self.set_control(slot, ControlState::Open);
    }

    pub(super) fn control_closed(&mut self, now: Now, slot: BackendSlot, control: ControlKey) {
        match self.backends.get_mut(slot) {
            Some(backend) if backend.control_key == Some(control) => backend.control_key = None,
            // It led to a process that is gone.
            Some(_) | None => return,
        }
        self.set_control(slot, ControlState::None);
        self.offers_lost(slot);
        self.withdraw_registration(now, slot);
    }

    /// Takes out the offers whose time is over.
    pub(super) fn expire_offers(&mut self, now: Now) {
        let mut expired = Vec::new();
        self.handler.handoffs().expire(now.monotonic, |lapsed| expired.push(lapsed));
        for lapsed in expired {
            match lapsed.stage {
                // Nobody took the token up; the connection is not lent to anybody.
                Stage::Issued => self.count_handoff(lapsed.backend, HandoffOutcome::Unsent),
                Stage::Offered => {
                    self.count_handoff(lapsed.backend, HandoffOutcome::Expired);
                    self.actions.push_back(Action::Abandon { connection: lapsed.connection });
                }
            }
        }
    }

    /// A backend is gone, or its control connection is: what was offered to it will not be answered.
    pub(super) fn offers_lost(&mut self, slot: BackendSlot) {
        for _ in 0..self.handler.handoffs().revoke_backend(slot) {
            self.count_handoff(slot, HandoffOutcome::Lost);
        }
    }

    /// An offer that was out on a backend's control connection has expired.
    pub(super) fn fell_silent(&mut self, slot: BackendSlot) {
        if self.backends.get(slot).is_some_and(|backend| backend.control == ControlState::Open) {
            self.set_control(slot, ControlState::Silent);
        }
    }

    /// Something came on a backend's control connection.
    pub fn spoke(&mut self, slot: BackendSlot) {
        if self.backends.get(slot).is_some_and(|backend| backend.control == ControlState::Silent) {
            self.set_control(slot, ControlState::Open);
        }
    }

    fn set_control(&mut self, slot: BackendSlot, state: ControlState) {
        let Some(backend) = self.backends.get_mut(slot) else { return };
        if std::mem::replace(&mut backend.control, state) != state {
            let service = backend.service.clone();
            self.restore_routes(&service);
        }
    }

    fn count_handoff(&mut self, slot: BackendSlot, outcome: HandoffOutcome) {
        if let Some(backend) = self.backends.get(slot) {
            self.metrics.handoff(backend.series, outcome);
        }
    }
}
