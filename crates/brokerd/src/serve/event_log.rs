//! The lifecycle events on disk (behaviour.md 9).
//!
//! A thread of its own appends them, so that a slow disk never delays a Hello; the queue to it is
//! bounded, and what does not fit is dropped and counted. Invariants: an event is written whole, with
//! one `write`, or taken back; the file never exceeds [`MAX_LOG`]; a failure is told once, not per event.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use broker_protocol::BoundedEvent;
use broker_protocol::limits::MAX_EVENT;
use broker_transport::{files, identity, private_dir};

/// Longest log, in bytes; then it is rotated.
pub(crate) const MAX_LOG: u64 = 8 * 1024 * 1024;
/// Rotated logs that are kept: `lifecycle.pb.1` is the youngest.
pub(crate) const ROTATED_LOGS: u32 = 4;
/// Events that may wait for the disk.
const QUEUE: usize = 1_024;
/// How long the last events may take to be written when the broker ends.
const LAST_EVENTS: Duration = Duration::from_secs(1);
/// How often a flush looks.
const FLUSH_LOOK: Duration = Duration::from_micros(200);

/// The log of one broker.
#[derive(Debug)]
pub(crate) struct EventLog {
    queue: Option<SyncSender<BoundedEvent>>,
    writer: Option<JoinHandle<()>>,
    dropped: Arc<AtomicU64>,
    /// How many were queued, and how many of those were written or could not be.
    queued: Cell<u64>,
    handled: Arc<AtomicU64>,
}

impl EventLog {
    /// Begins to append to `path`.
    ///
    /// # Errors
    /// No thread is to be had. Whether the file can be written to shows later, and stops nothing.
    pub(crate) fn start(path: PathBuf) -> io::Result<Self> {
        let (queue, events) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let handled = Arc::new(AtomicU64::new(0));
        let counters = (Arc::clone(&dropped), Arc::clone(&handled));
        let writer = std::thread::Builder::new()
            .name("broker-events".into())
            .spawn(move || write_all(&events, &mut LogFile::new(path, MAX_LOG), &counters.0, &counters.1))?;
        Ok(Self { queue: Some(queue), writer: Some(writer), dropped, queued: Cell::new(0), handled })
    }

    /// Queues an event; never waits.
    pub(crate) fn append(&self, event: BoundedEvent) {
        if self.queue.as_ref().is_none_or(|queue| queue.try_send(event).is_err()) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            self.queued.set(self.queued.get() + 1);
        }
    }

    /// Waits until everything that is queued is written, but no longer than `limit`: a disk may hang.
    pub(crate) fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.handled.load(Ordering::Acquire) < self.queued.get() && Instant::now() < deadline {
            std::thread::sleep(FLUSH_LOOK);
        }
    }

    /// Events that were not written.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for EventLog {
    /// Waits until everything that is queued is written, but not for a disk that hangs, or for somebody who keeps the
    /// log locked: a broker that is to end, ends.
    fn drop(&mut self) {
        self.queue = None;
        self.flush(LAST_EVENTS);
        let is_written = self.handled.load(Ordering::Acquire) == self.queued.get();
        if let Some(writer) = self.writer.take().filter(|_| is_written) {
            // It panics nowhere; if it did, there is nobody left to tell.
            let _ = writer.join();
        }
    }
}

fn write_all(events: &Receiver<BoundedEvent>, log: &mut LogFile, dropped: &AtomicU64, handled: &AtomicU64) {
    let mut is_failing = false;
    while let Ok(event) = events.recv() {
        match log.append(&event) {
            Ok(()) => is_failing = false,
            Err(error) => {
                dropped.fetch_add(1, Ordering::Relaxed);
                if !is_failing {
                    let path = log.path.display();
                    tracing::warn!(%path, %error, "lifecycle events are dropped until the log can be written again");
                }
                is_failing = true;
            }
        }
        handled.fetch_add(1, Ordering::Release);
    }
}

/// The file, opened when it is needed. Other brokers of this user may append to it and rotate it, too: each
/// locks it for the moment of a write and looks whether it is still the one at its path.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    limit: u64,
    open: Option<OpenLog>,
    encoded: Vec<u8>,
}

#[derive(Debug)]
struct OpenLog {
    file: File,
    identity: (u64, u64),
}

impl LogFile {
    const fn new(path: PathBuf, limit: u64) -> Self {
        Self { path, limit, open: None, encoded: Vec::new() }
    }

    /// After an error the file is opened anew next time.
    fn append(&mut self, event: &BoundedEvent) -> io::Result<()> {
        self.encoded.clear();
        event.append_to(&mut self.encoded);
        debug_assert!(self.encoded.len() <= MAX_EVENT);
        let length = self.encoded.len() as u64;
        let mut log = self.lock_with_room_for(length)?;
        let size = log.file.metadata()?.len();
        let outcome = match log.file.write(&self.encoded) {
            Ok(written) if written == self.encoded.len() => Ok(()),
            Ok(written) => {
                // A part of an event would spoil all that follow; under the lock nothing does yet.
                log.file.set_len(size)?;
                let message = format!("only {written} of {length} bytes could be written");
                Err(io::Error::new(io::ErrorKind::StorageFull, message))
            }
            Err(error) => Err(error),
        };
        // A lock that cannot be given back goes with the file, and the event is written all the same.
        let is_unlocked = log.file.unlock().is_ok();
        self.open = (outcome.is_ok() && is_unlocked).then_some(log);
        outcome
    }

    /// The log, locked and at its path, with room for so many bytes.
    fn lock_with_room_for(&mut self, length: u64) -> io::Result<OpenLog> {
        loop {
            let log = match self.open.take() {
                Some(log) => log,
                None => open(&self.path)?,
            };
            log.file.lock()?;
            let is_at_its_path =
                files::facts(&self.path).is_ok_and(|facts| (facts.device, facts.inode) == log.identity);
            if !is_at_its_path {
                // Somebody rotated it between the two.
                continue;
            }
            if log.file.metadata()?.len() + length <= self.limit {
                return Ok(log);
            }
            rotate(&self.path)?;
        }
    }
}

fn open(path: &Path) -> io::Result<OpenLog> {
    let (file, facts) = match files::open_append(path) {
        // Its directory could not be made when the broker began, or was taken away.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(path);
            private_dir::ensure_private_dir(directory).map_err(io::Error::other)?;
            files::open_append(path)?
        }
        opened => opened?,
    };
    if facts.kind != files::FileKind::Regular {
        return Err(io::Error::other("it is not a regular file"));
    }
    if facts.names > 1 {
        return Err(io::Error::other(
            "the file has another name, too, and may be somebody's; remove this one",
        ));
    }
    if facts.writable_by_others || facts.owner != identity::current_user_key() {
        return Err(io::Error::other("it belongs to another user, or others may write to it; remove it"));
    }
    Ok(OpenLog { file, identity: (facts.device, facts.inode) })
}

/// Moves every log one number up; the oldest goes.
fn rotate(path: &Path) -> io::Result<()> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..ROTATED_LOGS).rev() {
        match std::fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, numbered(1))
}

#[cfg(test)]
mod tests {
    use broker_protocol::prost::Message;
    use broker_protocol::wire::LifecycleEvent;

    use super::*;

    fn event(ts_ms: u64) -> BoundedEvent {
        BoundedEvent::new(LifecycleEvent { ts_ms, reason: "x".repeat(80), ..LifecycleEvent::default() })
    }

    fn read(path: &Path) -> Vec<u64> {
        let bytes = std::fs::read(path).unwrap_or_default();
        let mut rest = &bytes[..];
        let mut stamps = Vec::new();
        while !rest.is_empty() {
            stamps.push(LifecycleEvent::decode_length_delimited(&mut rest).unwrap().ts_ms);
        }
        stamps
    }

    #[test]
    fn a_directory_that_was_taken_away_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("events").join("lifecycle.pb");
        let mut log = LogFile::new(path.clone(), MAX_LOG);
        log.append(&event(1)).unwrap();
        drop(log);
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        LogFile::new(path.clone(), MAX_LOG).append(&event(2)).unwrap();
        assert_eq!(read(&path), [2]);
    }

    #[test]
    fn what_is_queued_is_on_disk_once_the_log_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lifecycle.pb");
        for start in [1, 101] {
            let log = EventLog::start(path.clone()).unwrap();
            (start..start + 100).for_each(|ts_ms| log.append(event(ts_ms)));
            assert_eq!(log.dropped(), 0);
        }
        assert_eq!(read(&path), (1..=200).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_log_is_rotated_and_four_old_ones_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lifecycle.pb");
        let mut encoded = Vec::new();
        event(100).append_to(&mut encoded);
        let mut log = LogFile::new(path.clone(), 2 * encoded.len() as u64);
        for ts_ms in 100..113 {
            log.append(&event(ts_ms)).unwrap();
        }
        assert_eq!(read(&path), [112]);
        let old: Vec<_> =
            (1..=5).map(|number| read(&dir.path().join(format!("lifecycle.pb.{number}")))).collect();
        assert_eq!(old, [vec![110, 111], vec![108, 109], vec![106, 107], vec![104, 105], vec![]]);
    }

    #[test]
    fn two_brokers_share_a_log_and_neither_loses_what_the_other_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lifecycle.pb");
        let mut encoded = Vec::new();
        event(100).append_to(&mut encoded);
        let limit = 4 * encoded.len() as u64;
        let mut logs = [LogFile::new(path.clone(), limit), LogFile::new(path.clone(), limit)];
        for ts_ms in 100..111 {
            logs[ts_ms as usize % 2].append(&event(ts_ms)).unwrap();
        }
        assert_eq!(read(&path), [108, 109, 110]);
        let old: Vec<_> =
            (1..=2).map(|number| read(&dir.path().join(format!("lifecycle.pb.{number}")))).collect();
        assert_eq!(old, [vec![104, 105, 106, 107], vec![100, 101, 102, 103]]);
    }

    #[test]
    fn the_last_event_that_fits_exactly_causes_no_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lifecycle.pb");
        let mut encoded = Vec::new();
        event(100).append_to(&mut encoded);
        let mut log = LogFile::new(path.clone(), encoded.len() as u64);
        log.append(&event(100)).unwrap();
        assert!(!dir.path().join("lifecycle.pb.1").exists());
        log.append(&event(101)).unwrap();
        assert_eq!((read(&path), read(&dir.path().join("lifecycle.pb.1"))), (vec![101], vec![100]));
    }

    #[test]
    fn a_log_that_cannot_be_written_drops_counts_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let in_the_way = dir.path().join("events");
        std::fs::write(&in_the_way, "").unwrap();
        let path = in_the_way.join("lifecycle.pb");
        let mut log = LogFile::new(path.clone(), MAX_LOG);
        assert!(log.append(&event(1)).is_err());
        std::fs::remove_file(&in_the_way).unwrap();
        std::fs::create_dir(&in_the_way).unwrap();
        log.append(&event(2)).unwrap();
        assert_eq!(read(&path), [2]);

        let log = EventLog::start(path.join("below a file")).unwrap();
        let dropped = Arc::clone(&log.dropped);
        log.append(event(3));
        drop(log);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }
}
