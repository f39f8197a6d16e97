//! Giving memory back after a burst of connections.
//!
//! What is answered at once needs no task and leaves nothing behind; many that wait at the same time do. A
//! moment after such have ended the heap is tidied: once for all that end within that moment, and never in a
//! broker that has nothing to tidy. Invariant: not more often than every [`PAUSE`].

use std::cell::Cell;
use std::time::Duration;

use broker_transport::memory;
use tokio::sync::Notify;

/// From the end of a connection that was one of many until the heap is tidied.
const PAUSE: Duration = Duration::from_secs(1);
/// Connections that have to wait at the same time to be worth it.
const MANY: usize = 8;

/// Whether there is something to tidy.
#[derive(Debug, Default)]
pub(super) struct Tidying {
    /// The most that waited at the same time since it was last tidied.
    most: Cell<usize>,
    one_of_many_ended: Notify,
}

impl Tidying {
    /// So many wait now, one more than before.
    pub(super) fn began(&self, waiting: usize) {
        self.most.set(self.most.get().max(waiting));
    }

    /// One of them waits no more.
    pub(super) fn ended(&self) {
        if self.most.get() >= MANY {
            self.one_of_many_ended.notify_one();
        }
    }

    /// Tidies whenever it is due, for ever. `waiting` tells how many wait.
    pub(super) async fn keep(&self, waiting: impl Fn() -> usize) {
        loop {
            self.one_of_many_ended.notified().await;
            tokio::time::sleep(PAUSE).await;
            self.most.set(waiting());
            memory::return_what_is_free();
        }
    }
}
