//! Backends: what is known of them and what may be done about them (behaviour.md 4).
//!
//! It starts, probes and stops nothing; it decides that something should be.

mod budget;
mod table;

pub use budget::{SPAWN_ATTEMPTS, SPAWN_WINDOW, SpawnBudget};
pub use table::{
    Backend, BackendState, ControlKey, ControlState, LiveBackend, Origin, Registration, StopReason,
};
pub(crate) use table::{BackendTable, TraceContext, Waiter};
