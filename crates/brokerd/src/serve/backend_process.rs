//! A process of a backend, from the order to start it until its end is told.
//!
//! Invariant: whoever is told to die dies, also where it is not born yet.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use broker_core::broker::StopSignal;
use broker_transport::process::{self, ChildProcess, ProcessWatch};
use broker_transport::succession::ChildBequest;
use tokio::task::JoinHandle;

use super::control::{self, Control, InUse};
use super::shell::Shell;

/// How long it may take to read what a backend has said before its end.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A process that is being started, runs, or is ending.
#[derive(Default)]
pub(super) struct Process {
    child: OnceCell<Rc<ChildProcess>>,
    /// It was started by a former broker.
    left: OnceCell<Rc<ProcessWatch>>,
    /// Told to die before it was born.
    is_doomed: Cell<bool>,
    socket: RefCell<Option<PathBuf>>,
    /// Its control connection, and the task that serves it.
    control: RefCell<Option<(Rc<Control>, JoinHandle<()>)>>,
    /// It has taken a connection that was passed to it.
    has_adopted: Cell<bool>,
}

impl Process {
    pub(super) fn signal(&self, signal: StopSignal) {
        let signal = match signal {
            StopSignal::Terminate => process::StopSignal::Terminate,
            StopSignal::Kill => process::StopSignal::Kill,
        };
        let signalled = match (self.child.get(), self.left.get()) {
            (Some(child), _) => child.signal(signal),
            (None, Some(left)) => left.signal(signal),
            (None, None) => {
                self.is_doomed.set(true);
                Ok(())
            }
        };
        if let Err(error) = signalled {
            tracing::debug!(%error, "a backend was not signalled");
        }
    }

    /// One that a former broker has started.
    pub(super) fn adopted(left: Rc<ProcessWatch>, socket: PathBuf) -> Rc<Self> {
        Rc::new(Self { left: OnceCell::from(left), socket: RefCell::new(Some(socket)), ..Self::default() })
    }

    /// One that a predecessor in this process has started.
    pub(super) fn inherited(socket: PathBuf, has_adopted: bool) -> Rc<Self> {
        let process = Self { has_adopted: Cell::new(has_adopted), ..Self::default() };
        process.listens_at(socket);
        Rc::new(process)
    }

    /// Where its socket file is, or will be.
    pub(super) fn listens_at(&self, socket: PathBuf) {
        *self.socket.borrow_mut() = Some(socket);
    }

    /// Removes its socket file, if it left one.
    pub(super) fn remove_socket(&self) {
        if let Some(socket) = self.socket.take() {
            // Most backends remove it themselves.
            let _ = std::fs::remove_file(socket);
        }
    }

    pub(super) fn note_adopted(&self) {
        self.has_adopted.set(true);
    }

    pub(super) fn has_adopted(&self) -> bool {
        self.has_adopted.get()
    }

    /// Ends its control connection, once what it has said there is read. Others that have inherited it may
    /// hold it open, and one that was never announced has nothing to read.
    pub(super) async fn end_control(&self, in_use: Option<Rc<Control>>) {
        let Some((_, task)) = self.control.take() else { return };
        let Some(control) = in_use else { return task.abort() };
        control.end();
        let abort = task.abort_handle();
        if tokio::time::timeout(LAST_WORDS, task).await.is_err() {
            abort.abort();
        }
    }

    /// What a successor gets of it; `None` where it has not begun yet, or has ended.
    pub(super) fn bequeath(&self) -> Option<io::Result<Bequest>> {
        let child = self.child.get()?;
        let control = self.control.borrow().as_ref().map(|(control, _)| Rc::clone(control));
        Some(child.bequeath().map(|child| Bequest { child, control, has_adopted: self.has_adopted.get() }))
    }

    /// Serves its control connection until that ends.
    pub(super) fn serve_control(
        self: &Rc<Self>,
        shell: &Rc<Shell>,
        control: Rc<Control>,
        started: control::Started,
        in_use: Option<InUse>,
    ) {
        let serve = control::serve_started(Rc::clone(shell), Rc::clone(&control), started, in_use);
        let process = Rc::downgrade(self);
        let serve = async move {
            serve.await;
            // The backend sees that it has ended, and no successor goes on with it.
            if let Some(process) = process.upgrade() {
                process.control.take();
            }
        };
        *self.control.borrow_mut() = Some((control, tokio::task::spawn_local(serve)));
    }

    /// It is born.
    pub(super) fn adopt(&self, child: ChildProcess) -> Rc<ChildProcess> {
        let child = Rc::clone(self.child.get_or_init(|| Rc::new(child)));
        if self.is_doomed.get() {
            self.signal(StopSignal::Kill);
        }
        child
    }
}

/// What a successor gets of a process.
pub(super) struct Bequest {
    pub(super) child: ChildBequest,
    pub(super) control: Option<Rc<Control>>,
    pub(super) has_adopted: bool,
}
