//! Whether a lock is held, where there is no list of locks that could be read without taking part.

use std::io;

use crate::files::FileFacts;
use crate::lock::LockEntry;

/// Whether the process that wrote the entry runs: a holder removes its file when it goes.
pub(crate) fn is_held(_file: &FileFacts, entry: Option<&LockEntry>) -> io::Result<bool> {
    Ok(entry.is_some_and(LockEntry::is_alive))
}
