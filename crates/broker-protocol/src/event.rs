//! Lifecycle events that fit 512 bytes (protocol.md, "Invariants").
//!
//! An event is appended to its log with one write, which is atomic only when it is short. Invariant:
//! a [`BoundedEvent`] together with its length prefix has at most [`MAX_EVENT`] bytes. What does not
//! fit is cut, longest text first, and the event says so with `extra["truncated"]`; it is never
//! dropped and never split.

use bytes::BufMut;
use prost::Message;

use crate::limits::{MAX_EVENT, MAX_NAME};
use crate::wire::LifecycleEvent;

/// Length prefix of an event: a two-byte varint reaches to 16,383.
const PREFIX: usize = 2;
/// Longest encoding without its prefix.
const MAX_BODY: usize = MAX_EVENT - PREFIX;
/// Longest `request_id` kept; it is the peer's own text.
const MAX_REQUEST_ID: usize = 64;
/// Longest `broker_instance`: `inst:` and a name.
const MAX_INSTANCE: usize = 5 + MAX_NAME;
/// Longest `severity_text`.
const MAX_SEVERITY_TEXT: usize = 8;
const TRUNCATED: &str = "truncated";

/// How much an event matters (OpenTelemetry severity numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// 5.
    Debug,
    /// 9.
    Info,
    /// 13.
    Warn,
    /// 17.
    Error,
}

impl Severity {
    /// OpenTelemetry's number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Debug => 5,
            Self::Info => 9,
            Self::Warn => 13,
            Self::Error => 17,
        }
    }

    /// OpenTelemetry's short name.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// An event that fits one atomic write.
///
/// ```
/// use broker_protocol::BoundedEvent;
/// use broker_protocol::wire::LifecycleEvent;
///
/// let event = BoundedEvent::new(LifecycleEvent { reason: "x".repeat(5_000), ..Default::default() });
/// let mut log = Vec::new();
/// event.append_to(&mut log);
/// assert!(log.len() <= 512);
/// assert_eq!(event.get().extra["truncated"], "true");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BoundedEvent(LifecycleEvent);

impl BoundedEvent {
    /// Cuts the event to size where it needs it.
    pub fn new(mut event: LifecycleEvent) -> Self {
        if event.encoded_len() > MAX_BODY {
            truncate(&mut event);
        }
        Self(event)
    }

    /// The event.
    pub const fn get(&self) -> &LifecycleEvent {
        &self.0
    }

    /// Appends the event with its length prefix: at most [`MAX_EVENT`] bytes.
    pub fn append_to(&self, out: &mut impl BufMut) {
        // MAX_EVENT is below what a BufMut that grows can hold, and a fixed one is the caller's to size.
        let encoded = self.0.encode_length_delimited_to_vec();
        out.put_slice(&encoded);
    }
}

fn cut(text: &mut String, most: usize) {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

fn truncate(event: &mut LifecycleEvent) {
    event.extra.insert(TRUNCATED.to_owned(), "true".to_owned());
    cut(&mut event.service_name, MAX_NAME);
    cut(&mut event.request_id, MAX_REQUEST_ID);
    cut(&mut event.broker_instance, MAX_INSTANCE);
    cut(&mut event.severity_text, MAX_SEVERITY_TEXT);
    loop {
        let excess = event.encoded_len().saturating_sub(MAX_BODY);
        if excess == 0 {
            return;
        }
        let longest = event.extra.iter_mut().filter(|(key, _)| *key != TRUNCATED).map(|(_, value)| value);
        match longest.chain([&mut event.reason]).max_by_key(|text| text.len()) {
            Some(text) if !text.is_empty() => {
                let most = text.len().saturating_sub(excess);
                cut(text, most);
            }
            _ => drop_longest_key(event),
        }
    }
}

fn drop_longest_key(event: &mut LifecycleEvent) {
    let longest = event.extra.keys().filter(|key| *key != TRUNCATED).max_by_key(|key| key.len()).cloned();
    event.extra.remove(longest.as_deref().unwrap_or(TRUNCATED));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn appended(event: &BoundedEvent) -> Vec<u8> {
        let mut out = Vec::new();
        event.append_to(&mut out);
        out
    }

    fn with_reason(length: usize) -> LifecycleEvent {
        LifecycleEvent { ts_ms: 1, reason: "r".repeat(length), ..LifecycleEvent::default() }
    }

    #[test]
    fn the_longest_event_that_fits_is_kept_whole_and_one_more_byte_is_cut() {
        let fits = (0..600).rev().find(|length| with_reason(*length).encoded_len() <= MAX_BODY).unwrap();
        let whole = BoundedEvent::new(with_reason(fits));
        assert_eq!(whole.get(), &with_reason(fits));
        assert_eq!(appended(&whole).len(), MAX_EVENT);

        let cut = BoundedEvent::new(with_reason(fits + 1));
        assert_eq!(cut.get().extra[TRUNCATED], "true");
        assert!(appended(&cut).len() <= MAX_EVENT);
        assert!(cut.get().reason.len() > 400, "no more is cut than needed");
    }

    proptest! {
        #[test]
        fn every_event_fits_and_keeps_what_it_is_about(
            ts_ms in any::<u64>(),
            pid in any::<u32>(),
            kind in 0..21i32,
            severity in any::<u32>(),
            connection_id in any::<u64>(),
            texts in proptest::collection::vec(".{0,300}", 5),
            extra in proptest::collection::btree_map(".{0,80}", ".{0,200}", 0..8),
        ) {
            let event = LifecycleEvent {
                ts_ms,
                pid,
                service_name: texts[0].clone(),
                kind,
                reason: texts[1].clone(),
                extra,
                severity_number: severity,
                severity_text: texts[2].clone(),
                request_id: texts[3].clone(),
                connection_id,
                broker_instance: texts[4].clone(),
            };
            let bounded = BoundedEvent::new(event.clone());
            let bytes = appended(&bounded);
            prop_assert!(bytes.len() <= MAX_EVENT);
            let back = LifecycleEvent::decode_length_delimited(&bytes[..]).unwrap();
            prop_assert_eq!(&back, bounded.get());
            prop_assert_eq!((back.ts_ms, back.pid, back.kind, back.connection_id), (ts_ms, pid, kind, connection_id));
            prop_assert_eq!(back == event, event.encoded_len() <= MAX_BODY);
        }
    }
}
