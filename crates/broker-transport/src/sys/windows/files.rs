//! Files by handles that follow no link, with their owners and access lists.
//!
//! A link here is a reparse point that stands for another name: a symbolic link or a junction. Renaming replaces
//! an open file, too, as long as whoever has it open permits that, as everything here and in the standard library
//! does. There is no syncing of a directory: NTFS writes a name's change into its journal by itself, so after a
//! power failure the old file or the new one is there, though it may be the old one for some seconds' work.
//!
//! Invariant: nothing here follows a link as the last component, but [`is_executable`].

use std::fs::File;
use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle};
use std::path::Path;
use std::time::Duration;

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_CANT_RESOLVE_FILENAME, ERROR_SHARING_VIOLATION, FILETIME, GENERIC_READ,
    GENERIC_WRITE,
};
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, CREATE_NEW, FILE_APPEND_DATA, FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_NORMAL, FILE_ATTRIBUTE_REPARSE_POINT, FILE_ATTRIBUTE_TAG_INFO, FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT, FILE_READ_ATTRIBUTES, FILE_SHARE_DELETE, FILE_SHARE_MODE, FILE_SHARE_READ,
    FILE_SHARE_WRITE, FILE_TYPE_DISK, FileAttributeTagInfo, GetFileInformationByHandle,
    GetFileInformationByHandleEx, GetFileType, OPEN_ALWAYS, OPEN_EXISTING, READ_CONTROL, SYNCHRONIZE,
};

use super::acl::{Scope, WRITE};
use super::calls::done;
use super::error::is;
use super::identity::own_sid;
use super::security::{Opening, access};
use crate::files::{FileFacts, FileKind};

/// Nobody is kept from anything.
pub(super) const SHARE_ALL: FILE_SHARE_MODE = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

/// Reparse points with this bit in their tag stand for another name; the others are files that are kept in
/// another form, such as compressed ones.
const NAME_SURROGATE: u32 = 0x2000_0000;

/// From 1601, where the system's times begin, to 1970, in 100 ns.
const EPOCH: i128 = 116_444_736_000_000_000;

/// How often a file is replaced before it counts as in use, beside the last time, and the pause between.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) fn facts(path: &Path) -> io::Result<FileFacts> {
    facts_of(look_at(path)?.as_handle())
}

/// Opens whatever lies there, to look at it.
pub(super) fn look_at(path: &Path) -> io::Result<File> {
    Opening {
        access: FILE_READ_ATTRIBUTES | READ_CONTROL | SYNCHRONIZE,
        share: SHARE_ALL,
        disposition: OPEN_EXISTING,
        flags: FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT,
    }
    .open(path)
}

pub(crate) fn open_no_follow(path: &Path) -> io::Result<(File, FileFacts)> {
    let opening = Opening {
        access: GENERIC_READ,
        share: SHARE_ALL,
        disposition: OPEN_EXISTING,
        flags: FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT,
    };
    unless_link(opening.open(path)?)
}

/// Without the right to write anywhere but at the end, which makes every write go there, whoever else writes. With
/// that to read, without which it could not be locked (LockFileEx).
pub(crate) fn open_append(path: &Path) -> io::Result<(File, FileFacts)> {
    let opening = Opening {
        access: FILE_APPEND_DATA | GENERIC_READ,
        share: SHARE_ALL,
        disposition: OPEN_ALWAYS,
        flags: FILE_ATTRIBUTE_NORMAL | FILE_FLAG_OPEN_REPARSE_POINT,
    };
    unless_link(opening.open_private(path)?)
}

/// Whether a file may be executed is in its name here.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("exe"))
}

/// Only an attempt tells.
pub(crate) fn is_writable_directory(path: &Path) -> bool {
    path.is_dir()
}

pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    let opening = Opening {
        access: GENERIC_WRITE | READ_CONTROL,
        share: SHARE_ALL,
        disposition: CREATE_NEW,
        flags: FILE_ATTRIBUTE_NORMAL | FILE_FLAG_OPEN_REPARSE_POINT,
    };
    opening.open_private(path)
}

pub(crate) fn sync(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// What was downloaded is started all the same.
pub(crate) fn is_quarantined(_path: &Path) -> bool {
    false
}

/// Puts a file in the place of another one in the same directory, or where there is none.
///
/// Not by `ReplaceFileW`, which gives the new file the old one's access list. The standard library renames as
/// POSIX does, where the file system can.
///
/// Somebody who reads the old one without letting others remove it is in the way for a moment; whoever indexes or
/// scans files is such a one.
pub(crate) fn replace(from: &Path, to: &Path) -> io::Result<()> {
    for _ in 0..ATTEMPTS {
        match std::fs::rename(from, to) {
            Err(error) if is(&error, ERROR_SHARING_VIOLATION) || is(&error, ERROR_ACCESS_DENIED) => {
                std::thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
    std::fs::rename(from, to)
}

/// As opening a link fails where links are not followed on other systems.
fn unless_link(file: File) -> io::Result<(File, FileFacts)> {
    let facts = facts_of(file.as_handle())?;
    if facts.kind == FileKind::Symlink {
        return Err(io::Error::from_raw_os_error(ERROR_CANT_RESOLVE_FILENAME.cast_signed()));
    }
    Ok((file, facts))
}

pub(super) fn facts_of(file: BorrowedHandle<'_>) -> io::Result<FileFacts> {
    let own = own_sid()?;
    // SAFETY: the handle is open.
    if unsafe { GetFileType(file.as_raw_handle()) } != FILE_TYPE_DISK {
        // A device or a pipe, which has none of these.
        return Ok(FileFacts {
            kind: FileKind::Other,
            size: 0,
            modified_ns: 0,
            inode: 0,
            device: 0,
            owner: 0,
            names: 1,
            writable_by_others: true,
        });
    }
    let mut found = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open, and the structure is written to.
    done(unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut found) })?;
    let access = access(file)?;
    Ok(FileFacts {
        kind: kind(file, found.dwFileAttributes)?,
        size: joined(found.nFileSizeHigh, found.nFileSizeLow),
        modified_ns: unix_ns(found.ftLastWriteTime),
        inode: joined(found.nFileIndexHigh, found.nFileIndexLow),
        device: found.dwVolumeSerialNumber.into(),
        owner: access.owner_key(own),
        names: found.nNumberOfLinks.into(),
        writable_by_others: access.other_with(WRITE, Scope::Itself, own).is_some(),
    })
}

fn kind(file: BorrowedHandle<'_>, attributes: u32) -> io::Result<FileKind> {
    if attributes & FILE_ATTRIBUTE_REPARSE_POINT != 0 && tag(file)? & NAME_SURROGATE != 0 {
        return Ok(FileKind::Symlink);
    }
    let is_directory = attributes & FILE_ATTRIBUTE_DIRECTORY != 0;
    Ok(if is_directory { FileKind::Directory } else { FileKind::Regular })
}

fn tag(file: BorrowedHandle<'_>) -> io::Result<u32> {
    let mut found = FILE_ATTRIBUTE_TAG_INFO::default();
    // SAFETY: the handle is open, and the structure is the one of this class.
    done(unsafe {
        GetFileInformationByHandleEx(
            file.as_raw_handle(),
            FileAttributeTagInfo,
            (&raw mut found).cast(),
            size_of_val(&found) as u32,
        )
    })?;
    Ok(found.ReparseTag)
}

fn joined(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn unix_ns(time: FILETIME) -> i128 {
    (i128::from(joined(time.dwHighDateTime, time.dwLowDateTime)) - EPOCH) * 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_1970() {
        let time =
            |ticks: u64| FILETIME { dwHighDateTime: (ticks >> 32) as u32, dwLowDateTime: ticks as u32 };
        assert_eq!(unix_ns(time(116_444_736_000_000_000)), 0);
        assert_eq!(unix_ns(time(116_444_736_000_000_001)), 100);
        assert_eq!(unix_ns(time(0)), -11_644_473_600_000_000_000);
    }

    #[test]
    fn what_the_standard_library_says_of_a_file_is_said_here() {
        use std::os::windows::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        let (found, expected) = (facts(&path).unwrap(), path.metadata().unwrap());
        assert_eq!((found.kind, found.size), (FileKind::Regular, 5));
        assert_eq!(found.modified_ns / 100 + EPOCH, expected.last_write_time().into());
        assert_eq!(facts(dir.path()).unwrap().kind, FileKind::Directory);
        assert_ne!(found.inode, facts(dir.path()).unwrap().inode);
        assert_eq!(facts(Path::new("NUL")).unwrap().kind, FileKind::Other);
    }

    #[test]
    fn a_long_path_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().to_path_buf();
        for _ in 0..12 {
            path.push("a-directory-with-a-rather-long-name");
        }
        std::fs::create_dir_all(&path).unwrap();
        let path = path.join("file");
        drop(create_private(&path).unwrap());
        assert_eq!(facts(&path).unwrap().kind, FileKind::Regular);
    }
}
