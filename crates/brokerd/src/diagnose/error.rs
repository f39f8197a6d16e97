//! Why there is no archive, and what to do about it.

use std::io;
use std::path::PathBuf;

use broker_transport::files::FileKind;
use thiserror::Error;

use crate::failure::{EXIT_REFUSED, EXIT_USAGE};

/// Why there is no archive. What there was at the output path is as it was.
#[derive(Debug, Error)]
pub(crate) enum DiagnoseError {
    #[error("{} is not an absolute path, and the broker's directory is not yours", path.display())]
    NotAbsolute { path: PathBuf },
    #[error("{} names no file", path.display())]
    NoFile { path: PathBuf },
    #[error("{kind} is at {} already, and nothing is overwritten", path.display())]
    Exists { path: PathBuf, kind: FileKind },
    #[error("cannot write {}: there is no directory {}", path.display(), directory.display())]
    NoDirectory { path: PathBuf, directory: PathBuf },
    #[error(
        "cannot write {}: this broker serves with --sandbox, and writes to its own directories alone",
        path.display()
    )]
    Sandboxed { path: PathBuf, instead: PathBuf },
    #[error("cannot write {}: the disk is full; nothing of the archive is left on it", path.display())]
    DiskFull { path: PathBuf },
    #[error("cannot write {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the archive was given up: {0}")]
    GivenUp(String),
}

impl DiagnoseError {
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::NotAbsolute { .. } | Self::NoFile { .. } => EXIT_USAGE,
            Self::Exists { .. }
            | Self::NoDirectory { .. }
            | Self::Sandboxed { .. }
            | Self::DiskFull { .. }
            | Self::Io { .. }
            | Self::GivenUp(_) => EXIT_REFUSED,
        }
    }

    fn next(&self) -> Option<String> {
        match self {
            Self::NotAbsolute { .. } => Some("name the file from the root on".to_owned()),
            Self::NoFile { .. } => Some("name the file that is to be written".to_owned()),
            Self::Exists { kind: FileKind::Directory, path } => {
                Some(format!("name a file in it, such as {}", path.join("diagnose.tar.gz").display()))
            }
            Self::Exists { kind: FileKind::Regular, .. } => {
                Some("remove it, or choose another name".to_owned())
            }
            Self::Exists { .. } => Some("choose another name".to_owned()),
            Self::NoDirectory { .. } => Some("make it, or choose another place".to_owned()),
            Self::Sandboxed { instead, .. } => {
                Some(format!("pass --output {}, and move it where you want it", instead.display()))
            }
            Self::DiskFull { .. } => Some("choose a place on another disk".to_owned()),
            Self::Io { .. } => Some("choose another place".to_owned()),
            Self::GivenUp(_) => None,
        }
    }

    /// What went wrong, and on a line of its own what to do.
    pub(crate) fn to_text(&self) -> String {
        match self.next() {
            Some(next) => format!("{self}\n  next: {next}\n"),
            None => format!("{self}\n"),
        }
    }
}
