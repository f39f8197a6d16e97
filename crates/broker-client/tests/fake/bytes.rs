//! Frames and messages by hand: nothing here comes from the crates under test.

/// A base-128 varint.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field that is a number.
pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field that is a text, bytes or a message.
pub(crate) fn text(field: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [&varint(field << 3 | 2), &varint(content.len() as u64), content].concat()
}

/// A body behind its header.
pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    [&[1][..], &u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}

/// The fields of a message, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<(u64, u64, Vec<u8>)>);

impl Fields {
    pub(crate) fn parse(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = take_varint(&mut bytes);
            let value = take_varint(&mut bytes);
            let content = match key & 7 {
                0 => Vec::new(),
                2 => bytes.split_off(..value as usize).unwrap().to_vec(),
                other => panic!("no message here has a field of wire type {other}"),
            };
            fields.push((key >> 3, value, content));
        }
        Self(fields)
    }

    /// A number; 0 where there is none.
    pub(crate) fn number(&self, field: u64) -> u64 {
        self.0.iter().find(|(key, ..)| *key == field).map_or(0, |(_, value, _)| *value)
    }

    /// A text; empty where there is none.
    pub(crate) fn text(&self, field: u64) -> &[u8] {
        self.0.iter().find(|(key, ..)| *key == field).map_or(&[], |(.., content)| content)
    }
}

fn take_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = *bytes.split_off_first().unwrap();
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// A response frame whose every part can be made wrong.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) envelope_version: u64,
    pub(crate) kind: u64,
    pub(crate) lane: u64,
    pub(crate) payload: Vec<u8>,
    pub(crate) request_id: u64,
    pub(crate) encoding: u64,
}

impl Response {
    pub(crate) fn new(lane: u64, request_id: u64, payload: Vec<u8>) -> Self {
        Self { envelope_version: 1, kind: 1, lane, payload, request_id, encoding: 0 }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        [
            number(1, self.envelope_version),
            number(2, self.kind),
            number(3, self.lane),
            text(4, &self.payload),
            number(5, self.request_id),
            number(6, self.encoding),
        ]
        .concat()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        framed(&self.body())
    }

    /// The frame with a field that nobody knows, so that its body has `length` bytes.
    pub(crate) fn padded(&self, length: usize) -> Vec<u8> {
        let body = self.body();
        let key = varint(900 << 3 | 2);
        // Four bytes of length, written long, hold any there is.
        let filler = length - body.len() - key.len() - 4;
        let size: Vec<u8> = (0..4)
            .map(|part| (filler >> (7 * part)) as u8 & 0x7F | if part < 3 { 0x80 } else { 0 })
            .collect();
        framed(&[body, key, size, vec![0; filler]].concat())
    }
}
