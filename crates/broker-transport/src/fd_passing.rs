//! Passing open descriptors between processes (unix(7), `SCM_RIGHTS`; protocol.md, "Conversations" 4).
//!
//! Bytes and descriptors of one message, nothing about what they are for. Invariants: a received
//! descriptor is close-on-exec from the start; a message with more of them than expected, or that the
//! kernel had to cut, is an error and leaves none of them open. Windows has no such messages: there only bytes
//! go through here, and [`passing`](crate::passing) knows the way of handles.

use std::io;
use std::time::Instant;

use thiserror::Error;

use crate::descriptor::{BorrowedDescriptor, OwnedDescriptor};
use crate::frame_io::{FrameReader, ReadError};
use crate::stream::BlockingStream;
#[cfg(feature = "tokio")]
use crate::stream::Stream;

/// Most descriptors that one message carries.
pub const MAX_DESCRIPTORS: usize = 16;

/// How many messages this process has read whose descriptors it had not asked for.
///
/// A read that takes bytes alone, of a `Stream` or a frame on it, lets the kernel
/// close what rides on them: none of it ever has a number in this process, so there is nothing to leak and no
/// limit to reach. The kernel tells that it did, not of how many. The bytes are good: a peer that knows no
/// better is served like any other. Not counted are descriptors that nobody read up to, which the kernel closes
/// together with the connection; and on macOS none are, as it does not tell.
pub fn discarded_messages() -> u64 {
    crate::sys::stream::discarded_messages()
}

/// Why descriptors did not pass.
#[derive(Debug, Error)]
pub enum FdPassError {
    /// Descriptors ride on a byte.
    #[error("a message with descriptors needs at least one byte")]
    NoBytes,
    /// More than a message carries.
    #[error("a message carries at most {MAX_DESCRIPTORS} descriptors, this one has {actual}")]
    TooMany {
        /// How many there were.
        actual: usize,
    },
    /// The peer sent more than was expected here; all of them are closed.
    #[error("expected at most {expected} descriptors, {actual} came")]
    Surplus {
        /// How many were expected.
        expected: usize,
        /// How many came.
        actual: usize,
    },
    /// The kernel cut the message (`MSG_CTRUNC`): too many came, or no descriptor is free here. What
    /// did come is closed.
    #[error("the kernel cut a message's descriptors, for want of free ones here or because too many came")]
    Cut {
        /// Bytes read; the kernel cuts descriptors only.
        len: usize,
    },
    /// The system refused.
    #[error("cannot pass descriptors: {0}")]
    Io(#[from] io::Error),
}

/// A message with its descriptors.
#[derive(Debug, Default)]
pub struct Received {
    /// Bytes read; 0 when the stream has ended.
    pub len: usize,
    /// The descriptors that rode on them.
    pub descriptors: Vec<OwnedDescriptor>,
}

/// Why no frame with descriptors was read.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// The frame.
    #[error(transparent)]
    Frame(#[from] ReadError),
    /// The descriptors.
    #[error(transparent)]
    Descriptors(#[from] FdPassError),
}

/// Sends `bytes` with descriptors on the first of them, in one `sendmsg`.
///
/// Returns how many bytes were sent, at least 1: send the rest without descriptors. Cancel-safe: when
/// it did not return, nothing was sent.
///
/// # Errors
/// [`FdPassError`]; nothing was sent then.
#[cfg(feature = "tokio")]
pub async fn send_with_fds(
    stream: &Stream,
    bytes: &[u8],
    descriptors: &[BorrowedDescriptor<'_>],
) -> Result<usize, FdPassError> {
    check(bytes, descriptors)?;
    Ok(stream.send_message(bytes, descriptors).await?)
}

/// [`send_with_fds`] that does not wait: an error of kind `WouldBlock` where the peer has no room.
///
/// # Errors
/// [`FdPassError`]; nothing was sent then.
#[cfg(feature = "tokio")]
pub fn try_send_with_fds(
    stream: &Stream,
    bytes: &[u8],
    descriptors: &[BorrowedDescriptor<'_>],
) -> Result<usize, FdPassError> {
    check(bytes, descriptors)?;
    Ok(stream.try_send_message(bytes, descriptors)?)
}

/// [`send_with_fds`], and the rest of the bytes behind it. Not cancel-safe.
///
/// # Errors
/// [`FdPassError`]. [`SendProgress`] tells whether the peer may have got the descriptors all the same.
#[cfg(feature = "tokio")]
pub async fn send_all_with_fds(
    stream: &Stream,
    bytes: &[u8],
    descriptors: &[BorrowedDescriptor<'_>],
) -> Result<(), (SendProgress, FdPassError)> {
    let sent =
        send_with_fds(stream, bytes, descriptors).await.map_err(|error| (SendProgress::Nothing, error))?;
    let rest = stream.send_all(&bytes[sent..]).await;
    rest.map_err(|error| (SendProgress::Descriptors, error.into()))
}

/// How far a failed [`send_all_with_fds`] came. It decides who owns the descriptors' connection
/// (protocol.md, "Conversations" 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendProgress {
    /// The peer has nothing.
    Nothing,
    /// The peer may have the descriptors.
    Descriptors,
}

/// Receives what comes next, with at most `max_descriptors` of them. Cancel-safe.
///
/// # Errors
/// [`FdPassError`].
#[cfg(feature = "tokio")]
pub async fn recv_with_fds(
    stream: &Stream,
    buffer: &mut [u8],
    max_descriptors: usize,
) -> Result<Received, FdPassError> {
    stream.receive_message(buffer, max_descriptors).await
}

/// Reads one frame, and adds the descriptors that ride on its bytes to `descriptors`.
///
/// Cancel-safe: what has come is in `reader` and `descriptors`; go on with the same two.
///
/// # Errors
/// [`ReceiveError`].
#[cfg(feature = "tokio")]
pub async fn read_frame_with_fds(
    stream: &Stream,
    reader: &mut FrameReader,
    descriptors: &mut Vec<OwnedDescriptor>,
    max_descriptors: usize,
) -> Result<(), ReceiveError> {
    while !reader.is_complete() {
        let allowed = max_descriptors.saturating_sub(descriptors.len());
        let received = stream.receive_message(reader.space(), allowed).await;
        take_message(reader, descriptors, received)?;
    }
    Ok(())
}

/// The blocking twin of [`send_with_fds`].
///
/// # Errors
/// As there; kind `TimedOut` or `WouldBlock` after the stream's write timeout.
pub fn send_with_fds_blocking(
    stream: &BlockingStream,
    bytes: &[u8],
    descriptors: &[BorrowedDescriptor<'_>],
) -> Result<usize, FdPassError> {
    check(bytes, descriptors)?;
    Ok(stream.send_message(bytes, descriptors)?)
}

/// The blocking twin of [`recv_with_fds`].
///
/// # Errors
/// As there; kind `TimedOut` after the deadline.
pub fn recv_with_fds_blocking(
    stream: &BlockingStream,
    buffer: &mut [u8],
    max_descriptors: usize,
    deadline: Option<Instant>,
) -> Result<Received, FdPassError> {
    stream.receive_message(buffer, max_descriptors, deadline)
}

/// The blocking twin of [`read_frame_with_fds`].
///
/// # Errors
/// As there; kind `TimedOut` after the deadline.
pub fn read_frame_with_fds_blocking(
    stream: &BlockingStream,
    reader: &mut FrameReader,
    descriptors: &mut Vec<OwnedDescriptor>,
    max_descriptors: usize,
    deadline: Option<Instant>,
) -> Result<(), ReceiveError> {
    while !reader.is_complete() {
        let allowed = max_descriptors.saturating_sub(descriptors.len());
        let received = stream.receive_message(reader.space(), allowed, deadline);
        take_message(reader, descriptors, received)?;
    }
    Ok(())
}

fn check(bytes: &[u8], descriptors: &[BorrowedDescriptor<'_>]) -> Result<(), FdPassError> {
    match (bytes.len(), descriptors.len()) {
        (_, actual) if actual > MAX_DESCRIPTORS => Err(FdPassError::TooMany { actual }),
        (0, _) => Err(FdPassError::NoBytes),
        _ => Ok(()),
    }
}

fn take_message(
    reader: &mut FrameReader,
    descriptors: &mut Vec<OwnedDescriptor>,
    received: Result<Received, FdPassError>,
) -> Result<(), ReceiveError> {
    let received = match received {
        Ok(received) => {
            descriptors.extend(received.descriptors);
            Ok(received.len)
        }
        Err(FdPassError::Io(error)) => Err(error),
        Err(error) => return Err(error.into()),
    };
    reader.take(received)?;
    Ok(())
}
