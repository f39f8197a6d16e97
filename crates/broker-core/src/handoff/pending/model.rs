//! The pending handoffs against a plain list, on random steps.

use proptest::prelude::*;

use super::*;
use crate::entropy::SeededEntropy;

fn id(number: u64) -> ConnectionId {
    ConnectionId::new(number).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Pass { nanos: u64 },
    Issue { connection: u64, backend: u32 },
    Offer { connection: u64 },
    Acknowledge { connection: u64, token_of: u64 },
    Reject { connection: u64 },
    Revoke { connection: u64 },
    RevokeBackend { backend: u32 },
    Expire,
}

fn any_step() -> impl Strategy<Value = Step> {
    let connection = 1u64..=8;
    let backend = 0u32..=2;
    prop_oneof![
        4 => (0u64..=6).prop_map(|nanos| Step::Pass { nanos }),
        6 => (connection.clone(), backend.clone())
            .prop_map(|(connection, backend)| Step::Issue { connection, backend }),
        4 => connection.clone().prop_map(|connection| Step::Offer { connection }),
        2 => connection.clone().prop_map(|connection| Step::Acknowledge { connection, token_of: connection }),
        1 => (connection.clone(), connection.clone())
            .prop_map(|(connection, token_of)| Step::Acknowledge { connection, token_of }),
        1 => connection.clone().prop_map(|connection| Step::Reject { connection }),
        1 => connection.prop_map(|connection| Step::Revoke { connection }),
        1 => backend.prop_map(|backend| Step::RevokeBackend { backend }),
        1 => Just(Step::Expire),
    ]
}

/// A handoff in a plain list that is searched from end to end; times are in nanoseconds.
#[derive(Clone, Debug)]
struct Plain {
    connection: u64,
    backend: u32,
    token: HandoffToken,
    issued_at: u64,
    offered_at: Option<u64>,
}

impl Plain {
    fn deadline(&self) -> u64 {
        self.offered_at.map_or(u64::MAX, |offered_at| offered_at + 4).min(self.issued_at + 10)
    }

    fn stage(&self) -> Stage {
        if self.offered_at.is_some() { Stage::Offered } else { Stage::Issued }
    }
}

fn model_settle(
    list: &mut Vec<Plain>,
    now: u64,
    connection: u64,
    shown: &HandoffToken,
) -> Result<Acknowledged, AckError> {
    let at = list.iter().position(|plain| plain.connection == connection).ok_or(AckError::NotPending)?;
    if now >= list[at].deadline() {
        return Err(AckError::Expired);
    }
    let offered_at = list[at].offered_at.ok_or(AckError::NotOffered)?;
    if list[at].token.as_bytes() != shown.as_bytes() {
        return Err(AckError::Mismatch);
    }
    let plain = list.remove(at);
    let waited = Duration::from_nanos(now - offered_at);
    Ok(Acknowledged { backend: BackendSlot::new(plain.backend), waited })
}

fn model_offer(list: &mut [Plain], now: u64, connection: u64) -> Result<(), OfferError> {
    let plain = list.iter_mut().find(|plain| plain.connection == connection).ok_or(OfferError::NotPending)?;
    if now >= plain.deadline() {
        return Err(OfferError::Expired);
    }
    if plain.offered_at.is_some() {
        return Err(OfferError::AlreadyOffered);
    }
    plain.offered_at = Some(now);
    Ok(())
}

/// Two peers share the connections.
const fn peer_of(connection: u64) -> PeerKey {
    PeerKey::new(1000, Some(1 + (connection % 2) as u32))
}

proptest! {
    #[test]
    fn it_behaves_as_a_plain_list_does(steps in proptest::collection::vec(any_step(), 1..200)) {
        let mut handoffs = PendingHandoffs::new(HandoffLimits {
            capacity: 5,
            per_backend: 2,
            per_peer: 3,
            ttl: Duration::from_nanos(10),
            ack_deadline: Duration::from_nanos(4),
        });
        let mut entropy = SeededEntropy::new(1);
        let mut list = Vec::<Plain>::new();
        let mut now = 0;
        let nobodys = HandoffToken::from_bytes([0; 16]);
        for step in steps {
            let time = Monotonic::from_nanos(now);
            let token_of = |list: &[Plain], connection| {
                list.iter()
                    .find(|plain| plain.connection == connection)
                    .map_or_else(|| nobodys.clone(), |plain| plain.token.clone())
            };
            match step {
                Step::Pass { nanos } => now += nanos,
                Step::Issue { connection, backend } => {
                    let of_backend = list.iter().filter(|plain| plain.backend == backend).count();
                    let expected = if list.len() == 5 {
                        Err(IssueError::AtCapacity { limit: 5 })
                    } else if list.iter().any(|plain| plain.connection == connection) {
                        Err(IssueError::AlreadyPending { connection: id(connection) })
                    } else if of_backend == 2 {
                        Err(IssueError::BackendBusy { limit: 2 })
                    } else if list.iter().filter(|plain| peer_of(plain.connection) == peer_of(connection)).count() == 3 {
                        Err(IssueError::PeerBusy { limit: 3 })
                    } else {
                        Ok(())
                    };
                    let issued = handoffs.issue(
                        time,
                        id(connection),
                        peer_of(connection),
                        BackendSlot::new(backend),
                        &mut entropy,
                    );
                    prop_assert_eq!(issued.as_ref().map(|_| ()), expected.as_ref().copied());
                    if let Ok(token) = issued {
                        list.push(Plain { connection, backend, token, issued_at: now, offered_at: None });
                    }
                }
                Step::Offer { connection } => {
                    let expected = model_offer(&mut list, now, connection);
                    prop_assert_eq!(handoffs.offered(time, id(connection)), expected);
                }
                Step::Acknowledge { connection, token_of: owner } => {
                    let shown = token_of(&list, owner);
                    let expected = model_settle(&mut list, now, connection, &shown);
                    prop_assert_eq!(handoffs.acknowledge(time, id(connection), &shown), expected);
                }
                Step::Reject { connection } => {
                    let shown = token_of(&list, connection);
                    let expected = model_settle(&mut list, now, connection, &shown);
                    prop_assert_eq!(handoffs.reject(time, id(connection), &shown), expected);
                }
                Step::Revoke { connection } => {
                    let expected = list.iter().find(|plain| plain.connection == connection).map(Plain::stage);
                    list.retain(|plain| plain.connection != connection);
                    prop_assert_eq!(handoffs.revoke(id(connection)), expected);
                }
                Step::RevokeBackend { backend } => {
                    let before = list.len();
                    list.retain(|plain| plain.backend != backend);
                    prop_assert_eq!(handoffs.revoke_backend(BackendSlot::new(backend)), before - list.len());
                }
                Step::Expire => {
                    let mut reported = Vec::new();
                    handoffs.expire(time, |Expired { connection, stage, .. }| {
                        reported.push((connection.get(), stage));
                    });
                    let mut due: Vec<_> = list.iter().filter(|plain| now >= plain.deadline()).cloned().collect();
                    list.retain(|plain| now < plain.deadline());
                    let deadline_of = |connection: u64| {
                        due.iter().find(|plain| plain.connection == connection).map(Plain::deadline)
                    };
                    prop_assert!(reported.is_sorted_by_key(|(connection, _)| deadline_of(*connection)));
                    reported.sort_by_key(|(connection, _)| *connection);
                    due.sort_by_key(|plain| plain.connection);
                    let due: Vec<_> = due.iter().map(|plain| (plain.connection, plain.stage())).collect();
                    prop_assert_eq!(reported, due);
                }
            }
            let earliest = list.iter().map(Plain::deadline).min().map(Monotonic::from_nanos);
            prop_assert_eq!(handoffs.next_expiry(), earliest);
            prop_assert_eq!(handoffs.len(), list.len());
            prop_assert_eq!(handoffs.by_backend.len(), (0..=2).filter(|backend| {
                list.iter().any(|plain| plain.backend == *backend)
            }).count());
            for backend in 0..=2 {
                let of_backend = list.iter().filter(|plain| plain.backend == backend).count();
                prop_assert_eq!(handoffs.outstanding(BackendSlot::new(backend)), of_backend);
            }
            for peer in [peer_of(0), peer_of(1)] {
                let of_peer = list.iter().filter(|plain| peer_of(plain.connection) == peer).count();
                prop_assert_eq!(handoffs.held_by(peer), of_peer);
            }
        }
    }
}
