//! Where a broker listens: one broker per endpoint, in a directory that is the user's alone (behaviour.md 6).
//!
//! Invariant: the lock is taken before the socket is looked at, and given back after the socket is gone.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use broker_transport::activation::{self, ActivationError};
use broker_transport::listener::{BindError, BindOptions, BoundSocket, Listener};
use broker_transport::lock::{InstanceLock, LockError};
use broker_transport::{endpoint, identity, private_dir};

use super::settings::{Settings, unusable_directory};
use crate::failure::Failure;

/// Lets root serve.
pub(crate) const ALLOW_PRIVILEGED: &str = "RUNNING_PROCESS_BROKER_ALLOW_PRIVILEGED";

/// What to do where neither the socket nor its lock can be had.
const ELSEWHERE: &str = "see to what is there, or choose another place with --socket PATH";

/// How long a listener may outlive the lock that went with it.
const OUTLIVES_LOCK: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Pipes that show that there are descriptors for the event loop and its threads: two for each.
const PIPES: usize = 16;

/// Refuses to begin where too few descriptors are left: the event loop would panic.
///
/// # Errors
/// The limit is too low, or what was inherited takes it up.
pub(super) fn require_descriptors() -> Result<(), Failure> {
    let pipes: Result<Vec<_>, _> = (0..PIPES).map(|_| std::io::pipe()).collect();
    pipes.map(drop).map_err(|error| {
        let needed = 2 * PIPES;
        Failure::refused(format!("cannot have the {needed} file descriptors that it takes to begin: {error}"))
            .next("raise the limit, as with `ulimit -n 1024`, or close what the broker inherits")
    })
}

/// Refuses to serve with the system's highest rights: every backend would have them too.
///
/// # Errors
/// This is root, and nobody said that it may be.
pub(super) fn refuse_privileged() -> Result<(), Failure> {
    let is_allowed = std::env::var_os(ALLOW_PRIVILEGED).is_some_and(|value| value == "1");
    if identity::is_privileged() && !is_allowed {
        return Err(Failure::refused(
            "refusing to serve as a privileged user: every backend would run with these rights",
        )
        .next(format!("run it as an ordinary user, or set {ALLOW_PRIVILEGED}=1 if that is what you want")));
    }
    Ok(())
}

/// An endpoint that is ours, bound but not yet accepted on.
#[derive(Debug)]
pub(super) struct Place {
    socket: BoundSocket,
    path: PathBuf,
    lock: InstanceLock,
}

impl Place {
    /// Takes the endpoint, or says who has it.
    ///
    /// # Errors
    /// Exit code 3 where another broker is there; otherwise what is wrong with the place.
    pub(super) fn take(settings: &Settings) -> Result<Self, Failure> {
        let path = settings.socket.value.clone();
        endpoint::check_length(endpoint::Platform::CURRENT, &path)
            .map_err(|error| Failure::usage(error).next("pass a shorter path with --socket PATH"))?;
        let directory = endpoint::dir_beside(&path).map_err(Failure::usage)?;
        let lock_path = endpoint::lock_path(&path).map_err(Failure::usage)?;
        let backends = endpoint::current_runtime_dir().map_err(Failure::usage)?;
        let places = [
            (&directory, "make that possible, or choose another place with --socket PATH"),
            (
                &backends,
                "make that possible, or set XDG_RUNTIME_DIR (on macOS TMPDIR) to a directory of yours with room",
            ),
        ];
        for (directory, advice) in places {
            private_dir::ensure_private_dir(directory)
                .map_err(|error| unusable_directory(error, advice.to_owned()))?;
            private_dir::refuse_network_filesystem(directory).map_err(Failure::refused)?;
        }
        endpoint::new_backend_endpoint().map_err(|error| {
            Failure::usage(error)
                .next("backends listen there: set XDG_RUNTIME_DIR (on macOS TMPDIR) to a shorter directory, or unset it")
        })?;
        let lock = InstanceLock::acquire(&lock_path, &path.to_string_lossy());
        let lock = lock.map_err(|error| match error {
            LockError::Held { .. } => {
                already_running(&format!("a broker serves {} already: {error}", path.display()))
            }
            LockError::NotAFile { .. } | LockError::Io { .. } => Failure::refused(error).next(ELSEWHERE),
        })?;
        let socket = match passed(&path)? {
            Some(socket) => socket,
            None => bind(&path)?,
        };
        Ok(Self { socket, path, lock })
    }

    /// The endpoint of a predecessor.
    pub(super) const fn taken_over(socket: BoundSocket, path: PathBuf, lock: InstanceLock) -> Self {
        Self { socket, path, lock }
    }

    /// Begins to accept; the lock is to be held as long as the listener lives.
    ///
    /// # Errors
    /// The event loop does not take the socket.
    pub(super) fn listen(self) -> Result<(Listener, InstanceLock), Failure> {
        let Self { socket, path, lock } = self;
        let listener = Listener::from_bound(socket)
            .map_err(|error| Failure::refused(format!("cannot accept on {}: {error}", path.display())))?;
        Ok((listener, lock))
    }
}

/// Binds the endpoint, whose lock is ours. What has held that, or was just forked by it, may still be ending: its
/// descriptors are closed one after the other.
fn bind_patiently(path: &Path) -> Result<BoundSocket, BindError> {
    let deadline = Instant::now() + OUTLIVES_LOCK;
    loop {
        match BoundSocket::bind(path, &BindOptions::default()) {
            Err(BindError::InUse { .. }) if Instant::now() < deadline => std::thread::sleep(LOOK_AGAIN),
            bound => return bound,
        }
    }
}

fn bind(path: &Path) -> Result<BoundSocket, Failure> {
    bind_patiently(path).map_err(|error| match error {
        BindError::InUse { .. } => already_running(&error.to_string()),
        BindError::NotASocket { .. }
        | BindError::TooLong { .. }
        | BindError::NotAListener { .. }
        | BindError::Io { .. } => Failure::refused(error).next(ELSEWHERE),
    })
}

/// The listener that the service manager has bound and keeps; its file is not removed here.
fn passed(path: &Path) -> Result<Option<BoundSocket>, Failure> {
    let failure = |error: &ActivationError| {
        Failure::refused(format!("cannot serve the listener that was passed by LISTEN_FDS: {error}"))
    };
    let taken = match activation::take_broker_listener(path) {
        // Whomever it names, it is not this process.
        Err(error @ ActivationError::NotANumber { variable: "LISTEN_PID", .. }) => {
            tracing::warn!(%error, "what was passed is left alone");
            Ok(None)
        }
        taken => taken,
    };
    taken.map_err(|error| match &error {
        ActivationError::Elsewhere { found, .. } => failure(&error).next(format!(
            "set ListenStream= of the socket unit to {}, or serve with --socket {found}",
            path.display()
        )),
        ActivationError::Nameless { name, .. } => {
            failure(&error).next(format!("set FileDescriptorName={name} in the socket unit of the broker"))
        }
        ActivationError::NotANumber { .. }
        | ActivationError::Taken
        | ActivationError::NotTheParents { .. }
        | ActivationError::Listener(_) => failure(&error)
            .next("unset LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES to have the broker bind its own"),
    })
}

fn already_running(what: &str) -> Failure {
    Failure::already_running(what).next(
        "use the one that runs, end it with `brokerd shutdown`, or choose another --instance or --socket",
    )
}
