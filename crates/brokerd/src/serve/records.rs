//! What the next broker has to know: which backends run (behaviour.md 4, "Broker restart").
//!
//! Writing waits for the disk, so it happens elsewhere than on the event loop, one note after the other. Invariant:
//! of two notes about one version, the later one is written last.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use broker_protocol::wire::DaemonProcess;
use broker_protocol::{ServiceName, Version};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

use super::settings::Settings;
use super::shell::Shell;
use crate::manifests::{ManifestDir, ManifestError, Owner};

/// Something to write down. There are no more of them than backends that start and end.
#[derive(Debug)]
pub(super) enum Note {
    /// This process serves a version.
    Running { service: ServiceName, version: Version, daemon: Box<DaemonProcess> },
    /// It does not any more.
    Ended { service: ServiceName, version: Version, pid: u32 },
}

/// A note, and who waits until it is written down.
type Queued = (Note, Option<oneshot::Sender<()>>);

/// The manifests of this broker's backends.
pub(super) struct Records {
    dir: ManifestDir,
    owner: Owner,
    queue: UnboundedSender<Queued>,
    notes: RefCell<Option<UnboundedReceiver<Queued>>>,
    unwritten: Cell<usize>,
    all_written: Notify,
}

impl Records {
    pub(super) fn new(settings: &Settings) -> Self {
        let (queue, notes) = unbounded_channel();
        Self {
            dir: ManifestDir::new(settings.manifest_dir.value.clone()),
            owner: Owner {
                instance: settings.instance.value.to_string(),
                socket: settings.socket.value.display().to_string(),
            },
            queue,
            notes: RefCell::new(Some(notes)),
            unwritten: Cell::new(0),
            all_written: Notify::new(),
        }
    }

    pub(super) const fn dir(&self) -> &ManifestDir {
        &self.dir
    }

    pub(super) const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Has something written down; never waits.
    pub(super) fn note(&self, note: Note) {
        self.queue(note, None);
    }

    /// Has something written down, and waits until it is, or cannot be; but no longer than `limit`.
    pub(super) async fn note_first(&self, note: Note, limit: Duration) {
        let (tell, told) = oneshot::channel();
        self.queue(note, Some(tell));
        if tokio::time::timeout(limit, told).await.is_err() {
            tracing::warn!("a backend is used before it is written down, as the disk does not answer");
        }
    }

    fn queue(&self, note: Note, tell: Option<oneshot::Sender<()>>) {
        if self.queue.send((note, tell)).is_ok() {
            self.unwritten.set(self.unwritten.get() + 1);
        }
    }

    /// Whether everything is written down.
    pub(super) fn is_all_written(&self) -> bool {
        self.unwritten.get() == 0
    }

    /// Waits until everything is written down, but no longer than `limit`.
    pub(super) async fn finish(&self, limit: Duration) {
        let all_written = async {
            while self.unwritten.get() > 0 {
                self.all_written.notified().await;
            }
        };
        if tokio::time::timeout(limit, all_written).await.is_err() {
            tracing::warn!(
                left = self.unwritten.get(),
                "manifests were still being written when the broker ended"
            );
        }
    }

    /// Writes down whatever is noted, for ever.
    pub(super) async fn keep(shell: Rc<Shell>) {
        let records = shell.records();
        let Some(mut notes) = records.notes.take() else { return };
        while let Some((note, tell)) = notes.recv().await {
            let (dir, owner) = (records.dir.clone(), records.owner.clone());
            let unix_ms = shell.clock().now().unix.get();
            let written = tokio::task::spawn_blocking(move || write(&dir, &owner, note, unix_ms)).await;
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => report(&shell, &error),
                Err(error) => tracing::warn!(%error, "a manifest was not written"),
            }
            records.unwritten.set(records.unwritten.get() - 1);
            records.all_written.notify_one();
            // Whoever has waited may have given up.
            let _ = tell.map(|tell| tell.send(()));
            shell.moves().note_change();
        }
    }
}

/// Tells of a manifest that is not used; it is left alone.
pub(super) fn report(shell: &Rc<Shell>, error: &ManifestError) {
    match error {
        ManifestError::Seal { .. } | ManifestError::Name { .. } | ManifestError::TooLong { .. } => {
            shell.call(|broker, now| broker.manifest_damaged(now, error.to_string()));
        }
        ManifestError::Read { .. }
        | ManifestError::NotAFile { .. }
        | ManifestError::Untrusted { .. }
        | ManifestError::Write { .. }
        | ManifestError::Taken { .. }
        | ManifestError::Directory { .. } => {
            tracing::warn!(%error, "the next broker will not find a backend");
        }
    }
}

fn write(dir: &ManifestDir, owner: &Owner, note: Note, unix_ms: u64) -> Result<(), ManifestError> {
    match note {
        Note::Running { service, version, daemon } => {
            dir.note_running(&service, &version, owner, *daemon, unix_ms)
        }
        Note::Ended { service, version, pid } => dir.note_ended(&service, &version, pid, unix_ms).map(drop),
    }
}
