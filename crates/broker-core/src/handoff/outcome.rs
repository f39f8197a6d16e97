//! What can become of a handoff, and why an operation on one is refused.
//!
//! Values only; [`PendingHandoffs`](super::PendingHandoffs) decides. Invariant: none of them carries a
//! token, so all of them may be logged.

use std::time::Duration;

use broker_protocol::ConnectionId;
use thiserror::Error;

use super::BackendSlot;
use crate::entropy::EntropyError;

/// How far a pending handoff has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The token is issued. The connection is the broker's.
    Issued,
    /// The offer is on its way or there. The connection may be the backend's already, and only a
    /// definite rejection gives it back (protocol.md, "Conversations" 6).
    Offered,
}

/// A handoff that the backend has settled, either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The backend it was offered to.
    pub backend: BackendSlot,
    /// How long that took since the offer.
    pub waited: Duration,
}

/// A handoff whose deadline has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Whose connection was to be handed over.
    pub connection: ConnectionId,
    /// The backend it was meant for.
    pub backend: BackendSlot,
    /// How far it had come.
    pub stage: Stage,
}

/// Why no token was issued. To the client that means no more than a reply without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IssueError {
    /// As many are pending as may be.
    #[error("{limit} handoffs are pending, which is the limit")]
    AtCapacity {
        /// The limit.
        limit: usize,
    },
    /// As many are pending for this backend as may be.
    #[error("{limit} handoffs to this backend are pending, which is the limit")]
    BackendBusy {
        /// The limit.
        limit: usize,
    },
    /// As many are pending for this peer's connections as may be.
    #[error("{limit} handoffs of this peer's connections are pending, which is the limit")]
    PeerBusy {
        /// The limit.
        limit: usize,
    },
    /// The connection has a token.
    #[error("connection {connection} has a pending handoff")]
    AlreadyPending {
        /// The connection.
        connection: ConnectionId,
    },
    /// There is no randomness to make one of.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Why an offer must not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OfferError {
    /// No token was issued for the connection, or its handoff is settled.
    #[error("no handoff of this connection is pending")]
    NotPending,
    /// It was made already.
    #[error("this handoff was offered already")]
    AlreadyOffered,
    /// It comes too late.
    #[error("the token of this handoff has expired")]
    Expired,
}

/// Why an acknowledgement settles nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AckError {
    /// No token was issued for the connection, or its handoff is settled: a replay.
    #[error("no handoff of this connection is pending")]
    NotPending,
    /// Nothing was offered yet that could be acknowledged.
    #[error("this handoff was not offered yet")]
    NotOffered,
    /// It comes too late.
    #[error("the acknowledgement came after its deadline")]
    Expired,
    /// It shows another token than the one issued.
    #[error("the acknowledgement shows another token than the one that was issued")]
    Mismatch,
}
