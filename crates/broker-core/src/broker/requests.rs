//! From a new connection to a decision (behaviour.md 1 and 2).

use std::sync::Arc;
use std::time::Duration;

use broker_protocol::control::Announcement;
use broker_protocol::wire::{AdminRequest, EventKind};
use broker_protocol::{Echo, Refusal, ServiceName, Severity};

use super::planted::Bug;
use super::{Action, Broker};
use crate::admission::{Admission, ConnectionKey, OverQuota, PeerKey};
use crate::backends::{BackendState, Waiter};
use crate::entropy::Entropy;
use crate::events::EventDraft;
use crate::handoff::BackendSlot;
use crate::hello::{Admitted, Asker, Negotiation, Reply, Request, Verdict};
use crate::metrics::{HelloOutcome, OTHER, SeriesId};
use crate::services::{Definition, DefinitionError, FileStamp};
use crate::time::{Monotonic, Now, UnixMillis};
use crate::timers::Timer;

/// Longest part of a client's `request_id` that is kept while it waits, in characters.
const MAX_REQUEST_ID: usize = 64;

/// Who connected, as far as the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerIdentity {
    /// A process of the broker's own user.
    Own(PeerKey),
    /// A process of somebody else.
    Foreign(PeerKey),
    /// The kernel would not say.
    Unreadable,
}

/// What becomes of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Read its first frame.
    Serve,
    /// Close it without reading and without a reply.
    Drop,
}

/// What the first frame of a connection comes to.
#[derive(Clone, Debug)]
pub enum FirstFrame<'a> {
    /// A Hello with a permit and good fields: look at its service's definition, then ask
    /// [`Broker::hello`].
    Hello(Admitted<'a>),
    /// An admin request; answering it is the shell's.
    Admin(Echo<'a>, AdminRequest),
    /// A backend that runs already announces itself: ask [`Broker::announced`].
    Announcement(Echo<'a>, Announcement),
    /// The answer is decided already.
    Refused(Echo<'a>, Reply),
}

/// What the definition file of a service looks like right now.
#[derive(Clone, Debug)]
pub enum DefinitionCheck {
    /// As it was when it was loaded.
    Unchanged,
    /// New, or different from what was loaded.
    Loaded(Arc<Definition>, FileStamp),
    /// There is none.
    Absent,
    /// It cannot be used.
    Invalid(DefinitionError),
    /// Its text is good, but its executable is not.
    Unusable(Arc<Definition>, DefinitionError),
}

/// What a Hello comes to.
#[derive(Clone, Debug)]
pub enum Decision {
    /// This.
    Reply(Reply),
    /// It waits for a backend; an [`Action::Reply`] will answer it.
    Wait,
}

impl<E: Entropy> Broker<E> {
    /// Accepts or turns away a new connection (behaviour.md 1).
    pub fn connected(&mut self, now: Now, connection: ConnectionKey, peer: PeerIdentity) -> Arrival {
        let peer = match peer {
            PeerIdentity::Own(peer) => peer,
            PeerIdentity::Foreign(peer) => {
                let reason =
                    format!("a process of user {} connected; it was turned away unread", peer.user());
                self.turn_away(now, "foreign-user", reason);
                return Arrival::Drop;
            }
            PeerIdentity::Unreadable => {
                self.turn_away(now, "unreadable", "the kernel does not tell who connected".to_owned());
                return Arrival::Drop;
            }
        };
        match self.connections.open(connection, peer) {
            Admission::Admitted => Arrival::Serve,
            Admission::AdmittedInPlaceOf(evicted) => {
                self.evict(evicted);
                Arrival::Serve
            }
            Admission::OverShare => {
                self.metrics.peer_rejected("over-share");
                Arrival::Drop
            }
            Admission::Full => {
                self.metrics.peer_rejected("full");
                Arrival::Drop
            }
        }
    }

    fn turn_away(&mut self, now: Now, kind: &'static str, reason: String) {
        self.metrics.peer_rejected(kind);
        let draft = EventDraft::new(now, EventKind::SecurityViolation, Severity::Warn, &self.instance);
        self.emit(draft.reason(reason).extra("rule", kind));
    }

    /// A connection is gone, or is about to be closed. A Hello that waits on it is withdrawn; the
    /// start it waits for goes on.
    pub fn disconnected(&mut self, now: Now, connection: ConnectionKey) {
        if !(self.waiting.contains_key(&connection) && self.has_bug(Bug::LeakedConnection)) {
            self.connections.close(connection);
        }
        if let Some(slot) = self.waiting.remove(&connection) {
            self.withdraw(slot, connection);
            self.advance_drain(now);
        }
    }

    fn withdraw(&mut self, slot: BackendSlot, connection: ConnectionKey) {
        if let Some(backend) = self.backends.get_mut(slot)
            && let Some(at) = backend.waiters.iter().position(|waiter| waiter.connection == connection)
        {
            let waiter = backend.waiters.swap_remove(at);
            self.timers.cancel(waiter.deadline, Timer::Wait(slot, connection));
        }
    }

    /// Notes how many bytes are kept for a connection, because they cannot be dealt with yet: of a frame that is
    /// not whole, of a Hello that waits, of an answer that its peer does not read.
    ///
    /// # Errors
    /// [`OverQuota`]: its peer's connections keep too many. What is wanted is not counted, and must not be kept.
    pub fn buffers(&mut self, connection: ConnectionKey, bytes: usize) -> Result<(), OverQuota> {
        self.connections.buffers(connection, bytes)
    }

    /// The reply to a connection whose bytes cannot be kept; a Hello that waits on it is withdrawn.
    pub fn over_quota(
        &mut self,
        now: Now,
        accepted: Monotonic,
        connection: ConnectionKey,
        over: OverQuota,
    ) -> Reply {
        self.connections.heard(connection);
        if let Some(slot) = self.waiting.remove(&connection) {
            self.withdraw(slot, connection);
            self.advance_drain(now);
        }
        let held = over.held.saturating_add(over.wanted);
        self.refuse(now, accepted, "", Refusal::PeerBytes { limit: over.limit, held })
    }

    /// No whole frame came (rows 1 to 3): the reply, for as far as it can still be written.
    pub fn malformed(
        &mut self,
        now: Now,
        accepted: Monotonic,
        connection: ConnectionKey,
        peer: PeerKey,
        refusal: Refusal,
    ) -> Reply {
        self.connections.heard(connection);
        // The refusal stands whether or not a permit was left.
        let _ = self.handler.spend_permit(now, peer);
        self.refuse(now, accepted, "", refusal)
    }

    /// Judges the body of the first frame of a connection that was accepted at `accepted` (rows 4 to 13).
    pub fn first_frame<'a>(
        &mut self,
        now: Now,
        accepted: Monotonic,
        connection: ConnectionKey,
        peer: PeerKey,
        body: &'a [u8],
    ) -> FirstFrame<'a> {
        let request = match Request::decode(body) {
            Ok(Request::Hello(request)) => request,
            Ok(Request::Admin(echo, request)) => {
                self.connections.heard(connection);
                return FirstFrame::Admin(echo, request);
            }
            Ok(Request::Announcement(echo, announcement)) => {
                self.connections.heard(connection);
                return FirstFrame::Announcement(echo, announcement);
            }
            Err(rejected) => {
                let reply = self.malformed(now, accepted, connection, peer, rejected.refusal);
                return FirstFrame::Refused(rejected.echo, reply);
            }
        };
        self.connections.heard(connection);
        let admitted = self
            .refuse_while_draining(now)
            .and_then(|()| self.refuse_under_pressure(now))
            .and_then(|()| self.handler.spend_permit(now, peer))
            .and_then(|()| Admitted::check(peer, &request));
        match admitted {
            Ok(admitted) => FirstFrame::Hello(admitted),
            Err(refusal) => FirstFrame::Refused(
                request.echo,
                self.refuse(now, accepted, request.hello.request_id, refusal),
            ),
        }
    }

    fn refuse_under_pressure(&self, now: Now) -> Result<(), Refusal> {
        if self.pressure.is_demoted(now.monotonic) { Err(Refusal::FdPressure) } else { Ok(()) }
    }

    /// The state of the definition file that the service was last loaded from.
    pub fn stamp(&self, service: &str) -> Option<FileStamp> {
        self.handler.stamp(service)
    }

    /// Decides an admitted Hello, given its service's definition as it is now (rows 14 to 19).
    ///
    /// `accepted` is when the connection was accepted; it only goes into the metrics.
    pub fn hello(
        &mut self,
        now: Now,
        accepted: Monotonic,
        connection: ConnectionKey,
        admitted: &Admitted<'_>,
        definition: DefinitionCheck,
    ) -> Decision {
        let request_id = admitted.request_id();
        if let Err(refusal) = self.take_definition(now, admitted.service(), definition) {
            return Decision::Reply(self.refuse(now, accepted, request_id, refusal));
        }
        // Those whose time is over make room, and are reported.
        self.expire_offers(now);
        match self.handler.negotiate(now, admitted) {
            Verdict::Reply(Reply::Negotiated(negotiation)) => {
                self.count_negotiated(now, accepted, request_id, &negotiation);
                Decision::Reply(Reply::Negotiated(negotiation))
            }
            Verdict::Reply(Reply::Refused(refusal)) => {
                Decision::Reply(self.refuse(now, accepted, request_id, refusal))
            }
            Verdict::NoBackend(definition) => {
                match self.wait_for_backend(now, accepted, connection, admitted, definition) {
                    Ok(()) => Decision::Wait,
                    Err(refusal) => Decision::Reply(self.refuse(now, accepted, request_id, refusal)),
                }
            }
        }
    }

    pub(super) fn take_definition(
        &mut self,
        now: Now,
        service: &str,
        check: DefinitionCheck,
    ) -> Result<(), Refusal> {
        match check {
            DefinitionCheck::Unchanged => {}
            DefinitionCheck::Absent => self.handler.undefine(service),
            DefinitionCheck::Invalid(error) => {
                let (rule, cause) = (error.rule(), error.to_string());
                return Err(Refusal::Definition { service: service.to_owned(), rule, cause });
            }
            // Whose service it is comes first (row 14): its own broker tells what is wrong with it.
            DefinitionCheck::Unusable(definition, error) => {
                self.handler.check_domain(&definition)?;
                let (rule, cause) = (error.rule(), error.to_string());
                return Err(Refusal::Definition { service: service.to_owned(), rule, cause });
            }
            DefinitionCheck::Loaded(definition, stamp) => self.load_definition(now, definition, stamp),
        }
        Ok(())
    }

    fn load_definition(&mut self, now: Now, definition: Arc<Definition>, stamp: FileStamp) {
        let service = definition.service().clone();
        if self.handler.stamp(service.as_str()) == Some(stamp) {
            // Several Hellos saw the change at once; the first of them has brought it in.
            return;
        }
        let known = self.handler.definition(service.as_str()).is_some();
        let kind = if known { EventKind::ServiceDefChanged } else { EventKind::ServiceDefLoaded };
        self.handler.define(definition, Some(stamp));
        if !known {
            self.restore_routes(&service);
        }
        let draft = EventDraft::new(now, kind, Severity::Info, &self.instance);
        self.emit(draft.service(service.as_str()));
    }

    fn wait_for_backend(
        &mut self,
        now: Now,
        accepted: Monotonic,
        connection: ConnectionKey,
        admitted: &Admitted<'_>,
        definition: Arc<Definition>,
    ) -> Result<(), Refusal> {
        // A drain may have begun while the definition was looked at.
        self.refuse_while_draining(now)?;
        let Ok(service) = ServiceName::parse(admitted.service()) else {
            return Err(Refusal::Internal { cause: "an admitted Hello has an invalid service name" });
        };
        let metrics = &mut self.metrics;
        let version = admitted.version();
        // A client can make up any number of versions: only those that the definition names have a label.
        let is_named = definition.policy().names(version);
        let label = || if is_named { version.to_string() } else { OTHER.to_owned() };
        let slot = self.backends.entry(&service, version, || metrics.series_of(service.as_str(), &label()));
        if let Err(refusal) = self.bring_up(now, slot, definition, admitted) {
            // An entry that was made for this Hello would remember nothing.
            self.forget(now, slot);
            return Err(refusal);
        }
        let deadline = now.monotonic.saturating_add(self.patience(now, admitted.deadline()));
        if let Some(backend) = self.backends.get_mut(slot) {
            backend.waiters.push(Waiter {
                connection,
                asker: Asker::from(admitted),
                request_id: admitted.request_id().chars().take(MAX_REQUEST_ID).collect(),
                accepted,
                arrived: now.monotonic,
                deadline,
            });
            self.waiting.insert(connection, slot);
            self.timers.set(deadline, Timer::Wait(slot, connection));
        }
        Ok(())
    }

    fn patience(&self, now: Now, deadline: Option<UnixMillis>) -> Duration {
        match deadline {
            Some(deadline) => deadline.duration_since(now.unix),
            None => self.config.wait,
        }
    }

    /// Counts an agreement, and remembers it as an event.
    pub(super) fn count_negotiated(
        &mut self,
        now: Now,
        accepted: Monotonic,
        request_id: &str,
        negotiation: &Negotiation,
    ) {
        let slot = negotiation.route.slot();
        let Some(backend) = self.backends.get_mut(slot) else { return };
        backend.last_hello = Some((now.monotonic, now.unix));
        self.metrics.hello(backend.series, HelloOutcome::Negotiated, accepted, now.monotonic);
        if let Some(left_out) = self.sampler.sample(now.monotonic) {
            let draft = EventDraft::new(now, EventKind::HelloAccepted, Severity::Info, &self.instance)
                .service(backend.service.as_str())
                .pid(backend.state.live().and_then(|live| live.pid))
                .request(request_id, negotiation.connection_id.get())
                .extra("version", &backend.version);
            self.emit(with_left_out(draft, left_out));
        }
    }

    /// Counts a refusal, remembers it as an event, and makes it a reply.
    pub(super) fn refuse(
        &mut self,
        now: Now,
        accepted: Monotonic,
        request_id: &str,
        refusal: Refusal,
    ) -> Reply {
        let series = self.series_of(&refusal);
        self.metrics.hello(series, HelloOutcome::Refused(refusal.code()), accepted, now.monotonic);
        match &refusal {
            Refusal::RateLimited { .. } => self.metrics.rate_limited(),
            other if other.code() == broker_protocol::wire::ErrorCode::ErrorPeerRejected => {
                self.metrics.peer_rejected(other.kind());
            }
            _ => {}
        }
        if let Some(left_out) = self.sampler.sample(now.monotonic) {
            let draft = EventDraft::new(now, EventKind::HelloRefused, Severity::Warn, &self.instance)
                .service(refusal.service().unwrap_or_default())
                .reason(refusal.to_string())
                .request(request_id, 0)
                .extra("kind", refusal.kind());
            self.emit(with_left_out(draft, left_out));
        }
        Reply::Refused(refusal)
    }

    /// A refusal is counted for its service where that has a definition, and for no version: a client
    /// could make up any number of those.
    fn series_of(&mut self, refusal: &Refusal) -> SeriesId {
        match refusal.service() {
            Some(service) if self.handler.definition(service).is_some() => {
                self.metrics.series_of(service, OTHER)
            }
            Some(_) | None => SeriesId::OTHER,
        }
    }

    pub(super) fn emit(&mut self, draft: EventDraft) {
        let event = draft.finish();
        self.recent.push(&event);
        self.actions.push_back(Action::Emit(event));
    }

    pub(super) fn descriptor_pressure(&mut self, now: Now) {
        if !self.pressure.is_demoted(now.monotonic) {
            let draft = EventDraft::new(now, EventKind::ResourcePressure, Severity::Warn, &self.instance);
            self.emit(draft.reason("out of file descriptors; new Hellos are refused until it recovers"));
        }
        self.pressure.hit(now.monotonic);
        if let Some(evicted) = self.connections.make_room() {
            self.evict(evicted);
        }
    }

    fn evict(&mut self, connection: ConnectionKey) {
        self.metrics.peer_rejected("evicted");
        self.actions.push_back(Action::Evict { connection });
    }

    /// Whether an entry is worth keeping when nothing of it runs.
    pub(super) fn is_idle_entry(state: &BackendState) -> bool {
        matches!(state, BackendState::Absent | BackendState::Failed(_))
    }
}

fn with_left_out(draft: EventDraft, left_out: u64) -> EventDraft {
    if left_out == 0 { draft } else { draft.extra("left_out_before", left_out) }
}
