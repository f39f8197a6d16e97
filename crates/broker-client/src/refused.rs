//! A broker's refusal, typed (behaviour.md, section 10).
//!
//! The reason and the details are the broker's own words; the kind and the advice are this crate's.
//! Invariant: every code is a kind, also one that this client does not know.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{self, Display, Formatter, Write};
use std::ops::RangeInclusive;
use std::time::Duration;

use broker_protocol::PROTOCOL_VERSION;
use broker_protocol::wire::{self, ErrorCode};

/// Why a broker refuses, as far as a program can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusedKind {
    /// The broker does not speak this client's protocol.
    VersionUnsupported,
    /// The service's policy does not allow the version.
    VersionBlocked,
    /// The broker has no definition of the service, or another broker serves it.
    ServiceUnknown,
    /// Too many Hellos, or too many failed starts.
    RateLimited {
        /// Time until another try can succeed.
        retry_after: Duration,
    },
    /// The broker is about to end.
    ShuttingDown {
        /// Time until it is gone.
        retry_after: Duration,
    },
    /// The backend could not be started.
    SpawnFailed,
    /// The broker does not accept what this client sent, or whom it says to be.
    PeerRejected,
    /// The broker is short of file descriptors.
    FdPressure,
    /// The broker, or the service's definition, is broken.
    Internal,
    /// A code that this client does not know.
    Other(i32),
}

impl RefusedKind {
    fn new(code: i32, retry_after: Duration) -> Self {
        match ErrorCode::try_from(code) {
            Ok(ErrorCode::ErrorVersionUnsupported) => Self::VersionUnsupported,
            Ok(ErrorCode::ErrorVersionBlocked) => Self::VersionBlocked,
            Ok(ErrorCode::ErrorServiceUnknown) => Self::ServiceUnknown,
            Ok(ErrorCode::ErrorRateLimited) => Self::RateLimited { retry_after },
            Ok(ErrorCode::ErrorShuttingDown) => Self::ShuttingDown { retry_after },
            Ok(ErrorCode::ErrorBackendSpawnFailed) => Self::SpawnFailed,
            Ok(ErrorCode::ErrorPeerRejected) => Self::PeerRejected,
            Ok(ErrorCode::ErrorFdPressure) => Self::FdPressure,
            Ok(ErrorCode::ErrorInternal) => Self::Internal,
            Ok(ErrorCode::Unspecified) | Err(_) => Self::Other(code),
        }
    }

    /// The code on the wire (protocol.md, "ErrorCode").
    pub const fn code(self) -> i32 {
        match self {
            Self::VersionUnsupported => ErrorCode::ErrorVersionUnsupported as i32,
            Self::VersionBlocked => ErrorCode::ErrorVersionBlocked as i32,
            Self::ServiceUnknown => ErrorCode::ErrorServiceUnknown as i32,
            Self::RateLimited { .. } => ErrorCode::ErrorRateLimited as i32,
            Self::ShuttingDown { .. } => ErrorCode::ErrorShuttingDown as i32,
            Self::SpawnFailed => ErrorCode::ErrorBackendSpawnFailed as i32,
            Self::PeerRejected => ErrorCode::ErrorPeerRejected as i32,
            Self::FdPressure => ErrorCode::ErrorFdPressure as i32,
            Self::Internal => ErrorCode::ErrorInternal as i32,
            Self::Other(code) => code,
        }
    }
}

/// What a broker answers when it refuses. Its `Display` is the broker's reason and what to do next.
///
/// ```
/// use broker_client::{Refused, RefusedKind};
/// use broker_protocol::wire;
/// use std::time::Duration;
///
/// let wire = wire::Refused { code: 4, reason: "too many Hellos".into(), retry_after_ms: 12, ..Default::default() };
/// let refused = Refused::from(wire);
/// assert_eq!(refused.kind, RefusedKind::RateLimited { retry_after: Duration::from_millis(12) });
/// assert_eq!(refused.to_string(), "the broker refuses: too many Hellos; try again in 12 ms, and less often");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why, as far as a program can act on it.
    pub kind: RefusedKind,
    /// Why, for people.
    pub reason: String,
    /// Particulars for programs: `field`, `limit`, `actual`, `service`, …
    pub details: BTreeMap<String, String>,
    /// When another try may succeed; `None` where waiting does not help.
    pub retry_after: Option<Duration>,
    /// The protocols that the broker speaks.
    pub broker_protocols: RangeInclusive<u32>,
}

impl From<wire::Refused> for Refused {
    fn from(wire: wire::Refused) -> Self {
        let retry_after = Duration::from_millis(wire.retry_after_ms);
        Self {
            kind: RefusedKind::new(wire.code, retry_after),
            reason: wire.reason,
            details: wire.details,
            retry_after: Some(retry_after).filter(|wait| !wait.is_zero()),
            broker_protocols: wire.daemon_min_protocol..=wire.daemon_max_protocol,
        }
    }
}

impl Refused {
    fn detail(&self, key: &str) -> Option<&str> {
        self.details.get(key).map(String::as_str)
    }

    /// The service that the details name, or what stands for it in a command line.
    fn service(&self) -> &str {
        self.detail("service").unwrap_or("NAME")
    }

    /// What to do next.
    fn advice(&self) -> String {
        let service = self.service();
        match self.kind {
            RefusedKind::VersionUnsupported => {
                let (min, max) = (self.broker_protocols.start(), self.broker_protocols.end());
                format!(
                    "update the older one: this client speaks protocol {PROTOCOL_VERSION}, the broker {min} to {max}"
                )
            }
            RefusedKind::VersionBlocked => {
                format!("`brokerd service show {service}` prints which versions it allows")
            }
            RefusedKind::ServiceUnknown => match (self.detail("broker_instance"), self.detail("pipe")) {
                (Some(instance), Some(pipe)) => format!("ask broker '{instance}' at {pipe} instead"),
                _ => {
                    let check = "check the name with `brokerd service list`";
                    let add = format!("`brokerd service add {service} --binary PATH`");
                    // The broker may have said so.
                    if self.reason.contains(&add) {
                        check.to_owned()
                    } else {
                        format!("{check}, or add it with {add}")
                    }
                }
            },
            // The broker has said when.
            RefusedKind::RateLimited { .. } if self.reason.contains("try again") => {
                "do so less often".to_owned()
            }
            RefusedKind::RateLimited { retry_after } => format!("{}, and less often", again(retry_after)),
            RefusedKind::ShuttingDown { .. } if self.reason.contains("try again") => {
                "another broker may have taken over by then".to_owned()
            }
            RefusedKind::ShuttingDown { retry_after } => {
                format!("{}, when another broker may have taken over", again(retry_after))
            }
            RefusedKind::SpawnFailed => match self.detail("stderr") {
                Some(stderr) => format!("repair the backend, whose last words were:\n{stderr}"),
                None => {
                    format!("repair the backend; `brokerd service validate {service}` checks its definition")
                }
            },
            RefusedKind::PeerRejected => match self.detail("field") {
                Some(field) => format!("correct {field}: the same request will be refused again"),
                None => "correct the request: the same one will be refused again".to_owned(),
            },
            RefusedKind::FdPressure if self.reason.contains("try again") => {
                "or let the broker have more descriptors (`ulimit -n`)".to_owned()
            }
            RefusedKind::FdPressure => format!(
                "{}, or let the broker have more descriptors (`ulimit -n`)",
                again(self.retry_after.unwrap_or_default())
            ),
            RefusedKind::Internal => {
                format!(
                    "look at the broker's log, and check the definition with `brokerd service validate {service}`"
                )
            }
            RefusedKind::Other(code) => {
                format!("update this client, which does not know refusal code {code}")
            }
        }
    }
}

fn again(retry_after: Duration) -> String {
    match retry_after.as_millis() {
        0 => "try again later".to_owned(),
        millis => format!("try again in {millis} ms"),
    }
}

impl Display for Refused {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let reason = if self.reason.is_empty() { "it gives no reason" } else { &self.reason };
        // A backend's last words may hold what a terminal would obey.
        let text = format!("the broker refuses: {reason}; {}", self.advice());
        text.chars().try_for_each(|each| match each {
            '\n' | '\t' => f.write_char(each),
            '\r' => Ok(()),
            each if each.is_control() => f.write_char(char::REPLACEMENT_CHARACTER),
            each => f.write_char(each),
        })
    }
}

impl Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: i32, retry_after_ms: u64, details: &[(&str, &str)]) -> Refused {
        Refused::from(wire::Refused {
            reason: "because".into(),
            daemon_min_protocol: 2,
            daemon_max_protocol: 3,
            code,
            details: details.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            retry_after_ms,
        })
    }

    #[test]
    fn every_code_has_its_kind() {
        let retry_after = Duration::from_millis(5);
        let kinds = [
            (1, RefusedKind::VersionUnsupported),
            (2, RefusedKind::ServiceUnknown),
            (3, RefusedKind::SpawnFailed),
            (4, RefusedKind::RateLimited { retry_after }),
            (5, RefusedKind::ShuttingDown { retry_after }),
            (6, RefusedKind::PeerRejected),
            (7, RefusedKind::Internal),
            (8, RefusedKind::VersionBlocked),
            (9, RefusedKind::FdPressure),
            (0, RefusedKind::Other(0)),
            (10, RefusedKind::Other(10)),
            (-1, RefusedKind::Other(-1)),
        ];
        for (code, kind) in kinds {
            assert_eq!(refused(code, 5, &[]).kind, kind, "code {code}");
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_passed_on_and_lines_stay_lines() {
        let said = "\u{1b}[31mred\u{1b}]0;title\u{7}\r\n\tnext\u{9b}1m";
        let text = refused(3, 0, &[("stderr", said)]).to_string();
        assert!(
            text.ends_with("were:\n\u{fffd}[31mred\u{fffd}]0;title\u{fffd}\n\tnext\u{fffd}1m"),
            "{text:?}"
        );
    }

    #[test]
    fn when_to_try_again_is_told_once() {
        for code in [4, 5, 9] {
            let reason = "no; try again in 5 ms".to_owned();
            let refused = Refused { reason, ..refused(code, 5, &[]) };
            assert_eq!(refused.to_string().matches("try again").count(), 1, "{refused}");
        }
    }

    #[test]
    fn every_text_holds_the_reason_and_an_advice_of_its_own() {
        let texts: Vec<String> = (0..=9).map(|code| refused(code, 0, &[]).to_string()).collect();
        for (code, text) in texts.iter().enumerate() {
            let advice = text.strip_prefix("the broker refuses: because; ").unwrap();
            assert!(!advice.is_empty(), "code {code}");
            assert_eq!(texts.iter().filter(|other| *other == text).count(), 1, "code {code}");
        }
    }

    #[test]
    fn an_advice_names_what_the_details_name() {
        let cases = [
            (refused(1, 0, &[]), "the broker 2 to 3"),
            (refused(2, 0, &[("service", "cache")]), "`brokerd service add cache --binary PATH`"),
            (
                refused(2, 0, &[("service", "cache"), ("broker_instance", "svc:cache"), ("pipe", "/run/s")]),
                "ask broker 'svc:cache' at /run/s instead",
            ),
            (refused(3, 1000, &[("stderr", "no such disk")]), "no such disk"),
            (refused(3, 1000, &[("service", "cache")]), "`brokerd service validate cache`"),
            (refused(4, 7, &[]), "in 7 ms"),
            (refused(5, 1000, &[]), "in 1000 ms"),
            (refused(6, 0, &[("field", "wanted_version")]), "correct wanted_version"),
            (refused(8, 30_000, &[("service", "cache")]), "`brokerd service show cache`"),
            (refused(9, 1000, &[]), "in 1000 ms"),
            (refused(42, 0, &[]), "42"),
        ];
        for (refused, expected) in cases {
            let text = refused.to_string();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn what_the_broker_advises_is_not_said_twice() {
        let reason =
            "no definition for service 'cache'; add one with `brokerd service add cache --binary PATH`";
        let details = [("service".to_owned(), "cache".to_owned())].into();
        let wire = wire::Refused { code: 2, reason: reason.into(), details, ..wire::Refused::default() };
        let text = Refused::from(wire).to_string();
        assert_eq!(text, format!("the broker refuses: {reason}; check the name with `brokerd service list`"));
    }

    #[test]
    fn no_time_to_wait_means_that_waiting_does_not_help() {
        assert_eq!(refused(6, 0, &[]).retry_after, None);
        assert_eq!(refused(8, 30_000, &[]).retry_after, Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_refusal_without_a_reason_still_says_what_to_do() {
        let text = Refused::from(wire::Refused { code: 4, ..wire::Refused::default() }).to_string();
        assert_eq!(text, "the broker refuses: it gives no reason; try again later, and less often");
    }
}
