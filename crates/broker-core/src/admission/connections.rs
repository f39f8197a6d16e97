//! How many connections are open, whose they are, and who makes room (behaviour.md 1.2).
//!
//! Accounting only: the caller accepts and closes. A connection is *silent* until its whole first
//! frame has come; only silent ones ever make room, so whoever has asked something gets its answer.
//!
//! At the total, the youngest silent connection of the peer that holds most makes room. In full:
//! - A peer makes room for another only if it holds more than that one does so far, so one that holds
//!   none is served while any connection at all is silent, and a hoarder evicts nobody smaller.
//! - A peer with silent connections of its own makes room for itself where nobody else has to.
//! - A peer all of whose connections have spoken is passed over for the one that holds most after it.
//! - Of several that hold as much, the one with the youngest silent connection makes room.
//! - Where nobody can make room, the newcomer is turned away.
//! - Where the system has no descriptor left, who holds most makes room for nobody in particular.
//!
//! What is kept for a connection counts for its peer, and goes with the connection.
//!
//! Opening, hearing and closing look up one or two entries each. Only making room looks at every
//! connection, of which there are at most [`ConnectionLimits::total`].
//!
//! Limits that are lowered close nothing: whoever is over them keeps what it has, and newcomers find no room but
//! what others make.
//!
//! Invariant: nothing is opened beyond the total, nor by a peer beyond its share; a peer is remembered exactly as
//! long as it has a connection.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use broker_protocol::limits::MAX_HELLO_BODY;

use super::{OverQuota, PeerKey, Quota};

/// How many connections may be open by default (behaviour.md 1.2).
pub const MAX_CONNECTIONS: usize = 1_024;

/// Bytes that may be kept for one peer's connections by default: sixteen Hellos of the greatest length, or
/// thousands of the usual one.
pub const BUFFERED_PER_PEER: usize = 16 * MAX_HELLO_BODY;

/// The caller's name for an open connection. Not to be used again while that connection is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey(u64);

impl ConnectionKey {
    /// The connection with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// How many connections may be open, and how much may be kept for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    total: usize,
    per_peer: usize,
    buffered_per_peer: usize,
}

impl ConnectionLimits {
    /// At most `total` connections, at most half of them one peer's; at least one of either.
    pub const fn of_total(total: usize) -> Self {
        Self::new(total, total / 2)
    }

    /// At most `total` connections, at most `per_peer` of them one peer's. A share of more than half
    /// counts as half, and 0 counts as 1.
    pub const fn new(total: usize, per_peer: usize) -> Self {
        let half = total / 2;
        let per_peer = if per_peer > half { half } else { per_peer };
        Self {
            total: if total == 0 { 1 } else { total },
            per_peer: if per_peer == 0 { 1 } else { per_peer },
            buffered_per_peer: BUFFERED_PER_PEER,
        }
    }

    /// The same, with this many bytes that may be kept for one peer's connections.
    #[must_use]
    pub const fn with_buffered(self, buffered_per_peer: usize) -> Self {
        Self { buffered_per_peer, ..self }
    }

    /// Connections in all.
    pub const fn total(self) -> usize {
        self.total
    }

    /// Connections of one peer.
    pub const fn per_peer(self) -> usize {
        self.per_peer
    }

    /// Bytes kept for one peer's connections.
    pub const fn buffered_per_peer(self) -> usize {
        self.buffered_per_peer
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::of_total(MAX_CONNECTIONS)
    }
}

/// What becomes of a connection that was just accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// It is open.
    Admitted,
    /// It is open, and this one is not any more: close it. It needs no [`Connections::close`].
    AdmittedInPlaceOf(ConnectionKey),
    /// Its peer has its share already: close the new one.
    OverShare,
    /// Nobody can make room for it: close the new one.
    Full,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    peer: PeerKey,
    phase: Phase,
    /// Bytes that are kept for it, because they cannot be dealt with yet.
    buffered: usize,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Its first frame is not there yet.
    Silent { order: Order },
    /// It has asked something.
    Heard,
}

/// Position in the order in which connections were opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Order(u64);

/// All open connections.
///
/// ```
/// use broker_core::admission::{Admission, ConnectionKey, ConnectionLimits, Connections, PeerKey};
///
/// let (greedy, modest) = (PeerKey::new(1000, Some(1)), PeerKey::new(1000, Some(2)));
/// let mut connections = Connections::new(ConnectionLimits::of_total(4));
/// for number in 1..=2 {
///     assert_eq!(connections.open(ConnectionKey::new(number), greedy), Admission::Admitted);
/// }
/// assert_eq!(connections.open(ConnectionKey::new(3), greedy), Admission::OverShare);
/// assert_eq!(connections.open(ConnectionKey::new(4), modest), Admission::Admitted);
/// ```
#[derive(Debug)]
pub struct Connections {
    limits: ConnectionLimits,
    open: HashMap<ConnectionKey, Connection, RandomState>,
    /// How many connections each peer holds.
    held: Quota,
    /// How many bytes are kept for each peer's.
    buffered: Quota,
    next: Order,
}

impl Connections {
    /// No connection yet.
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            open: HashMap::default(),
            held: Quota::new(limits.per_peer),
            buffered: Quota::new(limits.buffered_per_peer),
            next: Order::default(),
        }
    }

    /// Decides on a connection that `peer` has just opened, and counts it if it stays.
    pub fn open(&mut self, key: ConnectionKey, peer: PeerKey) -> Admission {
        if self.held_by(peer) >= self.held.limit() {
            return Admission::OverShare;
        }
        if self.open.len() < self.limits.total {
            self.count(key, peer);
            return Admission::Admitted;
        }
        let Some(victim) = self.who_makes_room_for(peer) else {
            return Admission::Full;
        };
        self.close(victim);
        self.count(key, peer);
        Admission::AdmittedInPlaceOf(victim)
    }

    /// Closes a silent connection, because the system has none to give any more: the youngest of the peer that
    /// holds most. `None` where every connection has spoken. What is returned needs no [`close`](Self::close).
    #[cold]
    pub fn make_room(&mut self) -> Option<ConnectionKey> {
        let victim = self.who_makes_room(|_, _| true)?;
        self.close(victim);
        Some(victim)
    }

    /// Notes that the whole first frame of a connection has come.
    pub fn heard(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.open.get_mut(&key) {
            connection.phase = Phase::Heard;
        }
    }

    /// Notes that a connection is closed, or no longer the broker's. One that is not known is ignored.
    pub fn close(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.open.remove(&key) {
            self.release(connection);
        }
    }

    /// Notes how many bytes are kept for a connection: of a frame that is not whole, of a Hello that waits, of
    /// an answer that its peer does not read. Nothing is counted for one that is not known.
    ///
    /// # Errors
    /// [`OverQuota`]: its peer's connections keep too many, and this one is to be closed.
    pub fn buffers(&mut self, key: ConnectionKey, bytes: usize) -> Result<(), OverQuota> {
        let Some(connection) = self.open.get_mut(&key) else { return Ok(()) };
        match bytes.checked_sub(connection.buffered) {
            Some(more) => self.buffered.charge(connection.peer, more)?,
            None => self.buffered.release(connection.peer, connection.buffered - bytes),
        }
        connection.buffered = bytes;
        Ok(())
    }

    /// How many connections are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many of them are this peer's.
    pub fn held_by(&self, peer: PeerKey) -> usize {
        self.held.held_by(peer)
    }

    /// How many bytes are kept for this peer's.
    pub fn buffered_by(&self, peer: PeerKey) -> usize {
        self.buffered.held_by(peer)
    }

    /// The limits that hold for whoever comes.
    pub const fn limits(&self) -> ConnectionLimits {
        self.limits
    }

    /// Replaces the limits; what is open stays open.
    pub const fn set_limits(&mut self, limits: ConnectionLimits) {
        self.limits = limits;
        self.held.set_limit(limits.per_peer);
        self.buffered.set_limit(limits.buffered_per_peer);
    }

    fn count(&mut self, key: ConnectionKey, peer: PeerKey) {
        let order = self.next;
        self.next = Order(order.0.wrapping_add(1));
        let connection = Connection { peer, phase: Phase::Silent { order }, buffered: 0 };
        if let Some(reused) = self.open.insert(key, connection) {
            self.release(reused);
        }
        // Asked for before: there is room.
        let _ = self.held.charge(peer, 1);
    }

    fn release(&mut self, connection: Connection) {
        self.held.release(connection.peer, 1);
        self.buffered.release(connection.peer, connection.buffered);
    }

    /// The connection that makes room for one more of `newcomer`'s.
    #[cold]
    fn who_makes_room_for(&self, newcomer: PeerKey) -> Option<ConnectionKey> {
        let held_by_newcomer = self.held_by(newcomer);
        self.who_makes_room(|peer, held| held > held_by_newcomer || peer == newcomer)
    }

    /// The youngest silent connection of the peer that holds most of those that may be asked.
    fn who_makes_room(&self, may_be_asked: impl Fn(PeerKey, usize) -> bool) -> Option<ConnectionKey> {
        self.open
            .iter()
            .filter_map(|(key, connection)| match connection.phase {
                Phase::Silent { order } => {
                    Some((self.held_by(connection.peer), order, connection.peer, *key))
                }
                Phase::Heard => None,
            })
            .filter(|(held, _, peer, _)| may_be_asked(*peer, *held))
            .max_by_key(|(held, order, _, _)| (*held, *order))
            .map(|(_, _, _, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn peer(pid: u32) -> PeerKey {
        PeerKey::new(1000, Some(pid))
    }

    fn key(number: u64) -> ConnectionKey {
        ConnectionKey::new(number)
    }

    fn connections(total: usize) -> Connections {
        Connections::new(ConnectionLimits::of_total(total))
    }

    /// Opens connections `numbers`, all of `pid`, where there must be room.
    fn fill(connections: &mut Connections, pid: u32, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            assert_eq!(connections.open(key(number), peer(pid)), Admission::Admitted, "{number}");
        }
    }

    #[test]
    fn a_peer_may_hold_half_and_not_one_more() {
        let mut connections = connections(8);
        fill(&mut connections, 1, 1..=4);
        assert_eq!(connections.open(key(5), peer(1)), Admission::OverShare);
        assert_eq!((connections.len(), connections.held_by(peer(1))), (4, 4));
    }

    #[test]
    fn a_peer_over_its_share_evicts_nobody_even_at_the_total() {
        let mut connections = connections(4);
        fill(&mut connections, 1, 1..=2);
        fill(&mut connections, 2, 3..=4);
        assert_eq!(connections.open(key(5), peer(1)), Admission::OverShare);
        assert_eq!(connections.len(), 4);
    }

    #[test]
    fn the_total_is_used_to_the_last_connection() {
        let mut connections = connections(4);
        fill(&mut connections, 1, 1..=2);
        fill(&mut connections, 2, 3..=4);
        assert_eq!(connections.len(), 4);
        assert_eq!(connections.open(key(5), peer(3)), Admission::AdmittedInPlaceOf(key(4)));
        assert_eq!(connections.len(), 4);
    }

    #[test]
    fn the_youngest_silent_connection_of_whoever_holds_most_makes_room() {
        let mut connections = connections(6);
        fill(&mut connections, 1, 1..=3);
        fill(&mut connections, 2, 4..=5);
        fill(&mut connections, 3, 6..=6);
        connections.heard(key(3));
        assert_eq!(connections.open(key(7), peer(4)), Admission::AdmittedInPlaceOf(key(2)));
        assert_eq!((connections.held_by(peer(1)), connections.held_by(peer(4))), (2, 1));
    }

    #[test]
    fn lower_limits_close_nothing_and_hold_for_whoever_comes() {
        let mut connections = connections(8);
        fill(&mut connections, 1, 1..=4);
        fill(&mut connections, 2, 5..=6);
        connections.set_limits(ConnectionLimits::of_total(4));
        assert_eq!((connections.len(), connections.held_by(peer(1))), (6, 4));
        assert_eq!(connections.open(key(7), peer(1)), Admission::OverShare);
        assert_eq!(connections.open(key(8), peer(3)), Admission::AdmittedInPlaceOf(key(4)), "not one more");
        assert_eq!(connections.len(), 6);
        (1..=3).for_each(|number| connections.close(key(number)));
        assert_eq!(connections.open(key(9), peer(1)), Admission::Admitted);
    }

    #[test]
    fn higher_limits_let_the_next_one_in() {
        let mut connections = connections(4);
        fill(&mut connections, 1, 1..=2);
        assert_eq!(connections.open(key(3), peer(1)), Admission::OverShare);
        connections.set_limits(ConnectionLimits::of_total(8));
        fill(&mut connections, 1, 3..=4);
        assert_eq!(connections.open(key(5), peer(1)), Admission::OverShare);
    }

    #[test]
    fn where_the_system_has_no_more_whoever_holds_most_makes_room() {
        let mut connections = connections(8);
        fill(&mut connections, 1, 1..=3);
        fill(&mut connections, 2, 4..=5);
        assert_eq!(connections.make_room(), Some(key(3)));
        (1..=2).for_each(|number| connections.heard(key(number)));
        assert_eq!(connections.make_room(), Some(key(5)));
        assert_eq!(connections.make_room(), Some(key(4)));
        assert_eq!(connections.make_room(), None);
        assert_eq!(connections.len(), 2);
    }

    #[test]
    fn whoever_holds_most_but_has_spoken_on_all_is_passed_over() {
        let mut connections = connections(6);
        fill(&mut connections, 1, 1..=3);
        fill(&mut connections, 2, 4..=5);
        fill(&mut connections, 3, 6..=6);
        (1..=3).for_each(|number| connections.heard(key(number)));
        assert_eq!(connections.open(key(7), peer(4)), Admission::AdmittedInPlaceOf(key(5)));
    }

    #[test]
    fn of_several_that_hold_as_much_the_one_with_the_youngest_makes_room() {
        let mut connections = connections(4);
        fill(&mut connections, 1, [1]);
        fill(&mut connections, 2, [2]);
        fill(&mut connections, 1, [3]);
        fill(&mut connections, 2, [4]);
        connections.heard(key(4));
        assert_eq!(connections.open(key(5), peer(3)), Admission::AdmittedInPlaceOf(key(3)));
    }

    #[test]
    fn a_newcomer_is_served_even_where_everybody_holds_just_one() {
        let mut connections = connections(4);
        for number in 1..=4 {
            fill(&mut connections, number as u32, [number]);
        }
        assert_eq!(connections.open(key(5), peer(5)), Admission::AdmittedInPlaceOf(key(4)));
    }

    #[test]
    fn nobody_makes_room_for_a_peer_that_holds_as_much() {
        let mut connections = connections(4);
        for number in 1..=4 {
            fill(&mut connections, number as u32, [number]);
        }
        connections.heard(key(1));
        assert_eq!(connections.open(key(5), peer(1)), Admission::Full);
        assert_eq!(connections.len(), 4);
    }

    #[test]
    fn a_peer_makes_room_for_itself_where_nobody_holds_more() {
        let mut connections = connections(6);
        fill(&mut connections, 1, 1..=2);
        fill(&mut connections, 2, 3..=4);
        fill(&mut connections, 3, 5..=6);
        assert_eq!(connections.open(key(7), peer(1)), Admission::AdmittedInPlaceOf(key(2)));
        assert_eq!(connections.held_by(peer(1)), 2);
    }

    #[test]
    fn whoever_holds_more_makes_room_before_the_newcomer_does() {
        let mut connections = connections(6);
        fill(&mut connections, 1, 1..=3);
        fill(&mut connections, 2, 4..=6);
        connections.close(key(6));
        fill(&mut connections, 3, [7]);
        assert_eq!(connections.open(key(8), peer(2)), Admission::AdmittedInPlaceOf(key(3)));
    }

    #[test]
    fn where_everybody_has_spoken_a_newcomer_is_turned_away() {
        let mut connections = connections(4);
        fill(&mut connections, 1, 1..=2);
        fill(&mut connections, 2, 3..=4);
        (1..=4).for_each(|number| connections.heard(key(number)));
        assert_eq!(connections.open(key(5), peer(3)), Admission::Full);
        connections.close(key(1));
        assert_eq!(connections.open(key(5), peer(3)), Admission::Admitted);
    }

    #[test]
    fn a_peer_is_forgotten_with_its_last_connection() {
        let mut connections = connections(4);
        fill(&mut connections, 1, 1..=2);
        connections.close(key(1));
        assert_eq!((connections.held_by(peer(1)), connections.held.peers()), (1, 1));
        connections.close(key(2));
        assert_eq!((connections.held_by(peer(1)), connections.held.peers()), (0, 0));
        assert!(connections.is_empty());
    }

    #[test]
    fn the_end_of_an_unknown_or_evicted_connection_changes_nothing() {
        let mut connections = connections(2);
        fill(&mut connections, 1, [1]);
        fill(&mut connections, 2, [2]);
        assert_eq!(connections.open(key(3), peer(3)), Admission::AdmittedInPlaceOf(key(2)));
        connections.heard(key(2));
        connections.close(key(2));
        connections.close(key(9));
        assert_eq!((connections.len(), connections.held_by(peer(2))), (2, 0));
    }

    #[test]
    fn a_key_that_is_used_again_too_early_is_not_counted_twice() {
        let mut connections = connections(8);
        fill(&mut connections, 1, [1, 1]);
        fill(&mut connections, 2, [1]);
        assert_eq!(connections.len(), 1);
        assert_eq!((connections.held_by(peer(1)), connections.held_by(peer(2))), (0, 1));
    }

    #[test]
    fn limits_hold_what_they_promise_at_their_ends() {
        let limits = |total, share| {
            let limits = ConnectionLimits::new(total, share);
            (limits.total(), limits.per_peer())
        };
        assert_eq!(limits(10, 5), (10, 5));
        assert_eq!(limits(10, 6), (10, 5));
        assert_eq!(limits(10, 0), (10, 1));
        assert_eq!(limits(1, 1), (1, 1));
        assert_eq!(limits(0, 0), (1, 1));
        assert_eq!(ConnectionLimits::default(), ConnectionLimits::new(1_024, 512));
    }

    #[test]
    fn what_is_kept_for_a_peer_s_connections_has_a_bound_and_goes_with_them() {
        let limits = ConnectionLimits::of_total(8).with_buffered(100);
        let mut connections = Connections::new(limits);
        fill(&mut connections, 1, 1..=2);
        fill(&mut connections, 2, [3]);
        assert_eq!(connections.buffers(key(1), 60), Ok(()));
        assert_eq!(connections.buffers(key(2), 40), Ok(()));
        assert_eq!(connections.buffers(key(2), 41), Err(OverQuota { limit: 100, held: 100, wanted: 1 }));
        assert_eq!(connections.buffers(key(3), 100), Ok(()));
        assert_eq!(connections.buffers(key(1), 59), Ok(()));
        assert_eq!(connections.buffers(key(2), 41), Ok(()));
        assert_eq!(connections.buffered_by(peer(1)), 100);
        connections.close(key(1));
        assert_eq!(connections.buffered_by(peer(1)), 41);
        connections.close(key(2));
        assert_eq!((connections.buffered_by(peer(1)), connections.buffered.peers()), (0, 1));
    }

    #[test]
    fn nothing_is_kept_for_a_connection_that_is_not_open() {
        let mut connections = Connections::new(ConnectionLimits::of_total(2).with_buffered(1));
        assert_eq!(connections.buffers(key(1), 2), Ok(()));
        assert_eq!(connections.buffered.peers(), 0);
    }

    #[test]
    fn by_default_a_peer_s_connections_may_keep_sixteen_of_the_longest_hellos() {
        assert_eq!(ConnectionLimits::default().buffered_per_peer(), 1_048_576);
        assert_eq!(BUFFERED_PER_PEER, 1_048_576);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Open { pid: u32 },
        Heard { nth: usize },
        Close { nth: usize },
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1u32..=6).prop_map(|pid| Step::Open { pid }),
            2 => any::<usize>().prop_map(|nth| Step::Heard { nth }),
            1 => any::<usize>().prop_map(|nth| Step::Close { nth }),
        ]
    }

    proptest! {
        #[test]
        fn the_limits_hold_and_a_newcomer_is_served_whatever_happens(
            total in 1usize..=12,
            steps in proptest::collection::vec(any_step(), 1..200),
        ) {
            let mut connections = connections(total);
            // What is open, in the order in which it was opened: peer, and whether it has spoken.
            let mut open = BTreeMap::<u64, (PeerKey, bool)>::new();
            for (number, step) in steps.into_iter().enumerate() {
                let number = number as u64;
                let nth_open = |nth: usize| open.keys().nth(nth % open.len().max(1)).copied();
                match step {
                    Step::Open { pid } => {
                        let held = |peer| open.values().filter(|(other, _)| *other == peer).count();
                        let silent = open.values().any(|(_, heard)| !heard);
                        let before = held(peer(pid));
                        match connections.open(key(number), peer(pid)) {
                            Admission::Admitted => prop_assert!(open.len() < total),
                            Admission::AdmittedInPlaceOf(victim) => {
                                prop_assert_eq!(open.len(), total);
                                let (owner, heard) = open[&victim.get()];
                                prop_assert!(!heard);
                                prop_assert!(held(owner) > before || owner == peer(pid));
                                open.remove(&victim.get());
                            }
                            Admission::OverShare => {
                                prop_assert!(before >= connections.limits().per_peer());
                                continue;
                            }
                            Admission::Full => {
                                prop_assert_eq!(open.len(), total);
                                prop_assert!(before > 0 || !silent);
                                continue;
                            }
                        }
                        open.insert(number, (peer(pid), false));
                    }
                    Step::Heard { nth } => {
                        if let Some(number) = nth_open(nth) {
                            connections.heard(key(number));
                            open.insert(number, (open[&number].0, true));
                        }
                    }
                    Step::Close { nth } => {
                        if let Some(number) = nth_open(nth) {
                            connections.close(key(number));
                            open.remove(&number);
                        }
                    }
                }
                prop_assert_eq!(connections.len(), open.len());
                for pid in 1..=6 {
                    let held = open.values().filter(|(other, _)| *other == peer(pid)).count();
                    prop_assert_eq!(connections.held_by(peer(pid)), held);
                    prop_assert!(held <= connections.limits().per_peer());
                }
            }
        }
    }
}
