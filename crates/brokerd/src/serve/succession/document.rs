//! What the successor is told, and in which order it gets the descriptors.
//!
//! Protobuf, as a later version may have more to say: what a program does not know it passes over. Invariant: the
//! order of the descriptors is that of the fields here - the listener, the lock, then for each started backend its
//! standard error and its control connection, then the dialled control connections, then the clients.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use broker_core::broker::{Estate, InheritedBackend};
use broker_core::time::{Monotonic, UnixMillis};
use broker_protocol::control::Announcement;
use broker_protocol::prost::Message;
use broker_protocol::wire::LifecycleEvent;
use broker_protocol::{BoundedEvent, Capabilities, ConnectionId};
use broker_transport::descriptor::OwnedDescriptor;
use broker_transport::stream::Stream;
use broker_transport::succession::Succession;

use super::super::connection::{Asks, Moved};
use super::super::control::{ControlOrigin, ControlProgress};
use super::super::shell::Shell;
use super::trial::{TAKEOVER, own_args};

/// The whole of it.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "broker_protocol::prost")]
pub(super) struct Document {
    /// The predecessor's version.
    #[prost(string, tag = "1")]
    pub(super) version: String,
    /// How long the process has been a broker, in nanoseconds: every point in time here counts from then.
    #[prost(uint64, tag = "2")]
    pub(super) uptime: u64,
    /// Where it listens.
    #[prost(string, tag = "3")]
    pub(super) socket: String,
    #[prost(uint64, tag = "4")]
    last_id: u64,
    #[prost(message, repeated, tag = "5")]
    recent: Vec<LifecycleEvent>,
    #[prost(message, repeated, tag = "6")]
    pub(super) backends: Vec<StartedBackend>,
    #[prost(message, repeated, tag = "7")]
    pub(super) dialled: Vec<DialledBackend>,
    #[prost(message, repeated, tag = "8")]
    pub(super) clients: Vec<Client>,
    /// Which broker it is.
    #[prost(string, tag = "9")]
    pub(super) instance: String,
    #[prost(bool, tag = "10")]
    pub(super) serves_every_domain: bool,
    /// Whether the socket was bound by somebody else, who keeps it.
    #[prost(bool, tag = "11")]
    pub(super) is_socket_passed: bool,
    /// What the configuration file said that is in force.
    #[prost(string, optional, tag = "12")]
    pub(super) config_text: Option<String>,
    /// Whether the predecessor was in its sandbox; one that does not say may have been.
    #[prost(bool, optional, tag = "13")]
    pub(super) is_sandboxed: Option<bool>,
}

/// A backend that was started.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "broker_protocol::prost")]
pub(super) struct StartedBackend {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(uint32, tag = "3")]
    pub(super) pid: u32,
    #[prost(string, tag = "4")]
    endpoint: String,
    #[prost(uint64, tag = "5")]
    last_hello: u64,
    #[prost(uint64, tag = "6")]
    last_hello_unix_ms: u64,
    #[prost(uint64, optional, tag = "7")]
    last_use: Option<u64>,
    #[prost(bool, tag = "8")]
    is_ending: bool,
    #[prost(bool, tag = "9")]
    pub(super) has_adopted: bool,
    /// The last that it wrote to its standard error.
    #[prost(string, tag = "10")]
    pub(super) said: String,
    #[prost(message, optional, tag = "11")]
    pub(super) control: Option<Progress>,
}

/// A backend that has dialled, and announced itself.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "broker_protocol::prost")]
pub(super) struct DialledBackend {
    #[prost(message, optional, tag = "1")]
    pub(super) announcement: Option<Announcement>,
    #[prost(message, optional, tag = "2")]
    pub(super) control: Option<Progress>,
}

/// Where a control connection is at.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "broker_protocol::prost")]
pub(super) struct Progress {
    #[prost(uint64, optional, tag = "1")]
    announced: Option<u64>,
    #[prost(bytes = "vec", tag = "2")]
    unread: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    unsent: Vec<u8>,
    #[prost(uint64, tag = "4")]
    next_request: u64,
}

/// A client that was not answered yet.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "broker_protocol::prost")]
pub(super) struct Client {
    #[prost(uint64, tag = "1")]
    accepted: u64,
    #[prost(bytes = "vec", tag = "2")]
    received: Vec<u8>,
    #[prost(bool, tag = "3")]
    asks_for_succession: bool,
}

impl From<ControlProgress> for Progress {
    fn from(progress: ControlProgress) -> Self {
        let ControlProgress { announced, unread, unsent, next_request } = progress;
        Self { announced: announced.map(|bits| bits.bits()), unread, unsent, next_request }
    }
}

impl From<Progress> for ControlProgress {
    fn from(progress: Progress) -> Self {
        let Progress { announced, unread, unsent, next_request } = progress;
        Self { announced: announced.map(Capabilities::from_bits_retain), unread, unsent, next_request }
    }
}

impl StartedBackend {
    /// As the state machine takes it; `None` where it is none that this version could have started.
    pub(super) fn inherited(&self) -> Option<InheritedBackend> {
        Some(InheritedBackend {
            service: self.service.parse().ok()?,
            version: self.version.parse().ok()?,
            pid: self.pid,
            endpoint: self.endpoint.clone(),
            last_hello: (Monotonic::from_nanos(self.last_hello), UnixMillis::new(self.last_hello_unix_ms)),
            last_use: self.last_use.map(Monotonic::from_nanos),
            is_ending: self.is_ending,
        })
    }
}

impl Document {
    pub(super) fn estate(&self) -> Estate {
        Estate {
            last_id: ConnectionId::new(self.last_id),
            recent: self.recent.iter().cloned().map(BoundedEvent::new).collect(),
        }
    }

    /// Everything that there is, for the program that takes over.
    ///
    /// # Errors
    /// No descriptor is left for a copy; nothing has changed.
    pub(super) fn draw_up(
        shell: &Rc<Shell>,
        moved: Vec<Moved>,
        program: PathBuf,
    ) -> Result<Succession, (Vec<Moved>, io::Error)> {
        let mut descriptors = Vec::new();
        let document = match Self::without_clients(shell, &mut descriptors) {
            Ok(document) => document,
            Err(error) => return Err((moved, error)),
        };
        let mut clients = Vec::with_capacity(moved.len());
        for Moved { stream, accepted, received, asks } in moved {
            descriptors.push(stream.into_owned_fd());
            let asks_for_succession = asks == Asks::ForSuccession;
            clients.push(Client { accepted: accepted.as_nanos(), received, asks_for_succession });
        }
        let document = Self { clients, ..document }.encode_to_vec();
        let mut args = own_args();
        args.push(TAKEOVER.into());
        Ok(Succession { program, args, descriptors, document })
    }

    fn without_clients(shell: &Rc<Shell>, descriptors: &mut Vec<OwnedDescriptor>) -> io::Result<Self> {
        descriptors.extend(shell.moves().endpoint()?);
        let (uptime, estate, bequests) =
            shell.look(|broker, now| (now.monotonic.as_nanos(), broker.estate(), broker.bequests()));
        let mut backends = Vec::new();
        for (slot, backend) in bequests {
            // One that has just ended is left to the successor's next Hello.
            let Some(bequest) = shell.process(slot).and_then(|process| process.bequeath()) else { continue };
            let bequest = bequest?;
            descriptors.push(bequest.child.stderr);
            let mut control = None;
            if let Some(connection) = bequest.control {
                descriptors.push(connection.stream().descriptor().try_clone_to_owned()?);
                control = Some(connection.progress().into());
            }
            backends.push(StartedBackend {
                service: backend.service.to_string(),
                version: backend.version.to_string(),
                pid: backend.pid,
                endpoint: backend.endpoint,
                last_hello: backend.last_hello.0.as_nanos(),
                last_hello_unix_ms: backend.last_hello.1.get(),
                last_use: backend.last_use.map(Monotonic::as_nanos),
                is_ending: backend.is_ending,
                has_adopted: bequest.has_adopted,
                said: bequest.child.said,
                control,
            });
        }
        let mut dialled = Vec::new();
        for control in shell.all_controls() {
            if let ControlOrigin::Dialled(announcement) = control.origin() {
                descriptors.push(control.stream().descriptor().try_clone_to_owned()?);
                let control = Some(control.progress().into());
                dialled.push(DialledBackend { announcement: Some((**announcement).clone()), control });
            }
        }
        let settings = shell.settings();
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime,
            socket: settings.socket.value.display().to_string(),
            instance: settings.instance.value.to_string(),
            serves_every_domain: settings.serves_every_domain,
            last_id: estate.last_id.map_or(0, ConnectionId::get),
            recent: estate.recent.iter().map(|event| event.get().clone()).collect(),
            backends,
            dialled,
            clients: Vec::new(),
            is_socket_passed: shell.moves().is_socket_passed(),
            config_text: settings.config_text.as_deref().map(str::to_owned),
            is_sandboxed: Some(settings.sandbox.value),
        })
    }

    /// The clients, and the descriptors that are theirs.
    pub(super) fn moved(
        clients: Vec<Client>,
        descriptors: impl Iterator<Item = OwnedDescriptor>,
    ) -> impl Iterator<Item = Moved> {
        clients.into_iter().zip(descriptors).filter_map(|(client, descriptor)| {
            let Client { accepted, received, asks_for_succession } = client;
            let stream = match Stream::from_owned_fd(descriptor) {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection was lost on the way to another program");
                    return None;
                }
            };
            let asks = if asks_for_succession { Asks::ForSuccession } else { Asks::Anything };
            Some(Moved { stream, accepted: Monotonic::from_nanos(accepted), received, asks })
        })
    }
}

/// The clients of a succession that did not happen.
pub(super) fn clients_of(succession: Succession) -> impl Iterator<Item = Moved> {
    // It was encoded a moment ago.
    let clients = Document::decode(&succession.document[..]).unwrap_or_default().clients;
    let others = succession.descriptors.len().saturating_sub(clients.len());
    Document::moved(clients, succession.descriptors.into_iter().skip(others))
}
