//! What brokers that were killed have left behind: the sockets of backends that nobody serves any more.
//!
//! A backend removes its own, or its broker does; where both are ended before they can, the next broker of this user
//! finds it. Invariant: what somebody serves, or is about to, is left alone.

use std::path::PathBuf;
use std::time::Duration;

use broker_transport::endpoint;
use broker_transport::listener::is_abandoned;

/// How long a socket must look abandoned: one that is just being bound is on no list for a moment.
const SECOND_LOOK: Duration = Duration::from_millis(100);

/// Pauses before each look. Backends whose broker has just been killed are about to end, some sooner, some later.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(60)];

/// Removes those that are there when the broker begins, beside everything else.
pub(super) async fn remove() {
    let mut left = endpoint::find_backends();
    for pause in PAUSES {
        // Usually there are none, and nothing to look for.
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(pause).await;
        let found = abandoned(left.clone()).await;
        tokio::time::sleep(SECOND_LOOK).await;
        for socket in abandoned(found).await {
            match std::fs::remove_file(&socket) {
                Ok(()) => {
                    tracing::info!(socket = %socket.display(), "removed a socket that nobody serves any more");
                }
                Err(error) => {
                    tracing::debug!(socket = %socket.display(), %error, "a stale socket stays behind");
                }
            }
        }
        left.retain(|socket| socket.exists());
    }
}

/// Those of them that nobody serves.
async fn abandoned(sockets: Vec<PathBuf>) -> Vec<PathBuf> {
    let look = move || -> Vec<_> {
        sockets.into_iter().filter(|socket| matches!(is_abandoned(socket), Ok(true))).collect()
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}
