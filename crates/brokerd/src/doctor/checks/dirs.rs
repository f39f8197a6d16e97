//! The directories: private, there or possible to make, and on a disk that will do.

use std::io;
use std::path::{Path, PathBuf};

use broker_transport::endpoint::{self, EndpointError};
use broker_transport::files;
use broker_transport::limits;
use broker_transport::private_dir::{self, PrivateDirError};

use crate::doctor::facts::Facts;
use crate::doctor::finding::Finding;
use crate::doctor::mend;
use crate::doctor::place::{self, Place};

/// What is left of a disk when it is time to say so.
const FEW_BYTES: u64 = 64 << 20;
const FEW_INODES: u64 = 1_000;

const STICKY: u32 = 0o1000;

pub(in crate::doctor) fn runtime(facts: &Facts) -> Finding {
    private(&facts.runtime_dir)
}

pub(in crate::doctor) fn services(facts: &Facts) -> Finding {
    private(&facts.service_dir)
}

pub(in crate::doctor) fn state(facts: &Facts) -> Finding {
    private(facts.state_dir())
}

/// Where the lifecycle events are appended, below the state directory.
pub(in crate::doctor) fn events(facts: &Facts) -> Finding {
    let Some(state) = facts.state_dir().known() else { return Finding::skip("no state directory is known") };
    let events = state.join("events");
    if !events.exists() {
        return Finding::skip(format!("{} is not there yet", events.display()));
    }
    let place = Place { path: Ok(events.clone()), chosen: facts.state_dir().chosen };
    let log = events.join("lifecycle.pb");
    match files::facts(&log) {
        Ok(facts) if facts.kind != files::FileKind::Regular => Finding::warn(
            format!("{} is {}, so no events are kept", log.display(), facts.kind),
            mend::set_aside(&log),
        ),
        Ok(_) | Err(_) => private(&place),
    }
}

/// Where the socket and its lock lie.
pub(in crate::doctor) fn socket(facts: &Facts) -> Finding {
    let Some(socket) = facts.socket.known() else { return Finding::skip("no socket is known") };
    let path = endpoint::dir_beside(socket);
    match (&path, facts.runtime_dir.known()) {
        (Ok(path), Some(runtime)) if path == runtime => Finding::skip("it lies in the runtime directory"),
        _ => private(&Place { path, chosen: facts.socket.chosen }),
    }
}

/// Whether a directory is private, or could be made so that it is.
fn private(place: &Place) -> Finding {
    let path = match &place.path {
        Ok(path) => path,
        Err(error) => return Finding::fail(error.to_string(), underivable(place, error)),
    };
    match private_dir::check_private_dir(path) {
        Ok(()) if files::is_writable_directory(path) => {
            Finding::pass(format!("{} is this user's alone", path.display()))
        }
        Ok(()) => not_writable(place, path),
        Err(PrivateDirError::Io { path: missing, source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            not_there(path, &missing)
        }
        Err(error) => Finding::fail(error.to_string(), remedy(place, &error)),
    }
}

/// Where a place cannot be named, what it is derived from is missing.
pub(super) fn underivable(place: &Place, error: &EndpointError) -> String {
    match error {
        EndpointError::Unset { variable } | EndpointError::NotAbsolute { variable, .. } => {
            place::default_of(variable).unwrap_or_else(|| mend::unset([variable]))
        }
        EndpointError::NoDirectory { .. }
        | EndpointError::TooLong { .. }
        | EndpointError::NotUtf8 { .. }
        | EndpointError::Identity(_)
        | EndpointError::Randomness(_) => place.elsewhere(),
    }
}

fn not_writable(place: &Place, path: &Path) -> Finding {
    let found = format!("{} cannot be written to", path.display());
    if limits::space(path).is_ok_and(|space| space.read_only) {
        return Finding::fail(format!("{found}: its file system is read-only"), writable_again(path));
    }
    let mend = if mend::may_be_changed(path) { mend::make_private(path) } else { place.elsewhere() };
    Finding::fail(found, mend)
}

/// Where the manifests of backends lie that outlive their broker.
pub(in crate::doctor) fn manifests(_: &Facts) -> Finding {
    private(&place::manifest_dir())
}

fn writable_again(path: &Path) -> String {
    mend::as_root(&format!("mount -o remount,rw \"$(findmnt -n -o TARGET -T {})\"", mend::word(path)))
}

fn not_there(path: &Path, missing: &Path) -> Finding {
    if missing.symlink_metadata().is_ok() {
        return Finding::fail(
            format!("{} is a link that leads nowhere", missing.display()),
            mend::remove([missing]),
        );
    }
    let parent = missing.parent().unwrap_or(missing);
    if files::is_writable_directory(parent) {
        return Finding::pass(format!("{} is not there yet, and will be made", path.display()));
    }
    if limits::space(parent).is_ok_and(|space| space.read_only) {
        let found = format!("{} is not there, and its file system is read-only", path.display());
        return Finding::fail(found, writable_again(parent));
    }
    let found = format!("{} is not there, and {} cannot be written to", path.display(), parent.display());
    Finding::fail(found, mend::make_directory(path))
}

/// The command for each thing that can be wrong with a directory. What is not the user's to change is left alone, and
/// another place chosen.
fn remedy(place: &Place, error: &PrivateDirError) -> String {
    let mend = match error {
        PrivateDirError::Symlink { path } | PrivateDirError::NotADirectory { path } => {
            let is_in_the_way = mend::may_be_changed(path) && !place.is_named(path);
            is_in_the_way.then(|| mend::set_aside(path))
        }
        PrivateDirError::ForeignOwner { path, .. } | PrivateDirError::Io { path, .. } => {
            mend::may_be_changed(path).then(|| mend::make_own_and_private(path))
        }
        PrivateDirError::WritableByOthers { mode, .. } if mode & STICKY != 0 => None,
        PrivateDirError::WritableByOthers { path, .. } | PrivateDirError::OpenToOthers { path, .. } => {
            Some(mend::make_private(path))
        }
        PrivateDirError::UnsafeParent { path, .. } | PrivateDirError::ReplaceableByOthers { path, .. } => {
            mend::may_be_changed(path).then(|| mend::close_to_others(path))
        }
        PrivateDirError::NotAbsolute { .. } | PrivateDirError::Network { .. } => None,
    };
    mend.unwrap_or_else(|| place.elsewhere())
}

/// The places where locks, sockets and events lie, as far as they are known.
fn places(facts: &Facts) -> Vec<(&Place, PathBuf)> {
    let mut places = Vec::new();
    if let Some(Ok(beside)) = facts.socket.known().map(endpoint::dir_beside) {
        places.push((&facts.socket, beside));
    }
    for place in [&facts.runtime_dir, facts.state_dir()] {
        if let Some(path) = place.known() {
            places.push((place, path.to_path_buf()));
        }
    }
    places
}

/// The worst of what is said about each place, or else how it is in order.
fn of_all(facts: &Facts, look: impl Fn(&Place, &Path) -> Option<Finding>, in_order: &str) -> Finding {
    let findings = places(facts).into_iter().filter_map(|(place, path)| look(place, &path));
    Finding::worst(findings).unwrap_or_else(|| Finding::pass(in_order))
}

pub(in crate::doctor) fn network(facts: &Facts) -> Finding {
    let look = |place: &Place, path: &Path| {
        match private_dir::refuse_network_filesystem(path) {
            Err(error @ PrivateDirError::Network { .. }) => {
                Some(Finding::fail(error.to_string(), place.elsewhere()))
            }
            // What else is wrong with it is told above.
            Ok(()) | Err(_) => None,
        }
    };
    of_all(facts, look, "sockets, locks and events are on local file systems")
}

/// The part of a path that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(path)
}

/// A command that shows what takes up a disk: what can go is not for a program to say.
fn largest(path: &Path) -> String {
    match endpoint::Platform::CURRENT {
        endpoint::Platform::Linux | endpoint::Platform::MacOs => {
            format!("du -xk {} | sort -n | tail", mend::word(path))
        }
        endpoint::Platform::Windows => format!("dir /S {}", mend::word(path)),
    }
}

pub(in crate::doctor) fn space(facts: &Facts) -> Finding {
    let look = |_: &Place, path: &Path| {
        let space = limits::space(existing(path)).ok().filter(|space| space.total > 0)?;
        let few = FEW_BYTES.min(space.total / 10);
        let left = format!("{} KiB are left where {} lies", space.available >> 10, path.display());
        if space.available == 0 {
            return Some(Finding::fail(left, largest(existing(path))).detail(
                "the lock file cannot be written, and events are lost; remove what can go from what this shows",
            ));
        }
        let is_few = space.available < few;
        is_few.then(|| {
            Finding::warn(left, largest(existing(path)))
                .detail("events are lost when it is full; remove what can go from what this shows")
        })
    };
    of_all(facts, look, "there is room for sockets, locks and events")
}

pub(in crate::doctor) fn inodes(facts: &Facts) -> Finding {
    let look = |_: &Place, path: &Path| {
        let inodes = limits::inode_usage(existing(path)).ok().filter(|inodes| inodes.total > 0)?;
        let few = FEW_INODES.min(inodes.total / 10).max(1);
        let is_few = inodes.free < few;
        is_few.then(|| {
            let left = format!("{} inodes are left where {} lies", inodes.free, path.display());
            let mend = largest(existing(path));
            if inodes.free == 0 { Finding::fail(left, mend) } else { Finding::warn(left, mend) }
                .detail("no socket and no file can be made without; remove what can go from what this shows")
        })
    };
    let is_counted = |(_, path): &(&Place, PathBuf)| {
        limits::inode_usage(existing(path)).is_ok_and(|inodes| inodes.total > 0)
    };
    if !places(facts).iter().any(is_counted) {
        return Finding::skip("these file systems do not count inodes");
    }
    of_all(facts, look, "there are inodes for sockets, locks and events")
}
