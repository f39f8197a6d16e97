//! Why a Hello is refused: one enum, and the one place that maps it to codes, retry times and details.
//!
//! Each variant is one row, or one case of a row, of the decision table (behaviour.md 2). The text is
//! for people and says what to do next where something can be done; `details` is for programs and
//! its keys are stable.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use crate::frame::{ENVELOPE_VERSION, PROTOCOL_VERSION};
use crate::framing::FRAMING_VERSION;
use crate::instance::BrokerInstance;
use crate::version::Version;
use crate::view::ViewError;
use crate::wire::{ErrorCode, FrameKind, PayloadEncoding, Refused};

/// Advice after a version was blocked: policies change when somebody edits a file.
const RETRY_VERSION_BLOCKED: Duration = Duration::from_secs(30);
/// Advice after descriptor pressure.
const RETRY_FD_PRESSURE: Duration = Duration::from_secs(1);
/// Advice after a failed start.
const RETRY_SPAWN_FAILED: Duration = Duration::from_secs(1);
/// Advice where a peer has too many starts under way: one of them is done by then.
const RETRY_PEER_STARTS: Duration = Duration::from_secs(1);
/// Least advice while draining.
const RETRY_SHUTTING_DOWN_AT_LEAST: Duration = Duration::from_secs(1);
/// Least advice after a spent budget.
const RETRY_RATE_LIMITED_AT_LEAST: Duration = Duration::from_millis(1);

/// Why a version is blocked by the service's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyBlock {
    /// Below `min_version`.
    BelowMinimum(Version),
    /// Not in a non-empty allow-list.
    NotAllowed(Vec<Version>),
}

/// How far the start of a backend got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpawnStage {
    /// Finding and checking the executable.
    Resolve,
    /// Preparing the endpoint.
    Endpoint,
    /// Creating the process.
    Exec,
    /// Waiting for the identity probe to answer.
    Ready,
    /// The probe answered, but it is not the process that was started.
    Identity,
    /// Started, but not within the time the client waits.
    Deadline,
    /// The broker knows no way to start it.
    Absent,
}

impl SpawnStage {
    /// The stage's stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Endpoint => "endpoint",
            Self::Exec => "exec",
            Self::Ready => "ready",
            Self::Identity => "identity",
            Self::Deadline => "deadline",
            Self::Absent => "absent",
        }
    }
}

/// Why a backend could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{cause}")]
pub struct SpawnFailure {
    /// How far it got.
    pub stage: SpawnStage,
    /// What went wrong, for people.
    pub cause: String,
    /// Its exit status, where it exited.
    pub exit_status: Option<i32>,
    /// The signal that ended it, where one did.
    pub signal: Option<i32>,
    /// The last lines it wrote to standard error, redacted and bounded by the caller.
    pub stderr: String,
}

impl SpawnFailure {
    /// A failure at `stage` with nothing to tell but the cause.
    pub fn new(stage: SpawnStage, cause: impl Into<String>) -> Self {
        Self { stage, cause: cause.into(), exit_status: None, signal: None, stderr: String::new() }
    }
}

/// Why a Hello is refused.
///
/// ```
/// use broker_protocol::Refusal;
/// use broker_protocol::wire::ErrorCode;
/// use std::time::Duration;
///
/// let refusal = Refusal::RateLimited { retry_after: Duration::from_micros(1_200) };
/// let refused = refusal.to_wire();
/// assert_eq!(refused.code(), ErrorCode::ErrorRateLimited);
/// assert_eq!(refused.retry_after_ms, 2); // rounded up
/// ```
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Refusal {
    /// Row 1.
    #[error(
        "expected framing version {FRAMING_VERSION}, got {actual}; is this client newer than the broker?"
    )]
    FramingVersion {
        /// What came.
        actual: u8,
    },
    /// Row 2.
    #[error("the first frame on a connection has at most {limit} bytes, this one declares {declared}")]
    FrameTooLong {
        /// What the header declares, in bytes.
        declared: u64,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// Row 3: the stream ended inside a frame.
    #[error("the stream ended inside a frame, after {received} bytes")]
    FrameCutShort {
        /// Bytes that came.
        received: usize,
    },
    /// Row 3: the deadline passed inside a frame.
    #[error("no whole frame within {} ms of connecting; {received} bytes came", deadline.as_millis())]
    FrameTooLate {
        /// Bytes that came.
        received: usize,
        /// How long the broker waits.
        deadline: Duration,
    },
    /// Row 3 for one peer: its connections keep too many bytes that cannot be dealt with yet.
    #[error(
        "this process makes the broker keep {held} bytes of unfinished requests and unread answers, {limit} is the \
         limit; finish or close its other connections first"
    )]
    PeerBytes {
        /// Bytes that may be kept for one peer.
        limit: usize,
        /// Bytes that would be kept.
        held: usize,
    },
    /// Row 4.
    #[error("the frame body is not a Frame: {0}")]
    NotAFrame(ViewError),
    /// Row 5.
    #[error("expected envelope version {ENVELOPE_VERSION}, got {actual}")]
    EnvelopeVersion {
        /// What came.
        actual: u32,
    },
    /// Row 6: not a request.
    #[error("expected a REQUEST frame (kind 0), got kind {actual}")]
    FrameKind {
        /// What came.
        actual: i32,
    },
    /// Row 6: a lane that is not served here.
    #[error(
        "payload protocol {actual:#06x} is not served on the broker's socket; control is 0x0000, admin is 0xad01"
    )]
    PayloadProtocol {
        /// What came.
        actual: u32,
    },
    /// Row 6: a compressed payload.
    #[error("expected payload encoding NONE (0), got {actual}")]
    PayloadEncoding {
        /// What came.
        actual: i32,
    },
    /// Row 7, and its like for an admin request.
    #[error("the payload is not what its payload protocol says: {cause}")]
    Payload {
        /// The message that was expected.
        expected: &'static str,
        /// What the decoder said.
        cause: String,
    },
    /// Row 8.
    #[error("the broker is shutting down; try again in {} ms", remaining.as_millis())]
    Draining {
        /// Time left of the drain.
        remaining: Duration,
    },
    /// Row 9.
    #[error("the broker is short of file descriptors; try again in a second")]
    FdPressure,
    /// Row 10.
    #[error("this process sent too many Hellos; the next is served in {} ms", retry_after.as_millis() + 1)]
    RateLimited {
        /// Time to the next permit.
        retry_after: Duration,
    },
    /// Row 11.
    #[error("the broker speaks protocol {PROTOCOL_VERSION}, the client {min} to {max}")]
    ProtocolRange {
        /// The client's lowest.
        min: u32,
        /// The client's highest.
        max: u32,
    },
    /// Row 12: a name or version that breaks its rule.
    #[error("{field} {actual:?} is not valid: {cause}")]
    BadField {
        /// The field of `Hello`.
        field: &'static str,
        /// The rule's stable name.
        rule: &'static str,
        /// The rule, for people.
        cause: String,
        /// What came, cut to 80 characters.
        actual: String,
    },
    /// Row 12: an over-long field.
    #[error("{field} has at most {limit} bytes, this one has {actual}")]
    FieldTooLong {
        /// The field of `Hello`.
        field: &'static str,
        /// Bytes allowed.
        limit: usize,
        /// Bytes that came.
        actual: usize,
    },
    /// Row 13.
    #[error("the Hello says it comes from process {claimed}, the kernel says {actual}")]
    PeerPid {
        /// What the Hello says.
        claimed: u32,
        /// What the kernel says.
        actual: u32,
    },
    /// Row 14: no definition.
    #[error(
        "no definition for service '{service}'; add one with `brokerd service add {service} --binary PATH`"
    )]
    ServiceUnknown {
        /// The service asked for.
        service: String,
    },
    /// Row 14: a definition of another trust domain.
    #[error("service '{service}' is served by broker '{instance}' at {pipe}, not by this one")]
    OtherTrustDomain {
        /// The service asked for.
        service: String,
        /// The broker that serves it.
        instance: BrokerInstance,
        /// That broker's endpoint.
        pipe: String,
    },
    /// Row 15.
    #[error("the definition of service '{service}' cannot be used: {cause}")]
    Definition {
        /// The service asked for.
        service: String,
        /// The rule's stable name.
        rule: &'static str,
        /// Which rule and what breaks it, for people.
        cause: String,
    },
    /// Row 16.
    #[error("{}", blocked_text(service, wanted, block))]
    VersionBlocked {
        /// The service asked for.
        service: String,
        /// The version asked for.
        wanted: Version,
        /// What blocks it.
        block: PolicyBlock,
    },
    /// Row 17.
    #[error(
        "service '{service}' {version} could not be started {attempts} times in a row; the next try is in {} ms",
        retry_after.as_millis() + 1
    )]
    SpawnBudget {
        /// The service asked for.
        service: String,
        /// The version asked for.
        version: Version,
        /// Attempts in the window.
        attempts: u32,
        /// Time to the window's end.
        retry_after: Duration,
    },
    /// Row 17 for one peer: it has as many starts under way as it may.
    #[error(
        "this process has {limit} starts of backends under way, which is the limit; service '{service}' {version} \
         is started once one of them is done"
    )]
    PeerStarts {
        /// The service asked for.
        service: String,
        /// The version asked for.
        version: Version,
        /// Starts that one peer may have under way.
        limit: usize,
    },
    /// Row 18.
    #[error("service '{service}' {version} could not be started: {failure}")]
    SpawnFailed {
        /// The service asked for.
        service: String,
        /// The version asked for.
        version: Version,
        /// What went wrong.
        failure: Box<SpawnFailure>,
    },
    /// The broker cannot go on; not a row of the table.
    #[error("the broker failed: {cause}")]
    Internal {
        /// What failed, without anything secret.
        cause: &'static str,
    },
}

fn blocked_text(service: &str, wanted: &Version, block: &PolicyBlock) -> String {
    match block {
        PolicyBlock::BelowMinimum(floor) => {
            format!(
                "version {wanted} of service '{service}' is below its minimum {floor}; ask for {floor} or newer"
            )
        }
        PolicyBlock::NotAllowed(allowed) => {
            format!("version {wanted} of service '{service}' is not allowed; allowed are {}", join(allowed))
        }
    }
}

/// Versions that a refusal names at most; a definition may allow tens of thousands.
const NAMED_VERSIONS: usize = 20;

fn join(versions: &[Version]) -> String {
    let named: Vec<_> = versions.iter().take(NAMED_VERSIONS).map(ToString::to_string).collect();
    match versions.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// Milliseconds, rounded up.
fn ceil_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

impl Refusal {
    /// The code on the wire.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::FramingVersion { .. } | Self::EnvelopeVersion { .. } | Self::ProtocolRange { .. } => {
                ErrorCode::ErrorVersionUnsupported
            }
            Self::FrameTooLong { .. }
            | Self::FrameCutShort { .. }
            | Self::FrameTooLate { .. }
            | Self::PeerBytes { .. }
            | Self::NotAFrame(_)
            | Self::FrameKind { .. }
            | Self::PayloadProtocol { .. }
            | Self::PayloadEncoding { .. }
            | Self::Payload { .. }
            | Self::BadField { .. }
            | Self::FieldTooLong { .. }
            | Self::PeerPid { .. } => ErrorCode::ErrorPeerRejected,
            Self::Draining { .. } => ErrorCode::ErrorShuttingDown,
            Self::FdPressure => ErrorCode::ErrorFdPressure,
            Self::RateLimited { .. } | Self::SpawnBudget { .. } | Self::PeerStarts { .. } => {
                ErrorCode::ErrorRateLimited
            }
            Self::ServiceUnknown { .. } | Self::OtherTrustDomain { .. } => ErrorCode::ErrorServiceUnknown,
            Self::Definition { .. } | Self::Internal { .. } => ErrorCode::ErrorInternal,
            Self::VersionBlocked { .. } => ErrorCode::ErrorVersionBlocked,
            Self::SpawnFailed { .. } => ErrorCode::ErrorBackendSpawnFailed,
        }
    }

    /// When another try may succeed; zero where waiting does not help.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Draining { remaining } => (*remaining).max(RETRY_SHUTTING_DOWN_AT_LEAST),
            Self::FdPressure => RETRY_FD_PRESSURE,
            Self::RateLimited { retry_after } | Self::SpawnBudget { retry_after, .. } => {
                (*retry_after).max(RETRY_RATE_LIMITED_AT_LEAST)
            }
            Self::VersionBlocked { .. } => RETRY_VERSION_BLOCKED,
            Self::SpawnFailed { .. } => RETRY_SPAWN_FAILED,
            Self::PeerStarts { .. } => RETRY_PEER_STARTS,
            Self::FramingVersion { .. }
            | Self::FrameTooLong { .. }
            | Self::FrameCutShort { .. }
            | Self::FrameTooLate { .. }
            | Self::PeerBytes { .. }
            | Self::NotAFrame(_)
            | Self::EnvelopeVersion { .. }
            | Self::FrameKind { .. }
            | Self::PayloadProtocol { .. }
            | Self::PayloadEncoding { .. }
            | Self::Payload { .. }
            | Self::ProtocolRange { .. }
            | Self::BadField { .. }
            | Self::FieldTooLong { .. }
            | Self::PeerPid { .. }
            | Self::ServiceUnknown { .. }
            | Self::OtherTrustDomain { .. }
            | Self::Definition { .. }
            | Self::Internal { .. } => Duration::ZERO,
        }
    }

    /// The particulars for programs. Keys are stable: `field`, `limit`, `actual`, `rule`, …
    pub fn details(&self) -> BTreeMap<String, String> {
        let pairs: Vec<(&str, String)> = match self {
            Self::FramingVersion { actual } => {
                vec![field("framing_version"), limit(FRAMING_VERSION), got(actual)]
            }
            Self::FrameTooLong { declared, limit: most } => {
                vec![field("frame_body"), limit(most), got(declared)]
            }
            Self::FrameCutShort { received } => vec![field("frame_body"), rule("complete"), got(received)],
            Self::FrameTooLate { received, deadline } => {
                vec![
                    field("frame_body"),
                    rule("deadline"),
                    ("limit_ms", deadline.as_millis().to_string()),
                    got(received),
                ]
            }
            Self::PeerBytes { limit: most, held } => vec![field("buffered_bytes"), limit(most), got(held)],
            Self::NotAFrame(error) => {
                vec![field("frame"), rule("encoding"), ("offset", error.offset.to_string())]
            }
            Self::EnvelopeVersion { actual } => {
                vec![field("envelope_version"), limit(ENVELOPE_VERSION), got(actual)]
            }
            Self::FrameKind { actual } => vec![field("kind"), limit(FrameKind::Request as i32), got(actual)],
            Self::PayloadProtocol { actual } => vec![field("payload_protocol"), got(actual)],
            Self::PayloadEncoding { actual } => {
                vec![field("payload_encoding"), limit(PayloadEncoding::None as i32), got(actual)]
            }
            Self::Payload { expected, .. } => vec![field("payload"), ("expected", (*expected).to_owned())],
            Self::Draining { remaining } => vec![("remaining_ms", ceil_millis(*remaining).to_string())],
            Self::FdPressure | Self::RateLimited { .. } => Vec::new(),
            Self::ProtocolRange { min, max } => {
                vec![field("client_min_protocol"), limit(PROTOCOL_VERSION), got(format_args!("{min}..{max}"))]
            }
            Self::BadField { field: name, rule: broken, actual, .. } => {
                vec![field(name), rule(broken), got(actual)]
            }
            Self::FieldTooLong { field: name, limit: most, actual } => {
                vec![field(name), limit(most), got(actual)]
            }
            Self::PeerPid { claimed, actual } => {
                vec![field("peer_pid"), ("claimed", claimed.to_string()), got(actual)]
            }
            Self::ServiceUnknown { service } => vec![("service", service.clone())],
            Self::OtherTrustDomain { service, instance, pipe } => {
                vec![
                    ("service", service.clone()),
                    ("broker_instance", instance.to_string()),
                    ("pipe", pipe.clone()),
                ]
            }
            Self::Definition { service, rule: broken, cause } => {
                vec![("service", service.clone()), rule(broken), ("cause", cause.clone())]
            }
            Self::VersionBlocked { service, wanted, block } => {
                let allowed = match block {
                    PolicyBlock::BelowMinimum(floor) => ("min_version", floor.to_string()),
                    PolicyBlock::NotAllowed(allowed) => ("version_allow_list", join(allowed)),
                };
                vec![("service", service.clone()), field("wanted_version"), got(wanted), allowed]
            }
            Self::SpawnBudget { service, version, attempts, .. } => {
                vec![
                    ("service", service.clone()),
                    ("version", version.to_string()),
                    ("attempts", attempts.to_string()),
                ]
            }
            Self::PeerStarts { service, version, limit: most } => vec![
                ("service", service.clone()),
                ("version", version.to_string()),
                field("pending_starts"),
                limit(most),
            ],
            Self::SpawnFailed { service, version, failure } => spawn_details(service, version, failure),
            Self::Internal { cause } => vec![("cause", (*cause).to_owned())],
        };
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// The message on the wire.
    pub fn to_wire(&self) -> Refused {
        Refused {
            reason: self.to_string(),
            daemon_min_protocol: PROTOCOL_VERSION,
            daemon_max_protocol: PROTOCOL_VERSION,
            code: self.code().into(),
            details: self.details(),
            retry_after_ms: ceil_millis(self.retry_after()),
        }
    }

    /// The service it is about, where it is known.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::ServiceUnknown { service }
            | Self::OtherTrustDomain { service, .. }
            | Self::Definition { service, .. }
            | Self::VersionBlocked { service, .. }
            | Self::SpawnBudget { service, .. }
            | Self::PeerStarts { service, .. }
            | Self::SpawnFailed { service, .. } => Some(service),
            Self::FramingVersion { .. }
            | Self::FrameTooLong { .. }
            | Self::FrameCutShort { .. }
            | Self::FrameTooLate { .. }
            | Self::PeerBytes { .. }
            | Self::NotAFrame(_)
            | Self::EnvelopeVersion { .. }
            | Self::FrameKind { .. }
            | Self::PayloadProtocol { .. }
            | Self::PayloadEncoding { .. }
            | Self::Payload { .. }
            | Self::Draining { .. }
            | Self::FdPressure
            | Self::RateLimited { .. }
            | Self::ProtocolRange { .. }
            | Self::BadField { .. }
            | Self::FieldTooLong { .. }
            | Self::PeerPid { .. }
            | Self::Internal { .. } => None,
        }
    }

    /// The row's stable word, for metrics and logs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::FramingVersion { .. } => "framing-version",
            Self::FrameTooLong { .. } => "frame-too-long",
            Self::FrameCutShort { .. } => "frame-cut-short",
            Self::FrameTooLate { .. } => "frame-too-late",
            Self::PeerBytes { .. } => "peer-bytes",
            Self::NotAFrame(_) => "not-a-frame",
            Self::EnvelopeVersion { .. } => "envelope-version",
            Self::FrameKind { .. } => "frame-kind",
            Self::PayloadProtocol { .. } => "payload-protocol",
            Self::PayloadEncoding { .. } => "payload-encoding",
            Self::Payload { .. } => "payload",
            Self::Draining { .. } => "draining",
            Self::FdPressure => "fd-pressure",
            Self::RateLimited { .. } => "rate-limited",
            Self::ProtocolRange { .. } => "protocol-range",
            Self::BadField { .. } => "bad-field",
            Self::FieldTooLong { .. } => "field-too-long",
            Self::PeerPid { .. } => "peer-pid",
            Self::ServiceUnknown { .. } => "service-unknown",
            Self::OtherTrustDomain { .. } => "other-trust-domain",
            Self::Definition { .. } => "definition",
            Self::VersionBlocked { .. } => "version-blocked",
            Self::SpawnBudget { .. } => "spawn-budget",
            Self::PeerStarts { .. } => "peer-starts",
            Self::SpawnFailed { .. } => "spawn-failed",
            Self::Internal { .. } => "internal",
        }
    }
}

fn field(name: &str) -> (&'static str, String) {
    ("field", name.to_owned())
}

fn rule(name: &str) -> (&'static str, String) {
    ("rule", name.to_owned())
}

fn limit(value: impl ToString) -> (&'static str, String) {
    ("limit", value.to_string())
}

fn got(value: impl ToString) -> (&'static str, String) {
    ("actual", value.to_string())
}

fn spawn_details(service: &str, version: &Version, failure: &SpawnFailure) -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        ("service", service.to_owned()),
        ("version", version.to_string()),
        ("stage", failure.stage.as_str().to_owned()),
        ("cause", failure.cause.clone()),
    ];
    pairs.extend(failure.exit_status.map(|status| ("exit_status", status.to_string())));
    pairs.extend(failure.signal.map(|signal| ("signal", signal.to_string())));
    if !failure.stderr.is_empty() {
        pairs.push(("stderr", failure.stderr.clone()));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire_ms(refusal: &Refusal) -> u64 {
        refusal.to_wire().retry_after_ms
    }

    #[test]
    fn a_drain_asks_for_at_least_a_second() {
        let draining = |ms| Refusal::Draining { remaining: Duration::from_millis(ms) };
        assert_eq!(wire_ms(&draining(0)), 1_000);
        assert_eq!(wire_ms(&draining(1_000)), 1_000);
        assert_eq!(wire_ms(&draining(1_001)), 1_001);
    }

    #[test]
    fn a_permit_time_is_rounded_up_to_at_least_a_millisecond() {
        let limited = |nanos| Refusal::RateLimited { retry_after: Duration::from_nanos(nanos) };
        assert_eq!(wire_ms(&limited(0)), 1);
        assert_eq!(wire_ms(&limited(1)), 1);
        assert_eq!(wire_ms(&limited(1_000_000)), 1);
        assert_eq!(wire_ms(&limited(1_000_001)), 2);
    }

    #[test]
    fn every_refusal_names_the_broker_s_protocol() {
        let refused = Refusal::FdPressure.to_wire();
        assert_eq!((refused.daemon_min_protocol, refused.daemon_max_protocol), (1, 1));
        assert_eq!(refused.retry_after_ms, 1_000);
    }

    #[test]
    fn a_failed_start_tells_stage_status_and_stderr() {
        let failure = SpawnFailure {
            exit_status: Some(3),
            stderr: "no such option".into(),
            ..SpawnFailure::new(SpawnStage::Ready, "it exited with status 3 before it was ready")
        };
        let refusal = Refusal::SpawnFailed {
            service: "cache".into(),
            version: Version::parse("1.2.3").unwrap(),
            failure: Box::new(failure),
        };
        let details = refusal.details();
        assert_eq!(details["stage"], "ready");
        assert_eq!(details["exit_status"], "3");
        assert_eq!(details["stderr"], "no such option");
        assert!(!details.contains_key("signal"));
        assert_eq!(wire_ms(&refusal), 1_000);
    }

    #[test]
    fn a_blocked_version_names_the_floor_or_the_list() {
        let version = |text: &str| Version::parse(text).unwrap();
        let blocked =
            |block| Refusal::VersionBlocked { service: "cache".into(), wanted: version("1.0.0"), block };
        let below = blocked(PolicyBlock::BelowMinimum(version("1.2.0")));
        assert_eq!(below.details()["min_version"], "1.2.0");
        assert_eq!(wire_ms(&below), 30_000);
        let outside = blocked(PolicyBlock::NotAllowed(vec![version("1.2.0"), version("1.3.0")]));
        assert_eq!(outside.details()["version_allow_list"], "1.2.0, 1.3.0");
        let allowed = |count| (0..count).map(|patch| version(&format!("1.0.{patch}"))).collect();
        let longest = blocked(PolicyBlock::NotAllowed(allowed(20))).details();
        assert!(longest["version_allow_list"].ends_with("1.0.18, 1.0.19"));
        let longer = blocked(PolicyBlock::NotAllowed(allowed(40_000)));
        assert!(longer.details()["version_allow_list"].ends_with("1.0.19 and 39980 more"));
        assert!(longer.to_string().len() < 1_000);
    }
}
