//! A sealed manifest: what opens is what was sealed, and one wrong bit does not open.

use broker_protocol::manifest::{self, SealError};
use broker_protocol::prost::Message;
use broker_protocol::wire::{CacheManifest, CacheRoot, DaemonProcess, HostIdentity, ManifestRef, Operation};

use crate::seed::{Seed, seed};

/// Takes the first two bytes for a bit to turn over, the rest for a manifest.
pub fn target(bytes: &[u8]) {
    let Some((position, bytes)) = bytes.split_first_chunk() else { return };
    if let Ok(opened) = manifest::open(bytes) {
        assert_eq!(opened.media_type, manifest::MEDIA_TYPE);
        assert_eq!(opened.manifest_schema_version, manifest::SCHEMA_VERSION);
        assert_eq!(opened.self_sha256.len(), 32);
        breaks(bytes, u16::from_le_bytes(*position));
    }
    let Ok(decoded) = CacheManifest::decode(bytes) else {
        assert!(matches!(manifest::open(bytes), Err(SealError::Encoding(_))));
        return;
    };
    let sealed = manifest::seal(decoded.clone());
    let opened = manifest::open(&sealed).expect("what was sealed opens");
    let normal = |manifest: CacheManifest| CacheManifest {
        broker_envelope_version: String::new(),
        media_type: String::new(),
        manifest_schema_version: 0,
        self_sha256: Vec::new(),
        ..manifest
    };
    assert!(
        normal(opened.clone()) == normal(decoded),
        "sealing changes nothing but the seal and the constants"
    );
    assert_eq!(manifest::seal(opened), sealed, "a seal stands for one content");
    breaks(&sealed, u16::from_le_bytes(*position));
}

fn breaks(sealed: &[u8], position: u16) {
    let bit = usize::from(position) % (sealed.len() * 8);
    let mut damaged = sealed.to_vec();
    damaged[bit / 8] ^= 1 << (bit % 8);
    assert!(manifest::open(&damaged).is_err(), "bit {bit} makes no difference");
    assert!(manifest::open(&sealed[..bit / 8]).is_err(), "{} bytes are enough", bit / 8);
}

/// Sealed ones, unsealed ones, and one with fields of a later writer.
pub fn seeds() -> Vec<Seed> {
    let manifest = CacheManifest {
        service_name: "cache".into(),
        service_version: "1.2.3".into(),
        created_at_unix_ms: 1_700_000_000_000,
        roots: vec![CacheRoot {
            path: "/var/cache/x".into(),
            labels: [("owner".into(), "ci".into()), ("tier".into(), "hot".into())].into(),
            ..CacheRoot::default()
        }],
        current_daemon: Some(DaemonProcess { pid: 7, exe_hash: vec![5; 32], ..DaemonProcess::default() }),
        host: Some(HostIdentity { hostname: "h".into(), ..HostIdentity::default() }),
        depends_on: vec![ManifestRef { service_name: "other".into(), ..ManifestRef::default() }],
        current_operation: Some(Operation { kind: 2, ..Operation::default() }),
        ..CacheManifest::default()
    };
    let sealed = manifest::seal(manifest.clone());
    let at = |position: u16, bytes: &[u8]| [&position.to_le_bytes()[..], bytes].concat();
    let later = {
        let unsealed = manifest::open(&sealed).expect("it is sealed");
        let mut bytes = CacheManifest { self_sha256: Vec::new(), ..unsealed }.encode_to_vec();
        bytes.extend_from_slice(&[0xE0, 0x12, 5]);
        let seal = <sha2::Sha256 as sha2::Digest>::digest(&bytes).to_vec();
        let seal = CacheManifest { self_sha256: seal, ..CacheManifest::default() }.encode_to_vec();
        [bytes, seal].concat()
    };
    assert!(manifest::open(&later).is_ok(), "fields of a later writer are under the seal");
    vec![
        seed("empty", at(0, &[])),
        seed("sealed", at(0, &sealed)),
        seed("sealed-and-damaged-late", at(u16::try_from(sealed.len() * 8 - 1).unwrap_or(u16::MAX), &sealed)),
        seed("plain", at(77, &manifest.encode_to_vec())),
        seed("empty-and-sealed", at(9, &manifest::seal(CacheManifest::default()))),
        seed("of-a-later-writer", at(1_000, &later)),
        seed("cut", at(5, &sealed[..sealed.len() - 3])),
        seed("sealed-twice", at(300, &[&sealed[..], &sealed[..]].concat())),
    ]
}
