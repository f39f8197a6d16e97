//! Being asked to end: SIGTERM and SIGINT, or what the platform has in their place. And being asked to read the
//! configuration again: SIGHUP, where there is one.
//!
//! What a request means, and what a second one means, is decided elsewhere. Invariant: no request that
//! came after `listen` is lost, though several at once may come out as one.

pub use crate::sys::stop_requests::{ReloadRequests, StopRequests, block_here, let_through_here};
