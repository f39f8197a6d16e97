//! Proofs that a backend has answered an offer.
//!
//! Whoever holds a copy of an offered connection may do with it only what one of these allows
//! (protocol.md, "Conversations" 6). Invariant: only an acknowledgement that answers a pending offer, in
//! time and with its token, makes one, and only one, and it names the connection.

use broker_protocol::ConnectionId;

/// The backend has taken the connection: the client may be told, and the copy is dropped.
#[derive(Debug)]
pub struct Acceptance(ConnectionId);

impl Acceptance {
    /// Whose.
    pub const fn connection(&self) -> ConnectionId {
        self.0
    }
}

/// The backend has definitely not taken it: the connection is the broker's again.
#[derive(Debug)]
pub struct Rejection(ConnectionId);

impl Rejection {
    /// Whose.
    pub const fn connection(&self) -> ConnectionId {
        self.0
    }
}

/// What a backend has answered.
#[derive(Debug)]
pub enum Settlement {
    /// It has taken the connection.
    Accepted(Acceptance),
    /// It has not.
    Rejected(Rejection),
}

impl Settlement {
    pub(crate) const fn accepted(connection: ConnectionId) -> Self {
        Self::Accepted(Acceptance(connection))
    }

    pub(crate) const fn rejected(connection: ConnectionId) -> Self {
        Self::Rejected(Rejection(connection))
    }
}
