//! The new program's side: becoming the broker that was there before.
//!
//! Invariants: the lock and the listener are never without an owner; backends are known before clients are served,
//! so that nobody has a second one started.

use std::path::PathBuf;
use std::rc::Rc;

use broker_core::time::Monotonic;
use broker_protocol::prost::Message;
use broker_transport::descriptor::OwnedDescriptor;
use broker_transport::endpoint;
use broker_transport::listener::BoundSocket;
use broker_transport::lock::InstanceLock;
use broker_transport::process::ChildProcess;
use broker_transport::stream::Stream;
use broker_transport::succession::{ChildBequest, Inheritance};

use super::super::control::{self, Started};
use super::super::place::Place;
use super::super::settings::Settings;
use super::super::shell::Shell;
use super::super::{adoption, backends, connection};
use super::document::{DialledBackend, Document, StartedBackend};
use crate::admin::{self, Upgraded};
use crate::failure::Failure;

/// What a predecessor has left.
pub(in crate::serve) struct Takeover {
    document: Document,
    inheritance: Inheritance,
}

impl Takeover {
    /// Takes what was left under a number.
    ///
    /// # Errors
    /// There is nothing, or not what a predecessor leaves.
    pub(in crate::serve) fn take(number: i32) -> Result<Self, Failure> {
        let failure = |why: &dyn std::fmt::Display| {
            Failure::refused(format!("cannot take over from a predecessor: {why}"))
                .next("this option is for `brokerd upgrade`; leave it out")
        };
        let mut inheritance = Inheritance::take(number).map_err(|error| failure(&error))?;
        let document = std::mem::take(&mut inheritance.document);
        let document = Document::decode(&document[..]).map_err(|error| failure(&error))?;
        Ok(Self { document, inheritance })
    }

    /// What the configuration file said that was in force.
    pub(in crate::serve) fn config_text(&self) -> Option<&str> {
        self.document.config_text.as_deref()
    }

    /// Whether the predecessor was in its sandbox.
    pub(in crate::serve) fn is_sandboxed(&self) -> bool {
        self.document.is_sandboxed.unwrap_or(true)
    }

    /// How long the process has been a broker.
    pub(in crate::serve) const fn uptime(&self) -> Monotonic {
        Monotonic::from_nanos(self.document.uptime)
    }

    /// Has the settings agree with what was never given up: where the broker listens, and which one it is.
    pub(in crate::serve) fn keep_place(&self, settings: &mut Settings) {
        let Document { socket, instance, serves_every_domain, .. } = &self.document;
        // One that does not say is of the time when neither could be changed between two programs.
        settings.stay_at(PathBuf::from(socket), instance.parse().ok(), *serves_every_domain);
    }

    /// The endpoint, which was never given up.
    ///
    /// # Errors
    /// What was left is no listener, or not the lock.
    pub(in crate::serve) fn place(&mut self) -> Result<Place, Failure> {
        let path = PathBuf::from(&self.document.socket);
        let failure = |why: &dyn std::fmt::Display| {
            Failure::refused(format!("cannot take over {}: {why}", path.display()))
        };
        let mut first = self.inheritance.descriptors.drain(..2.min(self.inheritance.descriptors.len()));
        let (Some(listener), Some(lock)) = (first.next(), first.next()) else {
            return Err(failure(&"neither a listener nor a lock was left"));
        };
        drop(first);
        // The file of a socket that was passed to the predecessor is its owner's.
        let own = (!self.document.is_socket_passed).then_some(&*path);
        let socket = BoundSocket::from_listen_fd(listener, own).map_err(|error| failure(&error))?;
        let lock_path = endpoint::lock_path(&path).map_err(|error| failure(&error))?;
        let lock = InstanceLock::from_descriptor(lock, &lock_path, &path.to_string_lossy())
            .map_err(|error| failure(&error))?;
        Ok(Place::taken_over(socket, path, lock))
    }

    /// Takes over backends, then clients.
    pub(in crate::serve) async fn carry_out(self, shell: &Rc<Shell>) {
        let Self { document, mut inheritance } = self;
        if let Err(error) = inheritance.reap_orphans(shell.spawner()) {
            tracing::warn!(%error, "processes that have ended are not reaped before this one ends");
        }
        let mut descriptors = inheritance.descriptors.into_iter();
        shell.call(|broker, now| broker.take_over(now, &document.estate()));
        let mut kept = 0;
        for backend in document.backends {
            kept += usize::from(started(shell, backend, &mut descriptors).await);
        }
        // Those that are left are a former broker's: before they are announced, and before anybody asks.
        kept += adoption::begin(shell).await;
        for backend in document.dialled {
            dialled(shell, backend, &mut descriptors);
        }
        // Whoever has asked for this is one of them.
        let (version, clients) = (document.version, document.clients.len().saturating_sub(1));
        tracing::info!(from = version, backends = kept, clients, "taken over");
        let upgraded = Upgraded::new(version, kept, clients);
        for moved in Document::moved(document.clients, descriptors) {
            let (upgraded, unix_ms) = (upgraded.clone(), shell.clock().now().unix.get());
            shell.take_back(moved, move |request| admin::upgraded(&upgraded, request.json, unix_ms));
        }
    }
}

/// Whether it was taken over.
async fn started(
    shell: &Rc<Shell>,
    backend: StartedBackend,
    descriptors: &mut impl Iterator<Item = OwnedDescriptor>,
) -> bool {
    let Some(stderr) = descriptors.next() else { return false };
    let control = backend.control.as_ref().and_then(|_| descriptors.next());
    let Some(inherited) = backend.inherited() else { return false };
    let (service, version) = (inherited.service.clone(), inherited.version.clone());
    let bequest = ChildBequest { pid: backend.pid, stderr, said: backend.said };
    let child = match ChildProcess::inherit(bequest, shell.spawner()) {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(%service, %version, pid = backend.pid, %error, "a backend was not taken over");
            return false;
        }
    };
    let is_ending = inherited.is_ending;
    let started = Started { service: service.clone(), version, endpoint: inherited.endpoint.clone() };
    let definition = shell.definitions().check(service.as_str(), None).await;
    let slot = shell.call(|broker, now| broker.inherit(now, inherited, definition));
    let connection = control.and_then(|descriptor| Stream::from_owned_fd(descriptor).ok());
    let connection = connection.zip(backend.control.map(Into::into));
    backends::resume(shell, slot, started, (child, backend.has_adopted), connection);
    if is_ending {
        shell.call(|broker, now| broker.end_inherited(now, slot));
    }
    true
}

fn dialled(
    shell: &Rc<Shell>,
    backend: DialledBackend,
    descriptors: &mut impl Iterator<Item = OwnedDescriptor>,
) {
    let stream = descriptors.next().and_then(|descriptor| Stream::from_owned_fd(descriptor).ok());
    let (Some(stream), Some(announcement)) = (stream, backend.announcement) else { return };
    let Some((key, peer, _)) = shell.admit(stream.peer().ok()) else { return };
    let open = connection::Open::new(shell, key);
    let progress = backend.control.unwrap_or_default().into();
    match control::resume_registered(shell, stream, peer, &announcement, progress) {
        Ok(serve) => {
            tokio::task::spawn_local(async move {
                serve.await;
                drop(open);
            });
        }
        Err(why) => {
            let (service, version) = (announcement.service_name, announcement.service_version);
            tracing::warn!(service, version, %why, "a backend was not taken over");
        }
    }
}
