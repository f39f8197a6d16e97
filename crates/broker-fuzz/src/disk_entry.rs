//! What another process may have left on disk: an entry gives back an agreement that could be made now, or nothing.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use broker_client::fuzzing::DiskEntries;
use broker_client::{Agreement, Capabilities, ConnectionId, Hello};
use broker_protocol::local::RememberedBackend;
use broker_protocol::prost::Message;
use broker_protocol::wire::Negotiated;
use broker_transport::endpoint::Platform;
use broker_transport::peer::{PeerCredentials, UserId};

use crate::seed::{Seed, encoded, seed};

/// The broker that was asked, and the backend that it named.
const fn endpoints() -> (&'static str, &'static str) {
    match Platform::CURRENT {
        Platform::Linux | Platform::MacOs => ("/run/broker.sock", "/run/backend.sock"),
        Platform::Windows => ("broker", "backend"),
    }
}

static ENTRIES: LazyLock<DiskEntries> = LazyLock::new(|| {
    let hello = Hello::new("cache".parse().unwrap(), "1.2.3".parse().unwrap());
    let hello = hello.capabilities(Capabilities::all());
    DiskEntries::new(Path::new(endpoints().0), &hello).expect("this broker has a place")
});

/// Takes the bytes for the content of an entry's file; then makes it this user's, and then the answer to what was
/// asked, too.
pub fn target(bytes: &[u8]) {
    is_sound(bytes);
    let Ok(mut entry) = RememberedBackend::decode(bytes) else { return };
    let asked = RememberedBackend::decode(&good(UserId::current())[..]).expect("it is an entry");
    entry.listener_user = asked.listener_user;
    if entry.agreed_unix_ms < MINUTE_MS {
        entry.agreed_unix_ms = asked.agreed_unix_ms.saturating_sub(entry.agreed_unix_ms);
    }
    is_sound(&entry.encode_to_vec());
    let RememberedBackend { negotiated, agreed_unix_ms, listener_gid, listener_pid, .. } = entry;
    let answer = RememberedBackend { negotiated, agreed_unix_ms, listener_gid, listener_pid, ..asked };
    is_sound(&answer.encode_to_vec());
}

/// Times below this count from the moment at which the entry is read.
const MINUTE_MS: u64 = 60_000;

fn is_sound(bytes: &[u8]) {
    let entry = RememberedBackend::decode(bytes);
    let Some(remembered) = ENTRIES.decode(bytes) else { return };
    let entry = entry.expect("what is no entry tells of nothing");
    let agreement = &remembered.agreement;
    assert_eq!((&entry.service_name[..], &entry.wanted_version[..]), ("cache", "1.2.3"));
    assert_eq!(entry.boot_id, "this boot");
    assert!(remembered.listener.user.is_self() && remembered.listener.pid.is_some());
    assert_eq!(remembered.listener.pid.map(NonZeroU32::get), Some(entry.listener_pid));
    assert!(agreement.token.is_none() && !agreement.capabilities.contains(Capabilities::HANDLE_PASSING));
    let longest = agreement.keepalive.min(DiskEntries::LONGEST_TIME);
    let left = remembered.until.duration_since(ENTRIES.read_at());
    assert!(!left.is_zero() && left <= longest, "it counts for {left:?} of {longest:?}");
    survives_encoding(agreement, remembered.listener, longest, left);
}

fn survives_encoding(agreement: &Agreement, listener: PeerCredentials, longest: Duration, left: Duration) {
    let again = ENTRIES.encode(agreement, listener, longest - left).expect("what was read can be written");
    let reread = ENTRIES.decode(&again).expect("what is written is read again");
    assert_eq!((&reread.agreement, reread.listener), (agreement, listener));
    assert!(ENTRIES.holds(&again, agreement));
}

fn agreement() -> Agreement {
    Agreement {
        daemon_version: "1.2.4".parse().unwrap(),
        backend_pipe: endpoints().1.into(),
        warnings: vec!["careful".into()],
        capabilities: Capabilities::EARLY_DATA,
        keepalive: Duration::from_secs(10),
        token: None,
        connection_id: ConnectionId::new(9).unwrap(),
    }
}

fn write(agreement: &Agreement, age: Duration, user: UserId) -> Vec<u8> {
    let listener = PeerCredentials { user, gid: Some(5), pid: NonZeroU32::new(7) };
    ENTRIES.encode(agreement, listener, age).expect("a listener with a process is written down")
}

fn good(user: UserId) -> Vec<u8> {
    write(&agreement(), Duration::ZERO, user)
}

/// Entries that count, and some that are wrong in one place.
pub fn seeds() -> Vec<Seed> {
    // Whose they are is no matter: a target makes each the current user's.
    let user = UserId::from_uid(1000);
    let good = good(user);
    let change = |name: &str, change: fn(&mut RememberedBackend)| {
        let mut entry = RememberedBackend::decode(&good[..]).expect("it is an entry");
        change(&mut entry);
        encoded(name, &entry)
    };
    let endless = Agreement { keepalive: Duration::MAX, ..agreement() };
    vec![
        seed("empty", []),
        seed("good", &good[..]),
        seed("cut", &good[..good.len() / 2]),
        seed("nearly-over", write(&agreement(), Duration::from_millis(9_999), user)),
        seed("over", write(&agreement(), Duration::from_secs(10), user)),
        seed("endless", write(&endless, Duration::from_secs(29), user)),
        change("another-service", |entry| entry.service_name = "other".into()),
        change("another-boot", |entry| entry.boot_id.clear()),
        change("another-user", |entry| entry.listener_user ^= 1),
        change("no-process", |entry| entry.listener_pid = 0),
        change("from-the-future", |entry| entry.agreed_unix_ms = u64::MAX),
        change("no-agreement", |entry| entry.negotiated.clear()),
        change("with-a-token", |entry| {
            let mut negotiated = Negotiated::decode(&entry.negotiated[..]).unwrap_or_default();
            negotiated.handle_passed_token = vec![7; 16];
            negotiated.server_capabilities = u64::MAX;
            entry.negotiated = negotiated.encode_to_vec();
        }),
        change("a-relative-backend", |entry| {
            let mut negotiated = Negotiated::decode(&entry.negotiated[..]).unwrap_or_default();
            negotiated.backend_pipe = "backend.sock".into();
            entry.negotiated = negotiated.encode_to_vec();
        }),
    ]
}
