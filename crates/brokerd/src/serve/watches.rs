//! The processes that are watched, each once: one may serve any number of registered backends, and a
//! watch holds a descriptor.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use broker_transport::process::{ProcessWatch, WatchError};

/// The watches that somebody holds, by process id.
#[derive(Debug, Default)]
pub(super) struct Watches(RefCell<HashMap<u32, Weak<ProcessWatch>>>);

impl Watches {
    /// A watch on the process that has this id now.
    ///
    /// # Errors
    /// There is no such process, or no descriptor is left.
    pub(super) fn on(&self, pid: u32) -> Result<Rc<ProcessWatch>, WatchError> {
        let mut watches = self.0.borrow_mut();
        let known = watches.get(&pid).and_then(Weak::upgrade);
        // One that is dead may have left its id to another.
        if let Some(watch) = known.filter(|watch| matches!(watch.is_dead(), Ok(false))) {
            return Ok(watch);
        }
        let watch = Rc::new(ProcessWatch::open(pid)?);
        watches.insert(pid, Rc::downgrade(&watch));
        Ok(watch)
    }

    /// Forgets the watch on a process once nobody holds it.
    pub(super) fn forget(&self, pid: u32) {
        let mut watches = self.0.borrow_mut();
        if watches.get(&pid).is_some_and(|watch| watch.strong_count() == 0) {
            watches.remove(&pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_watched_once_and_forgotten_with_its_last_holder() {
        let (watches, pid) = (Watches::default(), std::process::id());
        let (one, other) = (watches.on(pid).unwrap(), watches.on(pid).unwrap());
        assert!(Rc::ptr_eq(&one, &other));
        drop(one);
        watches.forget(pid);
        assert!(Rc::ptr_eq(&other, &watches.on(pid).unwrap()), "somebody holds it still");
        drop(other);
        watches.forget(pid);
        assert!(watches.0.borrow().is_empty());
    }
}
