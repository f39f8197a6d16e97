//! Frames on a byte stream: the three readers agree, however the stream is cut, and none grows with what was only
//! declared.

use std::cell::Cell;

use arbitrary::{Arbitrary, Result, Unstructured};
use broker_protocol::bytes::{Bytes, BytesMut};
use broker_protocol::limits::{MAX_FRAME_BODY, MAX_HELLO_BODY};
use broker_protocol::{FrameDecoder, FramingError, HEADER_LEN};
use broker_transport::frame_io::{FrameBuffer, FrameFault, FrameReader, GROWTH_STEP, Progress, READ_AHEAD};

use crate::seed::{Seed, seed};

/// Longest stream that is looked at, in bytes.
const LONGEST_STREAM: usize = 96 * 1024;

/// In how many pieces a stream comes at most, but for short ones, which come byte by byte too.
const MOST_PIECES: usize = 512;

/// Takes the bytes for a limit, a way to cut, and a stream.
pub fn target(bytes: &[u8]) {
    let Ok(Script { limit, cuts, stream }) = Script::arbitrary_take_rest(Unstructured::new(bytes)) else {
        return;
    };
    let whole = decoded(limit, &stream, &[usize::MAX]);
    let shortest = stream.len().div_ceil(MOST_PIECES);
    let cuts: Vec<_> = cuts.iter().map(|cut| *cut.max(&shortest)).collect();
    for cuts in [&[shortest][..], &cuts] {
        assert_eq!(decoded(limit, &stream, cuts), whole, "a decoder");
        assert_eq!(read(limit, &stream, cuts), whole, "a reader that leaves the rest");
        assert_eq!(buffered(limit, &stream, cuts), whole, "a reader of all there is");
    }
}

/// What came off a stream: bodies, then a fault, or how many bytes of the next frame there are.
#[derive(Debug, PartialEq)]
struct Taken {
    bodies: Vec<Bytes>,
    end: std::result::Result<usize, FrameFault>,
}

/// The stream in pieces of these lengths, over and over.
fn pieces<'a>(stream: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let (mut rest, mut cuts) = (stream, cuts.iter().cycle());
    std::iter::from_fn(move || {
        let cut = (*cuts.next()?).clamp(1, rest.len().max(1));
        let (piece, behind) = rest.split_at_checked(cut)?;
        rest = behind;
        Some(piece)
    })
}

fn decoded(limit: usize, stream: &[u8], cuts: &[usize]) -> Taken {
    let decoder = FrameDecoder::with_limit(limit);
    let (mut buffer, mut bodies) = (BytesMut::new(), Vec::new());
    for piece in pieces(stream, cuts) {
        buffer.extend_from_slice(piece);
        loop {
            let before = (buffer.len(), buffer.capacity());
            match decoder.body(&mut buffer) {
                Ok(Some(body)) => bodies.push(body),
                Ok(None) => {
                    assert_eq!((buffer.len(), buffer.capacity()), before, "waiting changes nothing");
                    break;
                }
                Err(error) => return Taken { bodies, end: Err(fault(&error)) },
            }
        }
    }
    Taken { bodies, end: Ok(buffer.len()) }
}

fn fault(error: &FramingError) -> FrameFault {
    match error {
        FramingError::Version { actual } => FrameFault::FramingVersion(*actual),
        FramingError::TooLong { declared, limit } => {
            FrameFault::TooLong { declared: *declared, limit: *limit }
        }
        FramingError::Body(error) => panic!("nobody looks into a body: {error}"),
    }
}

fn read(limit: usize, stream: &[u8], cuts: &[usize]) -> Taken {
    let mut reader = FrameReader::new(limit);
    let (mut bodies, taken) = (Vec::new(), Cell::new(0));
    for piece in pieces(stream, cuts) {
        let mut rest = piece;
        // A frame without a body is whole before another byte is there.
        while !rest.is_empty() {
            let received = reader.received();
            let space = reader.space();
            assert!(!space.is_empty() && space.len() <= GROWTH_STEP.max(received));
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            taken.set(taken.get() + count);
            match reader.filled(count) {
                Ok(Progress::Partial) => {}
                Ok(Progress::Complete) => {
                    bodies.push(reader.take_body());
                    let frames: usize = bodies.iter().map(|body| HEADER_LEN + body.len()).sum();
                    assert_eq!(taken.get(), frames, "not a byte behind the frame was asked for");
                }
                Err(fault) => return Taken { bodies, end: Err(fault) },
            }
        }
    }
    let received = reader.received();
    let end =
        if received == 0 { FrameFault::ClosedBeforeFirstByte } else { FrameFault::Truncated { received } };
    assert_eq!(reader.ended(), end);
    Taken { bodies, end: Ok(received) }
}

fn buffered(limit: usize, stream: &[u8], cuts: &[usize]) -> Taken {
    let mut frames = FrameBuffer::new(limit);
    let mut bodies = Vec::new();
    for piece in pieces(stream, cuts) {
        let mut rest = piece;
        while !rest.is_empty() {
            let received = frames.received();
            let space = frames.space();
            assert!(!space.is_empty() && space.len() <= READ_AHEAD.max(GROWTH_STEP).max(received));
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            let mut outcome = frames.filled(count);
            while outcome.is_ok() {
                match frames.next_body() {
                    Ok(Some(body)) => bodies.push(body),
                    Ok(None) => break,
                    Err(fault) => outcome = Err(fault),
                }
            }
            if let Err(fault) = outcome {
                return Taken { bodies, end: Err(fault) };
            }
        }
    }
    Taken { bodies, end: Ok(frames.received()) }
}

/// A limit, a way to cut, and a stream.
struct Script {
    limit: usize,
    cuts: Vec<usize>,
    stream: Vec<u8>,
}

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let limit = match u8::arbitrary(bytes)? % 6 {
            0 => 0,
            1 => 5,
            2 => 1_024,
            3 => MAX_HELLO_BODY,
            4 => MAX_FRAME_BODY,
            _ => usize::from(u16::arbitrary(bytes)?),
        };
        let count = usize::from(u8::arbitrary(bytes)? % 4) + 1;
        let cuts = (0..count).map(|_| u16::arbitrary(bytes).map(usize::from)).collect::<Result<_>>()?;
        let mut stream = Vec::new();
        while !bytes.is_empty() && stream.len() < LONGEST_STREAM {
            part(bytes, &mut stream)?;
        }
        Ok(Self { limit, cuts, stream })
    }
}

/// One part of a stream: a whole frame, which may be longer than what tells of it, or bytes as they are.
fn part(bytes: &mut Unstructured<'_>, stream: &mut Vec<u8>) -> Result<()> {
    match u8::arbitrary(bytes)? {
        WHOLE => {
            let length = u16::arbitrary(bytes)?;
            let filling = u8::arbitrary(bytes)?;
            stream.push(1);
            stream.extend_from_slice(&u32::from(length).to_le_bytes());
            stream.resize(stream.len() + usize::from(length), filling);
        }
        HEADER => {
            stream.push(1);
            stream.extend_from_slice(&u32::arbitrary(bytes)?.to_le_bytes());
        }
        length => {
            let length = usize::from(length).min(bytes.len());
            stream.extend_from_slice(bytes.bytes(length)?);
        }
    }
    Ok(())
}

/// A frame of this length, filled with this byte.
const WHOLE: u8 = 0xFF;
/// A header that declares this length.
const HEADER: u8 = 0xFE;

/// Streams at the limits and around them.
pub fn seeds() -> Vec<Seed> {
    let script = |limit: &[u8], cuts: &[u16], stream: &[&[u8]]| {
        let count = u8::try_from(cuts.len() - 1).expect("a handful of cuts");
        let cuts: Vec<u8> = cuts.iter().flat_map(|cut| cut.to_le_bytes()).collect();
        [limit, &[count], &cuts, &stream.concat()].concat()
    };
    let whole = |length: u16| {
        let [low, high] = length.to_le_bytes();
        [WHOLE, low, high, 7]
    };
    let header = |length: u32| [&[HEADER][..], &length.to_le_bytes()].concat();
    let plain = |bytes: &[u8]| [&[u8::try_from(bytes.len()).expect("a short part")][..], bytes].concat();
    vec![
        seed("nothing", script(&[3], &[1], &[])),
        seed("empty-frames", script(&[0], &[3, 7], &[&whole(0), &whole(0), &whole(0)])),
        seed("one-byte-too-long", script(&[0], &[5], &[&whole(0), &whole(1)])),
        seed("several-frames", script(&[2], &[4, 100, 1], &[&whole(1), &whole(1_024), &whole(3)])),
        seed("growing", script(&[3], &[60_000], &[&whole(65_535), &whole(17_000)])),
        seed("past-the-read-ahead", script(&[4], &[4_096, 1, 16_384], &[&whole(4_090), &whole(40_000)])),
        seed("longest-body-declared", script(&[4], &[9], &[&header(16_777_216), &plain(b"body")])),
        seed("longer-than-the-longest", script(&[4], &[9], &[&header(16_777_217)])),
        seed("longest-hello", script(&[3], &[2], &[&header(65_536), &plain(b"body")])),
        seed("longer-than-a-hello", script(&[3], &[2], &[&header(65_537)])),
        seed("wrong-version", script(&[3], &[2], &[&whole(10), &plain(&[2, 1, 0, 0, 0])])),
        seed("wrong-first-byte-alone", script(&[3], &[2], &[&plain(&[9])])),
        seed("cut-in-a-header", script(&[2], &[1], &[&whole(2), &plain(&[1, 9])])),
        seed("cut-in-a-body", script(&[2], &[6], &[&header(9), &plain(b"1234")])),
        seed("odd-limit", script(&[5, 0x2C, 1], &[300, 5], &[&whole(300), &whole(301)])),
    ]
}
