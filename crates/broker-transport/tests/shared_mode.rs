//! A connection whose mode somebody else can change, because they share it.
#![cfg(all(target_os = "linux", feature = "tokio"))]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may end at any surprise")]

use std::sync::mpsc::channel;
use std::time::Duration;

use broker_transport::stream::Stream;

/// How long the runtime may stand still before the test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn whoever_shares_a_connection_cannot_stop_the_runtime() {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (near, _far) = Stream::pair().unwrap();
            while near.try_write(&[0; 65_536]).is_ok() {}
            while near.try_write(&[0; 1]).is_ok() {}
            let copy = near.try_clone_descriptor().unwrap();
            rustix::io::ioctl_fionbio(&copy, false).unwrap();
            let no_time = Duration::from_millis(1);
            assert!(tokio::time::timeout(no_time, near.send_all(&[0; 1])).await.is_err());
            assert!(tokio::time::timeout(no_time, near.read_some(&mut [0; 1])).await.is_err());
        });
        tell.send(()).unwrap();
    });
    assert!(told.recv_timeout(PATIENCE).is_ok(), "the runtime stands still");
}
