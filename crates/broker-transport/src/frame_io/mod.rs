//! Reading exactly one frame off a stream (protocol.md, "Framing"; behaviour.md, section 2, rows 1 to 3).
//!
//! [`FrameReader`] says how many bytes it wants next and takes what came; it does no I/O itself and
//! does not look inside a body. Invariants: it never asks for a byte behind its frame, so early data
//! stays in the socket; a length is checked against the limit before anything is allocated for it; and
//! the buffer grows with what has arrived, not with what was declared.

mod buffer;
mod read;

use std::io;

use broker_protocol::{FramingError, HEADER_LEN, Header};
use bytes::{Bytes, BytesMut};
use thiserror::Error;

pub use self::buffer::{FrameBuffer, READ_AHEAD};
#[cfg(feature = "tokio")]
pub use self::read::read_frame_body;
pub use self::read::read_frame_body_blocking;

/// How far the buffer runs ahead of what has arrived, in bytes, until twice that has.
pub const GROWTH_STEP: usize = 16 * 1024;

/// What is wrong with a frame before its body is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameFault {
    /// The first byte is not the framing version (row 1).
    #[error("expected framing version 1, got {0}")]
    FramingVersion(u8),
    /// The declared body is longer than allowed here (row 2).
    #[error("a frame body on this connection has at most {limit} bytes, this one declares {declared}")]
    TooLong {
        /// Declared length in bytes.
        declared: u64,
        /// Allowed length in bytes.
        limit: usize,
    },
    /// The stream ended inside the frame (row 3).
    #[error("the stream ended inside a frame, after {received} bytes")]
    Truncated {
        /// Bytes that came, the header's among them.
        received: usize,
    },
    /// The stream ended where a frame could have begun: nothing is wrong, there is no more.
    #[error("the stream ended before a frame began")]
    ClosedBeforeFirstByte,
}

/// Why no frame was read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The peer's fault, or its end.
    #[error(transparent)]
    Fault(#[from] FrameFault),
    /// The system's, or the deadline (kind `TimedOut`).
    #[error("cannot read from the connection: {0}")]
    Io(#[from] io::Error),
}

/// How far a frame has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are wanted.
    Partial,
    /// The body is there: [`FrameReader::take_body`].
    Complete,
}

/// Collects one frame after another, and never a byte more than the one at hand.
///
/// ```
/// use broker_transport::frame_io::{FrameReader, Progress};
///
/// let mut stream: &[u8] = &[1, 2, 0, 0, 0, b'h', b'i', b'!'];
/// let mut reader = FrameReader::new(1024);
/// loop {
///     let wanted = std::io::Read::read(&mut stream, reader.space())?;
///     if reader.filled(wanted)? == Progress::Complete {
///         break;
///     }
/// }
/// assert_eq!(reader.take_body().as_ref(), b"hi");
/// assert_eq!(stream, b"!"); // not ours
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FrameReader {
    limit: usize,
    header: [u8; HEADER_LEN],
    header_filled: usize,
    /// Known once the header is whole.
    body_len: Option<usize>,
    /// Its length is what has arrived plus the space that is left for more.
    body: BytesMut,
    body_filled: usize,
}

impl FrameReader {
    /// A reader for bodies of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            header: [0; HEADER_LEN],
            header_filled: 0,
            body_len: None,
            body: BytesMut::new(),
            body_filled: 0,
        }
    }

    /// A reader that goes on where another one has stopped, given [what that one had](Self::into_received).
    ///
    /// # Errors
    /// [`FrameFault`]: no reader can have had these bytes.
    pub fn resume(limit: usize, mut received: &[u8]) -> Result<Self, FrameFault> {
        let mut reader = Self::new(limit);
        while !received.is_empty() {
            let space = reader.space();
            if space.is_empty() {
                return Err(FrameFault::TooLong { declared: reader.received() as u64 + 1, limit });
            }
            let count = space.len().min(received.len());
            space[..count].copy_from_slice(&received[..count]);
            received = &received[count..];
            reader.filled(count)?;
        }
        Ok(reader)
    }

    /// What has come of the current frame, its header included.
    pub fn into_received(self) -> Vec<u8> {
        [&self.header[..self.header_filled], &self.body[..self.body_filled]].concat()
    }

    /// Changes the limit for frames whose header has not come yet: the cap of a Hello is not that of
    /// what follows.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Bytes of the current frame that have come, its header's among them.
    pub const fn received(&self) -> usize {
        self.header_filled + self.body_filled
    }

    /// Bytes of memory that the current frame takes up, once [`space`](Self::space) was asked for; 0 until its
    /// length is known.
    pub fn keeps(&self) -> usize {
        match self.body_len {
            None => 0,
            Some(body_len) if self.is_used_up() => self.body_filled + self.step(body_len),
            Some(_) => self.body.len(),
        }
    }

    fn is_used_up(&self) -> bool {
        self.body_filled == self.body.len()
    }

    fn step(&self, body_len: usize) -> usize {
        self.body_filled.max(GROWTH_STEP).min(body_len - self.body_filled)
    }

    /// Whether a frame is whole and waits to be taken.
    pub fn is_complete(&self) -> bool {
        self.body_len == Some(self.body_filled)
    }

    /// Where to read to next: not empty unless the frame is whole, and never longer than its rest.
    pub fn space(&mut self) -> &mut [u8] {
        let Some(body_len) = self.body_len else {
            return &mut self.header[self.header_filled..];
        };
        // Only what is used up grows, however little came with each read.
        if self.is_used_up() {
            let step = self.step(body_len);
            self.body.resize(self.body_filled + step, 0);
        }
        &mut self.body[self.body_filled..]
    }

    /// Takes note of `count` bytes having been read into [`space`](Self::space); 0 means that the
    /// stream has ended.
    ///
    /// # Errors
    /// [`FrameFault`]; the stream has lost its frame boundaries and is of no further use.
    pub fn filled(&mut self, count: usize) -> Result<Progress, FrameFault> {
        if self.is_complete() {
            return Ok(Progress::Complete);
        }
        if count == 0 {
            return Err(self.ended());
        }
        if self.body_len.is_some() {
            self.body_filled = (self.body_filled + count).min(self.body.len());
        } else {
            self.header_filled = (self.header_filled + count).min(HEADER_LEN);
            self.check_header()?;
        }
        Ok(if self.is_complete() { Progress::Complete } else { Progress::Partial })
    }

    /// What the end of the stream means at this point.
    pub const fn ended(&self) -> FrameFault {
        match self.received() {
            0 => FrameFault::ClosedBeforeFirstByte,
            received => FrameFault::Truncated { received },
        }
    }

    /// Takes the body of a whole frame and begins the next; empty when the frame is not whole.
    pub fn take_body(&mut self) -> Bytes {
        if !self.is_complete() {
            return Bytes::new();
        }
        self.body.truncate(self.body_filled);
        self.header_filled = 0;
        self.body_filled = 0;
        self.body_len = None;
        self.body.split().freeze()
    }

    fn check_header(&mut self) -> Result<(), FrameFault> {
        if self.header_filled < HEADER_LEN {
            // A wrong first byte is the fault, however few follow it.
            let mut header = [0; HEADER_LEN];
            header[0] = self.header[0];
            return Header::parse(header, self.limit).map(drop).map_err(fault);
        }
        self.body_len = Some(Header::parse(self.header, self.limit).map_err(fault)?.body_len());
        Ok(())
    }
}

fn fault(error: FramingError) -> FrameFault {
    match error {
        FramingError::Version { actual } => FrameFault::FramingVersion(actual),
        FramingError::TooLong { declared, limit } => FrameFault::TooLong { declared, limit },
        // A header is never taken for a body.
        FramingError::Body(_) => FrameFault::Truncated { received: HEADER_LEN },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in pieces of at most `piece` bytes and says how many were taken.
    fn feed(reader: &mut FrameReader, wire: &[u8], piece: usize) -> (usize, Result<Progress, FrameFault>) {
        let mut taken = 0;
        loop {
            let rest = &wire[taken..];
            let space = reader.space();
            let count = space.len().min(piece).min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            taken += count;
            match reader.filled(count) {
                Ok(Progress::Partial) => {}
                end => return (taken, end),
            }
        }
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        [&[1][..], &length, body].concat()
    }

    #[test]
    fn a_frame_is_read_whole_and_not_one_byte_more_however_it_comes() {
        let body: Vec<u8> = (0..100_000).map(|index| index as u8).collect();
        let mut wire = framed(&body);
        let frame_len = wire.len();
        wire.extend_from_slice(b"early data");
        for piece in [1, 3, 5, 6, GROWTH_STEP, usize::MAX] {
            let mut reader = FrameReader::new(body.len());
            assert_eq!(feed(&mut reader, &wire, piece), (frame_len, Ok(Progress::Complete)));
            assert_eq!(reader.received(), frame_len);
            assert_eq!(reader.take_body(), body);
        }
    }

    #[test]
    fn one_reader_reads_frame_after_frame() {
        let mut reader = FrameReader::new(10);
        let wire = [framed(b"first"), framed(b""), framed(b"third")].concat();
        let mut rest = &wire[..];
        for expected in [&b"first"[..], b"", b"third"] {
            let (taken, progress) = feed(&mut reader, rest, 4);
            assert_eq!(progress, Ok(Progress::Complete));
            assert_eq!(reader.take_body(), expected);
            rest = &rest[taken..];
        }
        assert_eq!(feed(&mut reader, rest, 4), (0, Err(FrameFault::ClosedBeforeFirstByte)));
    }

    #[test]
    fn the_longest_body_is_read_and_one_more_byte_is_refused_from_the_header_alone() {
        let limit = 64 * 1024;
        let mut reader = FrameReader::new(limit);
        assert_eq!(feed(&mut reader, &framed(&vec![7; limit]), usize::MAX).1, Ok(Progress::Complete));
        let mut reader = FrameReader::new(limit);
        let (taken, fault) = feed(&mut reader, &framed(&vec![7; limit + 1]), usize::MAX);
        assert_eq!((taken, fault), (5, Err(FrameFault::TooLong { declared: 65_537, limit })));
        assert_eq!(reader.body.capacity(), 0);
    }

    #[test]
    fn a_wrong_first_byte_is_found_before_the_rest_of_the_header() {
        for wire in [&[2][..], &[2, 0], &[2, 0xFF, 0xFF, 0xFF, 0xFF]] {
            let mut reader = FrameReader::new(10);
            assert_eq!(feed(&mut reader, wire, usize::MAX).1, Err(FrameFault::FramingVersion(2)));
        }
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_says_how_far_it_came() {
        let wire = framed(b"body");
        for end in 1..wire.len() {
            let mut reader = FrameReader::new(10);
            let (_, fault) = feed(&mut reader, &wire[..end], usize::MAX);
            assert_eq!(fault, Err(FrameFault::Truncated { received: end }));
        }
    }

    #[test]
    fn a_reader_goes_on_where_another_has_stopped() {
        let wire = framed(b"the body");
        for end in 0..=wire.len() {
            let mut first = FrameReader::new(8);
            let _ = feed(&mut first, &wire[..end], 3);
            let received = first.into_received();
            assert_eq!(received, &wire[..end]);
            let mut second = FrameReader::resume(8, &received).unwrap();
            assert_eq!(second.is_complete(), end == wire.len());
            if end < wire.len() {
                assert_eq!(feed(&mut second, &wire[end..], 3).1, Ok(Progress::Complete));
            }
            assert_eq!(second.take_body(), &b"the body"[..]);
        }
        let too_much = [&wire[..], b"!"].concat();
        assert!(FrameReader::resume(8, &too_much).is_err());
        assert!(FrameReader::resume(7, &wire).is_err());
        assert!(FrameReader::resume(8, &[2]).is_err());
    }

    #[test]
    fn a_peer_that_declares_much_and_sends_little_costs_little() {
        let mut reader = FrameReader::new(16 * 1024 * 1024);
        let header = [&[1][..], &(16 * 1024 * 1024u32).to_le_bytes()].concat();
        feed_partial(&mut reader, &header);
        assert_eq!(reader.space().len(), GROWTH_STEP);
        assert!(reader.body.capacity() < 2 * GROWTH_STEP);
        feed_partial(&mut reader, &[0; GROWTH_STEP]);
        feed_partial(&mut reader, &[0; GROWTH_STEP]);
        assert_eq!(reader.space().len(), 2 * GROWTH_STEP);
    }

    #[test]
    fn a_peer_that_trickles_costs_no_more_than_the_first_step() {
        let mut reader = FrameReader::new(64 * 1024);
        feed_partial(&mut reader, &[&[1][..], &(64 * 1024u32).to_le_bytes()].concat());
        for _ in 0..GROWTH_STEP {
            feed_partial(&mut reader, &[0]);
        }
        assert!(reader.body.capacity() < 2 * GROWTH_STEP, "{} bytes", reader.body.capacity());
    }

    fn feed_partial(reader: &mut FrameReader, bytes: &[u8]) {
        let space = reader.space();
        space[..bytes.len()].copy_from_slice(bytes);
        assert_eq!(reader.filled(bytes.len()), Ok(Progress::Partial));
    }
}
