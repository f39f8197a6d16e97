//! Offers, their answers, and what comes of those that have none.

use broker_protocol::handoff::{Acknowledgement, Offer};
use broker_protocol::{Capabilities, ConnectionId, HandoffToken};

use super::*;
use crate::backends::ControlKey;
use crate::handoff::{AckError, OfferError, Settlement};
use crate::hello::{Handover, Negotiation};
use crate::metrics::HandoffOutcome;

const CONTROL: ControlKey = ControlKey::new(1);
const BOTH: Capabilities = Capabilities::HANDLE_PASSING.union(Capabilities::EARLY_DATA);

impl World {
    /// A running backend of 1.0.0 that takes offers on its control connection.
    fn with_control() -> (Self, BackendSlot) {
        let (mut world, slot) = Self::running();
        world.open_control(slot);
        (world, slot)
    }

    pub(super) fn open_control(&mut self, slot: BackendSlot) {
        self.tell(Input::ControlOpened { slot, control: CONTROL, announced: BOTH });
    }

    fn agree(&mut self, capabilities: Capabilities) -> Negotiation {
        match self.hello_of("1.0.0", 0, capabilities).1 {
            Some(Reply::Negotiated(negotiation)) => negotiation,
            other => panic!("expected an agreement, got {other:?}"),
        }
    }

    /// An agreement whose connection is on offer.
    fn offer(&mut self, capabilities: Capabilities) -> Negotiation {
        let negotiation = self.agree(capabilities);
        self.broker.offering(self.now, &negotiation).unwrap();
        negotiation
    }

    fn answer(&mut self, slot: BackendSlot, answer: &Acknowledgement) -> Result<Settlement, AckError> {
        let settled = self.broker.answered(self.now, slot, answer);
        self.collect();
        settled
    }

    /// Carries out what concerns offers, as a shell does that has sent all of them on control connections.
    fn pass_by_control(&mut self, slot: BackendSlot, duration: Duration) {
        let before = self.abandoned().len();
        self.pass(duration);
        for _ in before..self.abandoned().len() {
            self.tell(Input::ControlSilent { slot });
        }
    }

    fn abandoned(&self) -> Vec<ConnectionId> {
        let abandoned = self.acted.iter().filter_map(|action| match action {
            Action::Abandon { connection } => Some(*connection),
            _ => None,
        });
        abandoned.collect()
    }

    /// How often each outcome was counted, in the order of [`HandoffOutcome::ALL`].
    fn outcomes(&self) -> [u64; 5] {
        HandoffOutcome::ALL
            .map(|outcome| self.broker.metrics().series().iter().map(|series| series.handoffs(outcome)).sum())
    }
}

fn offer_of(negotiation: &Negotiation) -> Offer {
    Offer {
        token: negotiation.token.clone().unwrap(),
        service: "cache".parse().unwrap(),
        connection: negotiation.connection_id,
        request_id: 1,
        reply: None,
        handle_value: 0,
    }
}

fn accept(negotiation: &Negotiation) -> Acknowledgement {
    Acknowledgement::accept(&offer_of(negotiation))
}

#[test]
fn what_client_and_backend_can_do_decides_who_writes_the_reply() {
    let (mut world, _) = World::with_control();
    assert_eq!(world.agree(BOTH).handover(), Handover::WithReply);
    assert_eq!(world.agree(Capabilities::HANDLE_PASSING).handover(), Handover::AfterReply);
    for capabilities in [Capabilities::empty(), Capabilities::EARLY_DATA] {
        assert_eq!(world.agree(capabilities).handover(), Handover::None);
    }
    let (mut plain, _) = World::new().with_label("handoff.endpoint", "/run/h.sock").run();
    assert_eq!(plain.agree(Capabilities::HANDLE_PASSING).handover(), Handover::AfterReply);
    assert_eq!(plain.agree(BOTH).handover(), Handover::None, "two would write at once");
}

#[test]
fn an_answer_settles_its_offer_once() {
    let (mut world, slot) = World::with_control();
    let taken = world.offer(BOTH);
    let left = world.offer(BOTH);
    assert!(matches!(world.answer(slot, &accept(&taken)), Ok(Settlement::Accepted(_))));
    assert_eq!(world.answer(slot, &accept(&taken)).unwrap_err(), AckError::NotPending);
    let rejection = Acknowledgement::reject(&offer_of(&left), "full");
    assert!(matches!(world.answer(slot, &rejection), Ok(Settlement::Rejected(_))));
    assert_eq!(world.answer(slot, &accept(&left)).unwrap_err(), AckError::NotPending);
    assert_eq!(world.outcomes(), [1, 1, 0, 0, 0]);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.abandoned(), []);
}

#[test]
fn only_the_backend_it_was_made_to_can_answer_an_offer_with_its_token() {
    let (mut world, slot) = World::with_control();
    let offered = world.offer(BOTH);
    let other = BackendSlot::new(slot.get() + 1);
    assert_eq!(world.answer(other, &accept(&offered)).unwrap_err(), AckError::NotPending);
    let mut forged = accept(&offered);
    forged.token = HandoffToken::from_bytes([0; 16]);
    assert_eq!(world.answer(slot, &forged).unwrap_err(), AckError::Mismatch);
    assert!(world.answer(slot, &accept(&offered)).is_ok(), "none of that has used it up");
}

#[test]
fn a_connection_is_offered_once_and_not_with_a_token_that_is_too_old() {
    let (mut world, _) = World::with_control();
    let offered = world.offer(BOTH);
    assert_eq!(world.broker.offering(world.now, &offered), Err(OfferError::AlreadyOffered));
    let late = world.agree(BOTH);
    world.pass(Duration::from_secs(30));
    assert_eq!(world.broker.offering(world.now, &late), Err(OfferError::NotPending));
    assert_eq!(world.outcomes(), [0, 0, 1, 0, 1], "one expired on offer, one was never offered");
}

#[test]
fn an_offer_without_an_answer_is_abandoned_and_its_backend_plain_until_it_speaks() {
    let (mut world, slot) = World::with_control();
    let offered = world.offer(BOTH);
    world.pass_by_control(slot, Duration::from_secs(5) - Duration::from_nanos(1));
    assert_eq!(world.abandoned(), []);
    world.pass_by_control(slot, Duration::from_nanos(1));
    assert_eq!(world.abandoned(), [offered.connection_id]);
    assert_eq!(world.agree(BOTH).handover(), Handover::None, "clients dial it");
    assert_eq!(world.answer(slot, &accept(&offered)).unwrap_err(), AckError::NotPending, "too late");
    assert_eq!(world.agree(BOTH).handover(), Handover::None, "an answer may have come another way");
    world.broker.spoke(slot);
    assert_eq!(world.agree(BOTH).handover(), Handover::WithReply, "but now it has spoken there");
    assert_eq!(world.outcomes(), [0, 0, 1, 0, 0]);
}

#[test]
fn an_offer_that_expires_while_somebody_says_hello_is_reported_all_the_same() {
    let (mut world, _) = World::with_control();
    let offered = world.offer(BOTH);
    // The clock moves on before any timer is looked at.
    let later = world.now.monotonic.saturating_add(Duration::from_secs(5));
    world.set_clock(later);
    world.agree(BOTH);
    assert_eq!(world.abandoned(), [offered.connection_id]);
    assert_eq!(world.outcomes(), [0, 0, 1, 0, 0]);
}

#[test]
fn a_backend_has_64_offers_at_most_and_room_again_when_one_is_answered() {
    let (mut world, slot) = World::with_control();
    let offers: Vec<_> = (0..64).map(|_| world.offer(BOTH)).collect();
    let one_more = world.agree(BOTH);
    assert_eq!((one_more.handover(), one_more.capabilities), (Handover::None, Capabilities::empty()));
    world.answer(slot, &accept(&offers[0])).unwrap();
    assert_eq!(world.agree(BOTH).handover(), Handover::WithReply);
}

#[test]
fn the_end_of_a_backend_or_of_its_control_connection_is_the_end_of_its_offers() {
    for ends in [true, false] {
        let (mut world, slot) = World::with_control();
        let offered = world.offer(BOTH);
        if ends {
            world.exited(slot, Exit::Signal(9));
        } else {
            world.tell(Input::ControlClosed { slot, control: CONTROL });
            assert_eq!(world.agree(BOTH).handover(), Handover::None);
        }
        assert_eq!(world.answer(slot, &accept(&offered)).unwrap_err(), AckError::NotPending);
        world.broker.answer_lost(&offered);
        assert_eq!(world.outcomes(), [0, 0, 0, 1, 0], "counted once");
    }
}

#[test]
fn a_new_process_begins_without_a_control_connection() {
    let (mut world, slot) = World::with_control();
    world.exited(slot, Exit::Signal(9));
    let (_, reply) = world.hello("1.0.0");
    assert!(reply.is_none(), "a new one is started");
    let slot = world.starts().last().unwrap().slot;
    world.started(slot, 78);
    assert_eq!(world.agree(BOTH).handover(), Handover::None);
    world.open_control(slot);
    assert_eq!(world.agree(BOTH).handover(), Handover::WithReply);
}

#[test]
fn an_agreement_without_its_handover_promises_nothing() {
    let (mut world, _) = World::with_control();
    let negotiation = world.agree(BOTH);
    world.broker.not_offered(&negotiation);
    let dialled = negotiation.clone().without_handover();
    assert_eq!((dialled.token.as_ref(), dialled.capabilities), (None, Capabilities::empty()));
    assert_eq!(dialled.connection_id, negotiation.connection_id);
    assert_eq!(world.outcomes(), [0, 0, 0, 0, 1]);
}

#[test]
fn an_idle_backend_with_a_control_connection_quiesces_before_it_is_ended() {
    let (mut world, slot) = World::new().with_label("idle.timeout_secs", "60").run();
    world.open_control(slot);
    world.pass(Duration::from_secs(60));
    world.looked(slot, 77, false);
    let quiesces: Vec<_> = world
        .acted
        .iter()
        .filter_map(|action| if let Action::Quiesce { limit, .. } = action { Some(*limit) } else { None })
        .collect();
    assert_eq!((quiesces.as_slice(), world.signals()), (&[QUIESCE_LIMIT][..], vec![]));
    world.pass(Duration::from_secs(1));
    world.tell(Input::Quiesced { slot, pid: Some(77) });
    assert_eq!(world.signals(), [StopSignal::Terminate]);
    world.pass(KILL_AFTER - Duration::from_nanos(1));
    assert_eq!(world.signals(), [StopSignal::Terminate]);
    world.pass(Duration::from_nanos(1));
    assert_eq!(world.signals(), [StopSignal::Terminate, StopSignal::Kill]);
}

#[test]
fn a_backend_that_never_quiesces_is_killed_all_the_same() {
    let (mut world, slot) = World::new().with_label("idle.timeout_secs", "60").run();
    world.open_control(slot);
    world.pass(Duration::from_secs(60));
    world.looked(slot, 77, false);
    world.pass(QUIESCE_LIMIT + KILL_AFTER - Duration::from_nanos(1));
    assert_eq!(world.signals(), []);
    world.pass(Duration::from_nanos(1));
    assert_eq!(world.signals(), [StopSignal::Kill]);
    world.exited(slot, Exit::Signal(9));
    world.tell(Input::Quiesced { slot, pid: Some(77) });
    assert_eq!(world.signals(), [StopSignal::Kill], "its word comes too late to matter");
}

#[test]
fn what_an_earlier_process_said_does_not_cut_its_successor_s_time_short() {
    let (mut world, slot) = World::new().with_label("idle.timeout_secs", "60").run();
    world.open_control(slot);
    world.pass(Duration::from_secs(60));
    world.looked(slot, 77, false);
    // Somebody waits for its end; it ends without having answered the question.
    assert!(world.hello("1.0.0").1.is_none());
    world.exited(slot, Exit::Status(0));
    world.started(slot, 78);
    world.open_control(slot);
    world.tell(Input::Drain { deadline: None });
    world.tell(Input::Quiesced { slot, pid: Some(77) });
    assert_eq!(world.signals(), [], "the successor still quiesces");
    world.tell(Input::Quiesced { slot, pid: Some(78) });
    assert_eq!(world.signals(), [StopSignal::Terminate]);
}

#[test]
fn what_a_backend_announces_is_what_it_is_asked_for() {
    for (announced, both, plain) in [
        (BOTH, Handover::WithReply, Handover::AfterReply),
        (Capabilities::HANDLE_PASSING, Handover::None, Handover::AfterReply),
        (Capabilities::EARLY_DATA, Handover::None, Handover::None),
        (Capabilities::empty(), Handover::None, Handover::None),
    ] {
        let (mut world, slot) = World::running();
        world.tell(Input::ControlOpened { slot, control: CONTROL, announced });
        assert_eq!(world.agree(BOTH).handover(), both, "{announced:?}");
        assert_eq!(world.agree(Capabilities::HANDLE_PASSING).handover(), plain, "{announced:?}");
    }
}

#[test]
fn a_started_backend_takes_offers_where_its_definition_says_whatever_was_registered() {
    let mut world = World::new().with_label("handoff.endpoint", "/run/offers.sock");
    let dead = Registration { handoff_endpoint: Some("/run/dead.sock".into()), ..registration() };
    world.broker.register(dead);
    world.hello("1.0.0");
    let slot = world.broker.backends()[0].slot();
    world.tell(Input::Probed { slot, outcome: Err("connection refused".into()) });
    world.started(slot, 77);
    assert_eq!(world.broker.offers_taken_at(slot), Some(("/run/offers.sock", Some(77))));
}
