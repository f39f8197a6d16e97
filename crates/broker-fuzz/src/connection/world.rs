//! The world around the broker: its clock, its connections, and what must hold after each event.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use broker_core::RECENT_EVENTS;
use broker_core::admission::{ConnectionKey, ConnectionLimits, PeerKey, RateLimit};
use broker_core::broker::{
    Action, Arrival, BackendsOnExit, Broker, BrokerConfig, Decision, FirstFrame, Input, PeerIdentity,
};
use broker_core::entropy::{Entropy, EntropyError, SeededEntropy};
use broker_core::handoff::HandoffLimits;
use broker_core::hello::{Admitted, Reply};
use broker_core::time::{Monotonic, Now, UnixMillis};
use broker_protocol::limits::MAX_EVENT;
use broker_protocol::prost::Message;
use broker_protocol::wire::{self, Frame, HelloReply};
use broker_protocol::{BrokerInstance, Echo, HEADER_LEN, PayloadProtocol, Refusal};

use super::definitions::Definitions;
use super::offers::Offers;
use super::processes::Processes;
use super::script::{Event, Hello, Index, Looks};

const CONNECTIONS: usize = 6;
const PER_PEER: usize = 3;
/// How many peers there are, the last of them without a pid.
const PEERS: u8 = 4;
/// Deepest nesting of what happens while something else is looked at.
const DEEPEST: u8 = 3;

/// Randomness that can fail.
pub(super) struct Flaky {
    source: SeededEntropy,
    fails: Rc<Cell<bool>>,
}

impl Entropy for Flaky {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        if self.fails.get() { Err(EntropyError { os_code: None }) } else { self.source.fill(out) }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Silent,
    /// Its Hello is admitted, and the definition is looked at.
    Asked,
    Waiting {
        until: Monotonic,
    },
    Answered,
}

#[derive(Debug)]
struct Connection {
    peer: PeerKey,
    accepted: Monotonic,
    phase: Phase,
}

/// A broker, and everything that is known of it from outside.
pub(super) struct World {
    pub(super) broker: Broker<Flaky>,
    pub(super) now: Now,
    pub(super) processes: Processes,
    pub(super) offers: Offers,
    entropy_fails: Rc<Cell<bool>>,
    connections: BTreeMap<ConnectionKey, Connection>,
    next_connection: u64,
    definitions: Definitions,
    ids: HashSet<u64>,
    drains_until: Option<Monotonic>,
    has_stopped: bool,
    depth: u8,
}

impl World {
    pub(super) fn new(choice: u8) -> Self {
        let mut config = BrokerConfig::new(BrokerInstance::Shared);
        config.connections = ConnectionLimits::new(CONNECTIONS, PER_PEER);
        config.hello.rate_limit = RateLimit::new(8, 4);
        config.hello.handoff = HandoffLimits { capacity: 4, per_backend: 3, ..HandoffLimits::default() };
        if choice & 2 != 0 {
            config.on_exit = BackendsOnExit::Keep;
        }
        let entropy_fails = Rc::new(Cell::new(false));
        let entropy = Flaky { source: SeededEntropy::new(3), fails: Rc::clone(&entropy_fails) };
        let mut broker = Broker::new(config.clone(), entropy);
        let mut processes = Processes::default();
        if choice & 1 != 0 {
            processes.register(&mut broker, choice & 4 != 0);
        }
        Self {
            broker,
            now: Now::new(Monotonic::from_nanos(1), UnixMillis::new(1_700_000_000_000)),
            offers: Offers::new(config.hello.handoff),
            processes,
            entropy_fails,
            connections: BTreeMap::new(),
            next_connection: 0,
            definitions: Definitions::new(),
            ids: HashSet::new(),
            drains_until: None,
            has_stopped: false,
            depth: 0,
        }
    }

    pub(super) const fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    pub(super) fn happens(&mut self, event: Event<'_>, script: &mut Unstructured<'_>) {
        match event {
            Event::Connect { peer, identity } => self.connect(peer, identity),
            Event::Sends { connection, body } => {
                if let Some(key) = self.silent(connection) {
                    self.say(key, body, Looks::AsItIs, None, script, 0);
                }
            }
            Event::Hello { connection, hello } => {
                if let Some(key) = self.silent(connection) {
                    let body = self.body_of(hello);
                    self.say(key, &body, hello.looks(), hello.patience(), script, hello.meanwhile());
                }
            }
            Event::Malformed { connection } => {
                if let Some(key) = self.silent(connection) {
                    let (peer, accepted) = self.who(key);
                    let refusal = Refusal::FrameCutShort { received: 3 };
                    let reply = self.broker.malformed(self.now, accepted, key, peer, refusal);
                    self.is_answered(key, &reply, Phase::Silent);
                }
            }
            Event::Disconnect { connection } => {
                let key = self.nth(connection, |_| true);
                if let Some(key) = key {
                    self.connections.remove(&key);
                    self.broker.disconnected(self.now, key);
                }
            }
            Event::Passes { millis } => self.pass(Duration::from_millis(millis)),
            Event::Lags { millis } => {
                self.set_clock(self.now.monotonic.saturating_add(Duration::from_millis(millis)));
            }
            Event::DescriptorPressure => self.broker.handle(self.now, Input::DescriptorPressure),
            Event::Entropy { fails } => self.entropy_fails.set(fails),
            Event::Drain { millis } => self.drain(millis.map(Duration::from_millis)),
            Event::Offers { .. }
            | Event::IsNotOffered { .. }
            | Event::LosesAnswer { .. }
            | Event::Answers { .. } => {
                self.offers.happens(&event, &mut self.broker, self.now);
            }
            other => {
                if let Some(lost) = self.processes.happens(&other, &mut self.broker, self.now) {
                    self.offers.are_lost(lost);
                }
            }
        }
        self.settle();
    }

    /// Nothing else happens, and the broker is told to end.
    pub(super) fn ends(mut self) -> Broker<Flaky> {
        if !self.has_stopped {
            self.drain(None);
            self.settle();
            self.pass(Duration::from_secs(3_600));
        }
        assert!(self.has_stopped, "a drain ends");
        let open =
            self.connections.values().find(|connection| matches!(connection.phase, Phase::Waiting { .. }));
        assert!(open.is_none(), "a Hello was never answered: {open:?}");
        self.broker
    }

    fn connect(&mut self, peer: Index, identity: fn(PeerKey) -> PeerIdentity) {
        self.next_connection += 1;
        let key = ConnectionKey::new(self.next_connection);
        let peer = peer_of(peer);
        let identity = identity(peer);
        let held = self.connections.values().filter(|connection| connection.peer == peer).count();
        match self.broker.connected(self.now, key, identity) {
            Arrival::Serve => {
                assert_eq!(identity, PeerIdentity::Own(peer), "only its own user's processes are served");
                assert!(held < PER_PEER);
                let connection = Connection { peer, accepted: self.now.monotonic, phase: Phase::Silent };
                self.connections.insert(key, connection);
            }
            Arrival::Drop => {
                let is_full = held == PER_PEER || self.connections.len() == CONNECTIONS;
                assert!(is_full || identity != PeerIdentity::Own(peer), "there was room");
            }
        }
    }

    /// The first frame of a connection, and what it comes to.
    fn say(
        &mut self,
        key: ConnectionKey,
        body: &[u8],
        looks: Looks,
        patience: Option<u64>,
        script: &mut Unstructured<'_>,
        meanwhile: u8,
    ) {
        let (peer, accepted) = self.who(key);
        match self.broker.first_frame(self.now, accepted, key, peer, body) {
            FirstFrame::Hello(admitted) => {
                self.set(key, Phase::Asked);
                self.settle();
                self.meanwhile(meanwhile, script);
                if self.connections.contains_key(&key) && !self.has_stopped {
                    self.hello(key, &admitted, looks, patience);
                }
            }
            FirstFrame::Admin(..) => self.set(key, Phase::Answered),
            FirstFrame::Announcement(_, announcement) => {
                self.processes.announce(&mut self.broker, self.now, peer, &announcement);
                self.set(key, Phase::Answered);
            }
            FirstFrame::Refused(_, reply) => self.is_answered(key, &reply, Phase::Silent),
        }
    }

    fn meanwhile(&mut self, events: u8, script: &mut Unstructured<'_>) {
        self.depth += 1;
        for _ in 0..events {
            if self.depth > DEEPEST || script.is_empty() || self.has_stopped {
                break;
            }
            let Ok(event) = Event::arbitrary(script) else { break };
            self.happens(event, script);
        }
        self.depth -= 1;
    }

    fn hello(&mut self, key: ConnectionKey, admitted: &Admitted<'_>, looks: Looks, patience: Option<u64>) {
        let (_, accepted) = self.who(key);
        let loaded = self.broker.stamp(admitted.service());
        let check = self.definitions.look(admitted.service(), looks, loaded);
        match self.broker.hello(self.now, accepted, key, admitted, check) {
            Decision::Reply(reply) => self.is_answered(key, &reply, Phase::Asked),
            Decision::Wait => {
                assert!(self.broker.is_serving(), "nobody waits for a broker that ends");
                let patience = match (patience, admitted.deadline()) {
                    (_, Some(deadline)) => deadline.duration_since(self.now.unix),
                    (_, None) => self.broker.config().wait,
                };
                self.set(key, Phase::Waiting { until: self.now.monotonic.saturating_add(patience) });
            }
        }
    }

    fn body_of(&self, hello: Hello) -> Vec<u8> {
        let said = wire::Hello {
            client_min_protocol: 1,
            client_max_protocol: 1,
            service_name: hello.service().into(),
            wanted_version: hello.version().into(),
            client_capabilities: hello.capabilities().bits(),
            ..wire::Hello::default()
        };
        let deadline_unix_ms = hello.patience().map_or(0, |patience| self.now.unix.get() + patience);
        let frame = Frame::request(PayloadProtocol::CONTROL, 5, said.encode_to_vec());
        Frame { deadline_unix_ms, ..frame }.encode_to_vec()
    }

    fn drain(&mut self, deadline: Option<Duration>) {
        let deadline_at = self.now.monotonic.saturating_add(deadline.unwrap_or(self.broker.config().drain));
        self.drains_until.get_or_insert(deadline_at);
        self.broker.handle(self.now, Input::Drain { deadline });
        assert!(!self.broker.is_serving());
    }

    /// Lets time pass, and everything that is due happen in its turn.
    fn pass(&mut self, duration: Duration) {
        const MOST: u32 = 10_000;
        let target = self.now.monotonic.saturating_add(duration);
        let mut count = 0;
        while let Some(due) = self.broker.next_timeout().filter(|due| *due <= target) {
            self.set_clock(due.max(self.now.monotonic));
            self.broker.handle_timeout(self.now);
            self.settle();
            count += 1;
            assert!(count < MOST, "time does not get on");
        }
        self.set_clock(target);
        for (key, connection) in &self.connections {
            if let Phase::Waiting { until } = connection.phase {
                assert!(until > target, "{key:?} waits longer than its client does");
            }
        }
        self.offers.none_is_overdue(self.now);
        assert!(self.has_stopped || self.drains_until.is_none_or(|until| until > target), "a drain ends");
    }

    fn set_clock(&mut self, target: Monotonic) {
        let passed = target.duration_since(self.now.monotonic);
        let millis = u64::try_from(passed.as_millis()).expect("an hour");
        self.now = Now::new(target, UnixMillis::new(self.now.unix.get() + millis));
    }

    /// Does what the broker wants done, and looks whether all is as it should be.
    fn settle(&mut self) {
        while let Some(action) = self.broker.poll_action() {
            match action {
                Action::Reply { connection, reply } => {
                    let phase = self.connections.get(&connection).map(|connection| connection.phase);
                    let Some(phase @ Phase::Waiting { .. }) = phase else {
                        panic!("a reply to one who does not wait: {phase:?}")
                    };
                    self.is_answered(connection, &reply, phase);
                }
                Action::Evict { connection } => {
                    let evicted = self.connections.remove(&connection).expect("an open connection");
                    assert_eq!(evicted.phase, Phase::Silent, "who has asked something gets its answer");
                    self.broker.disconnected(self.now, connection);
                }
                Action::Abandon { connection } => self.offers.is_abandoned(connection, self.now),
                Action::Emit(event) => {
                    let mut log = Vec::new();
                    event.append_to(&mut log);
                    assert!(log.len() <= MAX_EVENT, "an event is one write");
                }
                Action::Stop => {
                    assert!(!self.has_stopped, "a broker stops once");
                    assert!(self.drains_until.is_some(), "it was told to");
                    self.has_stopped = true;
                }
                other => self.processes.is_wanted(other, &self.broker, self.now),
            }
        }
        self.is_in_bounds();
    }

    fn is_in_bounds(&self) {
        assert_eq!(self.broker.connections_open(), self.connections.len());
        assert!(self.connections.len() <= CONNECTIONS);
        for peer in (0..PEERS).map(peer_of) {
            let held = self.connections.values().filter(|connection| connection.peer == peer).count();
            assert!(held <= PER_PEER, "{peer:?} holds {held}");
        }
        let is_waiting = |connection: &&Connection| matches!(connection.phase, Phase::Waiting { .. });
        let waiting = self.connections.values().filter(is_waiting).count();
        assert_eq!(self.broker.hellos_waiting(), waiting);
        let backends = self.broker.backends();
        assert_eq!(backends.iter().map(|backend| backend.waiting()).sum::<usize>(), waiting);
        let keys: HashSet<_> =
            backends.iter().map(|backend| (backend.service(), backend.version())).collect();
        assert_eq!(keys.len(), backends.len(), "one entry for one version of a service");
        assert!(!self.has_stopped || waiting == 0, "nobody waits for a broker that has ended");
        assert!(self.broker.recent_events().count() <= RECENT_EVENTS);
        assert!(self.broker.known_peers() <= usize::from(PEERS));
    }

    /// A Hello has got its one answer.
    fn is_answered(&mut self, key: ConnectionKey, reply: &Reply, phase: Phase) {
        let connection = self.connections.get_mut(&key).expect("an answer goes to an open connection");
        assert_eq!(connection.phase, phase, "one answer for one Hello");
        connection.phase = Phase::Answered;
        let mut written = Vec::new();
        reply.encode(&Echo { request_id: 5, ..Echo::default() }, &mut written);
        let frame = Frame::decode(&written[HEADER_LEN..]).expect("it is a frame");
        let read = HelloReply::decode(frame.payload).expect("it is a reply");
        assert!(read == reply.to_wire(), "both encoders write the same");
        if let Reply::Negotiated(negotiation) = reply {
            assert!(self.ids.insert(negotiation.connection_id.get()), "no id is given twice");
            self.processes.is_there(negotiation.route.endpoint());
            self.offers.may_come_of(negotiation, self.now);
        }
    }

    fn set(&mut self, key: ConnectionKey, phase: Phase) {
        self.connections.get_mut(&key).expect("an open connection").phase = phase;
    }

    fn who(&self, key: ConnectionKey) -> (PeerKey, Monotonic) {
        let connection = &self.connections[&key];
        (connection.peer, connection.accepted)
    }

    fn silent(&self, index: Index) -> Option<ConnectionKey> {
        self.nth(index, |connection| connection.phase == Phase::Silent)
    }

    fn nth(&self, index: Index, wanted: impl Fn(&Connection) -> bool) -> Option<ConnectionKey> {
        let keys: Vec<_> =
            self.connections.iter().filter(|(_, open)| wanted(open)).map(|(key, _)| *key).collect();
        keys.get(usize::from(index) % keys.len().max(1)).copied()
    }
}

/// A peer by its number.
pub(super) fn peer_of(index: Index) -> PeerKey {
    let number = u32::from(index % PEERS);
    PeerKey::new(1000, Some(number + 1).filter(|_| number + 1 < u32::from(PEERS)))
}
