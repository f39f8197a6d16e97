//! `Debug` for the wire messages that can carry something secret.
//!
//! The generated `Debug` would print tokens and payloads; these print their length instead, so that
//! a frame in a log line or a test failure never tells a token.

use std::fmt::{self, Debug, Formatter};

use crate::wire::{Frame, HandoffAck, HandoffOffer, Hello, Negotiated};

struct Redacted(usize);

impl Debug for Redacted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("<empty>"),
            length => write!(f, "<redacted, {length} bytes>"),
        }
    }
}

impl Debug for Frame {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("envelope_version", &self.envelope_version)
            .field("kind", &self.kind())
            .field("payload_protocol", &format_args!("{:#06x}", self.payload_protocol))
            .field("payload", &Redacted(self.payload.len()))
            .field("request_id", &self.request_id)
            .field("payload_encoding", &self.payload_encoding())
            .field("deadline_unix_ms", &self.deadline_unix_ms)
            .field("traceparent", &self.traceparent)
            .field("tracestate", &self.tracestate)
            .finish()
    }
}

impl Debug for Hello {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("client_min_protocol", &self.client_min_protocol)
            .field("client_max_protocol", &self.client_max_protocol)
            .field("service_name", &self.service_name)
            .field("wanted_version", &self.wanted_version)
            .field("client_version", &self.client_version)
            .field("client_capabilities", &format_args!("{:#x}", self.client_capabilities))
            .field("auth_token", &Redacted(self.auth_token.len()))
            .field("request_id", &self.request_id)
            .field("connection_id", &self.connection_id)
            .field("peer_pid", &self.peer_pid)
            .field("client_lib_name", &self.client_lib_name)
            .field("client_lib_version", &self.client_lib_version)
            .field("peer_attestation_nonce", &Redacted(self.peer_attestation_nonce.len()))
            .field("capability_token", &Redacted(self.capability_token.len()))
            .field("client_keepalive_secs", &self.client_keepalive_secs)
            .finish()
    }
}

impl Debug for Negotiated {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Negotiated")
            .field("negotiated_protocol", &self.negotiated_protocol)
            .field("daemon_version", &self.daemon_version)
            .field("backend_pipe", &self.backend_pipe)
            .field("warnings", &self.warnings)
            .field("server_capabilities", &format_args!("{:#x}", self.server_capabilities))
            .field("keepalive_interval_secs", &self.keepalive_interval_secs)
            .field("handle_passed_token", &Redacted(self.handle_passed_token.len()))
            .field("connection_id", &self.connection_id)
            .finish()
    }
}

impl Debug for HandoffOffer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandoffOffer")
            .field("handle_value", &self.handle_value)
            .field("token", &Redacted(self.token.len()))
            .field("service_name", &self.service_name)
            .field("correlation_id", &self.correlation_id)
            .field("hello_reply_frame", &Redacted(self.hello_reply_frame.len()))
            .finish()
    }
}

impl Debug for HandoffAck {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandoffAck")
            .field("token", &Redacted(self.token.len()))
            .field("accepted", &self.accepted)
            .field("error_detail", &self.error_detail)
            .field("correlation_id", &self.correlation_id)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_byte_shows_in_any_debug_text() {
        let token = vec![0xC7u8; 16];
        let texts = [
            format!("{:?}", Frame { payload: token.clone().into(), ..Frame::default() }),
            format!(
                "{:?}",
                Hello {
                    auth_token: token.clone(),
                    capability_token: token.clone(),
                    peer_attestation_nonce: token.clone(),
                    ..Hello::default()
                }
            ),
            format!("{:?}", Negotiated { handle_passed_token: token.clone(), ..Negotiated::default() }),
            format!("{:?}", HandoffOffer { token: token.clone(), ..HandoffOffer::default() }),
            format!("{:?}", HandoffAck { token, ..HandoffAck::default() }),
        ];
        for text in texts {
            assert!(text.contains("<redacted, 16 bytes>"), "{text}");
            assert!(!text.contains("199") && !text.to_lowercase().contains("c7"), "{text}");
        }
    }
}
