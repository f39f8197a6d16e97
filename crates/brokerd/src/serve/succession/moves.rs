//! What keeps the broker from going on as another program right now, and the connections that go along.
//!
//! Invariant: a connection is moved or answered, never both.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use broker_transport::descriptor::OwnedDescriptor;
use broker_transport::listener::Listener;
use broker_transport::lock::InstanceLock;
use tokio::sync::Notify;

use super::super::connection::Moved;
use super::super::shell::Shell;

/// One per daemon.
#[derive(Default)]
pub(in crate::serve) struct Moves {
    /// Answers that are being written, and what else must not be dealt with twice.
    held_back: Cell<usize>,
    changed: Notify,
    is_under_way: Cell<bool>,
    /// Where the broker listens, and the lock of that.
    endpoint: RefCell<Option<(Rc<Listener>, Rc<InstanceLock>)>>,
    /// There from when connections are to be moved.
    moved: RefCell<Option<Vec<Moved>>>,
}

impl Moves {
    /// Keeps everything where it is until the guard is dropped.
    pub(in crate::serve) fn hold_back(&self, shell: &Rc<Shell>) -> HeldBack {
        self.held_back.set(self.held_back.get() + 1);
        HeldBack(Rc::clone(shell))
    }

    /// Keeps what a successor gets first, until it is forgotten.
    pub(in crate::serve) fn set_endpoint(&self, listener: &Rc<Listener>, lock: &Rc<InstanceLock>) {
        *self.endpoint.borrow_mut() = Some((Rc::clone(listener), Rc::clone(lock)));
    }

    /// The broker ends.
    pub(in crate::serve) fn forget_endpoint(&self) {
        *self.endpoint.borrow_mut() = None;
    }

    /// Copies of the listener and the lock.
    pub(super) fn endpoint(&self) -> io::Result<[OwnedDescriptor; 2]> {
        match &*self.endpoint.borrow() {
            Some((listener, lock)) => {
                Ok([listener.bound().try_clone_descriptor()?, lock.try_clone_descriptor()?])
            }
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Whether the socket file and the lock file are still those that the broker has.
    pub(super) fn is_in_place(&self) -> bool {
        let endpoint = self.endpoint.borrow();
        endpoint.as_ref().is_some_and(|(listener, lock)| listener.bound().is_in_place() && lock.is_in_place())
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.is_under_way.get()
    }

    /// Whether somebody else has bound where the broker listens, and keeps the socket.
    pub(super) fn is_socket_passed(&self) -> bool {
        self.endpoint.borrow().as_ref().is_some_and(|(listener, _)| listener.bound().path().is_none())
    }

    /// Begins a succession; `None` where one is under way.
    pub(super) fn begin(&self, shell: &Rc<Shell>) -> Option<UnderWay> {
        (!self.is_under_way.replace(true)).then(|| UnderWay(Rc::clone(shell)))
    }

    pub(super) fn is_nothing_held_back(&self) -> bool {
        self.held_back.get() == 0
    }

    /// Something is different from what it was. Free where nobody waits for that.
    pub(in crate::serve) fn note_change(&self) {
        if self.is_under_way.get() {
            self.changed.notify_one();
        }
    }

    /// Waits for the next change.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// From now on, connections that are not answered are moved.
    pub(super) fn start(&self) {
        *self.moved.borrow_mut() = Some(Vec::new());
    }

    /// All that are to be moved; others are served again.
    pub(super) fn stop(&self) -> Vec<Moved> {
        self.moved.take().unwrap_or_default()
    }

    pub(in crate::serve) fn is_moving(&self) -> bool {
        self.moved.borrow().is_some()
    }

    pub(in crate::serve) fn add(&self, moved: Moved) {
        if let Some(all) = &mut *self.moved.borrow_mut() {
            all.push(moved);
        }
    }
}

/// Something that must be done first.
pub(in crate::serve) struct HeldBack(Rc<Shell>);

impl Drop for HeldBack {
    fn drop(&mut self) {
        let moves = self.0.moves();
        moves.held_back.set(moves.held_back.get() - 1);
        moves.note_change();
    }
}

/// A succession that is under way.
pub(super) struct UnderWay(Rc<Shell>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.moves().is_under_way.set(false);
    }
}
