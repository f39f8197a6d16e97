//! Accepting on tokio.
//!
//! Several instances wait for clients side by side; one that was taken is replaced before its client is
//! handed out. Invariant: a connection's credentials are read right after it was accepted, before a byte of
//! it.

use std::future::poll_fn;
use std::io;
use std::os::windows::io::{AsHandle, OwnedHandle};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use windows_sys::Win32::Foundation::{ERROR_NO_DATA, ERROR_PIPE_CONNECTED};

use super::error::is;
use super::limits::is_descriptor_shortage;
use super::listener::{BoundSocket, PipeName};
use super::overlapped::{Call, Overlapped, is_cancelled};
use super::peer;
use super::pipe::{End, Instance};
use super::stream::Stream;
use super::wake::{EventWatch, Wakers};
use crate::listener::{AcceptError, BindError, BindOptions};
use crate::peer::PeerCredentials;

/// Most instances that wait for clients at once. Clients that find none try again.
const MAX_WAITING: usize = 64;

/// A connection that was just accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection; not a byte of it was read.
    pub stream: Stream,
    /// Who is at the other end, or why the system does not say.
    pub peer: io::Result<PeerCredentials>,
}

/// A listening endpoint on tokio. On drop it is gone.
#[derive(Debug)]
pub struct Listener {
    bound: BoundSocket,
    instances: Mutex<Instances>,
}

#[derive(Debug)]
struct Instances {
    waiting: Vec<Waiting>,
    wanted: usize,
    wakers: Arc<Wakers>,
}

/// An instance that waits for its client.
#[derive(Debug)]
struct Waiting {
    /// Before the call, whose event it watches.
    watch: EventWatch,
    call: Overlapped,
    pipe: Arc<OwnedHandle>,
    is_connected: bool,
}

impl Waiting {
    fn begin(pipe: Arc<OwnedHandle>, wakers: &Arc<Wakers>) -> io::Result<Self> {
        let watch = EventWatch::new(Arc::clone(wakers))?;
        let mut call = Overlapped::new(Arc::clone(&pipe))?;
        // SAFETY: the call has no bytes.
        let is_connected = match unsafe { call.start(Call::Connect) } {
            Ok(None) => false,
            Ok(Some(_)) => true,
            Err(error) if is_client(&error) => true,
            Err(error) => return Err(error),
        };
        if !is_connected {
            watch.watch(call.event());
        }
        Ok(Self { watch, call, pipe, is_connected })
    }

    /// Whether a client is there, or was.
    fn is_taken(&mut self, wakers: &Arc<Wakers>) -> io::Result<bool> {
        if !self.is_connected {
            match self.call.outcome() {
                Ok(None) => return Ok(false),
                Ok(Some(_)) => {}
                Err(error) if is_client(&error) => {}
                // The thread that began it has ended.
                Err(error) if is_cancelled(&error) => {
                    *self = Self::begin(Arc::clone(&self.pipe), wakers)?;
                    return Ok(self.is_connected);
                }
                Err(error) => return Err(error),
            }
            self.is_connected = true;
        }
        Ok(true)
    }

    fn into_pipe(self) -> io::Result<OwnedHandle> {
        let Self { watch, call, pipe, .. } = self;
        drop((watch, call));
        Arc::try_unwrap(pipe).or_else(|shared| shared.try_clone())
    }
}

/// A client came before it was waited for; it may be gone again, which reading from it tells.
fn is_client(error: &io::Error) -> bool {
    is(error, ERROR_PIPE_CONNECTED) || is(error, ERROR_NO_DATA)
}

impl Instances {
    /// Makes as many as are wanted.
    fn fill(&mut self, name: &PipeName) -> io::Result<()> {
        while self.waiting.len() < self.wanted {
            let pipe = name.instance(Instance::Further)?;
            self.waiting.push(Waiting::begin(Arc::new(pipe), &self.wakers)?);
        }
        Ok(())
    }

    /// The next client, whose instance is replaced by another. One that has gone again is passed over: who it
    /// was cannot be told any more, and nobody is there to be answered.
    fn take(&mut self, name: &PipeName) -> io::Result<Option<Accepted>> {
        self.fill(name)?;
        while let Some(pipe) = self.take_pipe()? {
            // One that cannot be replaced now is replaced by the next call, which tells why not.
            let _ = self.fill(name);
            let peer = peer::credentials(pipe.as_handle(), End::Server);
            if !matches!(&peer, Err(error) if error.kind() == io::ErrorKind::NotConnected) {
                return Ok(Some(Accepted { stream: Stream::new(pipe, End::Server), peer }));
            }
        }
        Ok(None)
    }

    fn take_pipe(&mut self) -> io::Result<Option<OwnedHandle>> {
        for index in 0..self.waiting.len() {
            match self.waiting[index].is_taken(&self.wakers) {
                Ok(false) => {}
                Ok(true) => return self.waiting.remove(index).into_pipe().map(Some),
                Err(error) => {
                    self.waiting.remove(index);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }
}

impl Listener {
    /// Makes the pipe, see [`BoundSocket::bind`].
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(path: impl AsRef<Path>, options: &BindOptions) -> Result<Self, BindError> {
        let path = path.as_ref();
        Self::from_bound(BoundSocket::bind(path, options)?).map_err(|source| BindError::Io {
            operation: "watch",
            path: path.to_path_buf(),
            source,
        })
    }

    /// Accepts on a pipe that was made already.
    ///
    /// # Errors
    /// No instance is left.
    pub fn from_bound(mut bound: BoundSocket) -> io::Result<Self> {
        let wanted = usize::try_from(bound.backlog).unwrap_or(usize::MAX).clamp(1, MAX_WAITING);
        let mut instances = Instances { waiting: Vec::new(), wanted, wakers: Arc::default() };
        // Handed on, as it would stay open with a handle of it here.
        if let Some(first) = bound.first.take() {
            instances.waiting.push(Waiting::begin(Arc::new(first), &instances.wakers)?);
        }
        instances.fill(&bound.name)?;
        Ok(Self { bound, instances: Mutex::new(instances) })
    }

    /// The pipe, of which one instance is left: clients that wait at others are turned away.
    pub fn into_bound(self) -> BoundSocket {
        let Self { mut bound, instances } = self;
        let instances = instances.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut free = instances.waiting.into_iter().filter(|waiting| !waiting.is_connected);
        bound.first = free.next().and_then(|waiting| waiting.into_pipe().ok());
        bound
    }

    /// The pipe.
    pub const fn bound(&self) -> &BoundSocket {
        &self.bound
    }

    /// Nothing: there is no file.
    pub fn keep_file(&mut self) {}

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// [`AcceptError`]; the listener stays usable.
    pub async fn accept(&self) -> Result<Accepted, AcceptError> {
        tokio::task::coop::consume_budget().await;
        poll_fn(|context| self.poll_take(context)).await
    }

    /// Waits for connections and takes in all that wait, but no more than `most`; each goes to `take`.
    /// Cancel-safe: nothing is accepted that is not taken.
    ///
    /// # Errors
    /// [`AcceptError`], after those that were taken before; the listener stays usable.
    pub async fn accept_waiting(
        &self,
        most: usize,
        mut take: impl FnMut(Accepted),
    ) -> Result<(), AcceptError> {
        take(self.accept().await?);
        for _ in 1..most {
            match self.try_accept()? {
                Some(accepted) => take(accepted),
                None => break,
            }
        }
        Ok(())
    }

    /// The next connection that waits already; `None` when there is none.
    ///
    /// # Errors
    /// [`AcceptError`]; the listener stays usable.
    pub fn try_accept(&self) -> Result<Option<Accepted>, AcceptError> {
        self.instances().take(&self.bound.name).map_err(classify)
    }

    fn poll_take(&self, context: &Context<'_>) -> Poll<Result<Accepted, AcceptError>> {
        let mut instances = self.instances();
        // Before the look, so that no news falls between the two.
        instances.wakers.add(context);
        match instances.take(&self.bound.name) {
            Ok(Some(accepted)) => Poll::Ready(Ok(accepted)),
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(classify(error))),
        }
    }

    fn instances(&self) -> MutexGuard<'_, Instances> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn classify(error: io::Error) -> AcceptError {
    if is_descriptor_shortage(&error) {
        AcceptError::DescriptorPressure(error)
    } else {
        AcceptError::Other(error)
    }
}
