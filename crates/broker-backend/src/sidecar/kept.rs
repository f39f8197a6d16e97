//! A backend's own sidecar, there for as long as it serves.
//!
//! Written in the background, as hashing the executable and reaching the disk take their time. Invariant:
//! the file goes before the endpoint's lock does, so it is never a successor's that is removed.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;

use broker_protocol::wire::DaemonProcess;
use broker_transport::lock::InstanceLock;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{IdentitySidecar, SidecarWriteError};
use crate::backend::Backend;
use crate::identity::Identity;

impl Backend {
    /// Tells in a file beside the endpoint, [`IdentitySidecar::path_for`], which process serves it.
    ///
    /// It is written once the executable is hashed, with what probes are answered with, and goes when the
    /// backend stops. If the future that serves is dropped while the file is on its way to the disk, it goes
    /// right after. A process that is killed leaves it behind, which [`IdentitySidecar::standing`] tells. If it
    /// cannot be written, that is a warning in the log, and the backend serves without.
    #[must_use]
    pub fn with_identity_sidecar(mut self) -> Self {
        match IdentitySidecar::path_for(self.endpoint()) {
            Ok(path) => self.sidecar = Some(path),
            Err(error) => tracing::warn!(%error, "there is no place to tell which process serves"),
        }
        self
    }
}

/// Keeps a sidecar, if there is to be one, until it is dropped.
///
/// Dropped while the file is being written, it goes as soon as it is: [`Kept::end`] waits for that.
pub(crate) struct Kept(State);

enum State {
    /// There is no file, and there will be none.
    Without,
    /// The process is not identified yet.
    Wanted {
        path: PathBuf,
        identity: Identity,
        lock: Option<Arc<InstanceLock>>,
    },
    /// Its result is dropped, and the file with it, if nobody is left to take it. A runtime that goes down
    /// waits for that.
    Writing(JoinHandle<Result<Placed, SidecarWriteError>>),
    Written {
        _placed: Placed,
    },
}

impl Kept {
    pub(crate) fn new(path: Option<PathBuf>, identity: &Identity, lock: Option<&Arc<InstanceLock>>) -> Self {
        Self(match path {
            Some(path) => State::Wanted { path, identity: identity.clone(), lock: lock.map(Arc::clone) },
            None => State::Without,
        })
    }

    /// Writes the file as soon as the process is identified, and never returns. Cancel-safe.
    pub(crate) async fn keep(&mut self) -> Infallible {
        // Who cannot identify itself does not serve, so the failure is told elsewhere.
        if let State::Wanted { path, identity, lock } = &self.0
            && let Ok(process) = identity.known().await
        {
            let (path, lock) = (path.clone(), lock.clone());
            self.0 = State::Writing(spawn_blocking(move || Placed::write(path, process, lock)));
        }
        self.written().await;
        pending().await
    }

    /// Removes the file, be it still on its way to the disk.
    pub(crate) async fn end(mut self) {
        self.written().await;
    }

    async fn written(&mut self) {
        let State::Writing(writing) = &mut self.0 else { return };
        let why: Box<dyn Error> = match writing.await {
            Ok(Ok(placed)) => {
                self.0 = State::Written { _placed: placed };
                return;
            }
            Ok(Err(error)) => error.into(),
            // Its thread panicked, or the runtime goes down.
            Err(error) => error.into(),
        };
        tracing::warn!(%why, "no sidecar tells who serves the endpoint");
        self.0 = State::Without;
    }
}

/// A sidecar that was written here. Removed on drop, if it tells of the same process still.
struct Placed {
    path: PathBuf,
    process: Arc<DaemonProcess>,
    /// Released last.
    _lock: Option<Arc<InstanceLock>>,
}

impl Placed {
    fn write(
        path: PathBuf,
        process: Arc<DaemonProcess>,
        lock: Option<Arc<InstanceLock>>,
    ) -> Result<Self, SidecarWriteError> {
        IdentitySidecar::write(&path, &process)?;
        Ok(Self { path, process, _lock: lock })
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let is_own = match IdentitySidecar::read(&self.path) {
            Ok(Some(sidecar)) => sidecar.process == *self.process,
            Ok(None) | Err(_) => false,
        };
        if is_own && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a sidecar stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32) -> Arc<DaemonProcess> {
        Arc::new(DaemonProcess { pid, boot_id: "boot".into(), ..DaemonProcess::default() })
    }

    fn identity() -> Identity {
        Identity::fixed(DaemonProcess::clone(&process(1)))
    }

    #[test]
    fn a_sidecar_goes_with_its_guard_unless_another_has_taken_its_place() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("be.sock.identity");
        let own = Placed::write(path.clone(), process(1), None).unwrap();
        assert!(path.exists());
        drop(own);
        assert!(!path.exists());

        let old = Placed::write(path.clone(), process(1), None).unwrap();
        IdentitySidecar::write(&path, &process(2)).unwrap();
        drop(old);
        assert_eq!(IdentitySidecar::read(&path).unwrap().unwrap().process, *process(2));
    }

    #[test]
    fn the_endpoints_lock_is_held_until_the_file_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let (path, lock_path) = (place.path().join("be.sock.identity"), place.path().join("be.sock.lock"));
        let lock = Arc::new(InstanceLock::acquire(&lock_path, "be.sock").unwrap());
        let placed = Placed::write(path, process(1), Some(Arc::clone(&lock))).unwrap();
        drop(lock);
        assert!(InstanceLock::acquire(&lock_path, "be.sock").is_err());
        drop(placed);
        InstanceLock::acquire(&lock_path, "be.sock").unwrap();
    }

    /// Lets it go on until it has to wait.
    async fn begin(kept: &mut Kept) {
        tokio::select! {
            biased;
            never = kept.keep() => match never {},
            () = std::future::ready(()) => {}
        }
    }

    #[tokio::test]
    async fn an_end_takes_a_file_away_that_is_still_being_written() {
        let place = tempfile::tempdir().unwrap();
        let (path, lock_path) = (place.path().join("be.sock.identity"), place.path().join("be.sock.lock"));
        let lock = Arc::new(InstanceLock::acquire(&lock_path, "be.sock").unwrap());
        let mut kept = Kept::new(Some(path.clone()), &identity(), Some(&lock));
        drop(lock);
        begin(&mut kept).await;
        assert!(matches!(kept.0, State::Writing(_)));
        kept.end().await;
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "neither a file nor the lock");
    }

    #[test]
    fn a_file_whose_writer_is_left_alone_goes_all_the_same() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("be.sock.identity");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut kept = Kept::new(Some(path), &identity(), None);
            begin(&mut kept).await;
        });
        drop(runtime);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_failure_to_write_is_no_end() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("missing/be.sock.identity");
        let mut kept = Kept::new(Some(path), &identity(), None);
        begin(&mut kept).await;
        kept.written().await;
        assert!(matches!(kept.0, State::Without));
        begin(&mut kept).await;
        kept.end().await;
    }
}
