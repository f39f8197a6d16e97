//! Asking the broker, within a bounded time, for nothing that it would have to do something for.
//!
//! The Hello is for a service that nobody has defined: it takes the whole way of a Hello, up to the very refusal, and
//! starts nothing. Invariant: after the first answer that does not come, nothing else is asked.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use broker_client::{
    AdminError, AdminReply, ExchangeError, Hello, HelloError, Refused, ServiceName, Version, blocking,
};
use broker_protocol::wire::{AdminRequest, AdminVerb};
use broker_transport::lock::{self, LockStanding};
use broker_transport::stream::{BlockingStream, ConnectError, ConnectErrorKind};
use broker_transport::{endpoint, identity};
use serde_json::Value;

/// How long the broker has for each answer, and for taking a connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of asking.
pub(super) enum Contact {
    /// Nobody could be asked.
    Nobody(ConnectError),
    /// Somebody else's process listens there.
    Foreign { user: u64 },
    /// It takes connections and does not answer.
    Silent { pid: Option<u32> },
    /// It answers, but not as a broker does.
    Broken { pid: Option<u32>, why: String },
    /// It is a broker.
    Answers(Box<Answers>),
}

/// What a broker says.
pub(super) struct Answers {
    /// The process that listens, by the kernel's word, or by its own where it holds the lock of a socket that a
    /// service manager has bound for it.
    pub(super) pid: Option<u32>,
    /// What it says to a Hello for a service that there is not.
    pub(super) hello: HelloAnswer,
    pub(super) healthz: AdminReply,
    pub(super) readyz: AdminReply,
    pub(super) status: Value,
    /// The `values` of `config`.
    pub(super) config: Value,
}

/// The answer to a Hello.
pub(super) enum HelloAnswer {
    Negotiated,
    Refused(Box<Refused>),
}

impl Answers {
    /// A value of its configuration, by its group and its name.
    pub(super) fn setting(&self, group: &str, name: &str) -> &Value {
        &self.config[group][name]["value"]
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.setting("broker", "version").as_str()
    }
}

impl Contact {
    pub(super) fn seek(socket: &Path) -> Self {
        let stream = match BlockingStream::connect(socket, Some(PATIENCE)) {
            Ok(stream) => stream,
            Err(error) if error.kind == ConnectErrorKind::Busy => return Self::Silent { pid: None },
            Err(error) => return Self::Nobody(error),
        };
        let pid = match stream.peer() {
            Ok(peer) if !peer.user.is_self() => return Self::Foreign { user: peer.user.key() },
            Ok(peer) => peer.pid.map(std::num::NonZero::get),
            Err(error) => return Self::Broken { pid: None, why: error.to_string() },
        };
        drop(stream);
        match ask(socket, pid) {
            Ok(answers) => Self::Answers(Box::new(answers)),
            Err(Unanswered::Late) => Self::Silent { pid: behind(socket, pid) },
            Err(Unanswered::Wrong(why)) => Self::Broken { pid: behind(socket, pid), why },
        }
    }

    pub(super) fn answers(&self) -> Option<&Answers> {
        match self {
            Self::Answers(answers) => Some(answers),
            Self::Nobody(_) | Self::Foreign { .. } | Self::Silent { .. } | Self::Broken { .. } => None,
        }
    }
}

/// Who holds the lock of an endpoint.
fn lock_holder(socket: &Path) -> Option<u32> {
    match lock::standing(&endpoint::lock_path(socket).ok()?).ok()? {
        LockStanding::Held { entry } => entry.map(|entry| entry.pid),
        LockStanding::Absent | LockStanding::Left { .. } => None,
    }
}

/// For the kernel, who has bound a socket listens there, though it was passed on. A service manager is not whom to end.
fn behind(socket: &Path, pid: Option<u32>) -> Option<u32> {
    let is_manager = |pid: u32| {
        let name =
            identity::process_executable(pid).ok().and_then(|path| path.file_name().map(OsStr::to_owned));
        pid == 1 || name.is_some_and(|name| name == "systemd" || name == "launchd")
    };
    match pid {
        Some(pid) if is_manager(pid) => lock_holder(socket),
        pid => pid,
    }
}

enum Unanswered {
    Late,
    Wrong(String),
}

impl From<ExchangeError> for Unanswered {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::TimedOut { .. } => Self::Late,
            error => Self::Wrong(error.to_string()),
        }
    }
}

impl From<AdminError> for Unanswered {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Exchange(error) => error.into(),
            error @ (AdminError::Config(_) | AdminError::Protocol(_) | AdminError::Refused(_)) => {
                Self::Wrong(error.to_string())
            }
        }
    }
}

fn ask(socket: &Path, pid: Option<u32>) -> Result<Answers, Unanswered> {
    let hello = match blocking::say_hello(socket, &nobodys_hello()?, PATIENCE) {
        Ok(_) => HelloAnswer::Negotiated,
        Err(HelloError::Refused(refused)) => HelloAnswer::Refused(refused),
        Err(HelloError::Exchange(error)) => return Err(error.into()),
        Err(error @ (HelloError::FieldTooLong { .. } | HelloError::Protocol(_))) => {
            return Err(Unanswered::Wrong(error.to_string()));
        }
    };
    let admin = |verb: AdminVerb| {
        let request = AdminRequest { verb: verb.into(), json: true, ..AdminRequest::default() };
        blocking::admin_within(socket, &request, PATIENCE)
    };
    let json = |verb| -> Result<Value, Unanswered> {
        let body = admin(verb)?.body;
        serde_json::from_str(&body)
            .map_err(|error| Unanswered::Wrong(format!("{} is no JSON: {error}", verb.as_str_name())))
    };
    let status = json(AdminVerb::Status)?;
    let own = status["broker_pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    let pid = lock_holder(socket).filter(|holder| own == Some(*holder)).or(pid);
    Ok(Answers {
        pid,
        hello,
        healthz: admin(AdminVerb::Healthz)?,
        readyz: admin(AdminVerb::Readyz)?,
        status,
        config: json(AdminVerb::Config)?["values"].take(),
    })
}

/// A Hello for a service of a name that nobody has chosen.
fn nobodys_hello() -> Result<Hello, Unanswered> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| Unanswered::Wrong(format!("no random bytes: {error}")))?;
    let name = format!("doctor-{:016x}", u64::from_ne_bytes(random));
    let wrong = |what: String| Unanswered::Wrong(what);
    let service = ServiceName::parse(&name).map_err(|error| wrong(error.to_string()))?;
    let version = Version::parse("0.0.0").map_err(|error| wrong(error.to_string()))?;
    Ok(Hello::new(service, version).client_lib("brokerd-doctor", env!("CARGO_PKG_VERSION")))
}
