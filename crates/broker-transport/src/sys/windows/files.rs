//! Files with facts about their owners: still missing.

use std::fs::File;
use std::io;
use std::path::Path;

use super::unsupported;
use crate::files::FileFacts;

pub(crate) fn facts(_path: &Path) -> io::Result<FileFacts> {
    unsupported("looking at a file's access rights")
}

pub(crate) fn open_no_follow(_path: &Path) -> io::Result<(File, FileFacts)> {
    unsupported("opening a file without following links")
}

pub(crate) fn open_append(_path: &Path) -> io::Result<(File, FileFacts)> {
    unsupported("opening a private file for appending")
}

/// Whether a file may be executed is in its name here.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("exe"))
}

pub(crate) fn create_private(_path: &Path) -> io::Result<File> {
    unsupported("creating a private file")
}

pub(crate) fn sync(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// What was downloaded is started all the same.
pub(crate) fn is_quarantined(_path: &Path) -> bool {
    false
}

pub(crate) fn sync_dir(_path: &Path) -> io::Result<()> {
    unsupported("syncing a directory")
}
