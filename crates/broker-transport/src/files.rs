//! Files that others must not have tampered with: looking, opening and replacing them.
//!
//! For definitions, manifests and the like. What a fact permits is decided elsewhere. Invariants:
//! the facts of an opened file are those of that very file, the last component is never followed
//! where the name says so, and a replaced file is at every moment either the old or the new one.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::sys::files as sys;

/// What lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link, not followed.
    Symlink,
    /// A socket.
    Socket,
    /// A device, a FIFO or what else there is.
    Other,
}

/// With its article, as an error says it: `a symbolic link`.
impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regular => "a regular file",
            Self::Directory => "a directory",
            Self::Symlink => "a symbolic link",
            Self::Socket => "a socket",
            Self::Other => "a device or FIFO",
        })
    }
}

/// What the file system says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last modification, in nanoseconds since the Unix epoch.
    pub modified_ns: i128,
    /// Inode number.
    pub inode: u64,
    /// Id of the device it lies on.
    pub device: u64,
    /// The owner: a user id, or on Windows the number that [stands](crate::identity::current_user_key) for the
    /// SID. 0 is the system itself: root, or on Windows `LocalSystem`, the administrators and `TrustedInstaller`.
    pub owner: u64,
    /// How many names it has. A second one may lie in a directory that others write to.
    pub names: u64,
    /// Whether its group or everybody may write to it; on Windows whether the access list permits anybody but
    /// the owner's own and the system to.
    pub writable_by_others: bool,
}

/// The facts about what lies at `path`; a symbolic link is not followed.
///
/// # Errors
/// There is nothing, or it cannot be reached.
pub fn facts(path: &Path) -> io::Result<FileFacts> {
    sys::facts(path)
}

/// Opens a file for reading, and the facts about it. A symbolic link as the last component is refused, and on
/// Windows a junction.
///
/// Opening never blocks, not even on a FIFO: check [`FileFacts::kind`] before reading.
///
/// # Errors
/// There is nothing, it is a symbolic link (`ELOOP`), or it may not be read.
pub fn open_no_follow(path: &Path) -> io::Result<(File, FileFacts)> {
    sys::open_no_follow(path)
}

/// Opens a file for appending, and the facts about it; creates it with mode 0600, or with an access list
/// for the owner alone, where there is none. A symbolic link as the last component is refused.
///
/// # Errors
/// It may not be written to, or it is a symbolic link (`ELOOP`).
pub fn open_append(path: &Path) -> io::Result<(File, FileFacts)> {
    sys::open_append(path)
}

/// Whether this process may execute what lies at `path`.
pub fn is_executable(path: &Path) -> bool {
    sys::is_executable(path)
}

/// Whether this process may make files in a directory, as far as that can be told without making one; on Windows
/// it cannot.
pub fn is_writable_directory(path: &Path) -> bool {
    sys::is_writable_directory(path)
}

/// Whether macOS keeps what lies at `path` from being executed because it was downloaded and the user has
/// not approved of it yet; such a program fails to start, or is killed right after. `false` elsewhere, and
/// where that cannot be told.
pub fn is_quarantined(path: &Path) -> bool {
    sys::is_quarantined(path)
}

/// Makes a file for writing, with mode 0600 or with an access list for the owner alone, where there is nothing yet.
///
/// # Errors
/// There is something ([`io::ErrorKind::AlreadyExists`]), be it a symbolic link that leads nowhere; or the directory
/// cannot be written to.
pub fn create_private(path: &Path) -> io::Result<File> {
    sys::create_private(path)
}

/// Replaces a file's content, mode 0600: temporary file, fsync, rename, fsync of the directory. On Windows it has
/// an access list for the owner alone, and the file system sees to the directory.
///
/// Who reads meanwhile sees the old content or the new, never a part; so does everybody after a power
/// failure. On failure the old content stays and the temporary file is removed.
///
/// # Errors
/// The directory cannot be written to or the disk is full.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        let message = format!("expected the path of a file, got {}", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{:016x}.tmp", u64::from_ne_bytes(random)));
    let mut temporary = Temporary { path: dir.join(temporary_name), is_renamed: false };
    let mut file = sys::create_private(&temporary.path)?;
    file.write_all(content)?;
    sys::sync(&file)?;
    drop(file);
    sys::replace(&temporary.path, path)?;
    temporary.is_renamed = true;
    Ok(())
}

/// Removes the temporary file, unless it has become the real one.
struct Temporary {
    path: PathBuf,
    is_renamed: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_renamed {
            // A leftover would be harmless, and the failure that led here is the one to report.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
