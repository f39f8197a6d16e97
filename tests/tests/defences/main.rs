//! What the broker does about those who would misuse it, each shown with the real thing: another user, a process
//! with somebody's pid, a planted link, an open directory, a file that changes under its reader (SECURITY.md).
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

mod directories;
mod environment;
mod foreign_user;
mod links;
mod reused_pid;
mod sandbox;
mod swaps;
mod tokens;

use std::path::{Path, PathBuf};

use broker_protocol::prost::Message;
use broker_protocol::wire::{LifecycleEvent, Refused};
use broker_tests::{Daemon, World, hello, refused};

/// Where a broker that serves the socket of `world` has its events.
fn event_log(world: &World) -> PathBuf {
    world.state_dir().join("events/lifecycle.pb")
}

/// The events on disk, once the broker that wrote them has ended.
fn events(world: &World) -> Vec<LifecycleEvent> {
    let bytes = std::fs::read(event_log(world)).unwrap();
    let mut rest = &bytes[..];
    std::iter::from_fn(|| {
        (!rest.is_empty()).then(|| LifecycleEvent::decode_length_delimited(&mut rest).unwrap())
    })
    .collect()
}

/// What `brokerd serve` says where it is not to come to that.
fn serve_in_vain(world: &World, socket: &Path) -> String {
    let serve = Daemon::spawn(&mut world.brokerd(&["serve", "--socket", socket.to_str().unwrap()]));
    let (code, said) = serve.hear_out();
    assert!(matches!(code, Some(1 | 3)), "{code:?}: {said}");
    said
}

/// The refusal of a Hello for `cache` in a version.
fn refusal(world: &World, version: &str) -> Refused {
    refused(world.connect().say(&hello("cache", version)))
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether this is root, as what follows takes; says what is not shown otherwise.
fn is_root(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("not shown, as only root can: {what}");
    }
    is_root
}
