//! The life of a handoff, case by case, both sides of every bound.

use super::*;
use crate::entropy::SeededEntropy;
use crate::entropy::doubles::FlakyEntropy;

const NANOSECOND: Duration = Duration::from_nanos(1);
const TTL: Duration = Duration::from_secs(30);
const ACK_DEADLINE: Duration = Duration::from_secs(5);
const BACKEND: BackendSlot = BackendSlot::new(7);
const PEER: PeerKey = PeerKey::new(1000, Some(42));

fn at(offset: Duration) -> Monotonic {
    Monotonic::from_nanos(9_000_000_000).saturating_add(offset)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn id(number: u64) -> ConnectionId {
    ConnectionId::new(number).unwrap()
}

fn with_limits(capacity: usize, per_backend: usize) -> PendingHandoffs {
    PendingHandoffs::new(HandoffLimits { capacity, per_backend, ..HandoffLimits::default() })
}

fn issue(handoffs: &mut PendingHandoffs, now: Duration, connection: u64) -> HandoffToken {
    handoffs.issue(at(now), id(connection), PEER, BACKEND, &mut SeededEntropy::new(connection)).unwrap()
}

/// One handoff, issued at second 0.
fn issued() -> (PendingHandoffs, HandoffToken) {
    let mut handoffs = PendingHandoffs::new(HandoffLimits::default());
    let token = issue(&mut handoffs, Duration::ZERO, 1);
    (handoffs, token)
}

/// One handoff, issued at second 0 and offered then.
fn offered() -> (PendingHandoffs, HandoffToken) {
    let (mut handoffs, token) = issued();
    handoffs.offered(at(Duration::ZERO), id(1)).unwrap();
    (handoffs, token)
}

fn expired(handoffs: &mut PendingHandoffs, now: Duration) -> Vec<(u64, Stage)> {
    let mut reported = Vec::new();
    handoffs.expire(at(now), |Expired { connection, stage, .. }| reported.push((connection.get(), stage)));
    reported
}

#[test]
fn an_acknowledgement_settles_its_handoff_and_a_replay_finds_none() {
    let (mut handoffs, token) = offered();
    let settled = handoffs.acknowledge(at(seconds(2)), id(1), &token);
    assert_eq!(settled, Ok(Acknowledged { backend: BACKEND, waited: seconds(2) }));
    assert_eq!((handoffs.len(), handoffs.outstanding(BACKEND)), (0, 0));
    assert_eq!(handoffs.acknowledge(at(seconds(2)), id(1), &token), Err(AckError::NotPending));
    assert_eq!(handoffs.reject(at(seconds(2)), id(1), &token), Err(AckError::NotPending));
    assert_eq!(handoffs.offered(at(seconds(2)), id(1)), Err(OfferError::NotPending));
}

#[test]
fn a_rejection_takes_the_same_proof_and_settles_as_well() {
    let (mut handoffs, token) = offered();
    let wrong = HandoffToken::from_bytes([0; 16]);
    assert_eq!(handoffs.reject(at(seconds(1)), id(1), &wrong), Err(AckError::Mismatch));
    assert!(handoffs.reject(at(seconds(1)), id(1), &token).is_ok());
    assert!(handoffs.is_empty());
}

#[test]
fn a_token_off_by_one_bit_consumes_nothing() {
    let (mut handoffs, token) = offered();
    for bit in 0..128 {
        let mut bytes = *token.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let wrong = HandoffToken::from_bytes(bytes);
        assert_eq!(handoffs.acknowledge(at(seconds(1)), id(1), &wrong), Err(AckError::Mismatch));
    }
    assert!(handoffs.acknowledge(at(seconds(1)), id(1), &token).is_ok());
}

#[test]
fn one_connections_token_does_not_settle_another() {
    let (mut handoffs, first) = offered();
    let second = issue(&mut handoffs, Duration::ZERO, 2);
    handoffs.offered(at(Duration::ZERO), id(2)).unwrap();
    assert_eq!(handoffs.acknowledge(at(seconds(1)), id(2), &first), Err(AckError::Mismatch));
    assert_eq!(handoffs.acknowledge(at(seconds(1)), id(3), &first), Err(AckError::NotPending));
    assert!(handoffs.acknowledge(at(seconds(1)), id(2), &second).is_ok());
    assert!(handoffs.acknowledge(at(seconds(1)), id(1), &first).is_ok());
}

#[test]
fn what_was_not_offered_cannot_be_acknowledged() {
    let (mut handoffs, token) = issued();
    assert_eq!(handoffs.acknowledge(at(seconds(1)), id(1), &token), Err(AckError::NotOffered));
    assert_eq!(handoffs.stage(id(1)), Some(Stage::Issued));
    handoffs.offered(at(seconds(1)), id(1)).unwrap();
    assert_eq!(handoffs.stage(id(1)), Some(Stage::Offered));
    assert!(handoffs.acknowledge(at(seconds(1)), id(1), &token).is_ok());
}

#[test]
fn a_second_offer_is_refused_and_does_not_extend_the_deadline() {
    let (mut handoffs, _) = offered();
    assert_eq!(handoffs.offered(at(seconds(4)), id(1)), Err(OfferError::AlreadyOffered));
    assert_eq!(handoffs.next_expiry(), Some(at(ACK_DEADLINE)));
}

#[test]
fn a_token_is_good_for_its_time_less_one_nanosecond() {
    let (mut handoffs, _) = issued();
    assert_eq!(handoffs.offered(at(TTL - NANOSECOND), id(1)), Ok(()));
    let (mut handoffs, _) = issued();
    assert_eq!(handoffs.offered(at(TTL), id(1)), Err(OfferError::Expired));

    let (mut handoffs, _) = issued();
    assert_eq!(expired(&mut handoffs, TTL - NANOSECOND), []);
    assert_eq!(expired(&mut handoffs, TTL), [(1, Stage::Issued)]);
    assert!(handoffs.is_empty());
}

#[test]
fn an_acknowledgement_is_waited_for_until_its_deadline_less_one_nanosecond() {
    let (mut handoffs, token) = offered();
    assert!(handoffs.acknowledge(at(ACK_DEADLINE - NANOSECOND), id(1), &token).is_ok());
    let (mut handoffs, token) = offered();
    assert_eq!(handoffs.acknowledge(at(ACK_DEADLINE), id(1), &token), Err(AckError::Expired));

    let (mut handoffs, _) = offered();
    assert_eq!(expired(&mut handoffs, ACK_DEADLINE - NANOSECOND), []);
    assert_eq!(expired(&mut handoffs, ACK_DEADLINE), [(1, Stage::Offered)]);
}

#[test]
fn an_offer_does_not_prolong_the_tokens_own_time() {
    let (mut handoffs, _) = issued();
    handoffs.offered(at(TTL - ACK_DEADLINE), id(1)).unwrap();
    assert_eq!(handoffs.next_expiry(), Some(at(TTL)));

    let (mut handoffs, token) = issued();
    handoffs.offered(at(TTL - ACK_DEADLINE + NANOSECOND), id(1)).unwrap();
    assert_eq!(handoffs.next_expiry(), Some(at(TTL)));
    assert_eq!(handoffs.acknowledge(at(TTL), id(1), &token), Err(AckError::Expired));
    assert_eq!(expired(&mut handoffs, TTL), [(1, Stage::Offered)]);
}

#[test]
fn a_late_acknowledgement_is_refused_before_and_after_the_expiry_was_reported() {
    let (mut handoffs, token) = offered();
    assert_eq!(handoffs.acknowledge(at(ACK_DEADLINE), id(1), &token), Err(AckError::Expired));
    assert_eq!(handoffs.reject(at(ACK_DEADLINE), id(1), &token), Err(AckError::Expired));
    assert_eq!(expired(&mut handoffs, ACK_DEADLINE), [(1, Stage::Offered)]);
    assert_eq!(handoffs.acknowledge(at(ACK_DEADLINE), id(1), &token), Err(AckError::NotPending));
    assert_eq!(expired(&mut handoffs, ACK_DEADLINE), []);
}

#[test]
fn expiries_are_reported_earliest_first_whatever_their_stage() {
    let mut handoffs = PendingHandoffs::new(HandoffLimits::default());
    for connection in 1..=3 {
        issue(&mut handoffs, seconds(connection), connection);
    }
    handoffs.offered(at(seconds(4)), id(3)).unwrap();
    handoffs.offered(at(seconds(29)), id(2)).unwrap();
    assert_eq!(handoffs.next_expiry(), Some(at(seconds(9))));
    let all = [(3, Stage::Offered), (1, Stage::Issued), (2, Stage::Offered)];
    assert_eq!(expired(&mut handoffs, seconds(60)), all);
    assert_eq!(handoffs.next_expiry(), None);
}

#[test]
fn the_last_place_is_issued_and_not_one_more() {
    let mut handoffs = with_limits(3, 64);
    (1..=3).for_each(|connection| drop(issue(&mut handoffs, Duration::ZERO, connection)));
    let full = handoffs.issue(at(Duration::ZERO), id(4), PEER, BACKEND, &mut SeededEntropy::new(1));
    assert_eq!(full, Err(IssueError::AtCapacity { limit: 3 }));
    assert_eq!(handoffs.revoke(id(2)), Some(Stage::Issued));
    issue(&mut handoffs, Duration::ZERO, 4);
    assert_eq!(handoffs.len(), 3);
}

#[test]
fn a_capacity_of_zero_issues_nothing() {
    let none = with_limits(0, 64).issue(at(Duration::ZERO), id(1), PEER, BACKEND, &mut SeededEntropy::new(1));
    assert_eq!(none, Err(IssueError::AtCapacity { limit: 0 }));
    assert_eq!(with_limits(usize::MAX, 64).limits().capacity, MAX_PENDING_HANDOFFS);
}

#[test]
fn a_busy_backend_gets_its_share_and_not_one_more_and_no_other_backend_suffers() {
    let mut handoffs = with_limits(1_024, 64);
    (1..=64).for_each(|connection| drop(issue(&mut handoffs, Duration::ZERO, connection)));
    handoffs.offered(at(Duration::ZERO), id(1)).unwrap();
    let busy = handoffs.issue(at(Duration::ZERO), id(65), PEER, BACKEND, &mut SeededEntropy::new(1));
    assert_eq!(busy, Err(IssueError::BackendBusy { limit: 64 }));
    assert_eq!(handoffs.outstanding(BACKEND), 64);
    let other = BackendSlot::new(8);
    assert!(handoffs.issue(at(Duration::ZERO), id(65), PEER, other, &mut SeededEntropy::new(1)).is_ok());
    handoffs.revoke(id(1));
    issue(&mut handoffs, Duration::ZERO, 66);
}

#[test]
fn a_connection_has_one_token_at_a_time() {
    let (mut handoffs, token) = offered();
    let again = handoffs.issue(at(Duration::ZERO), id(1), PEER, BACKEND, &mut SeededEntropy::new(2));
    assert_eq!(again, Err(IssueError::AlreadyPending { connection: id(1) }));
    assert!(handoffs.acknowledge(at(Duration::ZERO), id(1), &token).is_ok());
    issue(&mut handoffs, Duration::ZERO, 1);
}

#[test]
fn without_randomness_nothing_is_issued_and_nothing_counted() {
    let mut handoffs = with_limits(1, 1);
    let mut entropy = FlakyEntropy::failing();
    let failed = handoffs.issue(at(Duration::ZERO), id(1), PEER, BACKEND, &mut entropy);
    assert_eq!(failed, Err(IssueError::Entropy(FlakyEntropy::ERROR)));
    assert_eq!((handoffs.len(), handoffs.outstanding(BACKEND), handoffs.next_expiry()), (0, 0, None));
    entropy.failing = false;
    assert!(handoffs.issue(at(Duration::ZERO), id(1), PEER, BACKEND, &mut entropy).is_ok());
}

#[test]
fn a_refused_issue_draws_no_randomness() {
    let (mut handoffs, mut entropy) = (with_limits(2, 1), FlakyEntropy::working());
    issue(&mut handoffs, Duration::ZERO, 1);
    assert!(handoffs.issue(at(Duration::ZERO), id(1), PEER, BACKEND, &mut entropy).is_err());
    assert!(handoffs.issue(at(Duration::ZERO), id(2), PEER, BACKEND, &mut entropy).is_err());
    assert_eq!(entropy.draws, 0);
}

#[test]
fn a_revoked_handoff_is_gone_and_says_how_far_it_had_come() {
    let (mut handoffs, token) = offered();
    issue(&mut handoffs, Duration::ZERO, 2);
    assert_eq!(handoffs.revoke(id(2)), Some(Stage::Issued));
    assert_eq!(handoffs.revoke(id(1)), Some(Stage::Offered));
    assert_eq!(handoffs.revoke(id(1)), None);
    assert_eq!(handoffs.acknowledge(at(seconds(1)), id(1), &token), Err(AckError::NotPending));
    assert_eq!(expired(&mut handoffs, seconds(60)), []);
}

#[test]
fn a_backends_end_revokes_its_handoffs_and_no_others() {
    let (mut handoffs, _) = offered();
    issue(&mut handoffs, Duration::ZERO, 2);
    let other = BackendSlot::new(8);
    handoffs.issue(at(Duration::ZERO), id(3), PEER, other, &mut SeededEntropy::new(3)).unwrap();
    assert_eq!(handoffs.revoke_backend(BACKEND), 2);
    assert_eq!(handoffs.revoke_backend(BACKEND), 0);
    assert_eq!((handoffs.len(), handoffs.outstanding(BACKEND), handoffs.outstanding(other)), (1, 0, 1));
    assert_eq!(expired(&mut handoffs, TTL), [(3, Stage::Issued)]);
}

#[test]
fn a_clock_that_goes_back_neither_revives_nor_prolongs() {
    let (mut handoffs, token) = offered();
    assert_eq!(expired(&mut handoffs, ACK_DEADLINE - NANOSECOND), []);
    issue(&mut handoffs, Duration::ZERO, 2);
    assert_eq!(handoffs.acknowledge(at(ACK_DEADLINE), id(1), &token), Err(AckError::Expired));
    assert_eq!(handoffs.acknowledge(at(Duration::ZERO), id(1), &token), Err(AckError::Expired));
    assert_eq!(expired(&mut handoffs, ACK_DEADLINE), [(1, Stage::Offered)]);
    assert_eq!(handoffs.next_expiry(), Some(at(ACK_DEADLINE - NANOSECOND + TTL)));
}

#[test]
fn no_token_shows_in_debug_output() {
    let (handoffs, token) = issued();
    let bytes = format!("{:?}", token.as_bytes());
    let shown = format!("{handoffs:?}");
    assert!(shown.contains("<redacted>"), "{shown}");
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
}

#[test]
fn a_peer_may_have_its_share_and_not_one_more_and_nobody_else_notices() {
    let limits = HandoffLimits { per_peer: 2, ..HandoffLimits::default() };
    let mut handoffs = PendingHandoffs::new(limits);
    let token = issue(&mut handoffs, Duration::ZERO, 1);
    issue(&mut handoffs, Duration::ZERO, 2);
    let mut entropy = SeededEntropy::new(9);
    let over = handoffs.issue(at(Duration::ZERO), id(3), PEER, BACKEND, &mut entropy);
    assert_eq!(over.unwrap_err(), IssueError::PeerBusy { limit: 2 });
    let other = PeerKey::new(1000, Some(43));
    assert!(handoffs.issue(at(Duration::ZERO), id(3), other, BACKEND, &mut entropy).is_ok());
    assert_eq!((handoffs.held_by(PEER), handoffs.held_by(other)), (2, 1));
    handoffs.offered(at(Duration::ZERO), id(1)).unwrap();
    handoffs.acknowledge(at(Duration::ZERO), id(1), &token).unwrap();
    assert!(handoffs.issue(at(Duration::ZERO), id(4), PEER, BACKEND, &mut entropy).is_ok());
}

#[test]
fn a_peer_s_share_is_more_than_one_backend_takes_and_less_than_there_are() {
    let limits = HandoffLimits::default();
    assert!(limits.per_backend < limits.per_peer && limits.per_peer < limits.capacity);
    assert_eq!(limits.per_peer, PENDING_HANDOFFS_PER_PEER);
}
