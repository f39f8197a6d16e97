//! How often a peer may say Hello (behaviour.md 2, "Rate limiter"): a bucket per peer, in bounded memory.
//!
//! What a bucket is, and why no rate drifts, is said in `rate_limit`; here is which bucket a peer has,
//! and when it is forgotten.
//!
//! **Periods.** Ticks are counted from the start of the current period. A period lasts one recovery (the
//! time in which an empty bucket fills, `burst * 10^9` ticks) and no bucket is full later than one
//! recovery from now, so all numbers stay below `2 * 2^32 * 10^9 < 2^64`.
//!
//! **Bounded.** There are two tables: peers seen in the current period, and peers seen last in the one
//! before. When a period ends the older table is emptied, the two change places and ticks start anew.
//! Let the period that ends now have begun at `b`. Whoever is still in the older table had its last
//! permit before `b`, so its bucket was full before `b` plus one recovery, which is now at the latest:
//! it is worth just as much as that of a peer never seen. So forgetting never forgives a debt, nobody's
//! idleness is remembered beyond two periods, and no table is scanned for it: emptying one drops nothing
//! and writes a byte per place. A peer found in the older table moves to the current one, where its
//! number is counted from the new origin; that happens once per period.
//!
//! **Full.** A newcomer that finds no room shares one bucket with all others of its user, the one that
//! serves peers without a pid; users are bounded too, and beyond that bound there is one bucket for
//! everybody. A bucket that owes is never dropped to make room. Those that do not are, by a sweep for
//! which newcomers have paid: at least one for every four peers the table has room for.
//!
//! Invariant: in any stretch of time a bucket grants at most its burst plus what was refilled in that
//! time. A clock that goes back is taken to stand still.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::PeerKey;
use super::rate_limit::{RateLimit, TICKS_PER_PERMIT};
use crate::time::Monotonic;

/// How many peers are told apart at a time (behaviour.md 2).
pub const MAX_PEERS: usize = 65_536;

/// Buckets beyond [`MAX_PEERS`] that newcomers share by user; one of them is everybody's.
const SHARED_BUCKETS: usize = 64;

/// Whose bucket is left when there is none for the user. A user of this very number shares it too.
const EVERYBODY: PeerKey = PeerKey::new(u64::MAX, None);

/// A table with room for this many peers is kept however few come.
const KEPT_CAPACITY: usize = 256;

/// When each peer's bucket is full again, in ticks since the start of a period.
type Table = HashMap<PeerKey, u64, RandomState>;

/// The buckets of all peers.
///
/// ```
/// use std::time::Duration;
///
/// use broker_core::admission::{PeerKey, RateLimit, RateLimiter};
/// use broker_core::time::Monotonic;
///
/// let mut limiter = RateLimiter::new(RateLimit::new(1, 4));
/// let (now, peer) = (Monotonic::default(), PeerKey::new(1000, Some(42)));
/// assert_eq!(limiter.check(now, peer), Ok(()));
/// assert_eq!(limiter.check(now, peer), Err(Duration::from_millis(250)));
/// ```
#[derive(Debug)]
pub struct RateLimiter {
    limit: RateLimit,
    max_peers: usize,
    /// The latest time anybody named.
    latest: Monotonic,
    /// When the current period began.
    period_start: Monotonic,
    /// Peers seen in the current period.
    current: Table,
    /// Peers seen last in the period before, in its ticks. No peer is in both tables.
    previous: Table,
    /// Ticks between the starts of the two periods.
    previous_length: u64,
    /// Newcomers since the last sweep.
    newcomers: usize,
}

impl RateLimiter {
    /// A limiter that knows nobody and tells up to [`MAX_PEERS`] peers apart.
    pub fn new(limit: RateLimit) -> Self {
        Self::with_max_peers(limit, MAX_PEERS)
    }

    /// A limiter that tells up to `max_peers` peers apart; 0 counts as 1.
    pub fn with_max_peers(limit: RateLimit, max_peers: usize) -> Self {
        Self {
            limit,
            max_peers: max_peers.max(1),
            latest: Monotonic::default(),
            period_start: Monotonic::default(),
            current: Table::default(),
            previous: Table::default(),
            previous_length: 0,
            newcomers: 0,
        }
    }

    /// Spends one of the peer's permits.
    ///
    /// # Errors
    /// The time to the next permit, where none is left: never zero, and exact to the nanosecond. A
    /// refusal costs the peer nothing.
    pub fn check(&mut self, now: Monotonic, peer: PeerKey) -> Result<(), Duration> {
        let limit = self.limit;
        let now = self.advance(now);
        let spent = match self.current.get_mut(&peer) {
            Some(due) => limit.spend(due, now),
            None => limit.spend(self.bring_in(now, peer), now),
        };
        spent.map_err(|missing| limit.duration(missing))
    }

    /// How many permits the peer has left: where it would have to share a bucket, how many that has.
    pub fn remaining(&self, now: Monotonic, peer: PeerKey) -> u32 {
        let now = self.ticks_at(self.latest.max(now));
        let bucket = if self.knows(peer) || self.has_room() { peer } else { self.shared_by(peer) };
        let owed = self.due(bucket).saturating_sub(now);
        // At most the burst, which is 32 bits.
        (self.limit.recovery_ticks().saturating_sub(owed) / TICKS_PER_PERMIT) as u32
    }

    /// How many peers are remembered, shared buckets among them.
    pub fn known_peers(&self) -> usize {
        self.current.len() + self.previous.len()
    }

    /// Forgets peers that have been idle for long enough. For a timer, so that memory is given back
    /// when nobody says Hello any more; every [`check`](Self::check) does it too.
    pub fn forget_idle(&mut self, now: Monotonic) {
        self.advance(now);
    }

    /// The limit that holds for every bucket.
    pub const fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Moves time on, begins a new period where one is due, and returns the ticks since it began:
    /// always less than a recovery.
    fn advance(&mut self, now: Monotonic) -> u64 {
        self.latest = self.latest.max(now);
        let elapsed = self.ticks_at(self.latest);
        if elapsed < self.limit.recovery_ticks() {
            return elapsed;
        }
        self.begin_period(elapsed);
        0
    }

    /// Ticks since the current period began.
    fn ticks_at(&self, now: Monotonic) -> u64 {
        self.limit.ticks(now.as_nanos().saturating_sub(self.period_start.as_nanos()))
    }

    #[cold]
    fn begin_period(&mut self, elapsed: u64) {
        mem::swap(&mut self.current, &mut self.previous);
        self.current.clear();
        if elapsed >= 2 * self.limit.recovery_ticks() {
            // Nobody came for a whole recovery: those of the period that ends are full again, too.
            self.previous.clear();
        }
        let expected = self.previous.len().max(KEPT_CAPACITY / 2);
        for table in [&mut self.current, &mut self.previous] {
            if table.capacity() > 4 * expected {
                table.shrink_to(2 * expected);
            }
        }
        self.previous_length = elapsed;
        self.period_start = self.latest;
    }

    /// The bucket of a peer that the current table lacks: its own from before, a new one, or one it
    /// has to share.
    #[inline(never)]
    fn bring_in(&mut self, now: u64, peer: PeerKey) -> &mut u64 {
        let bucket =
            if self.previous.contains_key(&peer) { peer } else { self.bucket_for_newcomer(now, peer) };
        let due = self.previous.remove(&bucket).map_or(0, |due| due.saturating_sub(self.previous_length));
        self.current.entry(bucket).or_insert(due)
    }

    fn bucket_for_newcomer(&mut self, now: u64, peer: PeerKey) -> PeerKey {
        self.newcomers += 1;
        if !self.has_room() && self.newcomers >= self.max_peers / 4 {
            self.sweep(now);
        }
        if self.has_room() { peer } else { self.shared_by(peer) }
    }

    /// Drops every bucket that is full.
    fn sweep(&mut self, now: u64) {
        self.newcomers = 0;
        self.current.retain(|_, due| *due > now);
        self.previous.retain(|_, due| due.saturating_sub(self.previous_length) > now);
    }

    fn has_room(&self) -> bool {
        self.known_peers() < self.max_peers
    }

    /// The bucket of those of the peer's user that came when there was no room.
    fn shared_by(&self, peer: PeerKey) -> PeerKey {
        let users = PeerKey::new(peer.user(), None);
        let last_seat = self.max_peers + SHARED_BUCKETS - 1;
        if self.knows(users) || self.known_peers() < last_seat { users } else { EVERYBODY }
    }

    fn knows(&self, peer: PeerKey) -> bool {
        self.current.contains_key(&peer) || self.previous.contains_key(&peer)
    }

    /// When the peer's bucket is full, in ticks since the current period began.
    fn due(&self, peer: PeerKey) -> u64 {
        let before = || self.previous.get(&peer).map(|due| due.saturating_sub(self.previous_length));
        self.current.get(&peer).copied().or_else(before).unwrap_or(0)
    }
}

mod limit_change;
#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// At the default rate.
    const PERMIT_NANOS: u64 = 3_906_250;

    const ORIGIN: u64 = 77 * SECOND + 3;

    fn at(nanos: u64) -> Monotonic {
        Monotonic::from_nanos(ORIGIN + nanos)
    }

    fn peer(pid: u32) -> PeerKey {
        PeerKey::new(1000, Some(pid))
    }

    /// A limiter whose current period begins at `at(0)`.
    fn limiter(burst: u32, refill: u32, max_peers: usize) -> RateLimiter {
        let mut limiter = RateLimiter::with_max_peers(RateLimit::new(burst, refill), max_peers);
        limiter.forget_idle(at(0));
        limiter
    }

    /// Spends every permit there is and returns how many there were.
    fn drain(limiter: &mut RateLimiter, now: Monotonic, peer: PeerKey) -> u32 {
        (0..).take_while(|_| limiter.check(now, peer).is_ok()).count().try_into().unwrap()
    }

    #[test]
    fn the_burst_is_granted_at_once_and_not_one_more() {
        let mut limiter = limiter(256, 256, MAX_PEERS);
        assert_eq!(drain(&mut limiter, at(0), peer(1)), 256);
        assert_eq!(limiter.check(at(0), peer(1)), Err(Duration::from_nanos(PERMIT_NANOS)));
    }

    #[test]
    fn a_permit_comes_back_to_the_nanosecond() {
        let mut limiter = limiter(256, 256, MAX_PEERS);
        drain(&mut limiter, at(0), peer(1));
        assert_eq!(limiter.check(at(PERMIT_NANOS - 1), peer(1)), Err(Duration::from_nanos(1)));
        assert_eq!(limiter.check(at(PERMIT_NANOS), peer(1)), Ok(()));
        assert_eq!(limiter.check(at(PERMIT_NANOS), peer(1)), Err(Duration::from_nanos(PERMIT_NANOS)));
    }

    #[test]
    fn one_peers_flood_costs_no_other_peer_a_permit() {
        let mut limiter = limiter(8, 8, MAX_PEERS);
        drain(&mut limiter, at(0), peer(1));
        assert!(limiter.check(at(0), peer(1)).is_err());
        for other in [peer(2), PeerKey::new(1000, None), PeerKey::new(1001, Some(1))] {
            assert_eq!(drain(&mut limiter, at(0), other), 8);
        }
    }

    #[test]
    fn a_peer_without_a_pid_is_limited_like_any_other() {
        let mut limiter = limiter(8, 8, MAX_PEERS);
        assert_eq!(drain(&mut limiter, at(0), PeerKey::new(1000, None)), 8);
        assert!(limiter.check(at(0), PeerKey::new(1000, Some(0))).is_err());
    }

    #[test]
    fn a_reused_pid_inherits_at_most_one_recoverys_debt() {
        let mut limiter = limiter(256, 256, MAX_PEERS);
        drain(&mut limiter, at(0), peer(1));
        assert_eq!(limiter.remaining(at(SECOND - 1), peer(1)), 255);
        assert_eq!(limiter.remaining(at(SECOND), peer(1)), 256);
        assert_eq!(drain(&mut limiter, at(SECOND), peer(1)), 256);
    }

    #[test]
    fn a_debt_outlives_the_change_of_period() {
        let mut limiter = limiter(256, 256, MAX_PEERS);
        assert_eq!(drain(&mut limiter, at(SECOND - 1), peer(1)), 256);
        // The next period has begun: half of the debt is paid, half is not.
        assert_eq!(limiter.check(at(SECOND), peer(2)), Ok(()));
        assert_eq!(limiter.remaining(at(SECOND - 1 + SECOND / 2), peer(1)), 128);
        assert_eq!(drain(&mut limiter, at(SECOND - 1 + SECOND / 2), peer(1)), 128);
        // And so has the one after it.
        assert_eq!(limiter.check(at(2 * SECOND), peer(2)), Ok(()));
        assert_eq!(limiter.remaining(at(2 * SECOND), peer(1)), 128);
        assert_eq!(drain(&mut limiter, at(2 * SECOND), peer(1)), 128);
    }

    #[test]
    fn no_rate_drifts_even_where_its_interval_is_no_whole_number_of_nanoseconds() {
        for refill in [3, 7, 300_007, 999_999_937] {
            let mut limiter = limiter(1, refill, 4);
            let (mut now, mut granted) = (at(0), 0u64);
            while granted < 10_000 {
                match limiter.check(now, peer(1)) {
                    Ok(()) => granted += 1,
                    Err(wait) => now = now.saturating_add(wait),
                }
            }
            // The 10,000th permit is due 9,999 intervals after the first, rounded up once per permit
            // at most, as a burst of 1 cannot make up for asking late.
            let exact = 9_999 * u128::from(SECOND) / u128::from(refill);
            let late = u128::from(now.as_nanos() - ORIGIN) - exact;
            assert!(late <= 9_999, "{refill}/s is {late} ns late");
        }
        // With a bucket to save permits in, not even that is lost.
        let mut limiter = limiter(10, 3, 4);
        let granted = (0..3_000).filter(|step| limiter.check(at(step * SECOND / 3), peer(1)).is_ok()).count();
        assert_eq!(granted, 3_000);
        assert_eq!(limiter.remaining(at(1_000 * SECOND), peer(1)), 10);
    }

    #[test]
    fn the_largest_limits_do_not_overflow() {
        let mut limiter = limiter(u32::MAX, u32::MAX, 4);
        for _ in 0..1_000 {
            assert_eq!(limiter.check(at(0), peer(1)), Ok(()));
        }
        assert_eq!(limiter.remaining(at(0), peer(1)), u32::MAX - 1_000);
        assert_eq!(limiter.check(Monotonic::from_nanos(u64::MAX), peer(1)), Ok(()));
        assert_eq!(limiter.remaining(Monotonic::from_nanos(u64::MAX), peer(1)), u32::MAX - 1);
    }

    #[test]
    fn a_clock_that_goes_back_stands_still() {
        let mut limiter = limiter(2, 2, 4);
        drain(&mut limiter, at(SECOND / 2), peer(1));
        limiter.check(at(SECOND / 2), peer(2)).unwrap();
        for earlier in [at(SECOND / 2 - 1), at(0), Monotonic::default()] {
            assert_eq!(limiter.check(earlier, peer(1)), Err(Duration::from_millis(500)));
            assert_eq!((limiter.remaining(earlier, peer(1)), limiter.remaining(earlier, peer(2))), (0, 1));
        }
        assert_eq!(limiter.check(at(SECOND), peer(1)), Ok(()));
    }

    #[test]
    fn the_idle_are_forgotten_within_two_periods_and_not_before_they_recovered() {
        let mut limiter = limiter(4, 4, MAX_PEERS);
        drain(&mut limiter, at(SECOND - 1), peer(1));
        limiter.forget_idle(at(2 * SECOND - 1));
        assert_eq!(limiter.known_peers(), 1);
        limiter.forget_idle(at(3 * SECOND - 1));
        assert_eq!(limiter.known_peers(), 0);
    }

    #[test]
    fn everybody_is_forgotten_at_once_after_a_long_silence() {
        let mut limiter = limiter(4, 4, MAX_PEERS);
        drain(&mut limiter, at(0), peer(1));
        limiter.forget_idle(at(2 * SECOND));
        assert_eq!(limiter.known_peers(), 0);
    }

    #[test]
    fn a_flood_of_peers_pins_no_memory() {
        let mut limiter = limiter(1, 1, MAX_PEERS);
        for pid in 1..=50_000 {
            limiter.check(at(0), peer(pid)).unwrap();
        }
        assert_eq!(limiter.known_peers(), 50_000);
        for period in 1..=3 {
            limiter.check(at(period * SECOND), peer(period as u32)).unwrap();
        }
        assert_eq!(limiter.known_peers(), 2);
        assert!(limiter.current.capacity() + limiter.previous.capacity() <= 4 * KEPT_CAPACITY);
    }

    #[test]
    fn the_last_seat_is_taken_before_anybody_has_to_share() {
        let mut limiter = limiter(4, 4, 3);
        for pid in 1..=3 {
            assert_eq!(drain(&mut limiter, at(0), peer(pid)), 4);
        }
        assert_eq!(limiter.known_peers(), 3);
        assert_eq!(drain(&mut limiter, at(0), peer(4)), 4);
        assert_eq!(limiter.remaining(at(0), peer(5)), 0);
        assert!(limiter.check(at(0), peer(5)).is_err());
        assert_eq!(limiter.known_peers(), 4);
    }

    #[test]
    fn a_table_for_nobody_has_a_seat_all_the_same() {
        let mut limiter = limiter(4, 4, 0);
        assert_eq!(drain(&mut limiter, at(0), peer(1)), 4);
        assert_eq!(drain(&mut limiter, at(0), peer(2)), 4);
        assert_eq!(drain(&mut limiter, at(0), peer(3)), 0);
    }

    #[test]
    fn a_debtor_is_never_forgotten_to_make_room() {
        let mut limiter = limiter(4, 4, 3);
        for pid in 1..=3 {
            drain(&mut limiter, at(0), peer(pid));
        }
        for pid in 4..1_000 {
            let _ = limiter.check(at(1), peer(pid));
        }
        for pid in 1..=3 {
            assert_eq!(limiter.check(at(1), peer(pid)), Err(Duration::from_nanos(SECOND / 4 - 1)));
        }
    }

    #[test]
    fn users_share_apart_from_each_other_and_the_last_of_them_share_one_bucket() {
        let mut limiter = limiter(2, 2, 1);
        drain(&mut limiter, at(0), peer(1));
        let users = 2_000..2_000 + SHARED_BUCKETS as u64 - 1;
        for user in users {
            assert_eq!(drain(&mut limiter, at(0), PeerKey::new(user, Some(7))), 2);
            assert!(limiter.check(at(0), PeerKey::new(user, Some(8))).is_err());
        }
        assert_eq!(drain(&mut limiter, at(0), PeerKey::new(3_000, Some(7))), 2);
        assert!(limiter.check(at(0), PeerKey::new(3_001, Some(7))).is_err());
        assert_eq!(limiter.known_peers(), 1 + SHARED_BUCKETS);
    }

    #[test]
    fn a_full_table_gives_the_seats_of_the_recovered_away_and_keeps_the_debtors() {
        // A recovery of 16 s, so no period ends meanwhile; one permit is back after 1 s.
        let mut limiter = limiter(16, 1, 4);
        for pid in 1..=3 {
            limiter.check(at(0), peer(pid)).unwrap();
        }
        drain(&mut limiter, at(0), peer(4));
        limiter.check(at(SECOND - 1), peer(5)).unwrap();
        assert_eq!(limiter.known_peers(), 5);

        // Left are peer 4, the shared bucket, and now peer 5 with a seat of its own.
        drain(&mut limiter, at(SECOND), peer(5));
        assert_eq!(limiter.known_peers(), 3);
        assert!(limiter.check(at(2 * SECOND - 1), peer(5)).is_err());
        assert_eq!(limiter.remaining(at(2 * SECOND - 1), peer(4)), 1);
        assert_eq!(limiter.remaining(at(2 * SECOND - 1), peer(6)), 16);
    }

    #[test]
    fn a_sweep_judges_those_of_the_period_before_by_its_clock() {
        let mut limiter = limiter(4, 1, 2);
        drain(&mut limiter, at(3 * SECOND), peer(1));
        limiter.check(at(3 * SECOND), peer(2)).unwrap();
        // The next period begins; peer 1 owes until second 7, peer 2 is full again by now.
        limiter.check(at(4 * SECOND), peer(3)).unwrap();
        assert_eq!(limiter.remaining(at(4 * SECOND), peer(1)), 1);
        assert_eq!(limiter.known_peers(), 2);
        limiter.check(at(4 * SECOND), peer(1)).unwrap();
        assert_eq!(limiter.check(at(4 * SECOND), peer(1)), Err(Duration::from_secs(1)));
    }

    #[test]
    fn sweeps_are_paid_for_by_newcomers() {
        let mut limiter = limiter(1_000, 1, 400);
        for pid in 1..=400 {
            drain(&mut limiter, at(0), peer(pid));
        }
        limiter.check(at(0), peer(1_000)).unwrap();
        assert_eq!(limiter.newcomers, 0);
        for pid in 1_001..1_100 {
            limiter.check(at(0), peer(pid)).unwrap();
        }
        assert_eq!(limiter.newcomers, 99);
        limiter.check(at(0), peer(1_100)).unwrap();
        assert_eq!(limiter.newcomers, 0);
    }
}
