//! Telling frames of this protocol from anything else by their first bytes (protocol.md, "Framing").
//!
//! Only what is there is looked at: the framing header, then field after field of the `Frame`, whose last
//! one may be cut. It does not judge what a frame says; a request that is ours and breaks a rule is
//! refused where it is served. Invariants: a frame that is served here is never taken for the other
//! format's, whatever the order of its fields, unless it holds a group or contradicts itself; and no bytes
//! make it panic.

use broker_protocol::limits::MAX_FRAME_BODY;
use broker_protocol::wire::{FrameKind, PayloadEncoding};
use broker_protocol::{ENVELOPE_VERSION, FRAMING_VERSION, HEADER_LEN, Header};

use super::{FIRST_BYTES_LIMIT, Verdict};

/// The detector for an older format that does not begin like a frame.
///
/// [`Theirs`](Verdict::Theirs) from the first byte on that no first frame of a client has there:
///
/// - the first byte is not the framing version 1;
/// - the length behind it is more than 16 MiB, or none: an empty frame has no envelope version;
/// - a field of the body has a key, a wire type or a length that a `Frame` has not, or is a group;
/// - `envelope_version` is not 1, or the whole body has none;
/// - `kind` is a response or unknown, or `payload_encoding` is not "none".
///
/// [`Ours`](Verdict::Ours) once `envelope_version` is there. Every usual encoder writes it first, so seven
/// bytes decide: `01`, the length, `08 01`. Until then [`NeedMore`](Verdict::NeedMore), but at the limit of
/// [`FIRST_BYTES_LIMIT`] the benefit of the doubt goes to frames.
///
/// An older format whose messages may begin with just these bytes needs a detector that knows more of it.
///
/// ```
/// use broker_backend::{Verdict, detect_frames};
///
/// assert_eq!(detect_frames(b"\x01\x0c\x00\x00\x00\x08\x01"), Verdict::Ours);
/// assert_eq!(detect_frames(b"\x01\x0c\x00\x00\x00\x08"), Verdict::NeedMore);
/// assert_eq!(detect_frames(b"\x01\x0c\x00\x00\x00\x08\x02"), Verdict::Theirs);
/// assert_eq!(detect_frames(b"GET"), Verdict::Theirs);
/// ```
pub fn detect_frames(first: &[u8]) -> Verdict {
    let Some((header, body)) = first.split_first_chunk::<HEADER_LEN>() else {
        return match first.first() {
            None | Some(&FRAMING_VERSION) => Verdict::NeedMore,
            Some(_) => Verdict::Theirs,
        };
    };
    let Ok(header) = Header::parse(*header, MAX_FRAME_BODY) else { return Verdict::Theirs };
    // What follows the frame is the next one's.
    let body = &body[..body.len().min(header.body_len())];
    match envelope(&mut Fields { there: body, to_come: header.body_len() - body.len() }) {
        Ok(Envelope::Seen) => Verdict::Ours,
        Ok(Envelope::Unseen) if body.len() == header.body_len() => Verdict::Theirs,
        Ok(Envelope::Unseen) if first.len() >= FIRST_BYTES_LIMIT => Verdict::Ours,
        Ok(Envelope::Unseen) => Verdict::NeedMore,
        Err(NotAFrame) => Verdict::Theirs,
    }
}

/// Whether `envelope_version` is among the bytes that are there.
#[derive(Clone, Copy)]
enum Envelope {
    Seen,
    Unseen,
}

/// No first frame of a client has these bytes.
struct NotAFrame;

fn envelope(fields: &mut Fields<'_>) -> Result<Envelope, NotAFrame> {
    let mut envelope = Envelope::Unseen;
    loop {
        match fields.next()? {
            Next::Field(1, Value::Number(version)) if version == ENVELOPE_VERSION.into() => {
                envelope = Envelope::Seen;
            }
            Next::Field(2, Value::Number(kind)) if may_be_first(kind) => {}
            Next::Field(6, Value::Number(encoding)) if encoding == PayloadEncoding::None as u64 => {}
            Next::Field(3 | 5 | 7, Value::Number(_)) | Next::Field(4 | 8 | 9, Value::Bytes) => {}
            Next::Field(10.., _) => {}
            Next::Field(..) => return Err(NotAFrame),
            Next::Cut => return Ok(envelope),
        }
    }
}

fn may_be_first(kind: u64) -> bool {
    let kind = i32::try_from(kind).ok().and_then(|kind| FrameKind::try_from(kind).ok());
    match kind {
        Some(FrameKind::Request | FrameKind::Event | FrameKind::Cancel) => true,
        Some(FrameKind::Response) | None => false,
    }
}

/// The fields of a message of which a part is there.
struct Fields<'a> {
    there: &'a [u8],
    /// Bytes of the message behind those.
    to_come: usize,
}

enum Next {
    /// A field by its number. The bytes of the last one may be still to come.
    Field(u64, Value),
    /// What is there has no further field, or only the beginning of one.
    Cut,
}

enum Value {
    Number(u64),
    Fixed,
    Bytes,
}

impl Fields<'_> {
    fn next(&mut self) -> Result<Next, NotAFrame> {
        if self.there.is_empty() {
            return Ok(Next::Cut);
        }
        let Some(key) = self.varint()? else { return Ok(Next::Cut) };
        let number = key >> 3;
        if number == 0 || key > u32::MAX.into() {
            return Err(NotAFrame);
        }
        // The protobuf encoding's wire types; 3 and 4 are groups, which proto3 does not have.
        let value = match key & 7 {
            0 => match self.varint()? {
                Some(value) => Value::Number(value),
                None => return Ok(Next::Cut),
            },
            1 => self.skip(8).map(|()| Value::Fixed)?,
            2 => match self.varint()? {
                Some(length) => self.skip(length).map(|()| Value::Bytes)?,
                None => return Ok(Next::Cut),
            },
            5 => self.skip(4).map(|()| Value::Fixed)?,
            _ => return Err(NotAFrame),
        };
        Ok(Next::Field(number, value))
    }

    /// `None` when the rest of it is still to come.
    fn varint(&mut self) -> Result<Option<u64>, NotAFrame> {
        const LONGEST: usize = 10;
        let mut value = 0;
        for (index, &byte) in self.there.iter().take(LONGEST).enumerate() {
            let bits = u64::from(byte & 0x7F);
            if index + 1 == LONGEST && byte > 1 {
                return Err(NotAFrame);
            }
            value |= bits << (7 * index);
            if byte < 0x80 {
                self.there = &self.there[index + 1..];
                return Ok(Some(value));
            }
        }
        if self.to_come == 0 { Err(NotAFrame) } else { Ok(None) }
    }

    /// Passes over bytes of which some may be still to come, but none lie behind the message.
    fn skip(&mut self, length: u64) -> Result<(), NotAFrame> {
        let length = usize::try_from(length).map_err(|_| NotAFrame)?;
        match self.there.split_at_checked(length) {
            Some((_, rest)) => self.there = rest,
            None if length - self.there.len() <= self.to_come => {
                self.to_come -= length - self.there.len();
                self.there = &[];
            }
            None => return Err(NotAFrame),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use broker_protocol::wire::Frame;
    use broker_protocol::{PayloadProtocol, frame_bytes};

    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        [&[1][..], &u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
    }

    /// What is said of each beginning of `wire`, from one byte on.
    fn verdicts(wire: &[u8]) -> Vec<Verdict> {
        (1..=wire.len()).map(|end| detect_frames(&wire[..end])).collect()
    }

    #[test]
    fn seven_bytes_of_a_usual_frame_decide_and_no_later_one_changes_it() {
        let frame = Frame {
            traceparent: "00-parent".into(),
            tracestate: "rp=1".into(),
            deadline_unix_ms: u64::MAX,
            ..Frame::request(PayloadProtocol::new(0xF001), u64::MAX, vec![0xFF; 3000])
        };
        let wire = [frame_bytes(&frame).unwrap(), frame_bytes(&frame).unwrap()].concat();
        let verdicts = verdicts(&wire);
        assert!(verdicts[..6].iter().all(|verdict| *verdict == Verdict::NeedMore));
        assert!(verdicts[6..].iter().all(|verdict| *verdict == Verdict::Ours));
    }

    #[test]
    fn the_longest_body_is_plausible_and_one_byte_more_is_not() {
        let of_length = |length: u32| detect_frames(&[&[1][..], &length.to_le_bytes()].concat());
        assert_eq!(of_length(16 * 1024 * 1024), Verdict::NeedMore);
        assert_eq!(of_length(16 * 1024 * 1024 + 1), Verdict::Theirs);
        assert_eq!(of_length(1), Verdict::NeedMore);
        assert_eq!(of_length(0), Verdict::Theirs);
    }

    #[test]
    fn what_no_first_frame_has_is_theirs() {
        let cases: [(&str, &[u8]); 17] = [
            ("envelope version 0", &[0x08, 0]),
            ("envelope version 2", &[0x08, 2]),
            ("envelope version 2^32 + 1", &[0x08, 0x81, 0x80, 0x80, 0x80, 0x10]),
            ("no envelope version", &[0x18, 0x81, 0xE0, 0x03]),
            ("a response", &[0x08, 1, 0x10, 1]),
            ("an unknown kind", &[0x08, 1, 0x10, 4]),
            ("an encoding", &[0x08, 1, 0x30, 1]),
            ("field 0", &[0x08, 1, 0x00, 0]),
            ("a key of more than 32 bits", &[0x08, 1, 0x80, 0x80, 0x80, 0x80, 0x10, 0]),
            ("a number as bytes", &[0x0A, 1, 1]),
            ("a payload as a number", &[0x08, 1, 0x20, 1]),
            ("a group", &[0x08, 1, 0x53, 0x54]),
            (
                "a varint of more than 64 bits",
                &[0x08, 1, 0x28, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
            ),
            ("bytes that reach beyond the body", &[0x08, 1, 0x22, 2, 0]),
            ("a body that ends inside a number", &[0x08, 1, 0x28, 0x80]),
            ("a body that ends behind a key", &[0x08, 1, 0x28]),
            ("a body that ends before a length", &[0x08, 1, 0x22]),
        ];
        for (what, body) in cases {
            assert_eq!(detect_frames(&framed(body)), Verdict::Theirs, "{what}");
        }
        assert_eq!(detect_frames(&[0]), Verdict::Theirs);
        assert_eq!(detect_frames(&[2, 2, 0, 0, 0, 8, 1]), Verdict::Theirs);
    }

    #[test]
    fn a_payload_that_reaches_beyond_the_body_is_known_by_its_length_alone() {
        let wire = [&[1, 100, 0, 0, 0][..], &[0x22, 98]].concat();
        assert_eq!(detect_frames(&wire), Verdict::NeedMore);
        let wire = [&[1, 100, 0, 0, 0][..], &[0x22, 99]].concat();
        assert_eq!(detect_frames(&wire), Verdict::Theirs);
    }

    #[test]
    fn fields_in_another_order_and_unknown_ones_are_a_frame_all_the_same() {
        // request_id, payload, 1000 as a varint, 1001 as fixed64, 1002 as fixed32, 10 as bytes; then the envelope.
        let body = [
            &[0x28, 7, 0x22, 2, b'h', b'i', 0xC0, 0x3E, 5][..],
            &[0xC9, 0x3E, 1, 2, 3, 4, 5, 6, 7, 8, 0xD5, 0x3E, 1, 2, 3, 4, 0x52, 1, 0xFF, 0x08, 1],
        ];
        let verdicts = verdicts(&framed(&body.concat()));
        let (last, before) = verdicts.split_last().unwrap();
        assert_eq!(*last, Verdict::Ours);
        assert!(before.iter().all(|verdict| *verdict == Verdict::NeedMore), "{before:?}");
    }

    #[test]
    fn at_the_limit_what_contradicts_nothing_is_a_frame() {
        let body = [&[0x22, 0x80, 0x10][..], &[0xFF; 2048], &[0x08, 1]].concat();
        let wire = framed(&body);
        assert_eq!(detect_frames(&wire[..FIRST_BYTES_LIMIT - 1]), Verdict::NeedMore);
        assert_eq!(detect_frames(&wire[..FIRST_BYTES_LIMIT]), Verdict::Ours);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        // Every pair behind every plausible beginning, as keys, lengths and numbers of one and two bytes.
        for (first, second) in (0..=255).flat_map(|first| (0..=255).map(move |second| (first, second))) {
            for length in [1, 2, 3, 9] {
                detect_frames(&[1, length, 0, 0, 0, first, second]);
                detect_frames(&[1, length, 0, 0, 0, 0x08, 1, first, second, 0xFF, 0xFF]);
            }
        }
    }
}
