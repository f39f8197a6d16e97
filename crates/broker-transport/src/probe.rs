//! Asking an endpoint who serves it (protocol.md, "Conversations" 3; behaviour.md, section 4, "Ready").
//!
//! The frames are `broker-protocol`'s; this module carries them. Invariants: a probe ends within its
//! time whatever the other side does, takes at most [`MAX_ANSWER`] bytes from it, and waiting for a
//! child to become ready ends the moment the child dies.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use broker_protocol::prost::{DecodeError, Message};
use broker_protocol::wire::{DaemonProcess, Frame};
use broker_protocol::{FramingError, frame_bytes, probe};
use bytes::Bytes;
use thiserror::Error;

use crate::frame_io::{ReadError, read_frame_body_blocking};
use crate::peer::PeerCredentials;
use crate::stream::{BlockingStream, ConnectError, ConnectErrorKind};

#[cfg(feature = "tokio")]
pub use self::ready::{LastProbe, NotReady, wait_ready};
pub use broker_protocol::probe::{Expectation, Mismatch, PROBE_TIMEOUT, ProbeFault};

/// Longest answer to a probe, in bytes of the frame's body.
pub const MAX_ANSWER: usize = 64 * 1024;

/// A probe has a connection of its own, so one id is as good as another.
const REQUEST_ID: u64 = 1;

/// Why a probe brought no identity.
#[derive(Debug, Error)]
#[error("no identity from {}: {cause}", endpoint.display())]
pub struct ProbeError {
    /// The endpoint.
    pub endpoint: PathBuf,
    /// What went wrong.
    #[source]
    pub cause: ProbeFailure,
}

impl ProbeError {
    /// Whether the same probe may come to something else in a moment: nobody can tell yet who is there.
    pub const fn may_pass(&self) -> bool {
        match &self.cause {
            ProbeFailure::Connect(error) => {
                matches!(error.kind, ConnectErrorKind::Busy | ConnectErrorKind::Other)
            }
            ProbeFailure::Peer(_)
            | ProbeFailure::TimedOut { .. }
            | ProbeFailure::Write(_)
            | ProbeFailure::Read(_)
            | ProbeFailure::Randomness(_) => true,
            ProbeFailure::ForeignUser { .. }
            | ProbeFailure::NotAFrame(_)
            | ProbeFailure::Fault(_)
            | ProbeFailure::Framing(_) => false,
        }
    }
}

/// What went wrong in a probe.
#[derive(Debug, Error)]
pub enum ProbeFailure {
    /// Nobody to ask.
    #[error(transparent)]
    Connect(ConnectError),
    /// The kernel does not say who listens there.
    #[error("the kernel does not say who listens there: {0}")]
    Peer(io::Error),
    /// Somebody else's process listens there; it was not asked.
    #[error("a process of user {user} listens there")]
    ForeignUser {
        /// The user, by number.
        user: u64,
    },
    /// No whole answer in time.
    #[error("no answer within {} ms", after.as_millis())]
    TimedOut {
        /// How long the probe waited.
        after: Duration,
    },
    /// The question could not be sent.
    #[error("cannot send the question: {0}")]
    Write(io::Error),
    /// The answer could not be read.
    #[error(transparent)]
    Read(ReadError),
    /// The answer is no frame.
    #[error("the answer is not a Frame: {0}")]
    NotAFrame(DecodeError),
    /// The answer is none to this question.
    #[error(transparent)]
    Fault(ProbeFault),
    /// The question could not be made.
    #[error("cannot make a nonce: {0}")]
    Randomness(getrandom::Error),
    /// The question could not be framed.
    #[error(transparent)]
    Framing(FramingError),
}

/// Asks an endpoint who serves it; takes at most [`PROBE_TIMEOUT`].
///
/// # Errors
/// [`ProbeError`].
#[cfg(feature = "tokio")]
pub async fn probe_identity(endpoint: impl AsRef<Path>) -> Result<DaemonProcess, ProbeError> {
    probe_identity_within(endpoint, PROBE_TIMEOUT).await
}

/// Asks an endpoint who serves it; takes at most `limit`.
///
/// # Errors
/// [`ProbeError`].
#[cfg(feature = "tokio")]
pub async fn probe_identity_within(
    endpoint: impl AsRef<Path>,
    limit: Duration,
) -> Result<DaemonProcess, ProbeError> {
    let endpoint = endpoint.as_ref();
    let outcome = match tokio::time::timeout(limit, ask(endpoint)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ProbeFailure::TimedOut { after: limit }),
    };
    outcome.map_err(|cause| ProbeError { endpoint: endpoint.to_path_buf(), cause })
}

#[cfg(feature = "tokio")]
async fn ask(endpoint: &Path) -> Result<DaemonProcess, ProbeFailure> {
    let (request, wire) = question()?;
    let stream = crate::stream::Stream::connect(endpoint).await.map_err(ProbeFailure::Connect)?;
    refuse_foreign(stream.peer())?;
    stream.send_all(&wire).await.map_err(ProbeFailure::Write)?;
    let body = crate::frame_io::read_frame_body(&stream, MAX_ANSWER).await.map_err(ProbeFailure::Read)?;
    identity(&request, body)
}

/// The blocking twin of `probe_identity`.
///
/// # Errors
/// [`ProbeError`].
pub fn probe_identity_blocking(endpoint: impl AsRef<Path>) -> Result<DaemonProcess, ProbeError> {
    let endpoint = endpoint.as_ref();
    ask_blocking(endpoint).map_err(|cause| ProbeError { endpoint: endpoint.to_path_buf(), cause })
}

fn ask_blocking(endpoint: &Path) -> Result<DaemonProcess, ProbeFailure> {
    let deadline = Some(Instant::now() + PROBE_TIMEOUT);
    let timed_out = || ProbeFailure::TimedOut { after: PROBE_TIMEOUT };
    let (request, wire) = question()?;
    let stream = BlockingStream::connect(endpoint, Some(PROBE_TIMEOUT)).map_err(ProbeFailure::Connect)?;
    refuse_foreign(stream.peer())?;
    stream.send_all_before(&wire, deadline).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => timed_out(),
        _ => ProbeFailure::Write(error),
    })?;
    let body = read_frame_body_blocking(&stream, MAX_ANSWER, deadline).map_err(|error| match error {
        ReadError::Io(error) if error.kind() == io::ErrorKind::TimedOut => timed_out(),
        error => ProbeFailure::Read(error),
    })?;
    identity(&request, body)
}

/// A process of another user may listen where ours once did: what it says of itself proves nothing.
fn refuse_foreign(peer: io::Result<PeerCredentials>) -> Result<(), ProbeFailure> {
    match peer.map_err(ProbeFailure::Peer)?.user {
        user if user.is_self() => Ok(()),
        user => Err(ProbeFailure::ForeignUser { user: user.key() }),
    }
}

fn question() -> Result<(Frame, Bytes), ProbeFailure> {
    let mut nonce: probe::Nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(ProbeFailure::Randomness)?;
    let request = probe::request(&nonce, REQUEST_ID);
    let wire = frame_bytes(&request).map_err(ProbeFailure::Framing)?;
    Ok((request, wire))
}

fn identity(request: &Frame, body: Bytes) -> Result<DaemonProcess, ProbeFailure> {
    let answer = Frame::decode(body).map_err(ProbeFailure::NotAFrame)?;
    probe::identity(request, &answer).map_err(ProbeFailure::Fault)
}

#[cfg(feature = "tokio")]
mod ready {
    //! Waiting for a child to answer.

    use super::{
        DaemonProcess, Duration, Error, Expectation, Mismatch, PROBE_TIMEOUT, Path, ProbeError, io,
        probe_identity_within,
    };
    use crate::process::{ChildProcess, Exit};

    /// First and longest pause between two probes.
    const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

    /// Why a child did not become ready.
    #[derive(Debug, Error)]
    pub enum NotReady {
        /// It ended. The last of its stderr is in [`ChildProcess::stderr`].
        #[error("it ended with {exit} before it answered")]
        Died {
            /// How.
            exit: Exit,
        },
        /// It lives, but does not answer.
        #[error("it did not answer within {} ms ({last})", after.as_millis())]
        TimedOut {
            /// How long it had.
            after: Duration,
            /// What the last probe met with.
            last: LastProbe,
        },
        /// Another process answers.
        #[error(transparent)]
        Mismatch(#[from] Mismatch),
        /// Whether it lives cannot be found out.
        #[error("cannot watch it: {0}")]
        Watch(#[from] io::Error),
    }

    /// What the last probe before a timeout met with.
    #[derive(Debug)]
    pub struct LastProbe(pub Option<ProbeError>);

    impl std::fmt::Display for LastProbe {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            match &self.0 {
                Some(error) => error.fmt(f),
                None => f.write_str("no probe came back"),
            }
        }
    }

    /// Probes a child's endpoint until it answers as expected, it dies, or `limit` has passed.
    ///
    /// The first probe starts at once; the pause between two grows from 1 ms to 50 ms.
    ///
    /// # Errors
    /// [`NotReady`]. The child is not ended.
    pub async fn wait_ready(
        endpoint: impl AsRef<Path>,
        child: &ChildProcess,
        expectation: &Expectation,
        limit: Duration,
    ) -> Result<DaemonProcess, NotReady> {
        let mut last = None;
        tokio::select! {
            biased;
            exit = child.wait() => Err(NotReady::Died { exit: exit? }),
            identity = probe_until_answered(endpoint.as_ref(), &mut last) => {
                expectation.check(&identity)?;
                Ok(identity)
            }
            () = tokio::time::sleep(limit) => {
                Err(NotReady::TimedOut { after: limit, last: LastProbe(None) })
            }
        }
        .map_err(|error| match error {
            NotReady::TimedOut { after, .. } => NotReady::TimedOut { after, last: LastProbe(last) },
            error => error,
        })
    }

    async fn probe_until_answered(endpoint: &Path, last: &mut Option<ProbeError>) -> DaemonProcess {
        let mut pause = PAUSE.0;
        loop {
            match probe_identity_within(endpoint, PROBE_TIMEOUT).await {
                Ok(identity) => return identity,
                Err(error) => *last = Some(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}
