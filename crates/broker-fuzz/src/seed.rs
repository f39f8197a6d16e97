//! What a search begins with: inputs made of real encodings, so that it need not find out the format first.

use broker_protocol::prost::Message;
use serde_json::Value;

/// Encodings by an independent implementation.
const VECTORS: &str = include_str!("../../broker-protocol/tests/vectors.json");

/// An input with a name.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The name of its file.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

/// The seed of this name.
pub(crate) fn seed(name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
    Seed { name: name.to_owned(), bytes: bytes.into() }
}

/// The encoding of a message as a seed.
pub(crate) fn encoded(name: &str, message: &impl Message) -> Seed {
    seed(name, message.encode_to_vec())
}

/// The independent implementation's encoding of this message.
pub(crate) fn vector(message: &str) -> Seed {
    let file: Value = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    let vectors = file["vectors"].as_array().expect("the vectors are a list");
    let found =
        vectors.iter().find(|vector| vector["message"] == message).expect("every message has a vector");
    let hex = found["hex"].as_str().expect("a vector is hex");
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a vector is hex"))
        .collect();
    seed("by-another-implementation", bytes)
}
