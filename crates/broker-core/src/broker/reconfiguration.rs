//! Another configuration for a broker that runs.
//!
//! Limits hold for whoever comes from now on: nobody is evicted, no debt is forgiven, nothing that was agreed is
//! taken back. Of the backends that the operator has registered, those that are named no more are not sent anybody
//! any more; whoever is connected to one stays.
//!
//! Invariant: a broker that ends, ends as it was told to before.

use std::time::Duration;

use super::{BackendsOnExit, Broker};
use crate::admission::{ConnectionLimits, RateLimit};
use crate::backends::{Backend, Registration};
use crate::entropy::Entropy;
use crate::handoff::BackendSlot;
use crate::time::Now;

const NOT_NAMED: &str = "the configuration does not name it any more, so it is not sent anybody";
const NAMED_ELSEWHERE: &str = "the configuration names another endpoint";

/// What can be changed about a [`Broker`] that runs.
#[derive(Clone, Debug)]
pub struct Reconfiguration {
    /// Hellos per peer.
    pub rate_limit: RateLimit,
    /// Connections, in all and per peer.
    pub connections: ConnectionLimits,
    /// How long a drain may take where nobody says otherwise.
    pub drain: Duration,
    /// What becomes of the backends when the broker ends.
    pub on_exit: BackendsOnExit,
    /// Every backend that the operator has registered. Those that have announced themselves are not meant.
    pub registrations: Vec<Registration>,
}

impl<E: Entropy> Broker<E> {
    pub(super) fn reconfigure(&mut self, now: Now, new: Reconfiguration) {
        if !self.is_serving() {
            return;
        }
        let Reconfiguration { rate_limit, connections, drain, on_exit, registrations } = new;
        self.config.hello.rate_limit = rate_limit;
        self.handler.set_rate_limit(now, rate_limit);
        self.config.connections = connections;
        self.connections.set_limits(connections);
        self.config.drain = drain;
        self.config.on_exit = on_exit;
        self.set_registrations(now, registrations);
    }

    fn set_registrations(&mut self, now: Now, registrations: Vec<Registration>) {
        let is_named = |backend: &Backend| {
            registrations
                .iter()
                .any(|named| (&named.service, &named.version) == (&backend.service, &backend.version))
        };
        let of_the_operator =
            |backend: &Backend| backend.registration.is_some() && !backend.is_self_registered;
        let mut gone: Vec<_> = self
            .backends
            .iter()
            .filter(|backend| of_the_operator(backend) && !is_named(backend))
            .map(|backend| backend.slot)
            .collect();
        gone.sort_unstable();
        gone.into_iter().for_each(|slot| self.unregister(now, slot));
        registrations.into_iter().for_each(|named| self.register_anew(now, named));
    }

    /// One that has announced itself as well stays for as long as it holds its connection.
    fn unregister(&mut self, now: Now, slot: BackendSlot) {
        let Some(backend) = self.backends.get_mut(slot) else { return };
        let is_ours = backend.state.live().is_some_and(|live| live.origin.is_ours());
        match &mut backend.registration {
            Some(registration) if backend.announced_by.is_some() && !is_ours => {
                registration.handoff_endpoint = None;
                backend.is_self_registered = true;
                let service = backend.service.clone();
                self.restore_routes(&service);
            }
            Some(_) | None => self.end_registration(now, slot, NOT_NAMED),
        }
    }

    fn register_anew(&mut self, now: Now, named: Registration) {
        let known = self.backends.find(&named.service, &named.version);
        let former = known.and_then(|backend| Some((backend.slot, backend.registration.as_ref()?)));
        match former {
            Some((_, former)) if former.endpoint == named.endpoint => {
                let service = named.service.clone();
                self.register(named);
                // It may take passed connections elsewhere, or no more.
                self.restore_routes(&service);
            }
            Some((slot, _)) => {
                self.end_registration(now, slot, NAMED_ELSEWHERE);
                self.register(named);
            }
            None => self.register(named),
        }
    }
}
