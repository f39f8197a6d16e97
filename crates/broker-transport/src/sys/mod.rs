//! The operating systems, behind one face.
//!
//! The only place with `cfg(target…)` and with `unsafe`. `unix` holds what is plain POSIX, `linux` and
//! `macos` what is theirs, `windows` its own; the portable modules of this crate name only what is
//! re-exported here. Invariant: every platform module offers the same names with the same types, and
//! one that cannot do something says so with [`Unsupported`](crate::Unsupported).

#[cfg(unix)]
mod unix;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use self::linux as os;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
use self::macos as os;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use self::windows as os;

// What macOS's answers mean is plain enough to be tested here, too.
#[cfg(all(test, target_os = "linux"))]
#[path = "macos/process/rules.rs"]
mod macos_process_rules;
#[cfg(all(test, target_os = "linux"))]
#[path = "macos/rules.rs"]
mod macos_rules;
#[cfg(all(test, target_os = "linux"))]
#[path = "macos/socket_info.rs"]
mod macos_socket_info;

// What has nothing of the kind.
#[cfg(not(target_os = "linux"))]
pub(crate) mod locks_by_entry;
#[cfg(all(feature = "sandbox", not(target_os = "linux")))]
pub(crate) mod no_sandbox;

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
compile_error!("broker-transport knows Linux, macOS and Windows");

#[cfg(feature = "sandbox")]
pub(crate) use self::os::sandbox;
pub use self::os::{AsDescriptor, BorrowedDescriptor, OwnedDescriptor};
pub(crate) use self::os::{
    PLATFORM, connections, detach, files, held_locks, identity, inherited, limits, listener, lock, memory,
    private_dir, program, service_manager, stream,
};
#[cfg(feature = "tokio")]
pub(crate) use self::os::{passing, process, stop_requests, succession};
