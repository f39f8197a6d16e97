//! Connections on their way from the broker to a backend (behaviour.md 2, "Handoff tokens").
//!
//! It passes no descriptor and writes no frame; it knows which offers are pending, and which
//! acknowledgement is an answer to one of them.

mod arena;
mod outcome;
mod pending;
mod settlement;

pub use outcome::{AckError, Acknowledged, Expired, IssueError, OfferError, Stage};
pub use pending::{
    BackendSlot, HandoffLimits, MAX_PENDING_HANDOFFS, PENDING_HANDOFFS_PER_PEER, PendingHandoffs,
};
pub use settlement::{Acceptance, Rejection, Settlement};
