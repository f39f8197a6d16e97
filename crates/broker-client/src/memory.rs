//! Where a backend listened last time, so that the next connection may do without a Hello
//! (behaviour.md, section 10, "Hello-skip").
//!
//! It says where to try first, never that the backend lives: whoever recalls it dials. Invariants: what
//! is remembered is an agreement on the one service and version that its owner asks for; it is forgotten
//! soon, so that the broker hears of a backend that is in use and does not end it as idle; and it counts
//! only where the process that called `listen` is the one that had called it then. Usually that is the
//! backend; it is the broker, or another manager, where a backend was started with its listener.
//!
//! Behind it there may be an entry [on disk](crate::disk_cache), which is read and written elsewhere; what
//! is forgotten here is forgotten there too.

mod planted;
#[cfg(all(test, feature = "shuttle"))]
mod schedules;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
#[cfg(not(all(test, feature = "shuttle")))]
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use broker_transport::peer::PeerCredentials;
#[cfg(all(test, feature = "shuttle"))]
use shuttle::sync::{Mutex, MutexGuard};

use self::planted::Bug;
use crate::agreement::Agreement;
use crate::conversation::Origin;
use crate::disk_cache::Slot;
use crate::link::{Party, Place};

/// The longest time without a Hello, whatever the keepalive: a broker ends a backend that it has not
/// heard of for its `idle.timeout_secs`, which a client does not know.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);

/// How long a backend that was reached once is tried before the broker is asked, at most.
pub(crate) const KNOWN_DIAL_LIMIT: Duration = Duration::from_millis(100);

/// A backend that was reached once.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    agreement: Arc<Agreement>,
    listener: PeerCredentials,
    until: Instant,
    origin: Origin,
}

impl Known {
    /// What is to be remembered of a backend that was reached at `now`; nothing where the kernel does
    /// not say which process listens.
    pub(crate) fn new(agreement: &Arc<Agreement>, listener: PeerCredentials, now: Instant) -> Option<Self> {
        listener.pid?;
        let until = now.checked_add(agreement.keepalive.min(LONGEST))?;
        Some(Self { agreement: Arc::clone(agreement), listener, until, origin: Origin::Memory })
    }

    /// A backend that another process reached `age` before `now`; nothing where that is too long ago.
    pub(crate) fn from_disk(
        agreement: &Arc<Agreement>,
        listener: PeerCredentials,
        age: Duration,
        now: Instant,
    ) -> Option<Self> {
        let left = agreement.keepalive.min(LONGEST).checked_sub(age).filter(|left| !left.is_zero())?;
        let until = now.checked_add(left)?;
        Some(Self { agreement: Arc::clone(agreement), listener, until, origin: Origin::Disk })
    }

    pub(crate) const fn agreement(&self) -> &Arc<Agreement> {
        &self.agreement
    }

    pub(crate) fn place(&self) -> Place<'_> {
        Place::new(Party::Backend, &self.agreement.backend_pipe)
    }

    pub(crate) const fn listener(&self) -> PeerCredentials {
        self.listener
    }

    /// Where this was recalled from.
    pub(crate) const fn origin(&self) -> Origin {
        self.origin
    }

    /// Until when it is tried.
    #[cfg(feature = "fuzzing")]
    pub(crate) const fn until(&self) -> Instant {
        self.until
    }

    /// Whether the process that listens now is the one that did then.
    pub(crate) fn is_served_by(&self, listener: PeerCredentials) -> bool {
        self.listener == listener
    }
}

/// What is remembered. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    known: Arc<Mutex<Option<Known>>>,
    takes_early_data: Arc<AtomicBool>,
    disk: Option<Arc<Slot>>,
}

impl Memory {
    /// The same, with this entry on disk behind it.
    pub(crate) fn backed_by(&self, disk: Option<Slot>) -> Self {
        let takes_early_data = Arc::clone(&self.takes_early_data);
        Self { known: Arc::clone(&self.known), takes_early_data, disk: disk.map(Arc::new) }
    }

    /// Whether the broker, when it was last asked, knew what to do with a request behind a Hello.
    pub(crate) fn takes_early_data(&self) -> bool {
        self.takes_early_data.load(Ordering::Relaxed)
    }

    pub(crate) fn note_early_data(&self, is_taken: bool) {
        self.takes_early_data.store(is_taken, Ordering::Relaxed);
    }

    /// The entry on disk, for what this process does not remember.
    pub(crate) fn disk(&self) -> Option<&Slot> {
        self.disk.as_deref()
    }

    pub(crate) fn recall(&self, now: Instant) -> Option<Known> {
        let mut known = self.lock();
        known.take_if(|known| known.until <= now);
        known.clone()
    }

    pub(crate) fn remember(&self, known: Option<Known>) {
        *self.lock() = known;
    }

    /// Keeps what came from disk, and served, for the sessions to come, unless there is something newer.
    pub(crate) fn keep(&self, known: &Known) {
        if known.origin == Origin::Disk {
            let mut remembered = self.lock();
            if remembered.is_none() {
                remembered = self.unlock_with(Bug::UnlockedBeforeKeep, remembered);
                *remembered = Some(Known { origin: Origin::Memory, ..known.clone() });
            }
        }
    }

    /// Forgets an agreement that did not keep its word, unless another has taken its place.
    pub(crate) fn forget(&self, agreement: &Arc<Agreement>) {
        {
            let mut remembered = self.lock();
            if remembered.as_ref().is_some_and(|known| Arc::ptr_eq(&known.agreement, agreement)) {
                remembered = self.unlock_with(Bug::UnlockedBeforeForget, remembered);
                *remembered = None;
            }
        }
        if let Some(disk) = &self.disk {
            disk.forget(agreement);
        }
    }

    /// The lock as it is, between a look and the change that follows from it; given back meanwhile with a bug.
    fn unlock_with<'a>(
        &'a self,
        bug: Bug,
        locked: MutexGuard<'a, Option<Known>>,
    ) -> MutexGuard<'a, Option<Known>> {
        if bug.is_planted() {
            drop(locked);
            self.lock()
        } else {
            locked
        }
    }

    /// Each change is one assignment, so what a panicking thread left is whole.
    fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use broker_protocol::{Capabilities, ConnectionId};
    use broker_transport::peer::UserId;

    use super::*;

    pub(super) const KEEPALIVE: Duration = Duration::from_secs(10);

    pub(super) fn agreement(keepalive: Duration) -> Arc<Agreement> {
        Arc::new(Agreement {
            daemon_version: "1.2.3".parse().unwrap(),
            backend_pipe: "/run/backend.sock".into(),
            warnings: Vec::new(),
            capabilities: Capabilities::empty(),
            keepalive,
            token: None,
            connection_id: ConnectionId::new(1).unwrap(),
        })
    }

    pub(super) fn listener(pid: u32) -> PeerCredentials {
        PeerCredentials { user: UserId::current(), gid: None, pid: NonZeroU32::new(pid) }
    }

    #[test]
    fn a_backend_is_remembered_for_its_keepalive_and_not_a_nanosecond_longer() {
        let (memory, now) = (Memory::default(), Instant::now());
        let last = now + KEEPALIVE - Duration::from_nanos(1);
        assert!(memory.recall(now).is_none());
        memory.remember(Known::new(&agreement(KEEPALIVE), listener(7), now));
        assert!(memory.recall(now).is_some() && memory.recall(last).is_some());
        assert!(memory.recall(now + KEEPALIVE).is_none());
        assert!(memory.recall(now).is_none(), "what is over does not come back");
    }

    #[test]
    fn no_keepalive_makes_a_client_silent_for_longer_than_half_a_minute() {
        for keepalive in [LONGEST, LONGEST + Duration::from_nanos(1), Duration::MAX] {
            let (memory, now) = (Memory::default(), Instant::now());
            memory.remember(Known::new(&agreement(keepalive), listener(7), now));
            assert!(memory.recall(now + LONGEST - Duration::from_nanos(1)).is_some());
            assert!(memory.recall(now + LONGEST).is_none());
        }
    }

    #[test]
    fn only_the_process_that_listened_then_will_do() {
        let known = Known::new(&agreement(KEEPALIVE), listener(7), Instant::now()).unwrap();
        assert!(known.is_served_by(listener(7)));
        assert!(!known.is_served_by(listener(8)) && !known.is_served_by(listener(0)));
    }

    #[test]
    fn nothing_is_remembered_of_a_process_without_an_id() {
        assert!(Known::new(&agreement(KEEPALIVE), listener(0), Instant::now()).is_none());
    }

    #[test]
    fn a_failure_makes_the_agreement_it_met_forgotten_and_no_newer_one() {
        let (memory, now) = (Memory::default(), Instant::now());
        let (old, new) = (agreement(KEEPALIVE), agreement(KEEPALIVE));
        memory.remember(Known::new(&new, listener(7), now));
        memory.forget(&old);
        assert!(memory.recall(now).is_some());
        memory.clone().forget(&new);
        assert!(memory.recall(now).is_none(), "clones share what is remembered");
    }
}
