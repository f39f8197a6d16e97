//! A directory of one test's own, and endpoints that are named after it.
//!
//! A pipe lies in no directory, and all tests share its name space: there the directory's name is part of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use broker_transport::endpoint::{Platform, dir_beside};
use tempfile::TempDir;

/// Empty, and gone with this value.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// An endpoint that no other test has.
    pub(crate) fn endpoint(&self, name: &str) -> PathBuf {
        match Platform::CURRENT {
            Platform::Linux | Platform::MacOs => self.path().join(name),
            Platform::Windows => format!("{}-{name}", self.prefix()).into(),
        }
    }

    /// Checks that nothing is left of its endpoints.
    pub(crate) fn assert_left_empty(&self) {
        let (dir, prefix) = match Platform::CURRENT {
            Platform::Linux | Platform::MacOs => (self.path().to_owned(), String::new()),
            Platform::Windows => (dir_beside("x".as_ref()).unwrap(), self.prefix()),
        };
        let left: Vec<OsString> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name.to_string_lossy().starts_with(&prefix))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// In lower case, as the files that belong to a pipe have it.
    fn prefix(&self) -> String {
        let name = self.path().file_name().unwrap().to_str().unwrap().to_lowercase();
        format!("rpb-test{name}")
    }
}
