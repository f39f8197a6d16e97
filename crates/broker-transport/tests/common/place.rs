//! Endpoints of one test's own.
//!
//! A pipe lies in no directory, and all tests share its name space: there a directory's name is part of its own.

use std::path::PathBuf;

use broker_transport::endpoint::Platform;
use tempfile::TempDir;

/// A directory that is gone with this value.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// An endpoint that no other test has.
    pub(crate) fn endpoint(&self, name: &str) -> PathBuf {
        let place = self.0.path();
        match Platform::CURRENT {
            Platform::Linux | Platform::MacOs => place.join(name),
            Platform::Windows => {
                format!("rpb-test{}-{name}", place.file_name().unwrap().to_str().unwrap()).into()
            }
        }
    }
}
