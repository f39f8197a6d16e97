//! The last of what a child wrote to its stderr.
//!
//! Kept for the moment it dies: a refusal and a log line then say why. Nothing is redacted here.
//! Invariant: at most [`STDERR_RING_BYTES`] are kept, however much is written.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, PoisonError};

use crate::sync::{Mutex, MutexGuard};

/// How much of a child's stderr is kept, in bytes.
pub const STDERR_RING_BYTES: usize = 8 * 1024;

/// The last bytes of a child's stderr. Clones share them.
#[derive(Clone, Default)]
pub struct StderrRing {
    shared: Arc<Mutex<Ring>>,
}

#[derive(Default)]
pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    written: u64,
}

impl Ring {
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.written = self.written.saturating_add(chunk.len() as u64);
        let kept = &chunk[chunk.len().saturating_sub(STDERR_RING_BYTES)..];
        let excess = (self.bytes.len() + kept.len()).saturating_sub(STDERR_RING_BYTES);
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
    }
}

impl StderrRing {
    /// An empty ring.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what a child has written.
    pub fn push(&self, chunk: &[u8]) {
        self.lock().push(chunk);
    }

    /// What is kept, as text; what is not UTF-8 becomes U+FFFD.
    pub fn text(&self) -> String {
        let ring = self.lock();
        let (head, tail) = ring.bytes.as_slices();
        String::from_utf8_lossy(&[head, tail].concat()).into_owned()
    }

    /// The last `count` lines of what is kept. The first of them may be the end of a longer one.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let text = self.text();
        let mut lines: Vec<String> = text.lines().rev().take(count).map(str::to_owned).collect();
        lines.reverse();
        lines
    }

    /// How much was written in all, in bytes.
    pub fn written(&self) -> u64 {
        self.lock().written
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Ring> {
        // A panic elsewhere leaves bytes that are as good as before.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Debug for StderrRing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // A child's own words may hold what should not be logged.
        let ring = self.lock();
        f.debug_struct("StderrRing").field("kept", &ring.bytes.len()).field("written", &ring.written).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_stay_and_the_bound_holds_on_both_sides() {
        let ring = StderrRing::new();
        ring.push(&[b'a'; STDERR_RING_BYTES]);
        assert_eq!(ring.text(), "a".repeat(STDERR_RING_BYTES));
        ring.push(b"b");
        assert_eq!(ring.text(), "a".repeat(STDERR_RING_BYTES - 1) + "b");
        ring.push(&[b'c'; 3 * STDERR_RING_BYTES]);
        assert_eq!(ring.text(), "c".repeat(STDERR_RING_BYTES));
        assert_eq!(ring.written(), 4 * STDERR_RING_BYTES as u64 + 1);
    }

    #[test]
    fn the_last_lines_come_in_order() {
        let ring = StderrRing::new();
        ring.push(b"one\ntwo\nthr");
        ring.push(b"ee\n");
        assert_eq!(ring.last_lines(2), ["two", "three"]);
        assert_eq!(ring.last_lines(9), ["one", "two", "three"]);
        assert!(ring.last_lines(0).is_empty());
    }

    #[test]
    fn debug_output_does_not_repeat_what_was_written() {
        let ring = StderrRing::new();
        ring.push(b"password");
        assert_eq!(format!("{ring:?}"), "StderrRing { kept: 8, written: 8 }");
    }
}
