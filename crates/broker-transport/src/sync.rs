//! The locks around what threads share, and what takes their place while the schedules of those threads are
//! searched.
//!
//! Only the types whose protocol is searched take their locks from here. Invariant: outside of this crate's
//! own tests with the feature `shuttle`, they are std's.

#[cfg(all(test, feature = "shuttle"))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
#[cfg(not(all(test, feature = "shuttle")))]
pub(crate) use std::sync::{Mutex, MutexGuard};
