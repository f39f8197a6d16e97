//! Proofs that a backend has answered an offer.
//!
//! Whoever holds a copy of an offered connection may do with it only what one of these allows
//! (protocol.md, "Conversations" 6). Invariant: only an acknowledgement that answers a pending offer, in
//! time and with its token, makes one, and only one.

/// The backend has taken the connection: the client may be told, and the copy is dropped.
#[derive(Debug)]
pub struct Acceptance(());

/// The backend has definitely not taken it: the connection is the broker's again.
#[derive(Debug)]
pub struct Rejection(());

/// What a backend has answered.
#[derive(Debug)]
pub enum Settlement {
    /// It has taken the connection.
    Accepted(Acceptance),
    /// It has not.
    Rejected(Rejection),
}

impl Settlement {
    pub(crate) const fn accepted() -> Self {
        Self::Accepted(Acceptance(()))
    }

    pub(crate) const fn rejected() -> Self {
        Self::Rejected(Rejection(()))
    }
}
