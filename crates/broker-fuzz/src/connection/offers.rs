//! Tokens and offers as a shell knows them: what was issued, what is out, and what is settled.

use std::collections::HashSet;

use broker_core::broker::Broker;
use broker_core::handoff::{BackendSlot, HandoffLimits, OfferError, Settlement};
use broker_core::hello::Negotiation;
use broker_core::time::{Monotonic, Now};
use broker_protocol::handoff::{Acknowledgement, Verdict};
use broker_protocol::{Capabilities, ConnectionId, HandoffToken};

use super::processes::Lost;
use super::script::{Answer, Event, Index};
use super::world::Flaky;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Issued,
    Offered { at: Monotonic },
    Settled,
}

#[derive(Debug)]
struct Offer {
    negotiation: Negotiation,
    issued: Monotonic,
    stage: Stage,
    /// The backend, or its control connection, has ended since: the broker may have given it up.
    is_lost: bool,
    /// It has.
    is_given_up: bool,
}

impl Offer {
    fn deadline(&self, limits: &HandoffLimits) -> Monotonic {
        let end = self.issued.saturating_add(limits.ttl);
        match self.stage {
            Stage::Offered { at } => end.min(at.saturating_add(limits.ack_deadline)),
            Stage::Issued | Stage::Settled => end,
        }
    }
}

/// Every token that was ever issued.
#[derive(Debug)]
pub(super) struct Offers {
    limits: HandoffLimits,
    offers: Vec<Offer>,
    tokens: HashSet<[u8; 16]>,
}

impl Offers {
    pub(super) fn new(limits: HandoffLimits) -> Self {
        Self { limits, offers: Vec::new(), tokens: HashSet::new() }
    }

    /// An agreement was made; where it has a token, its connection may be offered.
    pub(super) fn may_come_of(&mut self, negotiation: &Negotiation, now: Now) {
        let passes = negotiation.capabilities.contains(Capabilities::HANDLE_PASSING);
        assert_eq!(negotiation.token.is_some(), passes, "a token where there is a handoff, and nowhere else");
        let Some(token) = &negotiation.token else { return };
        assert!(self.tokens.insert(*token.as_bytes()), "no token is given twice");
        let negotiation = negotiation.clone();
        let slot = negotiation.route.slot();
        let issued = now.monotonic;
        self.offers.push(Offer {
            negotiation,
            issued,
            stage: Stage::Issued,
            is_lost: false,
            is_given_up: false,
        });
        let is_pending = |offer: &&Offer| {
            offer.stage != Stage::Settled && !offer.is_lost && now.monotonic < offer.deadline(&self.limits)
        };
        let pending = || self.offers.iter().filter(is_pending);
        assert!(pending().count() <= self.limits.capacity, "as many are pending as may be");
        let here = pending().filter(|offer| offer.negotiation.route.slot() == slot).count();
        assert!(here <= self.limits.per_backend, "as many are pending for a backend as may be");
    }

    /// What was offered to this backend may never be answered.
    pub(super) fn are_lost(&mut self, lost: Lost) {
        for offer in self.offers.iter_mut().filter(|offer| offer.negotiation.route.slot() == lost.slot) {
            offer.is_lost = true;
            offer.is_given_up |= lost.is_certain;
        }
    }

    pub(super) fn happens(&mut self, event: &Event<'_>, broker: &mut Broker<Flaky>, now: Now) {
        match event {
            Event::Offers { offer } => self.offer(*offer, broker, now),
            Event::IsNotOffered { offer } => {
                // It is said of an offer of which not a byte was sent.
                if let Some(offer) = self.nth(*offer) {
                    broker.not_offered(&offer.negotiation);
                    offer.stage = Stage::Settled;
                }
            }
            Event::LosesAnswer { offer } => {
                if let Some(offer) = self.nth(*offer) {
                    broker.answer_lost(&offer.negotiation);
                    offer.stage = Stage::Settled;
                }
            }
            Event::Answers { offer, answer } => self.answer(*offer, *answer, broker, now),
            _ => {}
        }
    }

    fn nth(&mut self, index: Index) -> Option<&mut Offer> {
        let count = self.offers.len();
        self.offers.get_mut(usize::from(index) % count.max(1))
    }

    fn offer(&mut self, index: Index, broker: &mut Broker<Flaky>, now: Now) {
        let limits = self.limits;
        let Some(offer) = self.nth(index) else { return };
        let is_late = now.monotonic >= offer.deadline(&limits);
        match broker.offering(now, &offer.negotiation) {
            Ok(()) => {
                assert_eq!((offer.stage, is_late), (Stage::Issued, false), "what is settled is not offered");
                offer.stage = Stage::Offered { at: now.monotonic };
            }
            Err(OfferError::AlreadyOffered) => assert!(matches!(offer.stage, Stage::Offered { .. })),
            Err(OfferError::Expired | OfferError::NotPending) => {
                assert!(offer.stage != Stage::Issued || is_late || offer.is_lost, "there was time");
            }
        }
    }

    fn answer(&mut self, index: Index, answer: Answer, broker: &mut Broker<Flaky>, now: Now) {
        let limits = self.limits;
        let Some(offer) = self.nth(index) else { return };
        let issued = offer.negotiation.token.clone().expect("only one with a token is kept");
        let slot = offer.negotiation.route.slot();
        let connection = offer.negotiation.connection_id;
        let rejected = || Verdict::Rejected { detail: "no".to_owned() };
        let (token, from, verdict) = match answer {
            Answer::Accepts => (issued, slot, Verdict::Accepted),
            Answer::Rejects => (issued, slot, rejected()),
            Answer::WrongToken => (HandoffToken::from_bytes([0xA5; 16]), slot, Verdict::Accepted),
            Answer::WrongBackend => (issued, BackendSlot::new(slot.get() ^ 1), Verdict::Accepted),
        };
        let is_rejected = verdict != Verdict::Accepted;
        let is_good = matches!(offer.stage, Stage::Offered { .. })
            && matches!(answer, Answer::Accepts | Answer::Rejects)
            && !offer.is_given_up
            && now.monotonic < offer.deadline(&limits);
        match broker.answered(now, from, &Acknowledgement { token, connection, request_id: 1, verdict }) {
            Ok(Settlement::Accepted(proof)) => {
                assert!(is_good && !is_rejected && proof.connection() == connection);
                offer.stage = Stage::Settled;
            }
            Ok(Settlement::Rejected(proof)) => {
                assert!(is_good && is_rejected && proof.connection() == connection);
                offer.stage = Stage::Settled;
            }
            Err(error) => assert!(!is_good || offer.is_lost, "a good answer settles nothing: {error}"),
        }
    }

    /// Its copy is to be dropped: the time for the answer is over.
    pub(super) fn is_abandoned(&mut self, connection: ConnectionId, now: Now) {
        let limits = self.limits;
        let is_it = |offer: &&mut Offer| offer.negotiation.connection_id == connection;
        let offer = self.offers.iter_mut().find(is_it).expect("only what was offered is abandoned");
        assert!(matches!(offer.stage, Stage::Offered { .. }), "{:?} is abandoned", offer.stage);
        assert!(now.monotonic >= offer.deadline(&limits), "there was time");
        assert!(!offer.is_given_up, "what is given up is not abandoned once more");
        offer.stage = Stage::Settled;
    }

    /// Everything whose time is over was abandoned.
    pub(super) fn none_is_overdue(&self, now: Now) {
        for offer in self.offers.iter().filter(|offer| !offer.is_lost) {
            let is_out = matches!(offer.stage, Stage::Offered { .. });
            assert!(
                !is_out || now.monotonic < offer.deadline(&self.limits),
                "it waits for an answer for ever"
            );
        }
    }
}
