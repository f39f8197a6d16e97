//! The handoffs that are under way, and the one-time tokens that tell them apart (behaviour.md 2,
//! "Handoff tokens").
//!
//! A handoff is pending from the moment its token is issued until it is settled in exactly one way:
//! acknowledged or rejected by the backend, expired, or revoked. It passes nothing to anybody; it
//! decides whether an acknowledgement answers an offer that was made and is still waited for.
//!
//! **Deadlines.** A token is good for [`HandoffLimits::ttl`] from its issue; once it is offered, the
//! backend has [`HandoffLimits::ack_deadline`] from the offer, and never beyond the token's own time.
//! At the very nanosecond of its deadline a handoff is expired. That holds whether or not
//! [`PendingHandoffs::expire`] has been called since, but only `expire` takes it out and reports it,
//! so each expiry is reported once. It is cheap when nothing is due: call it with every input, before
//! anything is issued, and when [`PendingHandoffs::next_expiry`] has come.
//!
//! **Cost.** Every operation takes constant time, revoking a backend's handoffs constant time for each.
//! As both deadlines are a fixed time away, the order of issue is the order of expiry, and so is the
//! order of offers; two queues hold them, a third the handoffs of each backend. All places are reserved
//! at the start.
//!
//! Invariant: a token is good for one handoff, once, and never at or after its deadline. A token that
//! does not match consumes nothing. A clock that goes back is taken to stand still. That no two tokens
//! are alike is left to their 128 random bits: nothing is looked up by a token, so two that are alike
//! would not even be confused.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use broker_protocol::{ConnectionId, HANDOFF_TOKEN_LEN, HandoffToken};
use foldhash::fast::RandomState;
use zeroize::Zeroizing;

use super::arena::{Arena, Index, Lane, Queue};
use super::outcome::{AckError, Acknowledged, Expired, IssueError, OfferError, Stage};
use crate::admission::{PeerKey, Quota};
use crate::entropy::Entropy;
use crate::time::Monotonic;

/// More pending handoffs than this cannot be asked for; room for all of them is reserved at once.
pub const MAX_PENDING_HANDOFFS: usize = 65_536;

/// A backend's place in the table of backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendSlot(u32);

impl BackendSlot {
    /// The slot with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Handoffs of one peer's connections that may be pending at once by default. More than one backend takes, so
/// that a peer which talks to a single one is bounded by that one's limit; far less than there are in all.
pub const PENDING_HANDOFFS_PER_PEER: usize = 128;

/// Bounds of the pending handoffs (behaviour.md 2, "Handoff tokens").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoffLimits {
    /// Pending at once, up to [`MAX_PENDING_HANDOFFS`]. With 0 no token is ever issued.
    pub capacity: usize,
    /// Pending at once for one backend: every token may become an offer, so those not yet offered count.
    pub per_backend: usize,
    /// Pending at once for the connections of one peer.
    pub per_peer: usize,
    /// How long a token is good for.
    pub ttl: Duration,
    /// How long a backend has to acknowledge an offer.
    pub ack_deadline: Duration,
}

impl Default for HandoffLimits {
    /// 1,024 pending, 64 of them for one backend and [`PENDING_HANDOFFS_PER_PEER`] of one peer, 30 s for a token and 5 s for an acknowledgement.
    fn default() -> Self {
        Self {
            capacity: 1_024,
            per_backend: 64,
            per_peer: PENDING_HANDOFFS_PER_PEER,
            ttl: Duration::from_secs(30),
            ack_deadline: Duration::from_secs(5),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Record {
    connection: ConnectionId,
    peer: PeerKey,
    backend: BackendSlot,
    issued_at: Monotonic,
    offered_at: Option<Monotonic>,
}

impl Record {
    fn deadline(&self, limits: &HandoffLimits) -> Monotonic {
        let end = self.issued_at.saturating_add(limits.ttl);
        self.offered_at.map_or(end, |offered_at| end.min(offered_at.saturating_add(limits.ack_deadline)))
    }

    const fn stage(&self) -> Stage {
        match self.offered_at {
            None => Stage::Issued,
            Some(_) => Stage::Offered,
        }
    }
}

#[derive(Debug)]
struct Handoff {
    record: Record,
    token: HandoffToken,
}

/// The pending handoffs to one backend; never none.
#[derive(Debug, Default)]
struct Outstanding {
    queue: Queue,
    count: usize,
}

fn pending_in(by_backend: &Entry<'_, BackendSlot, Outstanding>) -> usize {
    match by_backend {
        Entry::Occupied(outstanding) => outstanding.get().count,
        Entry::Vacant(_) => 0,
    }
}

/// All pending handoffs.
///
/// ```
/// use broker_core::admission::PeerKey;
/// use broker_core::entropy::SeededEntropy;
/// use broker_core::handoff::{AckError, BackendSlot, HandoffLimits, PendingHandoffs};
/// use broker_core::time::Monotonic;
/// use broker_protocol::ConnectionIds;
///
/// let (now, peer) = (Monotonic::default(), PeerKey::new(1000, Some(42)));
/// let backend = BackendSlot::new(0);
/// let connection = ConnectionIds::default().allocate().ok_or("no id left")?;
/// let mut handoffs = PendingHandoffs::new(HandoffLimits::default());
///
/// let token = handoffs.issue(now, connection, peer, backend, &mut SeededEntropy::new(1))?;
/// handoffs.offered(now, connection)?;
/// assert_eq!(handoffs.acknowledge(now, connection, &token)?.backend, backend);
/// assert_eq!(handoffs.acknowledge(now, connection, &token), Err(AckError::NotPending));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PendingHandoffs {
    limits: HandoffLimits,
    /// The latest time anybody named.
    latest: Monotonic,
    arena: Arena<Handoff>,
    by_connection: HashMap<ConnectionId, Index, RandomState>,
    by_backend: HashMap<BackendSlot, Outstanding, RandomState>,
    by_peer: Quota,
    /// All, by the time of issue.
    issued: Queue,
    /// Those that are offered, by the time of the offer.
    offered: Queue,
}

impl PendingHandoffs {
    /// None yet. A capacity beyond [`MAX_PENDING_HANDOFFS`] counts as that many.
    pub fn new(limits: HandoffLimits) -> Self {
        let capacity = limits.capacity.min(MAX_PENDING_HANDOFFS);
        Self {
            limits: HandoffLimits { capacity, ..limits },
            latest: Monotonic::default(),
            arena: Arena::with_capacity(capacity),
            by_connection: HashMap::with_capacity_and_hasher(capacity, RandomState::default()),
            by_backend: HashMap::default(),
            by_peer: Quota::new(limits.per_peer),
            issued: Queue::default(),
            offered: Queue::default(),
        }
    }

    /// Issues a token for handing `connection`, which is `peer`'s, to `backend`, and counts it as pending.
    ///
    /// # Errors
    /// [`IssueError`], and nothing has changed. Expired handoffs count until [`expire`](Self::expire)
    /// has reported them.
    pub fn issue(
        &mut self,
        now: Monotonic,
        connection: ConnectionId,
        peer: PeerKey,
        backend: BackendSlot,
        entropy: &mut impl Entropy,
    ) -> Result<HandoffToken, IssueError> {
        let issued_at = self.advance(now);
        let at_capacity = IssueError::AtCapacity { limit: self.limits.capacity };
        if self.by_connection.len() >= self.limits.capacity {
            return Err(at_capacity);
        }
        let Entry::Vacant(by_connection) = self.by_connection.entry(connection) else {
            return Err(IssueError::AlreadyPending { connection });
        };
        let by_backend = self.by_backend.entry(backend);
        if pending_in(&by_backend) >= self.limits.per_backend {
            return Err(IssueError::BackendBusy { limit: self.limits.per_backend });
        }
        if self.by_peer.held_by(peer) >= self.limits.per_peer {
            return Err(IssueError::PeerBusy { limit: self.limits.per_peer });
        }
        let mut bytes = Zeroizing::new([0; HANDOFF_TOKEN_LEN]);
        entropy.fill(&mut bytes[..])?;

        let record = Record { connection, peer, backend, issued_at, offered_at: None };
        let token = HandoffToken::from_bytes(*bytes);
        let index = self.arena.insert(Handoff { record, token }).ok_or(at_capacity)?;
        by_connection.insert(index);
        // Asked for above.
        let _ = self.by_peer.charge(peer, 1);
        self.arena.push_back(Lane::Issued, &mut self.issued, index);
        let outstanding = by_backend.or_default();
        outstanding.count += 1;
        self.arena.push_back(Lane::Backend, &mut outstanding.queue, index);
        Ok(HandoffToken::from_bytes(*bytes))
    }

    /// Notes that the connection is being offered; to be called before the first byte of the offer is
    /// sent. The time for the acknowledgement begins.
    ///
    /// # Errors
    /// [`OfferError`], and the offer must not be sent.
    pub fn offered(&mut self, now: Monotonic, connection: ConnectionId) -> Result<(), OfferError> {
        let now = self.advance(now);
        let index = *self.by_connection.get(&connection).ok_or(OfferError::NotPending)?;
        let record = &mut self.arena.get_mut(index).ok_or(OfferError::NotPending)?.record;
        if now >= record.deadline(&self.limits) {
            return Err(OfferError::Expired);
        }
        if record.offered_at.is_some() {
            return Err(OfferError::AlreadyOffered);
        }
        record.offered_at = Some(now);
        self.arena.push_back(Lane::Offered, &mut self.offered, index);
        Ok(())
    }

    /// Settles a handoff that the backend has accepted: the connection is the backend's.
    ///
    /// # Errors
    /// [`AckError`], and nothing has changed.
    pub fn acknowledge(
        &mut self,
        now: Monotonic,
        connection: ConnectionId,
        presented: &HandoffToken,
    ) -> Result<Acknowledged, AckError> {
        self.settle(now, connection, presented)
    }

    /// Settles a handoff that the backend has rejected: the connection is the broker's again. Takes the
    /// same proof as [`acknowledge`](Self::acknowledge).
    ///
    /// # Errors
    /// [`AckError`], and nothing has changed.
    pub fn reject(
        &mut self,
        now: Monotonic,
        connection: ConnectionId,
        presented: &HandoffToken,
    ) -> Result<Acknowledged, AckError> {
        self.settle(now, connection, presented)
    }

    /// Gives up the handoff of a connection, and says how far it had come if there was one.
    pub fn revoke(&mut self, connection: ConnectionId) -> Option<Stage> {
        let index = *self.by_connection.get(&connection)?;
        self.take(index).map(|record| record.stage())
    }

    /// Gives up all handoffs to a backend, and says how many there were.
    pub fn revoke_backend(&mut self, backend: BackendSlot) -> usize {
        let mut revoked = 0;
        while self.front_of(backend).and_then(|index| self.take(index)).is_some() {
            revoked += 1;
        }
        revoked
    }

    /// Takes out every handoff whose deadline has come, earliest first, and reports each.
    pub fn expire(&mut self, now: Monotonic, mut report: impl FnMut(Expired)) {
        let now = self.advance(now);
        while let Some((_, index)) = self.earliest().filter(|(deadline, _)| *deadline <= now)
            && let Some(record) = self.take(index)
        {
            let Record { connection, backend, .. } = record;
            report(Expired { connection, backend, stage: record.stage() });
        }
    }

    /// When [`expire`](Self::expire) will next have something to report.
    pub fn next_expiry(&self) -> Option<Monotonic> {
        self.earliest().map(|(deadline, _)| deadline)
    }

    /// How far the handoff of a connection has come, if it has one.
    pub fn stage(&self, connection: ConnectionId) -> Option<Stage> {
        let index = *self.by_connection.get(&connection)?;
        self.arena.get(index).map(|handoff| handoff.record.stage())
    }

    /// The backend that a connection is to be handed to, if it is.
    pub fn backend_of(&self, connection: ConnectionId) -> Option<BackendSlot> {
        let index = *self.by_connection.get(&connection)?;
        self.arena.get(index).map(|handoff| handoff.record.backend)
    }

    /// How many are pending.
    pub fn len(&self) -> usize {
        self.by_connection.len()
    }

    /// Whether none is pending.
    pub fn is_empty(&self) -> bool {
        self.by_connection.is_empty()
    }

    /// How many are pending for this backend.
    pub fn outstanding(&self, backend: BackendSlot) -> usize {
        self.by_backend.get(&backend).map_or(0, |outstanding| outstanding.count)
    }

    /// How many are pending for the connections of this peer.
    pub fn held_by(&self, peer: PeerKey) -> usize {
        self.by_peer.held_by(peer)
    }

    /// What it was made with.
    pub const fn limits(&self) -> &HandoffLimits {
        &self.limits
    }

    fn advance(&mut self, now: Monotonic) -> Monotonic {
        self.latest = self.latest.max(now);
        self.latest
    }

    fn settle(
        &mut self,
        now: Monotonic,
        connection: ConnectionId,
        presented: &HandoffToken,
    ) -> Result<Acknowledged, AckError> {
        let now = self.advance(now);
        let index = *self.by_connection.get(&connection).ok_or(AckError::NotPending)?;
        let handoff = self.arena.get(index).ok_or(AckError::NotPending)?;
        if now >= handoff.record.deadline(&self.limits) {
            return Err(AckError::Expired);
        }
        let offered_at = handoff.record.offered_at.ok_or(AckError::NotOffered)?;
        if handoff.token != *presented {
            return Err(AckError::Mismatch);
        }
        let record = self.take(index).ok_or(AckError::NotPending)?;
        Ok(Acknowledged { backend: record.backend, waited: now.duration_since(offered_at) })
    }

    /// The handoff that expires first. Each queue has its own earliest in front.
    fn earliest(&self) -> Option<(Monotonic, Index)> {
        [self.issued.front(), self.offered.front()]
            .into_iter()
            .flatten()
            .filter_map(|index| Some((self.arena.get(index)?.record.deadline(&self.limits), index)))
            .min_by_key(|(deadline, _)| *deadline)
    }

    fn front_of(&self, backend: BackendSlot) -> Option<Index> {
        self.by_backend.get(&backend)?.queue.front()
    }

    /// Takes a handoff out of everything it stands in, and wipes its token.
    fn take(&mut self, index: Index) -> Option<Record> {
        let record = self.arena.get(index)?.record;
        self.arena.unlink(Lane::Issued, &mut self.issued, index);
        if record.offered_at.is_some() {
            self.arena.unlink(Lane::Offered, &mut self.offered, index);
        }
        if let Entry::Occupied(mut entry) = self.by_backend.entry(record.backend) {
            let outstanding = entry.get_mut();
            self.arena.unlink(Lane::Backend, &mut outstanding.queue, index);
            outstanding.count -= 1;
            if outstanding.count == 0 {
                entry.remove();
            }
        }
        self.by_connection.remove(&record.connection);
        self.by_peer.release(record.peer, 1);
        self.arena.remove(index);
        Some(record)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
