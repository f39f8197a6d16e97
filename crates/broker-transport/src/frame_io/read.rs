//! A [`FrameReader`] fed from a stream, async and blocking.
//!
//! Invariant: cancelling an async read loses nothing; what has come is in the reader, which also
//! tells how much that is once a deadline has passed.

use std::io;
use std::time::Instant;

use bytes::Bytes;

use super::{FrameReader, Progress, ReadError};
use crate::stream::BlockingStream;
#[cfg(feature = "tokio")]
use crate::stream::Stream;

impl FrameReader {
    /// Reads until the frame is whole. Cancel-safe.
    ///
    /// # Errors
    /// [`ReadError`]. A connection that was reset counts as one that ended.
    #[cfg(feature = "tokio")]
    pub async fn read_from(&mut self, stream: &Stream) -> Result<(), ReadError> {
        while !self.is_complete() {
            self.read_part_from(stream).await?;
        }
        Ok(())
    }

    /// Reads what is there, or what comes next. Cancel-safe.
    ///
    /// # Errors
    /// As [`read_from`](Self::read_from).
    #[cfg(feature = "tokio")]
    pub async fn read_part_from(&mut self, stream: &Stream) -> Result<Progress, ReadError> {
        let result = stream.read_some(self.space()).await;
        self.take(result)
    }

    /// Reads until the frame is whole or the deadline has passed; without one, for as long as it takes.
    ///
    /// # Errors
    /// [`ReadError`]; kind `TimedOut` after the deadline.
    pub fn read_from_blocking(
        &mut self,
        stream: &BlockingStream,
        deadline: Option<Instant>,
    ) -> Result<(), ReadError> {
        while !self.is_complete() {
            let result = stream.read_before(self.space(), deadline);
            self.take(result)?;
        }
        Ok(())
    }

    pub(crate) fn take(&mut self, result: io::Result<usize>) -> Result<Progress, ReadError> {
        match result {
            Ok(count) => Ok(self.filled(count)?),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Progress::Partial),
            // The peer closed with our bytes unread: its stream has ended all the same.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(self.ended().into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads one frame's body of at most `limit` bytes, and not a byte behind it.
///
/// Whoever needs to know how far a read came when it was cancelled keeps a [`FrameReader`] instead.
///
/// # Errors
/// [`ReadError`].
#[cfg(feature = "tokio")]
pub async fn read_frame_body(stream: &Stream, limit: usize) -> Result<Bytes, ReadError> {
    let mut reader = FrameReader::new(limit);
    reader.read_from(stream).await?;
    Ok(reader.take_body())
}

/// The blocking twin of `read_frame_body`.
///
/// # Errors
/// As [`FrameReader::read_from_blocking`].
pub fn read_frame_body_blocking(
    stream: &BlockingStream,
    limit: usize,
    deadline: Option<Instant>,
) -> Result<Bytes, ReadError> {
    let mut reader = FrameReader::new(limit);
    reader.read_from_blocking(stream, deadline)?;
    Ok(reader.take_body())
}
