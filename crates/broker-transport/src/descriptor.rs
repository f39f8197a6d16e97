//! Descriptors and handles under one name: file descriptors on Unix, handles on Windows.
//!
//! Invariant: an owned one is closed exactly once and is never inherited by a child unless it is
//! named to it.

pub use crate::sys::{AsDescriptor, BorrowedDescriptor, OwnedDescriptor};
