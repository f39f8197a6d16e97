//! What endpoints are called: the user's hash and the leaf of each class (protocol.md, "Names and places").
//!
//! Pure text in, text out; where a leaf lies is [`super::places`]'s business. Invariant: a leaf holds
//! only `[a-z0-9-]`, so it is one path component and one pipe name on every platform.

use std::fmt::{self, Display, Formatter};

use broker_protocol::{BrokerInstance, InstanceName, ServiceName};

/// What every leaf begins with.
const LEAF_PREFIX: &str = "rpb-v1";

/// Which user on which machine: 8 bytes of BLAKE3 over the identity text, written as 16 lowercase hex.
///
/// ```
/// use broker_transport::endpoint::UserHash;
///
/// let hash = UserHash::from_identity("1000:0123456789abcdef0123456789abcdef\n");
/// assert_eq!(hash, UserHash::from_identity("1000:0123456789abcdef0123456789abcdef"));
/// assert_eq!(hash.to_string().len(), 16);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserHash([u8; 8]);

impl UserHash {
    /// The hash of an identity text; white space around the text does not count.
    pub fn from_identity(text: &str) -> Self {
        Self(leading_hash(text.trim()))
    }
}

impl Display for UserHash {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// The first 8 bytes of BLAKE3 over `text`.
pub(super) fn leading_hash(text: &str) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(text.as_bytes()).as_bytes();
    [a, b, c, d, e, f, g, h]
}

/// Lowercase hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 0xF] {
            text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
        text
    })
}

/// The identity text of a Linux user.
///
/// `machine_id` is `/etc/machine-id`, `dbus_machine_id` is `/var/lib/dbus/machine-id`; an empty file
/// counts as an absent one. Without either, the text is only as stable as the boot.
pub fn identity_text_linux(
    uid: u32,
    machine_id: Option<&str>,
    dbus_machine_id: Option<&str>,
    boot_id: &str,
) -> String {
    let stable = [machine_id, dbus_machine_id].into_iter().flatten().map(str::trim).find(|id| !id.is_empty());
    match stable {
        Some(id) => format!("{uid}:{id}"),
        None => format!("{uid}:boot:{}", boot_id.trim()),
    }
}

/// The identity text of a macOS user; `platform_uuid` is the `IOPlatformUUID`.
pub fn identity_text_macos(uid: u32, platform_uuid: &str) -> String {
    format!("{uid}:{}", platform_uuid.trim())
}

/// The leaf of a broker's endpoint.
pub fn leaf(user: &UserHash, instance: &BrokerInstance) -> String {
    match instance {
        BrokerInstance::Shared => format!("{LEAF_PREFIX}-{user}-shared"),
        BrokerInstance::Service(name) => format!("{LEAF_PREFIX}-{user}-svc-{}", name.as_str()),
        BrokerInstance::Named(name) => format!("{LEAF_PREFIX}-{user}-inst-{}", name.as_str()),
    }
}

/// The leaf of a backend's endpoint; `random` makes it one of a kind.
pub fn backend_leaf(user: &UserHash, random: [u8; 16]) -> String {
    format!("{LEAF_PREFIX}-{user}-be-{}", hex(&random))
}

/// Whether a leaf is that of a backend of `user`.
pub fn is_backend_leaf(user: &UserHash, leaf: &str) -> bool {
    let random = leaf.strip_prefix(&format!("{LEAF_PREFIX}-{user}-be-"));
    random.is_some_and(|random| random.len() == 32 && random.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Which broker of `user` a leaf belongs to; `None` for a backend's, another user's or any other text.
pub fn instance_of_leaf(user: &UserHash, leaf: &str) -> Option<BrokerInstance> {
    let class = leaf.strip_prefix(LEAF_PREFIX)?.strip_prefix('-')?;
    let class = class.strip_prefix(user.to_string().as_str())?.strip_prefix('-')?;
    if class == "shared" {
        return Some(BrokerInstance::Shared);
    }
    match class.split_once('-')? {
        ("svc", name) => ServiceName::parse(name).ok().map(BrokerInstance::Service),
        ("inst", name) => InstanceName::parse(name).ok().map(BrokerInstance::Named),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances() -> [BrokerInstance; 3] {
        ["shared", "svc:build-cache", "inst:ci-1"].map(|text| text.parse().unwrap())
    }

    #[test]
    fn the_hash_is_the_head_of_blake3_over_the_text() {
        // BLAKE3 of the empty input, from the algorithm's published test vectors.
        assert_eq!(UserHash::from_identity("  \n").to_string(), "af1349b9f5f9a1a6");
        assert_eq!(UserHash::from_identity("").to_string(), "af1349b9f5f9a1a6");
        // By a second implementation, written for this check alone.
        let user = UserHash::from_identity("1000:0123456789abcdef0123456789abcdef");
        assert_eq!(user.to_string(), "9bfab56ad37b16cc");
    }

    #[test]
    fn white_space_around_an_identity_does_not_count_but_inside_it_does() {
        let plain = UserHash::from_identity("1000:abc");
        assert_eq!(plain, UserHash::from_identity("\t1000:abc\r\n"));
        assert_ne!(plain, UserHash::from_identity("1000: abc"));
    }

    #[test]
    fn linux_prefers_the_machine_id_then_dbus_then_the_boot() {
        assert_eq!(identity_text_linux(7, Some("aa\n"), Some("bb"), "cc"), "7:aa");
        assert_eq!(identity_text_linux(7, Some(" \n"), Some("bb\n"), "cc"), "7:bb");
        assert_eq!(identity_text_linux(7, None, Some("bb"), "cc"), "7:bb");
        assert_eq!(identity_text_linux(7, None, Some(""), "cc\n"), "7:boot:cc");
        assert_eq!(identity_text_macos(501, "UUID\n"), "501:UUID");
    }

    #[test]
    fn each_class_has_its_own_leaf() {
        let user = UserHash::from_identity("");
        assert_eq!(
            instances().map(|instance| leaf(&user, &instance)),
            [
                "rpb-v1-af1349b9f5f9a1a6-shared",
                "rpb-v1-af1349b9f5f9a1a6-svc-build-cache",
                "rpb-v1-af1349b9f5f9a1a6-inst-ci-1",
            ]
        );
        let random = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xFF];
        assert_eq!(
            backend_leaf(&user, random),
            "rpb-v1-af1349b9f5f9a1a6-be-000102030405060708090a0b0c0d0eff"
        );
    }

    #[test]
    fn a_leaf_names_its_broker_again_and_nothing_else_does() {
        let user = UserHash::from_identity("");
        for instance in instances() {
            assert_eq!(instance_of_leaf(&user, &leaf(&user, &instance)), Some(instance));
        }
        let other = UserHash::from_identity("other");
        assert_eq!(instance_of_leaf(&other, &leaf(&user, &BrokerInstance::Shared)), None);
        assert_eq!(instance_of_leaf(&user, &backend_leaf(&user, [0; 16])), None);
        for text in ["", "rpb-v1", "rpb-v1-af1349b9f5f9a1a6", "rpb-v1-af1349b9f5f9a1a6-svc-UPPER"] {
            assert_eq!(instance_of_leaf(&user, text), None, "{text}");
        }
    }
}
