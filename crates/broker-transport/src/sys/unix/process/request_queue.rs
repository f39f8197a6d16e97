//! What other threads ask of one, which sleeps while there is nothing to do.
//!
//! What the requests are, and what else the thread waits for, is not known here. Invariants: a request that
//! is pushed is taken once, in the order of the pushes; and while one waits, the thread does not sleep, or is
//! about to wake up. For that a request is in the queue before the thread is woken, and the thread takes its
//! wake back before it looks into the queue.

use std::collections::VecDeque;
use std::sync::PoisonError;

use super::planted::Bug;
use crate::sync::{Mutex, MutexGuard};

/// How the thread is woken. A wake that comes while it is awake keeps it from falling asleep.
pub(crate) trait WakeUp {
    /// Wakes the thread, now or when it is about to sleep.
    fn wake(&self);

    /// Takes back at least one wake, if there is any.
    fn clear(&self);
}

/// The requests, and the wake of the thread that carries them out.
#[derive(Debug)]
pub(super) struct RequestQueue<R, W> {
    requests: Mutex<VecDeque<R>>,
    wake: W,
}

impl<R, W: WakeUp> RequestQueue<R, W> {
    pub(super) fn new(wake: W) -> Self {
        Self { requests: Mutex::default(), wake }
    }

    /// Adds a request, and sees to it that it is looked at.
    pub(super) fn push(&self, request: R) {
        if Bug::WakeBeforePush.is_planted() {
            self.wake.wake();
            self.requests().push_back(request);
            return;
        }
        self.requests().push_back(request);
        self.wake.wake();
    }

    /// The next request. After `None` there is nothing to do but to [sleep](Self::sleep).
    pub(super) fn next(&self) -> Option<R> {
        let request = self.requests().pop_front();
        if request.is_none() && Bug::ClearAfterLook.is_planted() {
            self.wake.clear();
        }
        request
    }

    /// Sleeps as `until_woken` does, which may also return for other reasons; then look at every request.
    pub(super) fn sleep(&self, until_woken: impl FnOnce(&W)) {
        until_woken(&self.wake);
        if !Bug::ClearAfterLook.is_planted() {
            self.wake.clear();
        }
    }

    /// Each change is one call, so what a panicking thread left is whole.
    fn requests(&self) -> MutexGuard<'_, VecDeque<R>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
