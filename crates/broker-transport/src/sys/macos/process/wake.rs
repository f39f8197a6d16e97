//! Waking the spawner's thread by a pipe.
//!
//! Invariant: a wake that comes before the thread waits is not lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::ioctl_fionbio;

use super::super::super::unix::process::request_queue::WakeUp;
use super::pipe;

/// More wakes at once leave the rest for the next round, which then comes at once.
const ROOM: usize = 64;

/// Readable from a wake until it is cleared.
#[derive(Debug)]
pub(crate) struct Wake {
    reading: OwnedFd,
    writing: OwnedFd,
}

impl Wake {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        let (reading, writing) = pipe()?;
        ioctl_fionbio(&reading, true)?;
        ioctl_fionbio(&writing, true)?;
        Ok(Self { reading, writing })
    }
}

impl WakeUp for Wake {
    fn wake(&self) {
        // A pipe refuses only when it is full: then the thread has news already.
        let _ = rustix::io::write(&self.writing, &[1]);
    }

    fn clear(&self) {
        // Nothing to read is nothing to clear.
        let _ = rustix::io::read(&self.reading, &mut [0; ROOM]);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reading.as_fd()
    }
}
