//! The instance lock: still missing.

use std::convert::Infallible;
use std::io;
use std::path::Path;

use super::{OwnedDescriptor, unsupported};
use crate::lock::{LockEntry, LockError};

/// The lock of one endpoint. Not on this platform yet.
#[derive(Debug)]
pub struct InstanceLock(Infallible);

impl InstanceLock {
    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Unsupported).
    pub fn acquire(path: &Path, endpoint: &str) -> Result<Self, LockError> {
        // Kept in use on every platform: the entry's form is the same everywhere.
        let _entry = LockEntry::of_this_process(endpoint).to_text();
        let path = path.to_path_buf();
        unsupported("locking an endpoint").map_err(|source| LockError::Io { operation: "lock", path, source })
    }

    /// Fails.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Unsupported).
    pub fn from_descriptor(
        _descriptor: OwnedDescriptor,
        path: &Path,
        endpoint: &str,
    ) -> Result<Self, LockError> {
        Self::acquire(path, endpoint)
    }

    /// Cannot be called.
    pub fn into_descriptor(self) -> Option<OwnedDescriptor> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn try_clone_descriptor(&self) -> io::Result<OwnedDescriptor> {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn path(&self) -> &Path {
        match self.0 {}
    }
}
