//! Frames off a stream whose every byte is ours to read: as many of them with one read as are there.
//!
//! [`FrameReader`](super::FrameReader) leaves what is behind its frame in the socket, for a price of two
//! reads for each frame; this one is for conversations that stay where they are. Invariants: a length is
//! checked against the limit before anything is allocated for it; the buffer grows with what has arrived,
//! not with what was declared.

use std::io;

use broker_protocol::{FramingError, HEADER_LEN, Header};
use bytes::{Buf, Bytes, BytesMut};

use super::{FrameFault, GROWTH_STEP, ReadError, fault};
#[cfg(feature = "tokio")]
use crate::stream::Stream;

/// How far the buffer runs ahead of what has arrived, in bytes, where no frame has begun that is longer.
pub const READ_AHEAD: usize = 4 * 1024;

/// Longest body that is copied out of the buffer, in bytes.
const LONGEST_COPIED: usize = 1024;
/// Longest body whose room may be used again for what follows, in bytes.
const LONGEST_ROOM_KEPT: usize = 64 * 1024;

/// Collects frames, and whatever is behind them.
///
/// ```
/// use broker_transport::frame_io::FrameBuffer;
///
/// let mut stream: &[u8] = &[1, 2, 0, 0, 0, b'h', b'i', 1, 3, 0, 0, 0, b'y', b'o', b'u'];
/// let mut frames = FrameBuffer::new(1024);
/// let count = std::io::Read::read(&mut stream, frames.space())?;
/// frames.filled(count)?;
/// assert_eq!(frames.next_body()?.as_deref(), Some(&b"hi"[..]));
/// assert_eq!(frames.next_body()?.as_deref(), Some(&b"you"[..]));
/// assert_eq!(frames.next_body()?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FrameBuffer {
    limit: usize,
    /// Its length is what has arrived plus the space last asked for.
    bytes: BytesMut,
    filled: usize,
}

impl FrameBuffer {
    /// A buffer for bodies of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: BytesMut::new(), filled: 0 }
    }

    /// Bytes that have come and were not taken yet.
    pub const fn received(&self) -> usize {
        self.filled
    }

    /// Takes the next frame's body, if all of it has come.
    ///
    /// # Errors
    /// [`FrameFault`]; the stream has lost its frame boundaries and is of no further use.
    pub fn next_body(&mut self) -> Result<Option<Bytes>, FrameFault> {
        let Some(body_len) = self.body_len()? else { return Ok(None) };
        if self.filled < HEADER_LEN + body_len {
            return Ok(None);
        }
        self.bytes.truncate(self.filled);
        self.bytes.advance(HEADER_LEN);
        let body = if body_len <= LONGEST_COPIED {
            // Whoever keeps it keeps no more than that, and the room is used again.
            let body = Bytes::copy_from_slice(&self.bytes[..body_len]);
            self.bytes.advance(body_len);
            body
        } else {
            self.bytes.split_to(body_len).freeze()
        };
        if body_len > LONGEST_ROOM_KEPT {
            // Else the room would be this buffer's for good, as soon as the body is gone.
            self.bytes = BytesMut::from(&self.bytes[..]);
        }
        self.filled = self.bytes.len();
        Ok(Some(body))
    }

    /// Where to read to next; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        // What is known to come, but no more at once than has come already.
        let wanted = match self.body_len() {
            Ok(Some(body_len)) => (HEADER_LEN + body_len).saturating_sub(self.filled),
            Ok(None) | Err(_) => 0,
        };
        let step = wanted.min(self.filled.max(GROWTH_STEP)).max(READ_AHEAD);
        self.bytes.resize(self.filled + step, 0);
        &mut self.bytes[self.filled..]
    }

    /// Takes note of `count` bytes having been read into [`space`](Self::space); 0 means that the stream
    /// has ended.
    ///
    /// # Errors
    /// [`FrameFault`] at the end of the stream, or where what has come is no frame.
    pub fn filled(&mut self, count: usize) -> Result<(), FrameFault> {
        if count == 0 {
            return Err(self.ended());
        }
        self.filled = (self.filled + count).min(self.bytes.len());
        self.body_len().map(drop)
    }

    /// Reads until a frame is whole. Cancel-safe.
    ///
    /// # Errors
    /// [`ReadError`]. A connection that was reset counts as one that ended.
    #[cfg(feature = "tokio")]
    pub async fn read_from(&mut self, stream: &Stream) -> Result<Bytes, ReadError> {
        loop {
            if let Some(body) = self.next_body()? {
                return Ok(body);
            }
            let result = stream.read_some(self.space()).await;
            self.take(result)?;
        }
    }

    /// Takes what one read came to.
    ///
    /// # Errors
    /// As [`read_from`](Self::read_from).
    pub fn take(&mut self, result: io::Result<usize>) -> Result<(), ReadError> {
        match result {
            Ok(count) => Ok(self.filled(count)?),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            // The peer closed with our bytes unread: its stream has ended all the same.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(self.ended().into()),
            Err(error) => Err(error.into()),
        }
    }

    const fn ended(&self) -> FrameFault {
        match self.filled {
            0 => FrameFault::ClosedBeforeFirstByte,
            received => FrameFault::Truncated { received },
        }
    }

    /// The length of the body that has begun, once its header has come.
    fn body_len(&self) -> Result<Option<usize>, FrameFault> {
        let come = &self.bytes[..self.filled];
        match come.first_chunk::<HEADER_LEN>() {
            Some(header) => Ok(Some(Header::parse(*header, self.limit).map_err(fault)?.body_len())),
            None => match come.first() {
                // A wrong first byte is the fault, however few follow it.
                Some(&first) if first != broker_protocol::FRAMING_VERSION => {
                    Err(fault(FramingError::Version { actual: first }))
                }
                Some(_) | None => Ok(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize) -> Vec<u8> {
        let header = u32::try_from(length).unwrap().to_le_bytes();
        [&[1][..], &header, &vec![7; length]].concat()
    }

    /// Feeds `wire` in pieces of at most `piece` bytes; the bodies that came out, and the largest buffer.
    fn feed(frames: &mut FrameBuffer, mut wire: &[u8], piece: usize) -> (Vec<usize>, usize) {
        let (mut bodies, mut largest) = (Vec::new(), 0);
        while !wire.is_empty() {
            let space = frames.space();
            let count = space.len().min(piece).min(wire.len());
            space[..count].copy_from_slice(&wire[..count]);
            wire = &wire[count..];
            largest = largest.max(frames.bytes.len());
            frames.filled(count).unwrap();
            while let Some(body) = frames.next_body().unwrap() {
                assert!(body.iter().all(|byte| *byte == 7));
                bodies.push(body.len());
            }
        }
        (bodies, largest)
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let lengths = [0, 1, 5, 4_096, 0, 70_000, 3];
        let wire = lengths.map(frame).concat();
        for piece in [1, 2, 4, 5, 6, 4_095, 4_096, 100_000] {
            let mut frames = FrameBuffer::new(70_000);
            assert_eq!(feed(&mut frames, &wire, piece).0, lengths, "{piece}");
            assert_eq!(frames.received(), 0);
        }
    }

    #[test]
    fn the_buffer_grows_with_what_has_come() {
        let mut frames = FrameBuffer::new(1 << 24);
        let declared = [&[1][..], &(1u32 << 24).to_le_bytes()].concat();
        let (_, largest) = feed(&mut frames, &declared, 5);
        assert!(largest <= READ_AHEAD);
        assert!(frames.space().len() <= GROWTH_STEP);
    }

    #[test]
    fn an_idle_connection_keeps_no_room_of_a_long_frame() {
        let mut frames = FrameBuffer::new(1 << 24);
        assert_eq!(feed(&mut frames, &frame(1 << 24), 1 << 20).0, [1 << 24]);
        for _ in 0..100 {
            feed(&mut frames, &frame(10), 100);
        }
        frames.space();
        assert!(frames.bytes.capacity() <= LONGEST_ROOM_KEPT, "{} bytes", frames.bytes.capacity());
    }

    #[test]
    fn a_short_body_that_is_kept_keeps_little_else() {
        let mut frames = FrameBuffer::new(1 << 24);
        let mut kept = Vec::new();
        let mut pages = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let wire = frame(50);
            frames.space()[..wire.len()].copy_from_slice(&wire);
            frames.filled(wire.len()).unwrap();
            let body = frames.next_body().unwrap().unwrap();
            pages.insert(body.as_ptr() as usize / 4_096);
            kept.push(body);
        }
        assert!(pages.len() < 100, "1,000 bodies of 50 bytes lie in {} pages", pages.len());
    }

    #[test]
    fn the_longest_body_passes_and_one_more_byte_does_not() {
        let mut frames = FrameBuffer::new(100);
        assert_eq!(feed(&mut frames, &frame(100), 1_000).0, [100]);
        frames.space()[..5].copy_from_slice(&frame(101)[..5]);
        assert_eq!(frames.filled(5), Err(FrameFault::TooLong { declared: 101, limit: 100 }));
    }

    #[test]
    fn a_wrong_first_byte_and_an_end_are_told_at_once() {
        let mut frames = FrameBuffer::new(100);
        assert_eq!(frames.filled(0), Err(FrameFault::ClosedBeforeFirstByte));
        frames.space()[0] = 2;
        assert_eq!(frames.filled(1), Err(FrameFault::FramingVersion(2)));
        let mut frames = FrameBuffer::new(100);
        assert_eq!(feed(&mut frames, &frame(9)[..8], 8).0, [0; 0]);
        assert_eq!(frames.filled(0), Err(FrameFault::Truncated { received: 8 }));
    }
}
