//! Waking the spawner's thread by an eventfd (eventfd(2)).
//!
//! Invariant: a wake that comes before the thread waits is not lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use super::super::super::unix::process::request_queue::WakeUp;

/// Readable from a wake until it is cleared.
#[derive(Debug)]
pub(crate) struct Wake(OwnedFd);

impl Wake {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }
}

impl WakeUp for Wake {
    fn wake(&self) {
        // An eventfd refuses only when its counter is full: then the thread has news already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn clear(&self) {
        // Nothing to read is nothing to clear.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
