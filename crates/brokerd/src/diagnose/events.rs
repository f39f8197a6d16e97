//! The last events of the log on disk, those of rotated logs included.
//!
//! The logs are opened first, the youngest one first, and read then: a log that is rotated in between is met
//! twice and read once. Invariant: however long the logs are, no more than [`MOST`] events are held, and read are
//! only as many logs as these are in.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use broker_protocol::BoundedEvent;
use broker_protocol::limits::MAX_EVENT;
use broker_protocol::prost::Message;
use broker_protocol::wire::LifecycleEvent;
use broker_transport::files::{self, FileKind};
use serde_json::Value;

use crate::admin::EventRow;
use crate::serve::event_log::{MAX_LOG, ROTATED_LOGS};

/// Events that an archive holds at most.
pub(super) const MOST: usize = 4_096;

/// Rows of a list, and what is not among them.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) rows: Vec<Value>,
    pub(super) note: Option<String>,
}

/// The last events, the oldest first.
///
/// # Errors
/// There is no log that can be read.
pub(super) fn last(log: &Path) -> Result<Rows, String> {
    read(log, MOST)
}

fn read(log: &Path, most: usize) -> Result<Rows, String> {
    let mut logs = Vec::new();
    for path in names(log) {
        match files::open_no_follow(&path) {
            Ok((file, facts)) if facts.kind == FileKind::Regular => {
                logs.push(((facts.device, facts.inode), path, file));
            }
            Ok((_, facts)) => return Err(format!("{} is {}", path.display(), facts.kind)),
            // Where the youngest is not there, it is about to be made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    if logs.is_empty() {
        return Err(format!("there is no event log at {}", log.display()));
    }
    let mut events = VecDeque::new();
    let (mut damage, mut seen) = (Vec::new(), Vec::new());
    let mut is_whole = true;
    for (identity, path, file) in logs {
        if seen.contains(&identity) {
            continue;
        }
        seen.push(identity);
        if events.len() == most {
            is_whole = false;
            break;
        }
        let mut older = VecDeque::new();
        let end = each_event(file, |event| {
            older.push_back(event);
            if older.len() + events.len() > most {
                older.pop_front();
                is_whole = false;
            }
        });
        if let Err(why) = end {
            damage.push(format!("{} is not read any further: {why}", path.display()));
        }
        older.append(&mut events);
        events = older;
    }
    let rows = events.into_iter().map(|event| {
        let row = EventRow::of(&BoundedEvent::new(event));
        // A row is made of texts and numbers, which JSON can say.
        serde_json::to_value(row).unwrap_or_default()
    });
    let more = (!is_whole).then(|| format!("the last {most} events; the log has more"));
    let notes: Vec<_> = more.into_iter().chain(damage).collect();
    let note = (!notes.is_empty()).then(|| notes.join("; "));
    Ok(Rows { rows: rows.collect(), note })
}

/// The log, and those that were rotated, the youngest first.
fn names(log: &Path) -> impl Iterator<Item = PathBuf> {
    let rotated = (1..=ROTATED_LOGS).map(|number| {
        let mut name = log.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    });
    std::iter::once(log.to_owned()).chain(rotated)
}

/// Reads a log to its end, or to where it makes no sense.
fn each_event(file: File, mut take: impl FnMut(LifecycleEvent)) -> Result<(), String> {
    let mut reader = BufReader::new(file.take(MAX_LOG));
    let mut body = Vec::with_capacity(MAX_EVENT);
    loop {
        let Some(length) = length(&mut reader).map_err(|error| error.to_string())? else { return Ok(()) };
        if length > MAX_EVENT {
            return Err(format!(
                "it says that an event has {length} bytes, and none has more than {MAX_EVENT}"
            ));
        }
        body.resize(length, 0);
        reader.read_exact(&mut body).map_err(|_| "an event is cut short".to_owned())?;
        take(LifecycleEvent::decode(&body[..]).map_err(|error| error.to_string())?);
    }
}

/// The length in front of an event, of two bytes at most; `None` at the end.
fn length(reader: &mut impl Read) -> io::Result<Option<usize>> {
    let mut byte = [0];
    if reader.read(&mut byte)? == 0 {
        return Ok(None);
    }
    let first = usize::from(byte[0]);
    if first < 0x80 {
        return Ok(Some(first));
    }
    reader.read_exact(&mut byte)?;
    Ok(Some((first & 0x7F) | usize::from(byte[0]) << 7))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, stamps: std::ops::Range<u64>) {
        let mut bytes = Vec::new();
        for ts_ms in stamps {
            BoundedEvent::new(LifecycleEvent { ts_ms, reason: "x".repeat(200), ..LifecycleEvent::default() })
                .append_to(&mut bytes);
        }
        std::fs::write(path, bytes).unwrap();
    }

    fn stamps(rows: &Rows) -> Vec<u64> {
        rows.rows.iter().map(|row| row["ts_ms"].as_u64().unwrap()).collect()
    }

    #[test]
    fn the_last_events_come_from_as_many_logs_as_it_takes() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("lifecycle.pb");
        write(&log, 10..13);
        write(&directory.path().join("lifecycle.pb.1"), 5..10);
        write(&directory.path().join("lifecycle.pb.2"), 0..5);
        for (most, first) in [(1, 12), (3, 10), (4, 9), (8, 5), (9, 4)] {
            let rows = read(&log, most).unwrap();
            assert_eq!(stamps(&rows), (first..13).collect::<Vec<_>>());
        }
        assert_eq!(read(&log, 2).unwrap().note.unwrap(), "the last 2 events; the log has more");
        let all = read(&log, 13).unwrap();
        assert_eq!((stamps(&all), all.note), ((0..13).collect(), None));
    }

    #[test]
    fn a_log_that_is_damaged_gives_what_is_before_the_damage_and_a_word_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("lifecycle.pb");
        write(&log, 0..3);
        let whole = std::fs::read(&log).unwrap();
        for (end, said) in [
            (&whole[..whole.len() - 1], "cut short"),
            (&[&whole[..], &[0xFF, 0xFF]].concat()[..], "has 32767 bytes"),
            (&[&whole[..], &[1, 0xFF]].concat()[..], "not read any further"),
        ] {
            std::fs::write(&log, end).unwrap();
            let rows = last(&log).unwrap();
            assert!(rows.note.as_ref().unwrap().contains(said), "{:?}", rows.note);
            assert_eq!(stamps(&rows)[..2], [0, 1]);
        }
    }

    #[test]
    fn without_a_log_it_says_where_none_is() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("lifecycle.pb");
        assert!(last(&log).unwrap_err().contains("no event log at"));
        std::fs::create_dir(&log).unwrap();
        assert!(last(&log).is_err());
    }
}
