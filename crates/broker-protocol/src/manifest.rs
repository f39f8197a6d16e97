//! Sealing and verifying cache manifests (protocol.md, "Invariants").
//!
//! A manifest's `self_sha256` is SHA-256 over its encoding with that field empty. Verification works
//! on the bytes as they lie on disk: it hashes everything but the field itself, so a manifest whose
//! writer knows more fields than this crate, or orders its maps differently, still verifies.

use prost::Message;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::view::Reader;
use crate::wire::CacheManifest;

/// `CacheManifest.media_type`.
pub const MEDIA_TYPE: &str = "application/vnd.running-process.cache-manifest.v1";

/// `CacheManifest.broker_envelope_version`.
pub const ENVELOPE_VERSION: &str = "v1";

/// `CacheManifest.manifest_schema_version`.
pub const SCHEMA_VERSION: u32 = 1;

const SELF_SHA256_TAG: u32 = 102;

/// Why bytes are no sealed manifest.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SealError {
    /// Not a `CacheManifest` at all.
    #[error("the bytes are no cache manifest: {0}")]
    Encoding(#[from] prost::DecodeError),
    /// Sealed as something else.
    #[error("expected media type {MEDIA_TYPE:?}, got {actual:?}")]
    MediaType {
        /// What it says.
        actual: String,
    },
    /// A schema this crate does not know.
    #[error("expected manifest schema {SCHEMA_VERSION}, got {actual}")]
    Schema {
        /// What it says.
        actual: u32,
    },
    /// The content is not what was sealed.
    #[error("the seal does not match the content; the manifest was changed or damaged after it was written")]
    Seal,
}

/// Fills in the constant fields and the seal, and encodes the manifest.
///
/// ```
/// use broker_protocol::manifest;
/// use broker_protocol::wire::CacheManifest;
///
/// let mut bytes = manifest::seal(CacheManifest { service_name: "cache".into(), ..Default::default() });
/// assert_eq!(manifest::open(&bytes)?.service_name, "cache");
/// bytes[3] ^= 1;
/// assert!(manifest::open(&bytes).is_err());
/// # Ok::<(), manifest::SealError>(())
/// ```
pub fn seal(mut manifest: CacheManifest) -> Vec<u8> {
    ENVELOPE_VERSION.clone_into(&mut manifest.broker_envelope_version);
    MEDIA_TYPE.clone_into(&mut manifest.media_type);
    manifest.manifest_schema_version = SCHEMA_VERSION;
    manifest.self_sha256.clear();
    manifest.self_sha256 = Sha256::digest(manifest.encode_to_vec()).to_vec();
    manifest.encode_to_vec()
}

/// Decodes a manifest and checks its seal.
///
/// # Errors
/// [`SealError`] says why it cannot be trusted.
pub fn open(bytes: &[u8]) -> Result<CacheManifest, SealError> {
    let manifest = CacheManifest::decode(bytes)?;
    if manifest.media_type != MEDIA_TYPE {
        return Err(SealError::MediaType { actual: manifest.media_type });
    }
    if manifest.manifest_schema_version != SCHEMA_VERSION {
        return Err(SealError::Schema { actual: manifest.manifest_schema_version });
    }
    if unsealed_digest(bytes) != Some(manifest.self_sha256.clone()) {
        return Err(SealError::Seal);
    }
    Ok(manifest)
}

/// The digest over every field but the seal itself.
fn unsealed_digest(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut digest = Sha256::new();
    let mut reader = Reader::new(bytes);
    while !reader.is_at_end() {
        let start = reader.offset();
        if reader.skip_field().ok()? != SELF_SHA256_TAG {
            digest.update(&bytes[start..reader.offset()]);
        }
    }
    Some(digest.finalize().to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{CacheRoot, HostIdentity};

    fn sealed() -> Vec<u8> {
        seal(CacheManifest {
            service_name: "cache".into(),
            service_version: "1.2.3".into(),
            roots: vec![CacheRoot { path: "/var/cache/x".into(), ..CacheRoot::default() }],
            host: Some(HostIdentity { hostname: "h".into(), ..HostIdentity::default() }),
            ..CacheManifest::default()
        })
    }

    #[test]
    fn the_seal_is_the_digest_of_the_encoding_without_it() {
        let mut manifest = open(&sealed()).unwrap();
        let seal = std::mem::take(&mut manifest.self_sha256);
        assert_eq!(seal, Sha256::digest(manifest.encode_to_vec()).to_vec());
    }

    #[test]
    fn every_flipped_bit_breaks_the_manifest() {
        let bytes = sealed();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn fields_of_a_newer_writer_are_part_of_the_seal() {
        let plain = open(&sealed()).unwrap();
        let mut unsealed = CacheManifest { self_sha256: Vec::new(), ..plain }.encode_to_vec();
        prost::encode_length_delimiter(300 << 3, &mut unsealed).unwrap(); // field 300, a varint
        unsealed.push(5);
        let digest = Sha256::digest(&unsealed).to_vec();
        let seal_field = CacheManifest { self_sha256: digest, ..CacheManifest::default() }.encode_to_vec();
        let sealed = [unsealed, seal_field].concat();
        assert!(open(&sealed).is_ok());
    }

    #[test]
    fn a_manifest_without_a_seal_is_refused() {
        let bytes = CacheManifest {
            media_type: MEDIA_TYPE.into(),
            manifest_schema_version: SCHEMA_VERSION,
            ..CacheManifest::default()
        }
        .encode_to_vec();
        assert_eq!(open(&bytes), Err(SealError::Seal));
        assert!(matches!(open(&[]), Err(SealError::MediaType { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = open(&bytes);
        }
    }
}
