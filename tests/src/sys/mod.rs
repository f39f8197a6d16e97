//! What the harness asks of the system, behind one face: connections, processes, places.

#[cfg(target_os = "linux")]
pub mod linux;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use self::unix::finish;
#[cfg(unix)]
pub use self::unix::{Listener, Signal, Stream};
#[cfg(unix)]
pub(crate) use self::unix::{
    connect, definitions, endpoint, environment, exists, has_died, home, is_open, is_wine, kill, lock,
    open_connections, passed_as, patient, receive_carried, signal, spawned, state_dir,
};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use self::windows::handles;
#[cfg(windows)]
pub use self::windows::{Listener, Signal, Stream};
#[cfg(windows)]
pub(crate) use self::windows::{
    connect, definitions, endpoint, environment, exists, has_died, home, is_open, is_wine, kill, lock,
    open_connections, passed_as, patient, receive_carried, signal, spawned, state_dir,
};
