//! Lifecycle events: making them, remembering the last ones, and not drowning in them.
//!
//! Every transition of a broker or a backend is an event. A Hello is not a transition, and there can
//! be a hundred thousand a second, so Hello events are sampled: the first few of each second are
//! events of their own, and the next one tells how many were left out.

use std::collections::VecDeque;
use std::time::Duration;

use broker_protocol::bytes::Buf;
use broker_protocol::limits::MAX_EVENT;
use broker_protocol::prost::{Message, decode_length_delimiter};
use broker_protocol::wire::{EventKind, LifecycleEvent};
use broker_protocol::{BoundedEvent, Severity};

use crate::time::{Monotonic, Now};

/// Events that `dump` shows.
pub const RECENT_EVENTS: usize = 256;
/// Hello events per window.
pub const HELLO_EVENTS_PER_WINDOW: u32 = 8;
/// Length of a window.
pub const HELLO_EVENT_WINDOW: Duration = Duration::from_secs(1);

/// The last events, oldest first, as they are written to the log: all in one block. Each by itself would lie
/// wherever there was room when it happened, and after a burst keep the memory around it from going back to the
/// system.
#[derive(Debug, Default)]
pub(crate) struct RecentEvents {
    encoded: VecDeque<u8>,
    count: usize,
}

impl RecentEvents {
    pub(crate) fn push(&mut self, event: &BoundedEvent) {
        if self.count == RECENT_EVENTS {
            let oldest = decode_length_delimiter(&mut self.encoded).unwrap_or_default();
            self.encoded.advance(oldest.min(self.encoded.len()));
        } else {
            self.count += 1;
        }
        let mut encoded = Vec::with_capacity(MAX_EVENT);
        event.append_to(&mut encoded);
        self.encoded.extend(encoded);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = BoundedEvent> {
        let mut rest = self.encoded.clone();
        (0..self.count).map_while(move |_| {
            LifecycleEvent::decode_length_delimited(&mut rest).ok().map(BoundedEvent::new)
        })
    }
}

/// Decides which Hellos become events.
#[derive(Debug, Default)]
pub(crate) struct HelloSampler {
    window_end: Monotonic,
    emitted: u32,
    left_out: u64,
}

impl HelloSampler {
    /// `Some` when this Hello is an event, with the number of those left out before it.
    #[inline]
    pub(crate) fn sample(&mut self, now: Monotonic) -> Option<u64> {
        if now >= self.window_end {
            self.window_end = now.saturating_add(HELLO_EVENT_WINDOW);
            self.emitted = 0;
        }
        if self.emitted == HELLO_EVENTS_PER_WINDOW {
            self.left_out += 1;
            return None;
        }
        self.emitted += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// An event in the making.
pub(crate) struct EventDraft(LifecycleEvent);

impl EventDraft {
    pub(crate) fn new(now: Now, kind: EventKind, severity: Severity, instance: &str) -> Self {
        Self(LifecycleEvent {
            ts_ms: now.unix.get(),
            kind: kind.into(),
            severity_number: severity.number(),
            severity_text: severity.text().to_owned(),
            broker_instance: instance.to_owned(),
            ..LifecycleEvent::default()
        })
    }

    pub(crate) fn service(mut self, service: &str) -> Self {
        service.clone_into(&mut self.0.service_name);
        self
    }

    pub(crate) fn pid(mut self, pid: Option<u32>) -> Self {
        self.0.pid = pid.unwrap_or(0);
        self
    }

    pub(crate) fn reason(mut self, reason: impl Into<String>) -> Self {
        self.0.reason = reason.into();
        self
    }

    pub(crate) fn extra(mut self, key: &str, value: impl ToString) -> Self {
        self.0.extra.insert(key.to_owned(), value.to_string());
        self
    }

    pub(crate) fn request(mut self, request_id: &str, connection_id: u64) -> Self {
        request_id.clone_into(&mut self.0.request_id);
        self.0.connection_id = connection_id;
        self
    }

    pub(crate) fn finish(self) -> BoundedEvent {
        BoundedEvent::new(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_two_hundred_and_fifty_six_events_are_remembered() {
        let mut recent = RecentEvents::default();
        for ts_ms in 1..=257 {
            // Of different lengths, and one so long that its length takes two bytes.
            let reason = "x".repeat(ts_ms as usize);
            recent.push(&BoundedEvent::new(LifecycleEvent { ts_ms, reason, ..LifecycleEvent::default() }));
        }
        let remembered: Vec<_> = recent.iter().map(|event| event.get().ts_ms).collect();
        assert_eq!(remembered, (2..=257).collect::<Vec<_>>());
        assert!(recent.iter().all(|event| event.get().reason.len() as u64 == event.get().ts_ms));
    }

    #[test]
    fn a_window_has_eight_hello_events_and_the_next_one_counts_the_rest() {
        let mut sampler = HelloSampler::default();
        let start = Monotonic::from_nanos(5);
        for _ in 0..HELLO_EVENTS_PER_WINDOW {
            assert_eq!(sampler.sample(start), Some(0));
        }
        assert_eq!(sampler.sample(start), None);
        let last = start.saturating_add(HELLO_EVENT_WINDOW - Duration::from_nanos(1));
        assert_eq!(sampler.sample(last), None);
        assert_eq!(sampler.sample(start.saturating_add(HELLO_EVENT_WINDOW)), Some(2));
    }
}
