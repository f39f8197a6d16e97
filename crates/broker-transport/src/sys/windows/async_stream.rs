//! The async stream over a named pipe.
//!
//! It reads only what its caller asks for: a read of nothing, which the system ends when there is something
//! (ReadFile with 0 bytes), tells when the pipe can be read. tokio's own pipes read ahead, and what they have
//! read is lost to whoever the connection is passed to. A pipe tells nobody when it can be written, so a
//! write carries its bytes along until the reader has room; the next one waits for its end. Invariant: a call
//! under way holds the pipe and its bytes, whatever becomes of the task that began it.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::os::windows::io::{AsHandle, BorrowedHandle, OwnedHandle};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};

use super::overlapped::{Call, Overlapped};
use super::peer;
use super::pipe::{self, End, Look};
use super::stream::{
    BUSY_LIMIT, BlockingStream, carries_no_handles, connect, no_bytes, nobody_listens, peek_now, read_now,
};
use super::wake::{EventWatch, Wakers};
use super::writing::Writing;
use crate::fd_passing::{FdPassError, Received};
use crate::peer::PeerCredentials;
use crate::stream::{BlockingMode, ConnectError, ConnectErrorKind};
use crate::unsupported::Unsupported;

/// First and longest pause between two attempts, or between two looks at bytes that nobody takes.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

/// A connection on tokio.
///
/// Also `AsyncRead` and `AsyncWrite`; the methods here take `&self`, so that one task may read while
/// another writes.
///
/// # Panics
/// Some of what has to wait panics outside of a tokio runtime with time enabled.
#[derive(Debug)]
pub struct Stream {
    pipe: Arc<OwnedHandle>,
    end: End,
    /// While somebody waits, or has waited, for bytes that have not come.
    reading: Mutex<Option<Reading>>,
    writing: Mutex<Writing>,
}

/// A read of nothing that is under way.
#[derive(Debug)]
struct Reading {
    /// Before the call, whose event it watches.
    watch: EventWatch,
    call: Overlapped,
}

impl Reading {
    /// Begins one; nothing where it has ended at once.
    fn begin(pipe: &Arc<OwnedHandle>) -> io::Result<Option<Self>> {
        let watch = EventWatch::new(Arc::new(Wakers::default()))?;
        let mut call = Overlapped::new(Arc::clone(pipe))?;
        // SAFETY: it has no bytes.
        match unsafe { call.start(Call::Read(no_bytes())) } {
            Ok(None) => {
                watch.watch(call.event());
                Ok(Some(Self { watch, call }))
            }
            // A read tells what is wrong.
            Ok(Some(_)) | Err(_) => Ok(None),
        }
    }
}

impl Drop for Reading {
    /// Who waits for it looks for himself: its news may not come any more.
    fn drop(&mut self) {
        self.watch.wakers().wake_all();
    }
}

impl Stream {
    /// Connects. Where no instance of the pipe is free, tries again for up to 2 s.
    ///
    /// # Errors
    /// [`ConnectError`]; `Refused` after that.
    pub async fn connect(endpoint: impl AsRef<Path>) -> Result<Self, ConnectError> {
        let endpoint = endpoint.as_ref();
        let give_up = Instant::now() + BUSY_LIMIT;
        let mut pause = PAUSE.0;
        loop {
            match connect(endpoint) {
                Ok(pipe) => return Ok(Self::new(pipe, End::Client)),
                Err(error) if error.kind == ConnectErrorKind::Busy && Instant::now() < give_up => {
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
                Err(error) if error.kind == ConnectErrorKind::Busy => return Err(nobody_listens(error)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Two streams that are connected with each other.
    ///
    /// # Errors
    /// No handle is left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (near, far) = pipe::pair()?;
        Ok((Self::new(near, End::Server), Self::new(far, End::Client)))
    }

    /// A stream over a connected pipe.
    ///
    /// # Errors
    /// It is no pipe, or one that was opened for calls which wait: everything here would wait with them.
    pub fn from_owned_fd(descriptor: OwnedHandle) -> io::Result<Self> {
        let end = pipe::end_of_foreign(descriptor.as_handle())?;
        Ok(Self::new(descriptor, end))
    }

    pub(super) fn new(pipe: OwnedHandle, end: End) -> Self {
        let pipe = Arc::new(pipe);
        let writing = Mutex::new(Writing::new(Arc::clone(&pipe)));
        Self { pipe, end, reading: Mutex::new(None), writing }
    }

    /// The handle. A write that is under way still has one of its own.
    ///
    /// # Errors
    /// No handle is left.
    fn try_into_owned(self) -> io::Result<OwnedHandle> {
        let Self { pipe, reading, writing, .. } = self;
        drop((reading, writing));
        Arc::try_unwrap(pipe).or_else(|shared| shared.try_clone())
    }

    /// The handle. What was written is on its way still.
    ///
    /// # Panics
    /// No handle is left while a write is under way.
    #[allow(clippy::expect_used, reason = "a handle more, for the moment that a write takes")]
    pub fn into_owned_fd(self) -> OwnedHandle {
        self.try_into_owned().expect("a handle is free")
    }

    /// The same connection for blocking use.
    ///
    /// # Errors
    /// No handle is left.
    pub fn into_blocking(self) -> io::Result<BlockingStream> {
        BlockingStream::from_owned_fd(self.try_into_owned()?)
    }

    /// Another handle of the same connection, which stays open when this stream is dropped.
    ///
    /// # Errors
    /// No handle is left.
    pub fn try_clone_descriptor(&self) -> io::Result<OwnedHandle> {
        self.pipe.try_clone()
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// The system does not say.
    pub fn peer(&self) -> io::Result<PeerCredentials> {
        peer::credentials(self.pipe.as_handle(), self.end)
    }

    pub(super) const fn end(&self) -> End {
        self.end
    }

    /// One read that does not wait: kind `WouldBlock` when nothing is there, 0 when the stream ended.
    ///
    /// # Errors
    /// The system's.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        read_now(&self.pipe, buffer)
    }

    /// One write that does not wait: kind `WouldBlock` while an earlier one is under way.
    ///
    /// # Errors
    /// The system's, also those of the earlier write.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.writing().try_write(bytes)
    }

    /// The same: no pipe is a blocking one.
    ///
    /// # Errors
    /// As there.
    pub fn try_write_blocking(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes)
    }

    /// The handle, to be lent to somebody. No read is under way then.
    pub fn descriptor(&self) -> BorrowedHandle<'_> {
        self.reading().take();
        self.pipe.as_handle()
    }

    /// Nothing: whether a call waits is its own matter, and no pipe's.
    ///
    /// # Errors
    /// None.
    pub fn set_blocking(&self, _mode: BlockingMode) -> io::Result<()> {
        Ok(())
    }

    /// One read, as soon as something is there; 0 when the stream has ended. Cancel-safe.
    ///
    /// # Errors
    /// The system's.
    pub async fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.attempt(|| read_now(&self.pipe, &mut *buffer)).await
    }

    /// One write, as soon as none is under way. Cancel-safe: when it did not return, nothing was sent.
    ///
    /// # Errors
    /// The system's, also those of an earlier write.
    pub async fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        tokio::task::coop::consume_budget().await;
        poll_fn(|context| self.writing().poll_write(context, bytes)).await
    }

    /// One look that does not wait at what a read would bring: kind `WouldBlock` when nothing is there, 0
    /// when the stream has ended. The bytes stay in the pipe.
    ///
    /// # Errors
    /// The system's.
    pub fn try_peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        peek_now(&self.pipe, buffer)
    }

    /// As [`Stream::try_peek`], as soon as something is there. Cancel-safe.
    ///
    /// # Errors
    /// The system's.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.attempt(|| self.try_peek(&mut *buffer)).await
    }

    /// As [`Stream::peek`], as soon as there are more than the `seen` bytes of an earlier look. It comes to
    /// no more than `seen` when the stream has ended without more, or `buffer` has no room for more.
    /// Cancel-safe.
    ///
    /// There is no news of bytes behind others that nobody takes, so it looks again and again, with pauses of
    /// up to 16 ms.
    ///
    /// # Errors
    /// The system's.
    pub async fn peek_beyond(&mut self, seen: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len();
        let mut pause = PAUSE.0;
        loop {
            // Before the look: what came ahead of the end is there once the end is known.
            let is_ended = pipe::is_closing(self.pipe.as_handle())?;
            match self.peek(buffer).await? {
                count if count == 0 || count > seen || count == room || is_ended => return Ok(count),
                _ => sleep(pause).await,
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Writes everything, and returns when the system has it. Not cancel-safe: part of it may be sent.
    ///
    /// # Errors
    /// The system's.
    pub async fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = self.write_some(bytes).await?;
            bytes = &bytes[sent..];
        }
        poll_fn(|context| self.writing().poll_flush(context)).await
    }

    /// Returns when the peer has closed the connection, without reading a byte. Cancel-safe.
    ///
    /// There is no news of an end behind bytes that nobody takes, so it looks again and again then, with
    /// pauses of up to 16 ms.
    ///
    /// # Errors
    /// The system's.
    pub async fn hung_up(&self) -> io::Result<()> {
        let mut pause = PAUSE.0;
        loop {
            if pipe::is_closing(self.pipe.as_handle())? {
                return Ok(());
            }
            match self.peek(&mut [0]).await? {
                0 => return Ok(()),
                _ => sleep(pause).await,
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Fails: a pipe has no ends of single directions. It ends when the last handle of this end is closed.
    ///
    /// # Errors
    /// [`Unsupported`].
    pub fn shutdown(&self, _how: Shutdown) -> io::Result<()> {
        let operation = "ending one direction of a connection";
        Err(Unsupported { operation, platform: std::env::consts::OS }.into())
    }

    pub(crate) fn try_send_message(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedHandle<'_>],
    ) -> io::Result<usize> {
        if descriptors.is_empty() { self.try_write(bytes) } else { Err(carries_no_handles().into()) }
    }

    pub(crate) async fn send_message(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedHandle<'_>],
    ) -> io::Result<usize> {
        if descriptors.is_empty() { self.write_some(bytes).await } else { Err(carries_no_handles().into()) }
    }

    pub(crate) async fn receive_message(
        &self,
        buffer: &mut [u8],
        _max_descriptors: usize,
    ) -> Result<Received, FdPassError> {
        let len = self.read_some(buffer).await?;
        Ok(Received { len, descriptors: Vec::new() })
    }

    async fn attempt<T>(&self, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        // A call that always succeeds at once would never give another task its turn.
        tokio::task::coop::consume_budget().await;
        loop {
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            poll_fn(|context| self.poll_readable(context)).await?;
        }
    }

    /// Ready when a read would tell something: bytes, the end, or what is wrong.
    fn poll_readable(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        let mut reading = self.reading();
        if reading.is_none() {
            if !matches!(pipe::peek(self.pipe.as_handle(), &mut []), Ok(Look::Nothing)) {
                return Poll::Ready(Ok(()));
            }
            *reading = Reading::begin(&self.pipe)?;
        }
        let Some(under_way) = &mut *reading else { return Poll::Ready(Ok(())) };
        // Before the look, so that no news falls between the two.
        under_way.watch.wakers().add(context);
        if matches!(under_way.call.outcome(), Ok(None)) {
            return Poll::Pending;
        }
        *reading = None;
        Poll::Ready(Ok(()))
    }

    fn reading(&self) -> MutexGuard<'_, Option<Reading>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match read_now(&self.pipe, buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.poll_readable(context))?;
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writing().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writing().poll_flush(context)
    }

    /// Waits for what was written. The peer sees the end once this stream is dropped.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

impl AsHandle for Stream {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.pipe.as_handle()
    }
}
