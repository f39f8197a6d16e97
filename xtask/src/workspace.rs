//! Where things are in the repository, and the error type of the tasks.

use std::fs;
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

/// Every Rust source below a folder, sorted.
pub(crate) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, TaskError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
