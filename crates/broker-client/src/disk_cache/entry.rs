//! What an entry says, and whether that still counts.
//!
//! Whatever bytes were found come in here. Invariants: what comes out is an agreement that
//! [`Agreement::new`] made, with a listener of this user and no token; it counts only in the boot in which
//! it was made, from then on and not for longer than [`LONGEST`](crate::memory::LONGEST) or its keepalive;
//! and everything else is no entry.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use broker_protocol::local::RememberedBackend;
use broker_protocol::prost::Message;
use broker_protocol::wire::Negotiated;
use broker_protocol::{Capabilities, PROTOCOL_VERSION};
use broker_transport::peer::{PeerCredentials, UserId};

use super::{Moment, Question};
use crate::agreement::Agreement;
use crate::hello::unix_ms;
use crate::memory::Known;

/// The entry of a backend that was agreed upon at `now`; none where it cannot be written down.
pub(super) fn encode(
    known: &Known,
    question: &Question,
    boot_id: String,
    now: SystemTime,
) -> Option<Vec<u8>> {
    let listener = known.listener();
    let entry = RememberedBackend {
        service_name: question.service_name.clone(),
        wanted_version: question.wanted_version.clone(),
        offered_capabilities: question.offered_capabilities,
        route: Some(question.route.clone()),
        negotiated: negotiated(known.agreement())?,
        agreed_unix_ms: unix_ms(now, Duration::ZERO),
        boot_id,
        listener_user: listener.user.key(),
        listener_gid: listener.gid,
        listener_pid: listener.pid?.get(),
    };
    Some(entry.encode_to_vec())
}

/// The backend in an entry, if it is the answer to the question and counts at `now`.
pub(super) fn decode(bytes: &[u8], question: &Question, boot_id: &str, now: Moment) -> Option<Known> {
    let entry = RememberedBackend::decode(bytes).ok()?;
    let user = UserId::current();
    if !question.is_answered_by(&entry) || entry.boot_id != boot_id || entry.listener_user != user.key() {
        return None;
    }
    let pid = NonZeroU32::new(entry.listener_pid)?;
    let negotiated = Negotiated::decode(entry.negotiated.as_slice()).ok()?;
    // A token serves once. Who writes one here is none of us.
    if !negotiated.handle_passed_token.is_empty() {
        return None;
    }
    let offered = Capabilities::from_bits_retain(entry.offered_capabilities);
    let agreement = Agreement::new(negotiated, offered).ok()?;
    // A clock that went back makes an age that is less than nothing.
    let age = unix_ms(now.system, Duration::ZERO).checked_sub(entry.agreed_unix_ms)?;
    let listener = PeerCredentials { user, gid: entry.listener_gid, pid: Some(pid) };
    Known::from_disk(&Arc::new(agreement), listener, Duration::from_millis(age), now.instant)
}

/// Whether an entry, whatever it is the answer to, is this agreement.
pub(super) fn holds(bytes: &[u8], agreement: &Agreement) -> bool {
    RememberedBackend::decode(bytes).is_ok_and(|entry| Some(entry.negotiated) == negotiated(agreement))
}

/// The agreement without what serves only once: the handoff.
fn negotiated(agreement: &Agreement) -> Option<Vec<u8>> {
    let negotiated = Negotiated {
        negotiated_protocol: PROTOCOL_VERSION,
        daemon_version: agreement.daemon_version.to_string(),
        backend_pipe: agreement.backend_pipe.to_str()?.to_owned(),
        warnings: agreement.warnings.clone(),
        server_capabilities: (agreement.capabilities - Capabilities::HANDLE_PASSING).bits(),
        keepalive_interval_secs: agreement.keepalive.as_secs(),
        handle_passed_token: Vec::new(),
        connection_id: agreement.connection_id.get(),
    };
    Some(negotiated.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use broker_protocol::HandoffToken;
    use broker_protocol::local::remembered_backend::Route;
    use proptest::prelude::*;

    use super::super::samples::{KEEPALIVE, agreement, hello, known, listener, moment};
    use super::*;
    use crate::conversation::Origin;
    use crate::memory::{LONGEST, Memory};

    const BOOT: &str = "this boot";
    const MILLISECOND: Duration = Duration::from_millis(1);

    fn question() -> Question {
        let offering = hello("cache", "1.2.3").capabilities(Capabilities::all());
        Question::new(Some(Path::new("/run/broker.sock")), &offering).unwrap()
    }

    fn written(agreement: &Agreement, now: Moment) -> Vec<u8> {
        encode(&known(agreement), &question(), BOOT.into(), now.system).unwrap()
    }

    fn read(bytes: &[u8], now: Moment) -> Option<Known> {
        decode(bytes, &question(), BOOT, now)
    }

    fn later(now: Moment, by: Duration) -> Moment {
        Moment { instant: now.instant + by, system: now.system + by }
    }

    /// Whether it would still be tried when this much time has passed.
    fn lasts(known: &Known, now: Moment, time: Duration) -> bool {
        let memory = Memory::default();
        memory.remember(Some(known.clone()));
        memory.recall(now.instant + time).is_some()
    }

    /// The invariants of whatever comes out.
    fn assert_sound(known: &Known, now: Moment) {
        let agreement = known.agreement();
        assert_eq!((known.origin(), known.listener().user), (Origin::Disk, UserId::current()));
        assert!(known.listener().pid.is_some() && agreement.token.is_none());
        assert!(!agreement.capabilities.contains(Capabilities::HANDLE_PASSING));
        assert!(!lasts(known, now, agreement.keepalive.min(LONGEST)));
        let again = Negotiated::decode(negotiated(agreement).unwrap().as_slice()).unwrap();
        assert_eq!(Agreement::new(again, Capabilities::all()).unwrap(), **agreement);
    }

    #[test]
    fn an_entry_gives_back_what_was_agreed_upon_and_with_whom() {
        let now = moment();
        let found = read(&written(&agreement(), now), now).unwrap();
        assert_sound(&found, now);
        assert_eq!(**found.agreement(), agreement());
        assert!(found.is_served_by(listener()));
        assert!(!found.is_served_by(PeerCredentials { pid: NonZeroU32::new(8), ..listener() }));
        assert!(!found.is_served_by(PeerCredentials { gid: None, ..listener() }));
    }

    #[test]
    fn an_entry_counts_for_its_keepalive_or_half_a_minute_and_not_a_millisecond_longer() {
        let now = moment();
        for (keepalive, longest) in
            [(KEEPALIVE, KEEPALIVE), (LONGEST, LONGEST), (LONGEST + Duration::from_secs(1), LONGEST)]
        {
            let bytes = written(&Agreement { keepalive, ..agreement() }, now);
            let last = read(&bytes, later(now, longest - MILLISECOND)).unwrap();
            let last_moment = later(now, longest - MILLISECOND);
            assert!(lasts(&last, last_moment, MILLISECOND - Duration::from_nanos(1)));
            assert!(!lasts(&last, last_moment, MILLISECOND));
            assert!(read(&bytes, later(now, longest)).is_none());
        }
        let endless = Agreement { keepalive: Duration::from_secs(u64::MAX), ..agreement() };
        assert!(read(&written(&endless, now), later(now, LONGEST)).is_none());
    }

    #[test]
    fn a_clock_that_went_back_makes_an_entry_void() {
        let now = moment();
        let bytes = written(&agreement(), later(now, MILLISECOND));
        assert!(read(&bytes, now).is_none());
        assert!(read(&bytes, later(now, MILLISECOND)).is_some());
    }

    #[test]
    fn an_entry_with_anything_else_than_what_was_asked_for_is_none() {
        let now = moment();
        let changes: [fn(&mut RememberedBackend); 14] = [
            |entry| entry.service_name = "other".into(),
            |entry| entry.wanted_version = "1.2.4".into(),
            |entry| entry.offered_capabilities = 0,
            |entry| entry.route = Some(Route::BrokerEndpoint(b"/run/other.sock".into())),
            |entry| entry.route = Some(Route::DefinitionDir(b"/run/broker.sock".into())),
            |entry| entry.route = None,
            |entry| entry.boot_id = "another boot".into(),
            |entry| entry.boot_id.clear(),
            |entry| entry.listener_user ^= 1,
            |entry| entry.listener_user ^= 1 << 40,
            |entry| entry.listener_pid = 0,
            |entry| entry.negotiated.clear(),
            |entry| entry.negotiated.push(0xFF),
            |entry| entry.agreed_unix_ms = u64::MAX,
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut entry = RememberedBackend::decode(written(&agreement(), now).as_slice()).unwrap();
            change(&mut entry);
            assert!(read(&entry.encode_to_vec(), now).is_none(), "change {index}");
        }
    }

    #[test]
    fn a_handoff_s_token_is_never_written_and_never_read() {
        let now = moment();
        let token = [0xC7; 16];
        let handed_off = Agreement {
            capabilities: Capabilities::HANDLE_PASSING | Capabilities::EARLY_DATA,
            token: Some(HandoffToken::from_bytes(token)),
            ..agreement()
        };
        let bytes = written(&handed_off, now);
        assert!(!bytes.windows(4).any(|window| window == &token[..4]));
        let found = read(&bytes, now).unwrap();
        assert_sound(&found, now);
        assert_eq!(found.agreement().capabilities, Capabilities::EARLY_DATA);
        assert!(holds(&bytes, &handed_off), "and it is forgotten with the session it came from");

        let mut entry = RememberedBackend::decode(bytes.as_slice()).unwrap();
        let mut smuggled = Negotiated::decode(entry.negotiated.as_slice()).unwrap();
        smuggled.handle_passed_token = token.to_vec();
        smuggled.server_capabilities = Capabilities::HANDLE_PASSING.bits();
        entry.negotiated = smuggled.encode_to_vec();
        assert!(read(&entry.encode_to_vec(), now).is_none());
    }

    #[test]
    fn no_entry_of_which_one_byte_is_wrong_or_the_end_is_missing_breaks_an_invariant() {
        let now = moment();
        let whole = written(&agreement(), now);
        for at in 0..whole.len() {
            let _ = read(&whole[..at], now).inspect(|known| assert_sound(known, now));
            let mut bytes = whole.clone();
            for byte in 0..=u8::MAX {
                bytes[at] = byte;
                let _ = read(&bytes, now).inspect(|known| assert_sound(known, now));
                let _ = holds(&bytes, &agreement());
            }
        }
    }

    prop_compose! {
        /// An answer in which every field may be wrong, and often enough none is.
        fn any_negotiated()(
            negotiated_protocol in prop_oneof![3 => Just(1_u32), 1 => any::<u32>()],
            daemon_version in prop_oneof![3 => "[0-9]{1,3}\\.[0-9]\\.[0-9](-rc\\.1)?", 1 => ".{0,80}"],
            backend_pipe in prop_oneof![3 => "/[a-z./]{0,130}", 1 => ".{0,40}"],
            warnings in prop::collection::vec(".{0,20}", 0..3),
            server_capabilities in any::<u64>(),
            keepalive_interval_secs in prop_oneof![0..60_u64, any::<u64>()],
            handle_passed_token in prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(any::<u8>(), 0..20)],
            connection_id in 0..4_u64,
        ) -> Negotiated {
            Negotiated {
                negotiated_protocol, daemon_version, backend_pipe, warnings, server_capabilities,
                keepalive_interval_secs, handle_passed_token, connection_id,
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_an_invariant(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let now = moment();
            let _ = read(&bytes, now).inspect(|known| assert_sound(known, now));
            prop_assert!(!holds(&bytes, &agreement()));
        }

        #[test]
        fn no_answer_in_an_entry_breaks_an_invariant(
            negotiated in any_negotiated(),
            age_ms in prop_oneof![0..40_000_u64, any::<u64>()],
            listener_gid in any::<Option<u32>>(),
            listener_pid in 0..3_u32,
        ) {
            let now = moment();
            let is_sound = Agreement::new(negotiated.clone(), Capabilities::all())
                .is_ok_and(|agreement| {
                    let limit = agreement.keepalive.min(LONGEST);
                    Duration::from_millis(age_ms) < limit && negotiated.handle_passed_token.is_empty()
                })
                && listener_pid > 0;
            let mut entry = RememberedBackend::decode(written(&agreement(), now).as_slice()).unwrap();
            let Some(agreed_unix_ms) = entry.agreed_unix_ms.checked_sub(age_ms) else { return Ok(()) };
            let bytes = negotiated.encode_to_vec();
            entry = RememberedBackend { negotiated: bytes, agreed_unix_ms, listener_gid, listener_pid, ..entry };
            let found = read(&entry.encode_to_vec(), now);
            prop_assert_eq!(found.is_some(), is_sound);
            let _ = found.inspect(|known| assert_sound(known, now));
        }
    }
}
