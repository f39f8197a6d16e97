//! Windows: names and places work, everything else is still missing and says so.
//!
//! Invariant: a type that cannot be made here has no value.

mod acl;
mod calls;
pub(crate) mod detach;
pub(crate) mod files;
pub(crate) mod identity;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod lock;
pub(crate) mod private_dir;
#[cfg(feature = "tokio")]
pub(crate) mod process;
pub(crate) mod program;
mod security;
#[cfg(feature = "tokio")]
pub(crate) mod stop_requests;
pub(crate) mod stream;

use std::io;
pub use std::os::windows::io::{
    AsHandle as AsDescriptor, BorrowedHandle as BorrowedDescriptor, OwnedHandle as OwnedDescriptor,
};

pub(crate) use super::no_connections as connections;
use crate::endpoint::Platform;
use crate::unsupported::Unsupported;

pub(crate) const PLATFORM: Platform = Platform::Windows;

/// Whether descriptors are passed in messages: Handles are duplicated instead.
pub(crate) const PASSES_DESCRIPTORS: bool = false;

fn unsupported<T>(operation: &'static str) -> io::Result<T> {
    Err(Unsupported { operation, platform: std::env::consts::OS }.into())
}

/// Handles that this process was started with.
pub(crate) mod inherited {
    use std::path::{Path, PathBuf};

    use super::{OwnedDescriptor, unsupported};
    use crate::activation::{ActivationError, PassedListener, PassedStream};
    use crate::listener::{BindError, BoundSocket};

    pub(crate) fn take_listener(
        passed: PassedListener,
        _path: Option<&Path>,
    ) -> Result<BoundSocket, ActivationError> {
        let path = PathBuf::from(format!("inherited handle {}", passed.number()));
        unsupported("taking over a listener")
            .map_err(|source| BindError::Io { operation: "listen on", path, source }.into())
    }

    pub(crate) fn take_parent_stream(passed: PassedStream) -> Result<OwnedDescriptor, ActivationError> {
        let found = "a platform where that is not implemented";
        Err(ActivationError::NotTheParents { descriptor: passed.number().into(), found })
    }
}

/// Whether this is Wine, which leaves some things out. A test that needs them says so and ends.
#[cfg(test)]
pub(crate) fn is_wine() -> bool {
    use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};
    // SAFETY: the names end with NUL, and the module is part of every process.
    unsafe {
        let library = GetModuleHandleW(windows_sys::core::w!("ntdll.dll"));
        !library.is_null() && GetProcAddress(library, c"wine_get_version".as_ptr().cast()).is_some()
    }
}
