//! Where things are in the repository, and the error type of the tasks.

use std::path::{Path, PathBuf};

/// A task's failure: a sentence for the person who ran it.
pub(crate) type TaskError = Box<dyn std::error::Error>;

/// A task's result.
pub(crate) type TaskResult = Result<(), TaskError>;

/// The repository's root folder.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
