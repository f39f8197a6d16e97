//! Bugs that can be put into the memory, to show that the search of schedules finds them.
//!
//! None is there unless the tests are built with the feature `shuttle`, and none is active until a test
//! plants it.

/// A bug of a known kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// The lock is given back between the look at what is remembered and its end.
    UnlockedBeforeForget,
    /// The lock is given back between the look for something newer and the change.
    UnlockedBeforeKeep,
}

#[cfg(all(test, feature = "shuttle"))]
mod planting {
    use std::cell::Cell;

    use super::Bug;

    // Shuttle runs all of its threads on the one that calls it.
    std::thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    impl Bug {
        /// What comes of `search` while this thread has the bug.
        pub(in super::super) fn planted<R>(self, search: impl FnOnce() -> R) -> R {
            PLANTED.set(Some(self));
            let outcome = search();
            PLANTED.set(None);
            outcome
        }

        pub(in super::super) fn is_planted(self) -> bool {
            PLANTED.get() == Some(self)
        }
    }
}

#[cfg(not(all(test, feature = "shuttle")))]
impl Bug {
    // Never there: whatever asks is compiled away.
    #[expect(clippy::unused_self, reason = "the twin that can be planted looks at itself")]
    pub(super) const fn is_planted(self) -> bool {
        false
    }
}
