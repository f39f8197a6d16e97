//! One endpoint, two wire formats: a look at a connection's first bytes decides which one it speaks.
//!
//! For a daemon that has clients of an older format and cannot give them another endpoint. What a look
//! cannot tell apart is the detector's business, and what the older format says is its handler's.
//! Invariants: nothing is read off a connection before it is decided, so whoever gets it reads it from the
//! first byte on; and an undecided one ends after [`FIRST_BYTES_LIMIT`] bytes or [`FIRST_BYTES_TIMEOUT`],
//! sleeping in between, whatever its peer does.

mod frames;
mod legacy;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use broker_transport::stream::Stream;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

pub use self::frames::detect_frames;
use self::legacy::Legacy;
pub use self::legacy::{LegacyConnection, StopNotice};
use crate::backend::Backend;
use crate::connection::{Connection, EndedBy, stop_of};
use crate::handler::Handler;

/// How many bytes a detector may ask for.
pub const FIRST_BYTES_LIMIT: usize = 1024;

/// How long a connection may take, from when it is accepted, to send as many bytes as decide.
pub const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);

/// What a detector says of a connection's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Frames of this protocol: the connection is served as any other.
    Ours,
    /// The older format: the connection goes to its handler, with every byte still in the socket.
    Theirs,
    /// These bytes do not tell; the detector is asked again with more.
    NeedMore,
}

impl Backend {
    /// Serves clients of an older wire format on the same endpoint.
    ///
    /// `detector` is called with a connection's first bytes, one at least, as often as more of them have
    /// come. They are only looked at. [`detect_frames`] tells frames from most else; an older format that
    /// it would take for frames needs a detector that knows it. A detector should answer at once, as the
    /// event loop waits for it, and its panic closes the connection.
    ///
    /// A connection that is not of this protocol goes to `handler`, in a task of its own. Its peer is the
    /// user that this process runs as, like every other's. A connection is closed, and told to nobody, if
    /// its client does not send the bytes that decide within [`FIRST_BYTES_TIMEOUT`], leaves or ends its
    /// direction before, or if the first [`FIRST_BYTES_LIMIT`] bytes do not tell. So the older format has to
    /// be one in which the client speaks first, and a client of either has to speak soon.
    ///
    /// When the backend stops, [`LegacyConnection::stop`] tells the handlers. They get
    /// [`DRAIN_LIMIT`](crate::DRAIN_LIMIT) to end, then they are dropped, and their connections with them.
    /// Undecided connections of which nothing has come are closed at once.
    ///
    /// Connections that come another way than through the endpoint are never of the older format.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use broker_backend::{Backend, LegacyConnection, Request, detect_frames};
    /// # use broker_transport::{probe::probe_identity, stream::Stream};
    ///
    /// async fn old_format(client: LegacyConnection) -> std::io::Result<()> {
    ///     let mut line = [0; 64];
    ///     let length = client.stream.read_some(&mut line).await?;
    ///     client.stream.send_all(&line[..length].to_ascii_uppercase()).await
    /// }
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # runtime.block_on(async {
    /// # let place = tempfile::tempdir()?;
    /// # let endpoint = place.path().join("be.sock");
    /// let backend = Backend::bind(&endpoint)?.with_legacy(detect_frames, |client| async {
    ///     if let Err(error) = old_format(client).await {
    ///         eprintln!("an old client: {error}");
    ///     }
    /// });
    /// # let serving =
    /// tokio::spawn(backend.serve(async |request: Request| request.into_payload()));
    ///
    /// let old_client = Stream::connect(&endpoint).await?;
    /// old_client.send_all(b"ping").await?;
    /// let mut answer = [0; 4];
    /// old_client.read_some(&mut answer).await?;
    /// assert_eq!(&answer, b"PING");
    ///
    /// // The protocol's own clients see no difference.
    /// assert_eq!(probe_identity(&endpoint).await?.pid, std::process::id());
    /// # serving.abort();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_legacy<A>(
        mut self,
        detector: impl Fn(&[u8]) -> Verdict + Send + Sync + 'static,
        handler: impl Fn(LegacyConnection) -> A + Send + Sync + 'static,
    ) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
    {
        self.mux = Some(Mux { detector: Arc::new(detector), legacy: Legacy::new(handler) });
        self
    }
}

type Detector = dyn Fn(&[u8]) -> Verdict + Send + Sync;

/// Decides whose a connection is. Cloning it is cheap.
#[derive(Clone)]
pub(crate) struct Mux {
    detector: Arc<Detector>,
    legacy: Legacy,
}

/// Whose a connection is.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    Ours,
    Theirs,
}

/// Why a connection was closed before anybody got it.
#[derive(Debug, Error)]
enum Undecided {
    #[error("its peer ended it after {seen} bytes, which do not tell what it speaks")]
    Ended { seen: usize },
    #[error("its first {FIRST_BYTES_LIMIT} bytes do not tell what it speaks")]
    Limit,
    #[error("it did not tell what it speaks within {} s", FIRST_BYTES_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the backend stops, and it has said nothing")]
    Stopping,
    #[error("cannot look at what it sent: {0}")]
    Peek(#[from] io::Error),
}

impl Mux {
    /// Serves a connection that was accepted just now, by whoever's it is.
    pub(crate) async fn serve<H: Handler>(self, mut connection: Connection<H>) -> EndedBy {
        match self.decide(&mut connection.stream, &mut connection.is_stopping).await {
            Ok(Side::Ours) => return connection.serve().await,
            Ok(Side::Theirs) => {
                let Connection { stream, peer, is_stopping, .. } = connection;
                let stop = StopNotice::new(is_stopping);
                self.legacy.serve(LegacyConnection { stream, peer, stop }).await;
            }
            Err(why) => tracing::debug!(%why, "closed undecided"),
        }
        EndedBy::Us
    }

    async fn decide(
        &self,
        stream: &mut Stream,
        is_stopping: &mut watch::Receiver<bool>,
    ) -> Result<Side, Undecided> {
        let deadline = Instant::now() + FIRST_BYTES_TIMEOUT;
        let mut first = vec![0; FIRST_BYTES_LIMIT];
        let decided = tokio::select! {
            biased;
            decided = timeout_at(deadline, self.look(stream, &mut first)) => decided,
            () = stop_of(is_stopping) => match stream.try_peek(&mut first) {
                // What has begun to arrive is let in, as on a connection whose side is known.
                Ok(_) => timeout_at(deadline, self.look(stream, &mut first)).await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Undecided::Stopping),
                Err(error) => return Err(error.into()),
            },
        };
        decided.unwrap_or(Err(Undecided::TimedOut))
    }

    /// Looks until the detector has decided. Cancel-safe: the bytes are where they were.
    async fn look(&self, stream: &mut Stream, first: &mut [u8]) -> Result<Side, Undecided> {
        let mut seen = 0;
        loop {
            let count = stream.peek_beyond(seen, first).await?;
            if count <= seen {
                return Err(Undecided::Ended { seen });
            }
            match (self.detector)(&first[..count]) {
                Verdict::Ours => return Ok(Side::Ours),
                Verdict::Theirs => return Ok(Side::Theirs),
                Verdict::NeedMore if count == first.len() => return Err(Undecided::Limit),
                Verdict::NeedMore => seen = count,
            }
        }
    }
}

impl fmt::Debug for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mux")
    }
}
