//! What a client and a broker agreed upon, parsed.
//!
//! Invariant: an [`Agreement`] names a backend that can be dialled, and it has a token exactly where
//! handle passing is in force.

use std::path::PathBuf;
use std::time::Duration;

use broker_protocol::wire::Negotiated;
use broker_protocol::{Capabilities, ConnectionId, HandoffToken, PROTOCOL_VERSION, Version};
use broker_transport::endpoint::{Platform, check_length, pipe_leaf};

use crate::reply::ReplyFault;

/// The answer to a Hello that was not refused (protocol.md, "Negotiated").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The backend's version.
    pub daemon_version: Version,
    /// The endpoint to dial; on Windows the bare leaf of a pipe's name.
    pub backend_pipe: PathBuf,
    /// What the broker finds worth telling a person.
    pub warnings: Vec<String>,
    /// What is in force: what client, broker and backend all can do.
    pub capabilities: Capabilities,
    /// How long the backend may be left alone before it counts as unused.
    pub keepalive: Duration,
    /// The handoff's token; there is one exactly where [`Capabilities::HANDLE_PASSING`] is in force.
    pub token: Option<HandoffToken>,
    /// The negotiation's id, for logs and for a handoff.
    pub connection_id: ConnectionId,
}

impl Agreement {
    /// Parses what came in answer to a Hello that offered `offered`.
    pub(crate) fn new(negotiated: Negotiated, offered: Capabilities) -> Result<Self, ReplyFault> {
        if negotiated.negotiated_protocol != PROTOCOL_VERSION {
            return Err(ReplyFault::NegotiatedProtocol { actual: negotiated.negotiated_protocol });
        }
        let token = match negotiated.handle_passed_token.as_slice() {
            [] => None,
            bytes => Some(HandoffToken::try_from(bytes).map_err(ReplyFault::Token)?),
        };
        let common = Capabilities::from_bits_retain(negotiated.server_capabilities) & offered;
        // Half an offer is none: the backend is dialled then.
        let (capabilities, token) = match token {
            Some(token) if common.contains(Capabilities::HANDLE_PASSING) => (common, Some(token)),
            Some(_) | None => (common - Capabilities::HANDLE_PASSING, None),
        };
        Ok(Self {
            daemon_version: Version::parse(&negotiated.daemon_version).map_err(|cause| {
                ReplyFault::DaemonVersion { actual: negotiated.daemon_version.clone(), cause }
            })?,
            backend_pipe: backend_pipe(Platform::CURRENT, &negotiated.backend_pipe)?,
            warnings: negotiated.warnings,
            capabilities,
            keepalive: Duration::from_secs(negotiated.keepalive_interval_secs),
            token,
            connection_id: ConnectionId::new(negotiated.connection_id).ok_or(ReplyFault::ConnectionId)?,
        })
    }
}

/// A relative path would lead elsewhere from every working directory.
fn backend_pipe(platform: Platform, text: &str) -> Result<PathBuf, ReplyFault> {
    let (path, is_absolute) = match platform {
        Platform::Linux | Platform::MacOs => (text, text.starts_with('/')),
        Platform::Windows => (pipe_leaf(text), !pipe_leaf(text).is_empty()),
    };
    if !is_absolute {
        return Err(ReplyFault::BackendPipe { actual: text.to_owned() });
    }
    let path = PathBuf::from(path);
    check_length(platform, &path).map_err(ReplyFault::BackendPipeLength)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BOTH: Capabilities = Capabilities::HANDLE_PASSING.union(Capabilities::EARLY_DATA);

    fn negotiated(capabilities: Capabilities, token: &[u8]) -> Negotiated {
        Negotiated {
            negotiated_protocol: 1,
            daemon_version: "1.2.3".into(),
            backend_pipe: "/run/backend.sock".into(),
            warnings: vec!["careful".into()],
            server_capabilities: capabilities.bits(),
            keepalive_interval_secs: 60,
            handle_passed_token: token.to_vec(),
            connection_id: 9,
        }
    }

    #[test]
    fn an_agreement_holds_what_came() {
        let agreement = Agreement::new(negotiated(BOTH, &[7; 16]), BOTH).unwrap();
        assert_eq!(agreement.daemon_version.to_string(), "1.2.3");
        assert_eq!(agreement.backend_pipe, Path::new("/run/backend.sock"));
        assert_eq!(agreement.warnings, ["careful"]);
        assert_eq!(agreement.capabilities, BOTH);
        assert_eq!(agreement.keepalive, Duration::from_secs(60));
        assert_eq!(agreement.token, Some(HandoffToken::from_bytes([7; 16])));
        assert_eq!(agreement.connection_id.get(), 9);
    }

    #[test]
    fn only_what_both_sides_can_do_is_in_force() {
        let foreign = Capabilities::from_bits_retain(1 << 50);
        let agreement = Agreement::new(negotiated(BOTH | foreign, &[7; 16]), BOTH).unwrap();
        assert_eq!(agreement.capabilities, BOTH);
        let agreement = Agreement::new(negotiated(BOTH, &[7; 16]), Capabilities::EARLY_DATA).unwrap();
        assert_eq!((agreement.capabilities, agreement.token), (Capabilities::EARLY_DATA, None));
    }

    #[test]
    fn a_token_without_the_bit_or_a_bit_without_a_token_is_no_handoff() {
        for half in [negotiated(Capabilities::EARLY_DATA, &[7; 16]), negotiated(BOTH, &[])] {
            let agreement = Agreement::new(half, BOTH).unwrap();
            assert_eq!((agreement.capabilities, agreement.token), (Capabilities::EARLY_DATA, None));
        }
    }

    #[test]
    fn an_endpoint_is_absolute_and_a_pipe_is_written_bare() {
        for platform in [Platform::Linux, Platform::MacOs] {
            assert_eq!(backend_pipe(platform, "/run/b").unwrap(), Path::new("/run/b"));
            for text in ["", "run/b", "./b", r"\\.\pipe\b"] {
                assert!(
                    matches!(backend_pipe(platform, text), Err(ReplyFault::BackendPipe { .. })),
                    "{text}"
                );
            }
        }
        for text in ["leaf", r"\\.\pipe\leaf"] {
            assert_eq!(backend_pipe(Platform::Windows, text).unwrap(), Path::new("leaf"));
        }
        for text in ["", r"\\.\pipe\"] {
            assert!(matches!(backend_pipe(Platform::Windows, text), Err(ReplyFault::BackendPipe { .. })));
        }
    }

    #[test]
    fn the_longest_endpoint_is_taken_and_one_more_byte_is_not() {
        let of_length = |length: usize| format!("/{}", "x".repeat(length - 1));
        assert!(backend_pipe(Platform::Linux, &of_length(107)).is_ok());
        let error = backend_pipe(Platform::Linux, &of_length(108)).unwrap_err();
        assert!(matches!(error, ReplyFault::BackendPipeLength(_)), "{error}");
    }
}
