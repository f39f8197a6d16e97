//! Clients and their connections, from the kernel's backlog to the last byte.

use std::time::Duration;

use broker_core::admission::{ConnectionKey, PeerKey};
use broker_core::broker::{Arrival, Decision, DefinitionCheck, FirstFrame, PeerIdentity};
use broker_core::hello::{Handover, Negotiation, Reply};
use broker_core::time::Monotonic;
use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, Hello};
use broker_protocol::{Capabilities, PayloadProtocol, Refusal};

use crate::disk::{Look, service_name, version_name};
use crate::history::Violation;
use crate::kernel::Incarnation;
use crate::world::{Event, WAY, World};

/// The user that everything here runs as.
const USER: u64 = 1_000;
/// A user that has no business here.
const STRANGER: u64 = 1_001;

/// A connection, unlike any other there ever was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number(u64);

impl Number {
    pub(crate) const fn of(key: ConnectionKey) -> Self {
        Self(key.get())
    }

    pub(crate) const fn key(self) -> ConnectionKey {
        ConnectionKey::new(self.0)
    }
}

/// What a client has to say.
#[derive(Clone, Debug)]
pub(crate) enum Speech {
    Nothing,
    /// So many bytes of a frame that never comes to its end.
    Half(usize),
    Bytes(Vec<u8>),
    Hello {
        service: usize,
        version: usize,
        body: Vec<u8>,
    },
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its first frame is read.
    Reading,
    /// Its service's definition is looked at.
    Checking,
    /// It waits for a backend.
    Waiting,
    /// It is on offer; the broker's copy can only be dropped.
    Lent,
}

/// A connection that the broker has a copy of.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) peer: PeerKey,
    pub(crate) speech: Speech,
    pub(crate) stage: Stage,
    pub(crate) accepted: Monotonic,
    /// Whether its client is there.
    pub(crate) has_client: bool,
    /// How many replies its client has been sent.
    pub(crate) replies: u32,
    /// The backend that owns it.
    pub(crate) adopted_by: Option<Incarnation>,
}

impl World<'_> {
    /// A client connects, and the next one will.
    pub(crate) fn client_connects(&mut self) -> Result<(), Violation> {
        let come = self.plan.connections - self.clients_to_come;
        if come == self.plan.drain_after {
            self.drain(self.plan.drain_deadline);
        }
        self.clients_to_come -= 1;
        if self.clients_to_come > 0 {
            self.enter_within(self.plan.gap, Event::Connect);
        }
        let peer = PeerKey::new(
            USER,
            Some(1 + u32::try_from(self.chance.below(self.plan.peers as usize)).unwrap_or(0)),
        );
        let identity = if self.chance.percent(2) {
            if self.chance.percent(50) {
                PeerIdentity::Unreadable
            } else {
                PeerIdentity::Foreign(PeerKey::new(STRANGER, Some(9)))
            }
        } else {
            PeerIdentity::Own(peer)
        };
        let number = Number(self.number());
        let arrival = self.broker.connected(self.now, number.key(), identity);
        self.history.note(self.now, &arrival);
        if arrival == Arrival::Drop {
            return Ok(());
        }
        if !matches!(identity, PeerIdentity::Own(_)) {
            return Err(self.violated("a stranger is turned away", format_args!("{identity:?} was let in")));
        }
        let speech = self.speech();
        self.enter_after(self.plan.hello_timeout, Event::RequestOverdue(number));
        if matches!(speech, Speech::Bytes(_) | Speech::Hello { .. }) {
            self.enter_within(WAY, Event::Request(number));
        }
        if self.chance.percent(self.plan.faults.vanishing) {
            self.enter_within(self.plan.hello_timeout, Event::Leave(number));
        }
        let accepted = self.now.monotonic;
        let kept = if let Speech::Half(bytes) = speech { Some(bytes) } else { None };
        self.connections.insert(
            number,
            Connection {
                peer,
                speech,
                stage: Stage::Reading,
                accepted,
                has_client: true,
                replies: 0,
                adopted_by: None,
            },
        );
        if let Some(bytes) = kept
            && let Err(over) = self.broker.buffers(number.key(), bytes)
        {
            let reply = self.broker.over_quota(self.now, accepted, number.key(), over);
            self.reply(number, reply)?;
        }
        Ok(())
    }

    fn speech(&mut self) -> Speech {
        let faults = self.plan.faults;
        if self.chance.percent(faults.silence) {
            return Speech::Nothing;
        }
        if self.chance.percent(faults.half_frames) {
            return Speech::Half(self.chance.below(3_000));
        }
        let (service, version) =
            (self.chance.below(self.plan.services + 1), self.chance.below(self.plan.versions + 1));
        let mut body = self.hello_body(service, version);
        if self.chance.percent(faults.hostile_bytes) {
            let (at, with) = (self.chance.below(body.len()), self.chance.below(8));
            match with {
                0 => body.truncate(at),
                1 => body = self.chance.bytes(at),
                _ => body[at] ^= 1 << with,
            }
            return Speech::Bytes(body);
        }
        Speech::Hello { service, version, body }
    }

    fn hello_body(&mut self, service: usize, version: usize) -> Vec<u8> {
        let both = Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA;
        let capabilities = [Capabilities::empty(), Capabilities::HANDLE_PASSING, both];
        let capabilities = capabilities[self.chance.below(capabilities.len())];
        let hello = Hello {
            client_min_protocol: 1,
            client_max_protocol: 1,
            service_name: service_name(service),
            wanted_version: version_name(version),
            client_capabilities: capabilities.bits(),
            ..Hello::default()
        };
        let patience = Duration::from_millis(self.chance.between(0, 20_000));
        let deadline = if self.chance.percent(40) { patience } else { Duration::ZERO };
        let deadline_unix_ms = match u64::try_from(deadline.as_millis()) {
            Ok(0) | Err(_) => 0,
            Ok(millis) => self.now.unix.get() + millis,
        };
        let frame =
            Frame { deadline_unix_ms, ..Frame::request(PayloadProtocol::CONTROL, 5, hello.encode_to_vec()) };
        frame.encode_to_vec()
    }

    /// The first frame is there.
    pub(crate) fn request(&mut self, number: Number) -> Result<(), Violation> {
        let Some(connection) = self.connections.get(&number) else { return Ok(()) };
        let (accepted, peer) = (connection.accepted, connection.peer);
        let (body, spoken) = match &connection.speech {
            Speech::Hello { service, version, body } => (body.clone(), Some((*service, *version))),
            Speech::Bytes(body) => (body.clone(), None),
            Speech::Nothing | Speech::Half(_) => return Ok(()),
        };
        match self.broker.first_frame(self.now, accepted, number.key(), peer, &body) {
            FirstFrame::Hello(admitted) => {
                self.ledger.hello_admitted(peer);
                let known = self.broker.stamp(admitted.service());
                // Flipped bits can make it another service's, of which there is none.
                let service = spoken.map_or(usize::MAX, |(service, _)| service);
                self.stage(number, Stage::Checking);
                match self.disk.look(service, known) {
                    Look::Done(check) => self.hello(number, check),
                    Look::Reading(check) => {
                        self.enter_within(WAY, Event::DefinitionRead(self.reign, number, check));
                        Ok(())
                    }
                }
            }
            FirstFrame::Admin(..) | FirstFrame::Announcement(..) => {
                self.close(number);
                Ok(())
            }
            FirstFrame::Refused(_, reply) => self.reply(number, reply),
        }
    }

    /// The definition is looked at; the Hello is decided.
    pub(crate) fn hello(&mut self, number: Number, check: DefinitionCheck) -> Result<(), Violation> {
        let Some(connection) = self.connections.get(&number) else { return Ok(()) };
        let (accepted, peer) = (connection.accepted, connection.peer);
        let body = match &connection.speech {
            Speech::Hello { body, .. } | Speech::Bytes(body) => body.clone(),
            Speech::Nothing | Speech::Half(_) => return Ok(()),
        };
        // What was admitted before borrows from its bytes, which are still the same.
        let frame = broker_core::hello::Request::decode(&body);
        let Ok(broker_core::hello::Request::Hello(request)) = frame else { return Ok(()) };
        let Ok(admitted) = broker_core::hello::Admitted::check(peer, &request) else { return Ok(()) };
        self.ledger.definition_read(admitted.service(), &check);
        match self.broker.hello(self.now, accepted, number.key(), &admitted, check) {
            Decision::Reply(reply) => {
                if let Reply::Negotiated(agreed) = &reply {
                    self.check_agreement(&admitted, agreed)?;
                }
                self.reply(number, reply)
            }
            Decision::Wait => {
                self.stage(number, Stage::Waiting);
                let bytes = body.len();
                if let Err(over) = self.broker.buffers(number.key(), bytes) {
                    let reply = self.broker.over_quota(self.now, accepted, number.key(), over);
                    return self.reply(number, reply);
                }
                Ok(())
            }
        }
    }

    /// The answer to a Hello that has waited.
    pub(crate) fn answer_waiting(&mut self, number: Number, reply: Reply) -> Result<(), Violation> {
        match self.connections.get(&number).map(|connection| connection.stage) {
            Some(Stage::Waiting) => self.reply(number, reply),
            stage => Err(self.violated(
                "a Hello ends in exactly one reply",
                format_args!("{number:?} is answered while it is {stage:?}"),
            )),
        }
    }

    /// Carries out an answer: it is written, or the connection is passed on.
    pub(crate) fn reply(&mut self, number: Number, reply: Reply) -> Result<(), Violation> {
        self.history.replied(&reply);
        match reply {
            Reply::Negotiated(agreed) => {
                self.ledger.agreed(&agreed).map_err(|what| self.violated("no token is used twice", what))?;
                match agreed.handover() {
                    Handover::None => self.write_and_close(number),
                    Handover::WithReply | Handover::AfterReply => self.pass_on(number, agreed),
                }
            }
            Reply::Refused(Refusal::Internal { cause }) => {
                Err(self.violated("the broker does not fail by itself", cause))
            }
            Reply::Refused(_) => self.write_and_close(number),
        }
    }

    /// Writes the one reply, and closes.
    pub(crate) fn write_and_close(&mut self, number: Number) -> Result<(), Violation> {
        self.write(number)?;
        self.close(number);
        Ok(())
    }

    pub(crate) fn write(&mut self, number: Number) -> Result<(), Violation> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        connection.replies += 1;
        if connection.replies > 1 {
            return Err(self.violated(
                "a Hello ends in exactly one reply",
                format_args!("{number:?} has {} of them", 2),
            ));
        }
        Ok(())
    }

    /// The broker closes its copy.
    pub(crate) fn close(&mut self, number: Number) {
        if let Some(connection) = self.connections.remove(&number) {
            self.broker.disconnected(self.now, number.key());
            self.history.closed(connection.replies);
        }
    }

    pub(crate) fn stage(&mut self, number: Number, stage: Stage) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.stage = stage;
        }
    }

    pub(crate) fn request_overdue(&mut self, number: Number) {
        let Some(connection) = self.connections.get(&number) else { return };
        if connection.stage != Stage::Reading {
            return;
        }
        if let Speech::Half(received) = connection.speech {
            let (accepted, peer) = (connection.accepted, connection.peer);
            let refusal = Refusal::FrameTooLate { received, deadline: self.plan.hello_timeout };
            self.broker.malformed(self.now, accepted, number.key(), peer, refusal);
        }
        self.close(number);
    }

    /// A client leaves. The broker notices where it reads from the connection, or waits with it.
    pub(crate) fn client_leaves(&mut self, number: Number) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.has_client = false;
        match connection.stage {
            Stage::Reading | Stage::Waiting => self.close(number),
            Stage::Checking | Stage::Lent => {}
        }
    }

    /// A connection makes room for another.
    pub(crate) fn evict(&mut self, number: Number) {
        self.close(number);
    }

    /// The agreement for a connection that is not passed on after all.
    pub(crate) fn reply_without_handoff(
        &mut self,
        number: Number,
        agreed: &Negotiation,
    ) -> Result<(), Violation> {
        self.broker.not_offered(agreed);
        self.write_and_close(number)
    }
}
