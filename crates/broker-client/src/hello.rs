//! What a client says in its Hello, and the frame that carries it (protocol.md, "Hello" and "Frame").
//!
//! Invariant: a frame that is made here names this process, protocol 1 and nothing else, and its
//! texts fit the protocol's limits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker_protocol::limits::{MAX_CLIENT_LIB, MAX_CLIENT_VERSION, MAX_VERSION};
use broker_protocol::prost::Message;
use broker_protocol::wire::{self, Frame};
use broker_protocol::{Capabilities, PROTOCOL_VERSION, PayloadProtocol, ServiceName, Version};

use crate::conversation::TraceContext;
use crate::negotiation::HelloError;

/// What a client asks a broker for.
///
/// ```
/// use broker_client::Hello;
/// use std::time::Duration;
///
/// let hello = Hello::new("build-cache".parse()?, "1.4.2".parse()?)
///     .client_version("0.9.0")
///     .keepalive(Duration::from_secs(600))
///     .deadline(Duration::from_secs(5));
/// assert_eq!(hello.service().as_str(), "build-cache");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Hello {
    service: ServiceName,
    version: Version,
    client_version: String,
    capabilities: Capabilities,
    keepalive: Duration,
    lib_name: String,
    lib_version: String,
    request_id: String,
    traceparent: String,
    tracestate: String,
    deadline: Option<Duration>,
}

impl Hello {
    /// Asks for a version of a service, and leaves the rest to the broker.
    #[must_use]
    pub fn new(service: ServiceName, version: Version) -> Self {
        Self {
            service,
            version,
            client_version: String::new(),
            capabilities: Capabilities::empty(),
            keepalive: Duration::ZERO,
            lib_name: env!("CARGO_PKG_NAME").to_owned(),
            lib_version: env!("CARGO_PKG_VERSION").to_owned(),
            request_id: String::new(),
            traceparent: String::new(),
            tracestate: String::new(),
            deadline: None,
        }
    }

    /// The application's own version, at most 128 bytes.
    #[must_use]
    pub fn client_version(self, version: impl Into<String>) -> Self {
        Self { client_version: version.into(), ..self }
    }

    /// What the client can do; nothing where this is not called.
    #[must_use]
    pub fn capabilities(self, capabilities: Capabilities) -> Self {
        Self { capabilities, ..self }
    }

    /// How long the backend is to be kept without being used, in whole seconds, rounded up. Zero
    /// leaves it to the broker.
    #[must_use]
    pub fn keepalive(self, keepalive: Duration) -> Self {
        Self { keepalive, ..self }
    }

    /// The library that speaks for the application, where it is not this one; at most 64 bytes each.
    #[must_use]
    pub fn client_lib(self, name: impl Into<String>, version: impl Into<String>) -> Self {
        Self { lib_name: name.into(), lib_version: version.into(), ..self }
    }

    /// The client's own name for this request, which the broker writes into its log and its events.
    #[must_use]
    pub fn request_id(self, id: impl Into<String>) -> Self {
        Self { request_id: id.into(), ..self }
    }

    /// The trace this belongs to, in the form of the W3C headers of these names: the Hello, and the requests of
    /// the sessions that come of it.
    #[must_use]
    pub fn trace_context(self, traceparent: impl Into<String>, tracestate: impl Into<String>) -> Self {
        Self { traceparent: traceparent.into(), tracestate: tracestate.into(), ..self }
    }

    /// How long the broker may take to start a backend, counted from the moment the Hello is sent.
    /// Where this is not called, the broker decides.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// The service asked for.
    pub const fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The version asked for.
    pub const fn version(&self) -> &Version {
        &self.version
    }

    pub(crate) fn trace(&self) -> TraceContext {
        TraceContext { parent: self.traceparent.clone(), state: self.tracestate.clone() }
    }

    pub(crate) const fn offered(&self) -> Capabilities {
        self.capabilities
    }

    /// The request frame that is sent at `now`.
    pub(crate) fn frame(&self, request_id: u64, now: SystemTime) -> Result<Frame, HelloError> {
        check("client_version", &self.client_version, MAX_CLIENT_VERSION)?;
        check("client_lib_name", &self.lib_name, MAX_CLIENT_LIB)?;
        check("client_lib_version", &self.lib_version, MAX_VERSION)?;
        let hello = wire::Hello {
            client_min_protocol: PROTOCOL_VERSION,
            client_max_protocol: PROTOCOL_VERSION,
            service_name: self.service.to_string(),
            wanted_version: self.version.to_string(),
            client_version: self.client_version.clone(),
            client_capabilities: self.capabilities.bits(),
            request_id: self.request_id.clone(),
            peer_pid: std::process::id(),
            client_lib_name: self.lib_name.clone(),
            client_lib_version: self.lib_version.clone(),
            client_keepalive_secs: ceil_secs(self.keepalive),
            ..wire::Hello::default()
        };
        Ok(Frame {
            deadline_unix_ms: self.deadline.map(|deadline| unix_ms(now, deadline)).unwrap_or_default(),
            traceparent: self.traceparent.clone(),
            tracestate: self.tracestate.clone(),
            ..Frame::request(PayloadProtocol::CONTROL, request_id, hello.encode_to_vec())
        })
    }
}

fn check(field: &'static str, text: &str, limit: usize) -> Result<(), HelloError> {
    if text.len() > limit {
        return Err(HelloError::FieldTooLong { field, limit, actual: text.len() });
    }
    Ok(())
}

/// A fraction must not become 0, which means something else.
fn ceil_secs(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// Milliseconds since the Unix epoch at `after` from `now`; a clock before the epoch counts as there.
pub(crate) fn unix_ms(now: SystemTime, after: Duration) -> u64 {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.saturating_add(after).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello::new(ServiceName::parse("cache").unwrap(), Version::parse("1.2.3").unwrap())
    }

    fn sent(hello: &Hello) -> (Frame, wire::Hello) {
        let frame = hello.frame(7, UNIX_EPOCH + Duration::from_millis(1_000)).unwrap();
        let payload = wire::Hello::decode(frame.payload.clone()).unwrap();
        (frame, payload)
    }

    #[test]
    fn a_plain_hello_names_the_process_and_leaves_the_rest_to_the_broker() {
        let (frame, payload) = sent(&hello());
        assert_eq!((frame.request_id, frame.deadline_unix_ms), (7, 0));
        assert_eq!(
            payload,
            wire::Hello {
                client_min_protocol: 1,
                client_max_protocol: 1,
                service_name: "cache".into(),
                wanted_version: "1.2.3".into(),
                peer_pid: std::process::id(),
                client_lib_name: "broker-client".into(),
                client_lib_version: env!("CARGO_PKG_VERSION").into(),
                ..wire::Hello::default()
            }
        );
    }

    #[test]
    fn everything_that_was_said_is_sent() {
        let (frame, payload) = sent(
            &hello()
                .client_version("0.9.0")
                .capabilities(Capabilities::EARLY_DATA)
                .keepalive(Duration::from_secs(90))
                .client_lib("other", "2.0.0")
                .request_id("r-1")
                .trace_context("00-aa-bb-01", "k=v")
                .deadline(Duration::from_millis(500)),
        );
        assert_eq!(frame.deadline_unix_ms, 1_500);
        assert_eq!((frame.traceparent.as_str(), frame.tracestate.as_str()), ("00-aa-bb-01", "k=v"));
        assert_eq!((payload.client_version.as_str(), payload.request_id.as_str()), ("0.9.0", "r-1"));
        assert_eq!(
            (payload.client_lib_name.as_str(), payload.client_lib_version.as_str()),
            ("other", "2.0.0")
        );
        assert_eq!((payload.client_capabilities, payload.client_keepalive_secs), (1 << 32, 90));
    }

    #[test]
    fn a_fraction_of_a_second_is_rounded_up() {
        assert_eq!(ceil_secs(Duration::ZERO), 0);
        assert_eq!(ceil_secs(Duration::from_nanos(1)), 1);
        assert_eq!(ceil_secs(Duration::from_secs(2)), 2);
        assert_eq!(ceil_secs(Duration::from_millis(2_001)), 3);
        assert_eq!(ceil_secs(Duration::MAX), u64::MAX);
    }

    #[test]
    fn a_deadline_beyond_all_time_and_a_clock_before_it_are_no_overflow() {
        assert_eq!(unix_ms(UNIX_EPOCH, Duration::MAX), u64::MAX);
        assert_eq!(unix_ms(UNIX_EPOCH - Duration::from_secs(5), Duration::from_millis(3)), 3);
    }

    #[test]
    fn the_longest_texts_are_sent_and_one_more_byte_is_refused_by_name() {
        let of = |length| "x".repeat(length);
        let longest = hello().client_version(of(128)).client_lib(of(64), of(64));
        assert!(longest.frame(1, UNIX_EPOCH).is_ok());
        let too_long = [
            (longest.clone().client_version(of(129)), "client_version", 128),
            (longest.clone().client_lib(of(65), of(64)), "client_lib_name", 64),
            (longest.clone().client_lib(of(64), of(65)), "client_lib_version", 64),
        ];
        for (hello, name, most) in too_long {
            let error = hello.frame(1, UNIX_EPOCH).unwrap_err();
            assert!(
                matches!(error, HelloError::FieldTooLong { field, limit, actual }
                    if (field, limit, actual) == (name, most, most + 1)),
                "{error}"
            );
        }
    }
}
