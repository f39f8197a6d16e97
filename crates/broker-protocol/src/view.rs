//! Borrowed views of the two messages on the Hello path.
//!
//! The broker answers a Hello without copying what the client wrote, so it reads `Frame` and `Hello`
//! as views whose strings and payload are slices of the receive buffer. Everything else uses the
//! generated types.
//!
//! Invariant: a view accepts exactly what the generated decoder accepts and holds the same values
//! (last one wins, unknown fields skipped, same recursion limit); the property tests below hold it
//! to that.

use thiserror::Error;

use crate::limits::MAX_RECURSION;
use crate::payload_protocol::PayloadProtocol;

/// Why bytes are not the message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{message} at offset {offset}: {fault}")]
pub struct ViewError {
    /// Which message was expected.
    pub message: &'static str,
    /// Where decoding stopped, in bytes from the message's start.
    pub offset: usize,
    /// What is wrong there.
    pub fault: WireFault,
}

/// What is wrong with an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireFault {
    /// The bytes end inside a value.
    #[error("the bytes end inside a value")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("a varint has more than 64 bits")]
    Varint,
    /// A field key that no message has.
    #[error("not a field key")]
    Key,
    /// A known field with another wire type.
    #[error("the field has another wire type")]
    WireType,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// Groups nested too deep, or closed without having been opened.
    #[error("groups are nested too deep or out of order")]
    Group,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WireType {
    Varint,
    Fixed64,
    Length,
    StartGroup,
    EndGroup,
    Fixed32,
}

/// Takes protobuf values off a slice.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    pub(crate) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) const fn offset(&self) -> usize {
        self.length - self.rest.len()
    }

    /// Nearly every varint of a Hello has one byte.
    #[inline]
    fn varint(&mut self) -> Result<u64, WireFault> {
        match self.rest {
            [byte @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                Ok((*byte).into())
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireFault> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte < 0x80 {
                if index == 9 && byte > 1 {
                    return Err(WireFault::Varint);
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { WireFault::Truncated } else { WireFault::Varint })
    }

    #[inline]
    fn key(&mut self) -> Result<(u32, WireType), WireFault> {
        let key = u32::try_from(self.varint()?).map_err(|_| WireFault::Key)?;
        let wire_type = match key & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Length,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return Err(WireFault::Key),
        };
        match key >> 3 {
            0 => Err(WireFault::Key),
            tag => Ok((tag, wire_type)),
        }
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<&'a [u8], WireFault> {
        let length = usize::try_from(length).map_err(|_| WireFault::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireFault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn number(&mut self, wire_type: WireType) -> Result<u64, WireFault> {
        if wire_type != WireType::Varint {
            return Err(WireFault::WireType);
        }
        self.varint()
    }

    #[inline]
    fn slice(&mut self, wire_type: WireType) -> Result<&'a [u8], WireFault> {
        if wire_type != WireType::Length {
            return Err(WireFault::WireType);
        }
        let length = self.varint()?;
        self.take(length)
    }

    #[inline]
    fn text(&mut self, wire_type: WireType) -> Result<&'a str, WireFault> {
        std::str::from_utf8(self.slice(wire_type)?).map_err(|_| WireFault::Utf8)
    }

    fn skip(&mut self, tag: u32, wire_type: WireType, depth_left: u32) -> Result<(), WireFault> {
        if depth_left == 0 {
            return Err(WireFault::Group);
        }
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.take(8).map(drop),
            WireType::Fixed32 => self.take(4).map(drop),
            WireType::Length => self.slice(wire_type).map(drop),
            WireType::EndGroup => Err(WireFault::Group),
            WireType::StartGroup => loop {
                match self.key()? {
                    (inner, WireType::EndGroup) if inner == tag => return Ok(()),
                    (_, WireType::EndGroup) => return Err(WireFault::Group),
                    (inner, wire_type) => self.skip(inner, wire_type, depth_left - 1)?,
                }
            },
        }
    }

    /// Skips one whole top-level field and tells its tag.
    pub(crate) fn skip_field(&mut self) -> Result<u32, WireFault> {
        let (tag, wire_type) = self.key()?;
        self.skip(tag, wire_type, MAX_RECURSION)?;
        Ok(tag)
    }
}

#[inline(always)]
fn read<'a>(
    message: &'static str,
    bytes: &'a [u8],
    mut field: impl FnMut(&mut Reader<'a>, u32, WireType) -> Result<(), WireFault>,
) -> Result<(), ViewError> {
    let mut reader = Reader::new(bytes);
    while !reader.is_at_end() {
        let outcome = reader.key().and_then(|(tag, wire_type)| field(&mut reader, tag, wire_type));
        outcome.map_err(|fault| ViewError { message, offset: reader.offset(), fault })?;
    }
    Ok(())
}

/// A `Frame` whose strings and payload are slices of the bytes it was read from.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameView<'a> {
    /// See `Frame.envelope_version`.
    pub envelope_version: u32,
    /// See `Frame.kind`; any number a peer may write.
    pub kind: i32,
    /// See `Frame.payload_protocol`.
    pub payload_protocol: u32,
    /// See `Frame.payload`.
    pub payload: &'a [u8],
    /// See `Frame.request_id`.
    pub request_id: u64,
    /// See `Frame.payload_encoding`; any number a peer may write.
    pub payload_encoding: i32,
    /// See `Frame.deadline_unix_ms`: milliseconds since the Unix epoch, 0 for none.
    pub deadline_unix_ms: u64,
    /// See `Frame.traceparent`.
    pub traceparent: &'a str,
    /// See `Frame.tracestate`.
    pub tracestate: &'a str,
}

impl<'a> FrameView<'a> {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`ViewError`] where and why `body` is not a `Frame`.
    pub fn decode(body: &'a [u8]) -> Result<Self, ViewError> {
        let mut view = Self::default();
        read("Frame", body, |reader, tag, wire_type| {
            match tag {
                1 => view.envelope_version = reader.number(wire_type)? as u32,
                2 => view.kind = reader.number(wire_type)? as i32,
                3 => view.payload_protocol = reader.number(wire_type)? as u32,
                4 => view.payload = reader.slice(wire_type)?,
                5 => view.request_id = reader.number(wire_type)?,
                6 => view.payload_encoding = reader.number(wire_type)? as i32,
                7 => view.deadline_unix_ms = reader.number(wire_type)?,
                8 => view.traceparent = reader.text(wire_type)?,
                9 => view.tracestate = reader.text(wire_type)?,
                _ => reader.skip(tag, wire_type, MAX_RECURSION)?,
            }
            Ok(())
        })?;
        Ok(view)
    }

    /// The lane of this frame's payload.
    pub const fn lane(&self) -> PayloadProtocol {
        PayloadProtocol::new(self.payload_protocol)
    }
}

/// A `Hello` whose strings are slices of the bytes it was read from.
///
/// The three fields of reserved use are checked and left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HelloView<'a> {
    /// See `Hello.client_min_protocol`.
    pub client_min_protocol: u32,
    /// See `Hello.client_max_protocol`.
    pub client_max_protocol: u32,
    /// See `Hello.service_name`.
    pub service_name: &'a str,
    /// See `Hello.wanted_version`.
    pub wanted_version: &'a str,
    /// See `Hello.client_version`.
    pub client_version: &'a str,
    /// See `Hello.client_capabilities`.
    pub client_capabilities: u64,
    /// See `Hello.request_id`.
    pub request_id: &'a str,
    /// See `Hello.connection_id`.
    pub connection_id: u64,
    /// See `Hello.peer_pid`.
    pub peer_pid: u32,
    /// See `Hello.client_lib_name`.
    pub client_lib_name: &'a str,
    /// See `Hello.client_lib_version`.
    pub client_lib_version: &'a str,
    /// See `Hello.client_keepalive_secs`: seconds, 0 for the broker's default.
    pub client_keepalive_secs: u64,
}

impl<'a> HelloView<'a> {
    /// Reads the payload of a control request.
    ///
    /// # Errors
    /// [`ViewError`] where and why `payload` is not a `Hello`.
    #[inline]
    pub fn decode(payload: &'a [u8]) -> Result<Self, ViewError> {
        let mut view = Self::default();
        read("Hello", payload, |reader, tag, wire_type| {
            match tag {
                1 => view.client_min_protocol = reader.number(wire_type)? as u32,
                2 => view.client_max_protocol = reader.number(wire_type)? as u32,
                3 => view.service_name = reader.text(wire_type)?,
                4 => view.wanted_version = reader.text(wire_type)?,
                5 => view.client_version = reader.text(wire_type)?,
                6 => view.client_capabilities = reader.number(wire_type)?,
                8 => view.request_id = reader.text(wire_type)?,
                9 => view.connection_id = reader.number(wire_type)?,
                10 => view.peer_pid = reader.number(wire_type)? as u32,
                11 => view.client_lib_name = reader.text(wire_type)?,
                12 => view.client_lib_version = reader.text(wire_type)?,
                7 | 13 | 14 => drop(reader.slice(wire_type)?),
                15 => view.client_keepalive_secs = reader.number(wire_type)?,
                _ => reader.skip(tag, wire_type, MAX_RECURSION)?,
            }
            Ok(())
        })?;
        Ok(view)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::wire::{Frame, Hello};

    fn put_varint(value: u64, out: &mut Vec<u8>) {
        prost::encode_length_delimiter(value as usize, out).unwrap();
    }

    fn assert_frame_agrees(body: &[u8]) -> Result<(), TestCaseError> {
        match (FrameView::decode(body), Frame::decode(body)) {
            (Ok(view), Ok(frame)) => {
                prop_assert_eq!(view.envelope_version, frame.envelope_version);
                prop_assert_eq!(view.kind, frame.kind);
                prop_assert_eq!(view.payload_protocol, frame.payload_protocol);
                prop_assert_eq!(view.payload, &frame.payload[..]);
                prop_assert_eq!(view.request_id, frame.request_id);
                prop_assert_eq!(view.payload_encoding, frame.payload_encoding);
                prop_assert_eq!(view.deadline_unix_ms, frame.deadline_unix_ms);
                prop_assert_eq!(view.traceparent, frame.traceparent);
                prop_assert_eq!(view.tracestate, frame.tracestate);
            }
            (Err(_), Err(_)) => {}
            (view, frame) => prop_assert!(false, "{:?} but {:?}", view.map(|_| ()), frame.map(|_| ())),
        }
        Ok(())
    }

    fn assert_hello_agrees(payload: &[u8]) -> Result<(), TestCaseError> {
        match (HelloView::decode(payload), Hello::decode(payload)) {
            (Ok(view), Ok(hello)) => {
                prop_assert_eq!(view.client_min_protocol, hello.client_min_protocol);
                prop_assert_eq!(view.client_max_protocol, hello.client_max_protocol);
                prop_assert_eq!(view.service_name, hello.service_name);
                prop_assert_eq!(view.wanted_version, hello.wanted_version);
                prop_assert_eq!(view.client_version, hello.client_version);
                prop_assert_eq!(view.client_capabilities, hello.client_capabilities);
                prop_assert_eq!(view.request_id, hello.request_id);
                prop_assert_eq!(view.connection_id, hello.connection_id);
                prop_assert_eq!(view.peer_pid, hello.peer_pid);
                prop_assert_eq!(view.client_lib_name, hello.client_lib_name);
                prop_assert_eq!(view.client_lib_version, hello.client_lib_version);
                prop_assert_eq!(view.client_keepalive_secs, hello.client_keepalive_secs);
            }
            (Err(_), Err(_)) => {}
            (view, hello) => prop_assert!(false, "{view:?} but {hello:?}"),
        }
        Ok(())
    }

    /// Bytes that look like protobuf: keys, lengths and values from small ranges, so that nearly
    /// valid messages, duplicates, groups and wrong wire types all come up.
    fn nearly_protobuf() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            (1u32..18, 0u32..8).prop_map(|(tag, wire_type)| {
                let mut bytes = Vec::new();
                put_varint(u64::from(tag << 3 | wire_type), &mut bytes);
                bytes
            }),
            any::<u64>().prop_map(|value| {
                let mut bytes = Vec::new();
                put_varint(value, &mut bytes);
                bytes
            }),
            proptest::collection::vec(any::<u8>(), 0..6),
            (1u32..18, proptest::collection::vec(b'a'..=b'z', 0..9)).prop_map(|(tag, text)| {
                let mut bytes = Vec::new();
                put_varint(u64::from(tag << 3 | 2), &mut bytes);
                bytes.push(text.len() as u8);
                bytes.extend(text);
                bytes
            }),
            (1u32..18, 0u64..300).prop_map(|(tag, value)| {
                let mut bytes = Vec::new();
                put_varint(u64::from(tag << 3), &mut bytes);
                put_varint(value, &mut bytes);
                bytes
            }),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn views_agree_with_the_generated_decoder_on_nearly_valid_bytes(bytes in nearly_protobuf()) {
            assert_frame_agrees(&bytes)?;
            assert_hello_agrees(&bytes)?;
        }

        #[test]
        fn views_agree_with_the_generated_decoder_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            assert_frame_agrees(&bytes)?;
            assert_hello_agrees(&bytes)?;
        }
    }

    #[test]
    fn groups_nest_as_deep_as_the_generated_decoder_lets_them() {
        for depth in [1, 98, 99, 100, 101, 150] {
            let open = [0x83, 0x02].repeat(depth); // field 32, start of a group
            let close = [0x84, 0x02].repeat(depth);
            let bytes = [open, close].concat();
            assert_eq!(FrameView::decode(&bytes).is_ok(), Frame::decode(&bytes[..]).is_ok(), "depth {depth}");
        }
    }

    #[test]
    fn a_varint_of_more_than_sixty_four_bits_is_refused_like_the_generated_decoder_does() {
        for last in [0x01u8, 0x02, 0x7F, 0x80] {
            let bytes = [&[0x28][..], &[0xFF; 9], &[last]].concat();
            assert_eq!(FrameView::decode(&bytes).is_ok(), Frame::decode(&bytes[..]).is_ok(), "{last:#x}");
        }
    }

    #[test]
    fn a_fault_names_the_message_and_the_offset() {
        let error = FrameView::decode(&[0x08, 0x01, 0x22, 0x05, 0x00]).err().unwrap();
        assert_eq!(error, ViewError { message: "Frame", offset: 4, fault: WireFault::Truncated });
    }
}
