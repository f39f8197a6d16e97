//! Bugs that can be put in, to show that the simulator finds them.
//!
//! Each is one that a broker of this kind has had, or could easily have. None is there unless the feature
//! `planted-bugs` is on, which is for the simulator's own tests, and none is active until it is
//! planted, by `Broker::with_bug`.

use super::Broker;

/// A bug of a known kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A Hello whose patience is over stays in the queue, and is answered again with the others.
    SecondReply,
    /// A Hello starts a backend although a start is under way.
    SecondStart,
    /// A connection that a backend has accepted is given back to the broker as well.
    SecondOwner,
    /// A connection that ends while its Hello waits stays in the accounts.
    LeakedConnection,
    /// The deadline of a drain passes unheeded.
    EndlessDrain,
    /// A backend that is ending is not handed to the broker's successor.
    ForgottenBackend,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::SecondReply,
        Self::SecondStart,
        Self::SecondOwner,
        Self::LeakedConnection,
        Self::EndlessDrain,
        Self::ForgottenBackend,
    ];
}

#[cfg(feature = "planted-bugs")]
impl<E> Broker<E> {
    /// The same broker with this bug.
    #[must_use]
    pub fn with_bug(self, bug: Bug) -> Self {
        Self { planted: Some(bug), ..self }
    }

    pub(super) fn has_bug(&self, bug: Bug) -> bool {
        self.planted == Some(bug)
    }
}

#[cfg(not(feature = "planted-bugs"))]
impl<E> Broker<E> {
    // Never has one: whatever asks is compiled away.
    #[expect(clippy::unused_self, reason = "the twin that has a bug looks at itself")]
    pub(super) const fn has_bug(&self, _: Bug) -> bool {
        false
    }
}
