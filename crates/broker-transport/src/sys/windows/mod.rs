//! Windows: named pipes, handles and their duplicates, access control lists, job objects.
//!
//! Invariant: no handle is inherited by a child unless it is named to it.

mod acl;
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
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod lock;
pub(crate) mod memory;
mod overlapped;
#[cfg(feature = "tokio")]
pub(crate) mod passing;
mod peer;
mod pipe;
pub(crate) mod private_dir;
#[cfg(feature = "tokio")]
pub(crate) mod process;
pub(crate) mod program;
mod security;
pub(crate) mod service_manager;
#[cfg(feature = "tokio")]
pub(crate) mod stop_requests;
pub(crate) mod stream;
#[cfg(feature = "tokio")]
pub(crate) mod succession;
#[cfg(feature = "tokio")]
mod wake;
#[cfg(feature = "tokio")]
mod writing;

use std::io;
pub use std::os::windows::io::{
    AsHandle as AsDescriptor, BorrowedHandle as BorrowedDescriptor, OwnedHandle as OwnedDescriptor,
};

pub(crate) use super::locks_by_entry as held_locks;
#[cfg(feature = "sandbox")]
pub(crate) use super::no_sandbox as sandbox;
use crate::endpoint::Platform;
use crate::unsupported::Unsupported;

pub(crate) const PLATFORM: Platform = Platform::Windows;

fn unsupported<T>(operation: &'static str) -> io::Result<T> {
    Err(Unsupported { operation, platform: std::env::consts::OS }.into())
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
