//! An agreement, a listener and a moment for tests; each as plain as it can be.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use broker_protocol::{Capabilities, ConnectionId};
use broker_transport::peer::{PeerCredentials, UserId};

use super::Moment;
use crate::agreement::Agreement;
use crate::hello::Hello;
use crate::memory::Known;

pub(super) const KEEPALIVE: Duration = Duration::from_secs(10);

pub(super) fn hello(service: &str, version: &str) -> Hello {
    Hello::new(service.parse().unwrap(), version.parse().unwrap())
}

pub(super) fn agreement() -> Agreement {
    Agreement {
        daemon_version: "1.2.4".parse().unwrap(),
        backend_pipe: "/run/backend.sock".into(),
        warnings: vec!["careful".into()],
        capabilities: Capabilities::empty(),
        keepalive: KEEPALIVE,
        token: None,
        connection_id: ConnectionId::new(9).unwrap(),
    }
}

pub(super) fn listener() -> PeerCredentials {
    PeerCredentials { user: UserId::current(), gid: Some(5), pid: NonZeroU32::new(7) }
}

pub(super) fn known(agreement: &Agreement) -> Known {
    Known::new(&Arc::new(agreement.clone()), listener(), Instant::now()).unwrap()
}

/// A moment long after the epoch, and before every real one.
pub(super) fn moment() -> Moment {
    Moment { instant: Instant::now(), system: UNIX_EPOCH + Duration::from_secs(1_000_000) }
}
