//! What is plain POSIX, shared by Linux and macOS.
//!
//! What differs between them comes from `super::os`.

#[cfg(feature = "tokio")]
mod async_listener;
#[cfg(feature = "tokio")]
mod async_stream;
pub(crate) mod close_from;
pub(crate) mod detach;
pub(crate) mod files;
pub(crate) mod inherited;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod lock;
#[cfg(feature = "tokio")]
pub(crate) mod passing;
pub(crate) mod private_dir;
#[cfg(feature = "tokio")]
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod service_manager;
pub(crate) mod signals;
mod socket;
#[cfg(feature = "tokio")]
pub(crate) mod stop_requests;
pub(crate) mod stream;
#[cfg(feature = "tokio")]
pub(crate) mod succession;

pub use std::os::fd::{AsFd as AsDescriptor, BorrowedFd as BorrowedDescriptor, OwnedFd as OwnedDescriptor};
