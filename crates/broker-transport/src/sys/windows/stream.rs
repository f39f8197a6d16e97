//! Connections over named pipes: what both kinds of them share, and the [`BlockingStream`].
//!
//! A pipe takes each read and write as a call of its own, so every deadline is one of the call, and whoever
//! shares the pipe is not touched by it. Invariant: a read takes no more than its caller asked for.

use std::io::{self, Read, Write};
use std::os::windows::io::{AsHandle, BorrowedHandle, OwnedHandle};
use std::path::Path;
use std::ptr::{null_mut, slice_from_raw_parts_mut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_FILE_NOT_FOUND, ERROR_INVALID_NAME, ERROR_PATH_NOT_FOUND, ERROR_PIPE_BUSY,
    ERROR_SEM_TIMEOUT,
};
use windows_sys::Win32::System::Pipes::WaitNamedPipeW;

use super::calls::done;
use super::error::is;
use super::overlapped::{Call, carry_out};
use super::peer;
use super::pipe::{self, End, Look, is_end};
use crate::endpoint::{EndpointError, Platform, check_length};
use crate::fd_passing::{FdPassError, Received};
use crate::peer::PeerCredentials;
use crate::stream::{ConnectError, ConnectErrorKind};
use crate::unsupported::Unsupported;

#[cfg(feature = "tokio")]
pub use super::async_stream::Stream;

/// How long a connect waits for an instance that is free.
pub(super) const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// The most that one write carries, in bytes: as much as the system holds for the reader.
pub(super) const WRITE_STEP: usize = 64 * 1024;

/// Connects to an endpoint, at once or not at all.
pub(super) fn connect(endpoint: &Path) -> Result<OwnedHandle, ConnectError> {
    let refused = |kind, source| Err(ConnectError::new(endpoint, kind, source));
    if let Err(error) = check_length(Platform::Windows, endpoint) {
        let kind = match error {
            EndpointError::TooLong { .. } => ConnectErrorKind::TooLong,
            _ => ConnectErrorKind::Other,
        };
        return refused(kind, io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    let error = match pipe::wide_name(endpoint).and_then(|name| pipe::open(&name)) {
        Ok(handle) => return Ok(handle),
        Err(error) => error,
    };
    let kind = match error.raw_os_error().map(i32::cast_unsigned) {
        Some(ERROR_FILE_NOT_FOUND | ERROR_PATH_NOT_FOUND | ERROR_INVALID_NAME) => ConnectErrorKind::NotFound,
        Some(ERROR_PIPE_BUSY) => ConnectErrorKind::Busy,
        Some(ERROR_ACCESS_DENIED) => ConnectErrorKind::PermissionDenied,
        _ => ConnectErrorKind::Other,
    };
    refused(kind, error)
}

/// One read that does not wait.
pub(super) fn read_now(pipe: &Arc<OwnedHandle>, buffer: &mut [u8]) -> io::Result<usize> {
    let available = match pipe::peek(pipe.as_handle(), &mut [])? {
        _ if buffer.is_empty() => return Ok(0),
        Look::Bytes(available) => available.min(buffer.len()),
        Look::Nothing => return Err(io::ErrorKind::WouldBlock.into()),
        Look::End => return Ok(0),
    };
    // Whoever shares the pipe may have been faster, so even this does not wait.
    match read(pipe, &mut buffer[..available], Some(Instant::now())) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(io::ErrorKind::WouldBlock.into()),
        outcome => outcome,
    }
}

/// One look that does not wait.
pub(super) fn peek_now(pipe: &OwnedHandle, buffer: &mut [u8]) -> io::Result<usize> {
    match pipe::peek(pipe.as_handle(), buffer)? {
        Look::Bytes(available) => Ok(available.min(buffer.len())),
        Look::Nothing => Err(io::ErrorKind::WouldBlock.into()),
        Look::End => Ok(0),
    }
}

/// One read, once there is something.
fn read(pipe: &Arc<OwnedHandle>, buffer: &mut [u8], deadline: Option<Instant>) -> io::Result<usize> {
    if buffer.is_empty() {
        return Ok(0);
    }
    // SAFETY: the buffer is borrowed until the call has ended.
    match unsafe { carry_out(Arc::clone(pipe), Call::Read(&raw mut *buffer), deadline) } {
        Ok(Some(count)) => Ok(count),
        Ok(None) => Err(io::ErrorKind::TimedOut.into()),
        Err(error) if is_end(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

/// One write.
fn write(pipe: &Arc<OwnedHandle>, bytes: &[u8], deadline: Option<Instant>) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let step = &bytes[..bytes.len().min(WRITE_STEP)];
    // SAFETY: the bytes are borrowed until the call has ended.
    match unsafe { carry_out(Arc::clone(pipe), Call::Write(&raw const *step), deadline) }? {
        Some(count) => Ok(count),
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Fails once the deadline has passed: a peer that never pauses would keep its caller for ever.
fn in_time(deadline: Option<Instant>) -> io::Result<()> {
    match deadline {
        Some(deadline) if deadline <= Instant::now() => Err(io::ErrorKind::TimedOut.into()),
        Some(_) | None => Ok(()),
    }
}

/// The bytes of a call that reads none.
pub(super) const fn no_bytes() -> *mut [u8] {
    slice_from_raw_parts_mut(null_mut(), 0)
}

pub(super) const fn carries_no_handles() -> Unsupported {
    Unsupported { operation: "passing handles inside a message", platform: std::env::consts::OS }
}

/// Nothing rides on the bytes of a pipe.
pub(crate) const fn discarded_messages() -> u64 {
    0
}

/// A connection whose calls wait.
///
/// ```
/// use broker_transport::stream::BlockingStream;
/// use std::io::{Read, Write};
///
/// let (mut near, mut far) = BlockingStream::pair()?;
/// near.write_all(b"hello")?;
/// let mut heard = [0; 5];
/// far.read_exact(&mut heard)?;
/// assert_eq!(&heard, b"hello");
/// assert!(far.peer()?.user.is_self());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct BlockingStream {
    pipe: Arc<OwnedHandle>,
    end: End,
    /// Shared with the clones, as they are on a socket.
    timeouts: Arc<Mutex<Timeouts>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Timeouts {
    read: Option<Duration>,
    write: Option<Duration>,
}

impl BlockingStream {
    /// Connects; `timeout` bounds the wait for an instance that is free, and 2 s do in any case.
    ///
    /// # Errors
    /// [`ConnectError`]; `Busy` when the time is up, `Refused` after 2 s.
    pub fn connect(endpoint: impl AsRef<Path>, timeout: Option<Duration>) -> Result<Self, ConnectError> {
        let endpoint = endpoint.as_ref();
        let limit = timeout.map_or(BUSY_LIMIT, |timeout| timeout.min(BUSY_LIMIT));
        let give_up = Instant::now() + limit;
        loop {
            let error = match connect(endpoint) {
                Ok(pipe) => return Ok(Self::new(pipe, End::Client)),
                Err(error) if error.kind != ConnectErrorKind::Busy => return Err(error),
                Err(error) => error,
            };
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(if limit < BUSY_LIMIT { error } else { nobody_listens(error) });
            }
            wait_for_instance(endpoint, left)
                .map_err(|source| ConnectError::new(endpoint, ConnectErrorKind::Other, source))?;
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

    fn new(pipe: OwnedHandle, end: End) -> Self {
        Self { pipe: Arc::new(pipe), end, timeouts: Arc::default() }
    }

    /// The handle.
    ///
    /// # Panics
    /// Never: no call is under way when nobody else has this stream.
    #[allow(clippy::expect_used, reason = "a call holds the stream, so none is under way")]
    pub fn into_owned_fd(self) -> OwnedHandle {
        Arc::into_inner(self.pipe).expect("every call has ended")
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    /// No handle is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let pipe = Arc::new(self.pipe.try_clone()?);
        Ok(Self { pipe, end: self.end, timeouts: Arc::clone(&self.timeouts) })
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// The system does not say.
    pub fn peer(&self) -> io::Result<PeerCredentials> {
        peer::credentials(self.pipe.as_handle(), self.end)
    }

    /// How long a read waits; `None` is for ever.
    ///
    /// # Errors
    /// None.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeouts.lock().unwrap_or_else(PoisonError::into_inner).read = timeout;
        Ok(())
    }

    /// How long a write waits; `None` is for ever.
    ///
    /// # Errors
    /// None.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeouts.lock().unwrap_or_else(PoisonError::into_inner).write = timeout;
        Ok(())
    }

    fn deadline(&self, which: impl Fn(Timeouts) -> Option<Duration>) -> Option<Instant> {
        let timeouts = *self.timeouts.lock().unwrap_or_else(PoisonError::into_inner);
        which(timeouts).map(|timeout| Instant::now() + timeout)
    }

    /// One read that waits no longer than the deadline, whatever the read timeout.
    ///
    /// # Errors
    /// Kind `TimedOut` after the deadline.
    pub fn read_before(&self, buffer: &mut [u8], deadline: Option<Instant>) -> io::Result<usize> {
        in_time(deadline)?;
        read(&self.pipe, buffer, deadline)
    }

    /// Writes everything, and waits no longer than the deadline, however slowly the peer reads and
    /// whatever the write timeout.
    ///
    /// # Errors
    /// Kind `TimedOut` after the deadline; part of the bytes may be sent.
    pub fn send_all_before(&self, mut bytes: &[u8], deadline: Option<Instant>) -> io::Result<()> {
        while !bytes.is_empty() {
            in_time(deadline)?;
            let sent = write(&self.pipe, bytes, deadline)?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    pub(crate) fn send_message(&self, bytes: &[u8], descriptors: &[BorrowedHandle<'_>]) -> io::Result<usize> {
        if !descriptors.is_empty() {
            return Err(carries_no_handles().into());
        }
        (&*self).write(bytes)
    }

    pub(crate) fn receive_message(
        &self,
        buffer: &mut [u8],
        _max_descriptors: usize,
        deadline: Option<Instant>,
    ) -> Result<Received, FdPassError> {
        let len = self.read_before(buffer, deadline)?;
        Ok(Received { len, descriptors: Vec::new() })
    }
}

/// A name without a free instance for so long is one that only connections of a process which has ended are left
/// of: who listens makes new ones.
pub(super) fn nobody_listens(busy: ConnectError) -> ConnectError {
    ConnectError { kind: ConnectErrorKind::Refused, ..busy }
}

/// Waits until an instance is free, or the time is up.
fn wait_for_instance(endpoint: &Path, limit: Duration) -> io::Result<()> {
    // 0 would be the server's own limit, and the largest value for ever.
    let limit = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX - 1).max(1);
    let name = pipe::wide_name(endpoint)?;
    // SAFETY: the name ends with a NUL and outlives the call.
    match done(unsafe { WaitNamedPipeW(name.as_ptr(), limit) }) {
        // The next attempt tells.
        Err(error) if is(&error, ERROR_SEM_TIMEOUT) || is(&error, ERROR_FILE_NOT_FOUND) => Ok(()),
        outcome => outcome,
    }
}

impl Read for BlockingStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Read for &BlockingStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read(&self.pipe, buffer, self.deadline(|timeouts| timeouts.read))
    }
}

impl Write for BlockingStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for &BlockingStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(&self.pipe, bytes, self.deadline(|timeouts| timeouts.write))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsHandle for BlockingStream {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.pipe.as_handle()
    }
}
