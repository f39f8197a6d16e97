//! Backends that run already and register themselves, over a control connection of their own
//! (behaviour.md 4, "Two ways in"; protocol.md, "Extensions").
//!
//! The kernel says which process is at the other end; that it serves the endpoint it names is probed before
//! its first use, like any registered one. Invariants: a backend that lives is not pushed aside by one that
//! announces itself; what a process has registered goes with its control connection.

use broker_protocol::Severity;
use broker_protocol::control::{Announcement, AnnouncementFault};
use broker_protocol::wire::EventKind;
use thiserror::Error;

use super::Broker;
use crate::admission::PeerKey;
use crate::backends::{Backend, BackendState, ControlState, Registration};
use crate::entropy::Entropy;
use crate::events::EventDraft;
use crate::handoff::BackendSlot;
use crate::metrics::OTHER;
use crate::time::Now;

/// Why a backend that announces itself is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotRegistered {
    /// The broker ends.
    #[error("the broker is shutting down; announce yourself to its successor")]
    Draining,
    /// It has asked too often.
    #[error("this process asks too often; wait a second")]
    RateLimited,
    /// What it says of itself is not well-formed.
    #[error(transparent)]
    Announcement(#[from] AnnouncementFault),
    /// It listens nowhere.
    #[error("expected the endpoint that you listen on, got none")]
    NoEndpoint,
    /// The kernel does not say which process it is.
    #[error("the kernel does not say which process announces itself")]
    UnknownProcess,
    /// Another one has that place.
    #[error("a backend for this version is there already, {}; end it first", holder(*pid))]
    Taken {
        /// Its process id, where it is known.
        pid: Option<u32>,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "whose process is not known yet".to_owned(), |pid| format!("process {pid}"))
}

impl<E: Entropy> Broker<E> {
    /// A backend that runs already announces itself; where it is taken, its control connection is to be
    /// opened next.
    ///
    /// # Errors
    /// [`NotRegistered`].
    pub fn announced(
        &mut self,
        now: Now,
        peer: PeerKey,
        announcement: &Announcement,
    ) -> Result<BackendSlot, NotRegistered> {
        if !self.is_serving() {
            return Err(NotRegistered::Draining);
        }
        self.handler.spend_permit(now, peer).map_err(|_| NotRegistered::RateLimited)?;
        self.announced_before(peer, announcement)
    }

    /// The same for one that had announced itself to a predecessor in the same process, and was let in: that takes
    /// no permit again.
    ///
    /// # Errors
    /// [`NotRegistered`].
    pub fn announced_before(
        &mut self,
        peer: PeerKey,
        announcement: &Announcement,
    ) -> Result<BackendSlot, NotRegistered> {
        let (service, version) = announcement.key()?;
        if announcement.endpoint.is_empty() {
            return Err(NotRegistered::NoEndpoint);
        }
        let pid = peer.pid().ok_or(NotRegistered::UnknownProcess)?.get();
        // A process can announce any number of versions: only those that a definition names have a label.
        let definition = self.handler.definition(service.as_str());
        let is_named = definition.is_some_and(|definition| definition.policy().names(&version));
        let is_known = definition.is_some();
        let metrics = &mut self.metrics;
        let slot = self.backends.entry(&service, &version, || {
            let service = if is_known { service.as_str() } else { OTHER };
            let version = if is_named { version.to_string() } else { OTHER.to_owned() };
            metrics.series_of(service, &version)
        });
        let Some(backend) = self.backends.get_mut(slot) else { return Err(NotRegistered::UnknownProcess) };
        check_place(backend, pid, &announcement.endpoint)?;
        backend.announced_by = Some(pid);
        if backend.registration.is_none() && backend.state.live().is_none() {
            backend.registration = Some(Registration {
                service,
                version,
                endpoint: announcement.endpoint.clone(),
                handoff_endpoint: None,
            });
            backend.is_self_registered = true;
        }
        Ok(slot)
    }

    /// The control connection of a backend is gone, and with it what it had registered.
    pub(super) fn withdraw_registration(&mut self, now: Now, slot: BackendSlot) {
        let Some(backend) = self.backends.get_mut(slot) else { return };
        backend.announced_by = None;
        if backend.is_self_registered {
            let why = "it has ended its control connection, and is not sent anybody any more";
            self.end_registration(now, slot, why);
        }
    }

    /// Ends a registration, and the use of what was registered. A process that is the broker's own stays, whatever
    /// was registered beside it.
    pub(super) fn end_registration(&mut self, now: Now, slot: BackendSlot, why: &str) {
        let Some(backend) = self.backends.get_mut(slot) else { return };
        backend.registration = None;
        backend.is_self_registered = false;
        if backend.state.live().is_some_and(|live| live.origin.is_ours()) {
            let service = backend.service.clone();
            self.restore_routes(&service);
            return;
        }
        match self.retire(slot) {
            Some((live, _)) => {
                let Some(backend) = self.backends.get(slot) else { return };
                let draft = EventDraft::new(now, EventKind::DiedShutdown, Severity::Info, &self.instance)
                    .service(backend.service.as_str())
                    .pid(live.pid)
                    .reason(why)
                    .extra("version", &backend.version);
                self.emit(draft);
                self.succeed(now, slot);
                self.advance_drain(now);
            }
            None => self.forget(now, slot),
        }
    }
}

/// Whether a process may have this place.
fn check_place(backend: &Backend, pid: u32, endpoint: &str) -> Result<(), NotRegistered> {
    // What is named beside a backend of our own says where another one is.
    let is_ours = backend.state.live().is_some_and(|live| live.origin.is_ours());
    let registered_there =
        is_ours || backend.registration.as_ref().is_none_or(|registration| registration.endpoint == endpoint);
    let holder = match &backend.state {
        BackendState::Running(live) => live.pid.filter(|holder| *holder != pid || live.endpoint != endpoint),
        BackendState::Draining(live, _) => return Err(NotRegistered::Taken { pid: live.pid }),
        BackendState::Spawning => return Err(NotRegistered::Taken { pid: None }),
        BackendState::Probing | BackendState::Absent | BackendState::Failed(_) => None,
    };
    if holder.is_some() || backend.control != ControlState::None || !registered_there {
        return Err(NotRegistered::Taken { pid: holder.or(backend.announced_by) });
    }
    Ok(())
}
