//! Files by `stat`, `open` and `fsync`.
//!
//! Invariant: nothing here follows a symbolic link as the last component, but [`is_executable`].

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Access, OFlags};

use super::super::os;
use crate::files::{FileFacts, FileKind};

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const GROUP_OR_OTHER_WRITE: u32 = 0o022;

pub(crate) fn facts(path: &Path) -> io::Result<FileFacts> {
    Ok(facts_of(&path.symlink_metadata()?))
}

pub(crate) fn open_no_follow(path: &Path) -> io::Result<(File, FileFacts)> {
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    let facts = facts_of(&file.metadata()?);
    Ok((file, facts))
}

pub(crate) fn open_append(path: &Path) -> io::Result<(File, FileFacts)> {
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(flags.cast_signed())
        .open(path)?;
    let facts = facts_of(&file.metadata()?);
    Ok((file, facts))
}

pub(crate) fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

pub(crate) fn is_writable_directory(path: &Path) -> bool {
    path.is_dir() && rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(path)
}

pub(crate) fn sync(file: &File) -> io::Result<()> {
    os::sync(file)
}

pub(crate) fn is_quarantined(path: &Path) -> bool {
    os::is_quarantined(path)
}

/// Puts a file in the place of another one in the same directory, or where there is none.
pub(crate) fn replace(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    os::sync(&File::open(dir)?)
}

fn facts_of(metadata: &Metadata) -> FileFacts {
    let file_type = metadata.file_type();
    FileFacts {
        kind: match file_type {
            _ if file_type.is_file() => FileKind::Regular,
            _ if file_type.is_dir() => FileKind::Directory,
            _ if file_type.is_symlink() => FileKind::Symlink,
            _ if file_type.is_socket() => FileKind::Socket,
            _ => FileKind::Other,
        },
        size: metadata.size(),
        modified_ns: i128::from(metadata.mtime()) * NANOS_PER_SECOND + i128::from(metadata.mtime_nsec()),
        inode: metadata.ino(),
        device: metadata.dev(),
        owner: metadata.uid().into(),
        names: metadata.nlink(),
        writable_by_others: metadata.mode() & GROUP_OR_OTHER_WRITE != 0,
    }
}
