//! Frames on a byte stream: `[u8 framing version][u32 LE body length][body]` (protocol.md, "Framing").
//!
//! [`FrameDecoder`] is a push decoder: it looks at what has arrived and never reads. Invariants: the
//! length is checked against the limit before anything is allocated for the body, an encoded frame
//! lies in one buffer, and the payload of a decoded frame is a slice of the buffer it came in.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use thiserror::Error;

use crate::limits::MAX_FRAME_BODY;
use crate::wire::Frame;

/// The framing byte. Not the same axis as `Frame.envelope_version`, though both are 1.
pub const FRAMING_VERSION: u8 = 1;

/// Length of the framing header, in bytes.
pub const HEADER_LEN: usize = 5;

/// Why a byte stream holds no frame.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FramingError {
    /// The first byte is not the framing version.
    #[error("expected framing version {FRAMING_VERSION}, got {actual}")]
    Version {
        /// What came.
        actual: u8,
    },
    /// The body is longer than this stream allows.
    #[error("a frame body on this connection has at most {limit} bytes, this one declares {declared}")]
    TooLong {
        /// Length the header declares, in bytes.
        declared: u64,
        /// Length this stream allows, in bytes.
        limit: usize,
    },
    /// The body is not an encoded `Frame`.
    #[error("the frame body is not a Frame: {0}")]
    Body(#[from] prost::DecodeError),
}

/// A checked framing header.
///
/// ```
/// use broker_protocol::{FramingError, Header};
///
/// assert_eq!(Header::parse([1, 3, 0, 0, 0], 1024)?.body_len(), 3);
/// assert_eq!(Header::of(b"abc")?.to_bytes(), [1, 3, 0, 0, 0]);
/// assert_eq!(Header::parse([2, 3, 0, 0, 0], 1024), Err(FramingError::Version { actual: 2 }));
/// # Ok::<(), FramingError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    body_len: u32,
}

impl Header {
    /// Checks a header against the framing version and `limit`, the longest legal body in bytes.
    ///
    /// # Errors
    /// [`FramingError::Version`] or [`FramingError::TooLong`].
    pub fn parse(bytes: [u8; HEADER_LEN], limit: usize) -> Result<Self, FramingError> {
        let [version, length @ ..] = bytes;
        if version != FRAMING_VERSION {
            return Err(FramingError::Version { actual: version });
        }
        let body_len = u32::from_le_bytes(length);
        if body_len as usize > limit {
            return Err(FramingError::TooLong { declared: body_len.into(), limit });
        }
        Ok(Self { body_len })
    }

    /// The header of a body.
    ///
    /// # Errors
    /// [`FramingError::TooLong`] where it would exceed [`MAX_FRAME_BODY`].
    pub fn of(body: &[u8]) -> Result<Self, FramingError> {
        match u32::try_from(body.len()) {
            Ok(body_len) if body.len() <= MAX_FRAME_BODY => Ok(Self { body_len }),
            Ok(_) | Err(_) => {
                Err(FramingError::TooLong { declared: body.len() as u64, limit: MAX_FRAME_BODY })
            }
        }
    }

    /// As it is written.
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [a, b, c, d] = self.body_len.to_le_bytes();
        [FRAMING_VERSION, a, b, c, d]
    }

    /// Length of the body that follows, in bytes.
    pub const fn body_len(self) -> usize {
        self.body_len as usize
    }
}

/// Writes a framing header for a body of `body_len` bytes, which the caller has checked against
/// [`MAX_FRAME_BODY`].
pub(crate) fn put_header(body_len: usize, out: &mut impl BufMut) {
    debug_assert!(body_len <= MAX_FRAME_BODY);
    out.put_u8(FRAMING_VERSION);
    out.put_u32_le(body_len as u32);
}

/// Appends a whole frame, header and body, to `out`.
///
/// # Errors
/// [`FramingError::TooLong`] when the body would exceed [`MAX_FRAME_BODY`]; nothing is written then.
pub fn encode_frame(frame: &Frame, out: &mut BytesMut) -> Result<(), FramingError> {
    let body_len = frame.encoded_len();
    if body_len > MAX_FRAME_BODY {
        return Err(FramingError::TooLong { declared: body_len as u64, limit: MAX_FRAME_BODY });
    }
    out.reserve(HEADER_LEN + body_len);
    put_header(body_len, out);
    frame.encode_raw(out);
    Ok(())
}

/// A whole frame, header and body, in a buffer of its own.
///
/// # Errors
/// As [`encode_frame`].
pub fn frame_bytes(frame: &Frame) -> Result<Bytes, FramingError> {
    let mut out = BytesMut::new();
    encode_frame(frame, &mut out)?;
    Ok(out.freeze())
}

/// Takes frames off the front of a buffer that somebody else fills.
///
/// ```
/// use broker_protocol::bytes::BytesMut;
/// use broker_protocol::wire::Frame;
/// use broker_protocol::{FrameDecoder, PayloadProtocol, encode_frame};
///
/// let frame = Frame::request(PayloadProtocol::ADMIN, 7, "payload");
/// let mut wire = BytesMut::new();
/// encode_frame(&frame, &mut wire)?;
///
/// let decoder = FrameDecoder::new();
/// let mut received = wire.split_to(9);
/// assert_eq!(decoder.decode(&mut received)?, None); // not all there yet
/// received.extend_from_slice(&wire);
/// assert_eq!(decoder.decode(&mut received)?, Some(frame));
/// # Ok::<(), broker_protocol::FramingError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FrameDecoder {
    limit: usize,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameDecoder {
    /// A decoder for bodies of up to [`MAX_FRAME_BODY`].
    pub const fn new() -> Self {
        Self::with_limit(MAX_FRAME_BODY)
    }

    /// A decoder for bodies of up to `limit` bytes, and never more than [`MAX_FRAME_BODY`].
    pub const fn with_limit(limit: usize) -> Self {
        Self { limit: if limit < MAX_FRAME_BODY { limit } else { MAX_FRAME_BODY } }
    }

    /// Takes the first frame off `buffer`; `None` when it has not arrived whole.
    ///
    /// A wrong framing byte and an over-long declaration are found as soon as their bytes are there.
    ///
    /// # Errors
    /// [`FramingError`]; the stream has lost its frame boundaries and is of no further use.
    pub fn decode(&self, buffer: &mut BytesMut) -> Result<Option<Frame>, FramingError> {
        match self.body(buffer)? {
            Some(body) => Ok(Some(Frame::decode(body)?)),
            None => Ok(None),
        }
    }

    /// Takes the first frame's body off `buffer` without looking inside it.
    ///
    /// # Errors
    /// [`FramingError::Version`] or [`FramingError::TooLong`].
    pub fn body(&self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FramingError> {
        let Some(header) = buffer.first_chunk::<HEADER_LEN>() else {
            return match buffer.first() {
                Some(&actual) if actual != FRAMING_VERSION => Err(FramingError::Version { actual }),
                _ => Ok(None),
            };
        };
        let header = Header::parse(*header, self.limit)?;
        if buffer.len() - HEADER_LEN < header.body_len() {
            return Ok(None);
        }
        buffer.advance(HEADER_LEN);
        Ok(Some(buffer.split_to(header.body_len()).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::PayloadProtocol;
    use crate::limits::MAX_HELLO_BODY;

    fn header(length: u32) -> BytesMut {
        let mut bytes = BytesMut::new();
        bytes.put_u8(FRAMING_VERSION);
        bytes.put_u32_le(length);
        bytes
    }

    #[test]
    fn a_zero_length_body_is_an_empty_frame() {
        assert_eq!(FrameDecoder::new().decode(&mut header(0)), Ok(Some(Frame::default())));
    }

    #[test]
    fn the_longest_body_waits_for_bytes_and_one_more_is_refused_from_the_header_alone() {
        for limit in [MAX_HELLO_BODY, MAX_FRAME_BODY] {
            let decoder = FrameDecoder::with_limit(limit);
            assert_eq!(decoder.decode(&mut header(limit as u32)), Ok(None));
            assert_eq!(
                decoder.decode(&mut header(limit as u32 + 1)),
                Err(FramingError::TooLong { declared: limit as u64 + 1, limit })
            );
        }
    }

    #[test]
    fn no_decoder_goes_past_the_protocol_limit() {
        let decoder = FrameDecoder::with_limit(usize::MAX);
        assert!(decoder.decode(&mut header(MAX_FRAME_BODY as u32 + 1)).is_err());
    }

    #[test]
    fn a_declared_length_allocates_nothing() {
        let mut buffer = header(MAX_FRAME_BODY as u32);
        let before = buffer.capacity();
        assert_eq!(FrameDecoder::new().decode(&mut buffer), Ok(None));
        assert_eq!(buffer.capacity(), before);
    }

    #[test]
    fn a_wrong_framing_byte_is_found_at_once() {
        assert_eq!(
            FrameDecoder::new().decode(&mut BytesMut::from(&[9u8][..])),
            Err(FramingError::Version { actual: 9 })
        );
        assert_eq!(FrameDecoder::new().decode(&mut BytesMut::new()), Ok(None));
    }

    #[test]
    fn the_largest_frame_encodes_and_one_more_byte_is_refused() {
        let overhead = Frame::request(PayloadProtocol::CLUD, 1, vec![0; MAX_FRAME_BODY - 64]).encoded_len()
            - (MAX_FRAME_BODY - 64);
        let largest = Frame::request(PayloadProtocol::CLUD, 1, vec![0; MAX_FRAME_BODY - overhead]);
        assert_eq!(largest.encoded_len(), MAX_FRAME_BODY);
        assert_eq!(frame_bytes(&largest).map(|bytes| bytes.len()), Ok(HEADER_LEN + MAX_FRAME_BODY));

        let larger = Frame::request(PayloadProtocol::CLUD, 1, vec![0; MAX_FRAME_BODY - overhead + 1]);
        let mut out = BytesMut::new();
        assert!(matches!(encode_frame(&larger, &mut out), Err(FramingError::TooLong { .. })));
        assert!(out.is_empty());
    }

    #[test]
    fn a_payload_is_a_slice_of_the_received_buffer() {
        let mut wire = BytesMut::from(
            &frame_bytes(&Frame::request(PayloadProtocol::CLUD, 1, vec![7; 4096])).unwrap()[..],
        );
        let span = wire.as_ptr_range();
        let frame = FrameDecoder::new().decode(&mut wire).unwrap().unwrap();
        assert!(span.contains(&frame.payload.as_ptr()));
    }

    fn frames() -> impl Strategy<Value = Frame> {
        (
            any::<u32>(),
            0..4i32,
            any::<u32>(),
            proptest::collection::vec(any::<u8>(), 0..200),
            any::<u64>(),
            ".{0,20}",
        )
            .prop_map(
                |(envelope_version, kind, payload_protocol, payload, request_id, traceparent)| Frame {
                    envelope_version,
                    kind,
                    payload_protocol,
                    payload: payload.into(),
                    request_id,
                    traceparent,
                    ..Frame::default()
                },
            )
    }

    proptest! {
        #[test]
        fn any_split_of_the_stream_decodes_the_same(
            sent in proptest::collection::vec(frames(), 1..6),
            cuts in proptest::collection::vec(1usize..64, 1..64),
        ) {
            let mut wire = BytesMut::new();
            for frame in &sent {
                encode_frame(frame, &mut wire).unwrap();
            }
            let decoder = FrameDecoder::new();
            let (mut buffer, mut received) = (BytesMut::new(), Vec::new());
            for cut in cuts.iter().cycle() {
                if wire.is_empty() {
                    break;
                }
                buffer.extend_from_slice(&wire.split_to((*cut).min(wire.len())));
                while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                    received.push(frame);
                }
            }
            prop_assert_eq!(received, sent);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn no_input_panics_or_grows_the_buffer(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let before = buffer.len();
            let _ = FrameDecoder::with_limit(MAX_HELLO_BODY).decode(&mut buffer);
            prop_assert!(buffer.len() <= before);
            prop_assert!(buffer.capacity() <= before.max(64));
        }

        #[test]
        fn a_valid_header_before_garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = header(bytes.len() as u32);
            buffer.extend_from_slice(&bytes);
            let _ = FrameDecoder::new().decode(&mut buffer);
        }
    }
}
