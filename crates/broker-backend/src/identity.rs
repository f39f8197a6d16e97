//! Which process this is, as it answers a probe (protocol.md, "Conversations" 3; the message
//! `DaemonProcess`).
//!
//! Hashing the executable takes as long as the file is large, and the broker asks as soon as the
//! process exists. So it is hashed on a thread of its own while the endpoint is being bound, and a
//! probe that comes too early waits. Invariant: the hash is of the very file that this process runs,
//! whatever lies at its path by now, and is computed once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use broker_protocol::probe::EXE_HASH_ALGORITHM;
use broker_protocol::wire::{DaemonProcess, Endpoint};
use broker_transport::endpoint::pipe_leaf;
use broker_transport::identity::{self, IdentityError};
use thiserror::Error;
use tokio::sync::watch;

/// Why this process cannot say which one it is.
#[derive(Debug, Error)]
pub enum Unidentified {
    /// The system does not tell.
    #[error("this process cannot identify itself: {0}")]
    Fact(#[from] IdentityError),
    /// The path of the endpoint does not fit a message.
    #[error("expected an endpoint in UTF-8, got {endpoint:?}")]
    NotUtf8 {
        /// The endpoint.
        endpoint: PathBuf,
    },
    /// There is no thread to hash the executable on.
    #[error("cannot start a thread to hash the executable: {0}")]
    Thread(#[source] io::Error),
    /// The thread that hashed the executable is gone.
    #[error("the executable was not hashed to the end")]
    Interrupted,
}

type Outcome = Result<Arc<DaemonProcess>, Arc<Unidentified>>;

/// What this process answers a probe with. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `None` until the executable is hashed.
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Identity {
    /// Begins to identify this process, which listens on `endpoint` in `namespace`. Does not wait for
    /// the executable to be hashed.
    ///
    /// # Errors
    /// [`Unidentified`].
    pub fn of_this_process(endpoint: &Path, namespace: &str) -> Result<Self, Unidentified> {
        let pid = std::process::id();
        let mut process = DaemonProcess {
            pid,
            // For people: what identifies the file is the hash.
            exe_path: identity::process_executable(pid)?.to_string_lossy().into_owned(),
            ipc_endpoint: Some(Endpoint { namespace_id: namespace.to_owned(), path: text(endpoint)? }),
            started_at_unix_ms: unix_ms(SystemTime::now()),
            boot_id: identity::boot_id()?,
            exe_hash_algorithm: EXE_HASH_ALGORITHM.to_owned(),
            ..DaemonProcess::default()
        };
        let (tell, outcome) = watch::channel(None);
        let hash = move || {
            let hashed = identity::hash_process_executable(pid).map(|hash| {
                process.exe_hash = hash.to_vec();
                Arc::new(process)
            });
            tell.send_replace(Some(hashed.map_err(|error| Arc::new(error.into()))));
        };
        // Not tokio's blocking threads: a runtime that goes down would wait for them.
        thread::Builder::new().name("identity".to_owned()).spawn(hash).map_err(Unidentified::Thread)?;
        Ok(Self { outcome })
    }

    /// An identity that is what it is told to be, for a process that answers in another one's place.
    pub fn fixed(process: DaemonProcess) -> Self {
        let (_, outcome) = watch::channel(Some(Ok(Arc::new(process))));
        Self { outcome }
    }

    /// The identity, as soon as the executable is hashed. Cancel-safe.
    ///
    /// # Errors
    /// [`Unidentified`].
    pub async fn known(&self) -> Result<Arc<DaemonProcess>, Arc<Unidentified>> {
        match self.outcome.clone().wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            Ok(None) | Err(_) => Err(Arc::new(Unidentified::Interrupted)),
        }
    }

    /// Returns only if this process cannot be identified. Cancel-safe.
    pub(crate) async fn failed(&self) -> Arc<Unidentified> {
        match self.known().await {
            Ok(_) => std::future::pending().await,
            Err(error) => error,
        }
    }
}

/// The endpoint as a message carries it: a pipe by its bare leaf.
fn text(endpoint: &Path) -> Result<String, Unidentified> {
    match endpoint.to_str() {
        Some(text) => Ok(pipe_leaf(text).to_owned()),
        None => Err(Unidentified::NotUtf8 { endpoint: endpoint.to_path_buf() }),
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_asks_before_the_hash_is_known_waits_for_it() {
        let (tell, outcome) = watch::channel(None);
        let identity = Identity { outcome };
        let asked = identity.clone();
        let mut early = pin!(asked.known());
        assert!(early.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let process = DaemonProcess { pid: 7, ..DaemonProcess::default() };
        tell.send_replace(Some(Ok(Arc::new(process))));
        assert_eq!(early.await.unwrap().pid, 7);
        drop(tell);
        assert_eq!(identity.known().await.unwrap().pid, 7, "what is known stays known");
    }

    #[tokio::test]
    async fn a_hash_that_never_comes_is_an_error() {
        let (tell, outcome) = watch::channel(None);
        let identity = Identity { outcome };
        drop(tell);
        assert!(matches!(*identity.known().await.unwrap_err(), Unidentified::Interrupted));
        assert!(matches!(*identity.failed().await, Unidentified::Interrupted));
    }

    #[tokio::test]
    async fn a_fixed_identity_is_known_at_once() {
        let process = DaemonProcess { pid: 7, ..DaemonProcess::default() };
        assert_eq!(*Identity::fixed(process.clone()).known().await.unwrap(), process);
    }

    #[test]
    fn time_is_counted_in_milliseconds_from_the_epoch_on() {
        assert_eq!(unix_ms(UNIX_EPOCH + Duration::from_micros(1_500_999)), 1500);
        assert_eq!(unix_ms(UNIX_EPOCH - Duration::from_secs(1)), 0);
    }

    #[test]
    fn a_pipe_is_named_by_its_leaf() {
        assert_eq!(text(Path::new(r"\\.\pipe\rpb-v1-x")).unwrap(), "rpb-v1-x");
        assert_eq!(text(Path::new("/run/be.sock")).unwrap(), "/run/be.sock");
    }
}
