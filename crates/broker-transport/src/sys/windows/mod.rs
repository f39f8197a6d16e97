//! Windows: named pipes, handles and their duplicates, access control lists, job objects.
//!
//! Invariant: no handle is inherited by a child unless it is named to it.

#[cfg(feature = "tokio")]
mod async_listener;
#[cfg(feature = "tokio")]
mod async_stream;
mod calls;
pub(crate) mod connections;
pub(crate) mod detach;
mod error;
pub(crate) mod files;
pub(crate) mod identity;
pub(crate) mod inherited;
pub(crate) mod listener;
pub(crate) mod lock;
mod overlapped;
#[cfg(feature = "tokio")]
pub(crate) mod passing;
mod peer;
mod pipe;
#[cfg(feature = "tokio")]
pub(crate) mod process;
mod security;
#[cfg(feature = "tokio")]
pub(crate) mod stop_requests;
pub(crate) mod stream;
#[cfg(feature = "tokio")]
mod wake;
#[cfg(feature = "tokio")]
mod writing;

use std::io;
pub use std::os::windows::io::{
    AsHandle as AsDescriptor, BorrowedHandle as BorrowedDescriptor, OwnedHandle as OwnedDescriptor,
};

use crate::endpoint::Platform;
use crate::unsupported::Unsupported;

pub(crate) const PLATFORM: Platform = Platform::Windows;

fn unsupported<T>(operation: &'static str) -> io::Result<T> {
    Err(Unsupported { operation, platform: std::env::consts::OS }.into())
}

/// Descriptor limits, which Windows does not have in this form.
pub(crate) mod limits {
    use std::io;
    use std::path::Path;

    use super::unsupported;
    use crate::limits::{DescriptorUsage, InodeUsage};

    pub(crate) fn descriptor_usage() -> io::Result<DescriptorUsage> {
        unsupported("counting handles")
    }

    pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
        unsupported("raising the limit of handles")
    }

    pub(crate) fn is_descriptor_shortage(_error: &io::Error) -> bool {
        false
    }

    pub(crate) fn inode_usage(_path: &Path) -> io::Result<InodeUsage> {
        unsupported("counting inodes")
    }
}

/// Programs by their names.
pub(crate) mod program {
    use std::io;
    use std::path::{Path, PathBuf};

    pub(crate) fn find(program: &Path) -> io::Result<PathBuf> {
        let is_bare = program.parent().is_none_or(|parent| parent.as_os_str().is_empty());
        if is_bare { Ok(program.to_path_buf()) } else { std::path::absolute(program) }
    }
}

/// Private directories.
pub(crate) mod private_dir {
    use std::io;
    use std::path::Path;

    use super::unsupported;
    use crate::private_dir::{Missing, PrivateDirError};

    pub(crate) fn walk(path: &Path, missing: Missing) -> Result<(), PrivateDirError> {
        let operation = match missing {
            Missing::Create => "make a private directory of",
            Missing::Refuse => "check the access rights of",
        };
        unsupported(operation).map_err(|source| PrivateDirError::Io {
            operation,
            path: path.to_path_buf(),
            source,
        })
    }

    pub(crate) fn network_filesystem(_path: &Path) -> io::Result<Option<&'static str>> {
        unsupported("telling network drives")
    }
}
