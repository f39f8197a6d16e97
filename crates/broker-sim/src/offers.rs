//! Connections on their way to a backend, and control connections.

use std::time::Duration;

use broker_core::admission::PeerKey;
use broker_core::backends::ControlKey;
use broker_core::broker::Input;
use broker_core::handoff::{BackendSlot, Settlement};
use broker_core::hello::{BackendHandoff, Handover, Negotiation};
use broker_protocol::control::Announcement;
use broker_protocol::handoff::{Acknowledgement, Verdict};
use broker_protocol::{Capabilities, ConnectionId, HandoffToken};

use crate::clients::{Number, Stage};
use crate::disk::{service_name, version_name};
use crate::history::Violation;
use crate::kernel::{Incarnation, Parent, Process};
use crate::world::{Event, WAY, World};

/// Longest that an answer takes where its backend is slow.
const SLOW_ANSWER: Duration = Duration::from_secs(8);

/// The copy of a connection that is on offer.
#[derive(Clone, Debug)]
pub(crate) struct Parked {
    number: Number,
    agreed: Negotiation,
    /// The control connection it was offered on; none where the backend was dialled.
    control: Option<ControlKey>,
}

impl World<'_> {
    /// Passes a connection on, as the daemon does.
    pub(crate) fn pass_on(&mut self, number: Number, agreed: Negotiation) -> Result<(), Violation> {
        let slot = agreed.route.slot();
        let way = match agreed.route.handoff() {
            BackendHandoff::Control | BackendHandoff::ControlOffers => {
                self.controls.get(&slot).map(|(control, incarnation)| (Some(*control), *incarnation))
            }
            BackendHandoff::Plain | BackendHandoff::DialOnly => {
                self.kernel.serving(agreed.route.endpoint()).map(|incarnation| (None, incarnation))
            }
        };
        let is_full = self.chance.percent(self.plan.faults.full_lines);
        let Some((control, incarnation)) = way.filter(|_| !is_full) else {
            return self.reply_without_handoff(number, &agreed);
        };
        if agreed.handover() == Handover::AfterReply {
            self.write(number)?;
        }
        if self.broker.offering(self.now, &agreed).is_err() {
            // Its time is over, or its backend's is.
            self.broker.not_offered(&agreed);
            if agreed.handover() == Handover::WithReply {
                self.write(number)?;
            }
            self.close(number);
            return Ok(());
        }
        self.stage(number, Stage::Lent);
        let parked = Parked { number, agreed, control };
        if control.is_none() {
            let limit = self.plan.config.hello.handoff.ack_deadline;
            self.enter_after(limit, Event::AnswerOverdue(number));
        }
        self.parked.insert(number, parked.clone());
        self.enter_within(WAY, Event::Offer(incarnation, parked));
        Ok(())
    }

    /// An offer reaches a backend, which does about it what its faults allow.
    pub(crate) fn offer_arrives(&mut self, incarnation: Incarnation, parked: &Parked) {
        let faults = self.plan.faults;
        if self.kernel.get(incarnation).is_none() || self.chance.percent(faults.silent_backends) {
            return;
        }
        let Parked { number, agreed, control } = parked;
        let Some(token) = agreed.token.clone() else { return };
        let verdict = if self.chance.percent(faults.rejections) {
            Verdict::Rejected { detail: String::new() }
        } else {
            self.adopt(*number, incarnation, agreed);
            Verdict::Accepted
        };
        let answer = Acknowledgement {
            token,
            connection: agreed.connection_id,
            request_id: agreed.connection_id.get(),
            verdict,
        };
        let is_odd = self.chance.percent(faults.odd_answers);
        let slow = if is_odd { SLOW_ANSWER } else { WAY };
        let (slot, control) = (agreed.route.slot(), *control);
        if is_odd && self.chance.percent(60) {
            let stranger = self.odd(&answer);
            self.enter_within(slow, Event::Answer(slot, control, Box::new(stranger)));
        }
        self.enter_within(slow, Event::Answer(slot, control, Box::new(answer)));
    }

    /// An answer that is none: somebody else's, with another token, or a second one.
    fn odd(&mut self, answer: &Acknowledgement) -> Acknowledgement {
        let mut odd = answer.clone();
        match self.chance.below(3) {
            0 => odd.token = HandoffToken::from_bytes([7; 16]),
            1 => odd.connection = ConnectionId::new(answer.connection.get() + 1).unwrap_or(answer.connection),
            _ => {}
        }
        odd
    }

    /// A backend takes a connection: it is the one that serves it from now on.
    fn adopt(&mut self, number: Number, incarnation: Incarnation, agreed: &Negotiation) {
        let writes = agreed.handover() == Handover::WithReply;
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.adopted_by = Some(incarnation);
            connection.replies += u32::from(writes);
        }
        self.ledger.adopted();
    }

    /// A backend's answer reaches the broker.
    pub(crate) fn answer_arrives(
        &mut self,
        slot: BackendSlot,
        control: Option<ControlKey>,
        answer: &Acknowledgement,
    ) -> Result<(), Violation> {
        if let Some(control) = control {
            if self.controls.get(&slot).is_none_or(|(current, _)| *current != control) {
                return Ok(());
            }
            self.broker.spoke(slot);
        }
        let went_this_way = self
            .parked
            .iter()
            .find(|(_, parked)| parked.agreed.connection_id == answer.connection && parked.control == control)
            .map(|(number, _)| *number);
        let Some(number) = went_this_way else { return Ok(()) };
        let Ok(settlement) = self.broker.answered(self.now, slot, answer) else { return Ok(()) };
        self.ledger
            .settled(answer.connection)
            .map_err(|what| self.violated("no token is used twice", what))?;
        let Some(parked) = self.parked.remove(&number) else { return Ok(()) };
        match settlement {
            Settlement::Accepted(_) => self.close(number),
            Settlement::Rejected(_) => {
                self.back_again(number)?;
                if parked.agreed.handover() == Handover::WithReply {
                    self.write(number)?;
                }
                self.close(number);
            }
        }
        Ok(())
    }

    /// The broker takes a connection back.
    fn back_again(&mut self, number: Number) -> Result<(), Violation> {
        match self.connections.get(&number).and_then(|connection| connection.adopted_by) {
            None => Ok(()),
            Some(owner) => Err(self.violated(
                "a connection has at most one owner",
                format_args!("{number:?} is the broker's again, and {owner:?}'s as well"),
            )),
        }
    }

    /// The time for an answer is over, says the broker.
    pub(crate) fn abandon(&mut self, connection: ConnectionId) {
        let parked = self
            .parked
            .iter()
            .find(|(_, parked)| parked.agreed.connection_id == connection && parked.control.is_some())
            .map(|(number, parked)| (*number, parked.agreed.route.slot()));
        if let Some((number, slot)) = parked {
            self.drop_parked(number);
            self.tell(Input::ControlSilent { slot });
        }
    }

    /// The broker drops its copy of a connection that is on offer.
    pub(crate) fn drop_parked(&mut self, number: Number) {
        if self.parked.remove(&number).is_some() {
            self.close(number);
        }
    }

    /// A backend that was started announces itself on the line that it was given.
    pub(crate) fn announces(&mut self, incarnation: Incarnation) {
        let Some(process) = self.kernel.get(incarnation) else { return };
        let Parent::Broker(number) = &process.parent else { return };
        let Some(start) = self.starts.get(number) else { return };
        let slot = start.order.slot;
        self.control_opens(slot, incarnation);
    }

    fn control_opens(&mut self, slot: BackendSlot, incarnation: Incarnation) {
        let control = ControlKey::new(self.number());
        let both = Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA;
        let announced = [Capabilities::empty(), Capabilities::HANDLE_PASSING, both, both];
        let announced = announced[self.chance.below(announced.len())];
        if let Some(process) = self.kernel.get_mut(incarnation) {
            process.control = Some((control, announced));
        }
        self.controls.insert(slot, (control, incarnation));
        self.tell(Input::ControlOpened { slot, control, announced });
        if self.chance.percent(self.plan.faults.lost_controls) {
            self.enter_within(Duration::from_secs(5), Event::HangUp(incarnation));
        }
    }

    /// A backend that nobody started connects, and says what it is.
    pub(crate) fn daemon_connects(&mut self, incarnation: Incarnation) {
        let Some(process) = self.kernel.get(incarnation) else { return };
        let (peer, announcement) = announcement_of(process);
        match self.broker.announced(self.now, peer, &announcement) {
            Ok(slot) => self.control_opens(slot, incarnation),
            Err(why) => {
                self.history.note(self.now, &why);
                // It tries again, as one does whose predecessor is just going; not for ever.
                if self.clients_to_come > 0 {
                    self.enter_after(Duration::from_secs(1), Event::DaemonConnects(incarnation));
                }
            }
        }
    }

    /// A backend ends its control connection, and lives on.
    pub(crate) fn hangs_up(&mut self, incarnation: Incarnation) {
        let control = self.kernel.get_mut(incarnation).and_then(|process| process.control.take());
        if let Some((control, _)) = control {
            self.enter_within(WAY, Event::ControlEnds(control));
            if self.clients_to_come > 0 {
                self.enter_within(Duration::from_secs(2), Event::DaemonConnects(incarnation));
            }
        }
    }

    /// The broker sees the end of a control connection, and drops the copies of what is on offer there.
    pub(crate) fn control_ends(&mut self, control: ControlKey) {
        let slot = self.controls.iter().find(|(_, (current, _))| *current == control).map(|(slot, _)| *slot);
        let Some(slot) = slot else { return };
        self.controls.remove(&slot);
        let lost: Vec<_> = self
            .parked
            .iter()
            .filter(|(_, parked)| parked.control == Some(control))
            .map(|(number, _)| *number)
            .collect();
        for number in lost {
            self.drop_parked(number);
        }
        self.tell(Input::ControlClosed { slot, control });
    }
}

/// What a process says that it serves, and who it is.
pub(crate) fn announcement_of(process: &Process) -> (PeerKey, Announcement) {
    let announcement = Announcement {
        service_name: service_name(process.service),
        service_version: version_name(process.version),
        endpoint: process.endpoint.clone(),
        ..Announcement::default()
    };
    (PeerKey::new(1_000, Some(process.pid)), announcement)
}
