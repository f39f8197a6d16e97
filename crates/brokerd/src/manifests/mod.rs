//! The manifests of backends that outlive their broker (behaviour.md 4, "Broker restart"; protocol.md, "Manifest
//! file").
//!
//! A broker writes down which process it has running for a service and a version, so that the next one finds it; a
//! manifest may also be the service's own, with what it keeps on the disk, and then everything of that stays.
//! Invariants: a file is replaced whole or not at all; one that is damaged, or of a form that is not known, is
//! reported and left alone; nothing is removed that says more than what a broker has written.

mod command;
mod state;

use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use broker_protocol::manifest::{self, SealError};
use broker_protocol::wire::{CacheManifest, DaemonProcess, HostIdentity, ObservabilityInfo};
use broker_protocol::{ServiceName, Version};
use broker_transport::files::{self, FileKind};
use broker_transport::{identity, private_dir};
use thiserror::Error;

pub(crate) use self::command::{ManifestCommand, run};
pub(crate) use self::state::State;

/// Ending of a manifest's file name.
const EXTENSION: &str = "pb";
/// Longest manifest, in bytes: as long as a service definition may be.
const MAX_MANIFEST: usize = broker_protocol::limits::MAX_SERVICE_DEFINITION;
/// Manifests that are looked at, at most.
pub(crate) const MOST: usize = 1_024;

/// The directory that holds the manifests.
#[derive(Clone, Debug)]
pub(crate) struct ManifestDir(PathBuf);

/// Why a manifest is not used.
#[derive(Debug, Error)]
pub(crate) enum ManifestError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is {kind}, not a regular file", path.display())]
    NotAFile { path: PathBuf, kind: FileKind },
    #[error("{} belongs to another user, or others may write to it", path.display())]
    Untrusted { path: PathBuf },
    #[error("{} has {size} bytes; a manifest has at most {MAX_MANIFEST}", path.display())]
    TooLong { path: PathBuf, size: u64 },
    #[error("{} is damaged: {source}", path.display())]
    Seal { path: PathBuf, source: SealError },
    #[error("{} is the manifest of {actual}, and should be named after that", path.display())]
    Name { path: PathBuf, actual: String },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is of process {pid}, which broker {instance:?} has started and which may run", path.display())]
    Taken { path: PathBuf, pid: u32, instance: String },
    #[error("cannot use {}: {source}", path.display())]
    Directory { path: PathBuf, source: private_dir::PrivateDirError },
}

/// A broker as its backends' manifests name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) instance: String,
    pub(crate) socket: String,
}

/// One manifest and what is in it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) content: Result<CacheManifest, ManifestError>,
}

impl ManifestDir {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the manifest of a version is, or would be.
    pub(crate) fn file(&self, service: &str, version: &str) -> PathBuf {
        self.0.join(format!("{service}-{version}.{EXTENSION}"))
    }

    /// Every manifest, in order of name, and how many were left out. None where there is no directory.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn all(&self) -> io::Result<(Vec<Found>, usize)> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(error) => return Err(error),
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION)).collect();
        paths.sort();
        let left_out = paths.len().saturating_sub(MOST);
        paths.truncate(MOST);
        let found = paths.into_iter().map(|path| Found { content: self.read(&path), path });
        Ok((found.collect(), left_out))
    }

    /// Reads one, which has to be named after what is in it.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub(crate) fn read(&self, path: &Path) -> Result<CacheManifest, ManifestError> {
        let manifest = read(path)?;
        if self.file(&manifest.service_name, &manifest.service_version) == path {
            return Ok(manifest);
        }
        let actual = format!("{} {}", manifest.service_name, manifest.service_version);
        Err(ManifestError::Name { path: path.to_path_buf(), actual })
    }

    /// Writes down that a process serves a version.
    ///
    /// # Errors
    /// [`ManifestError`]; whatever is there is untouched.
    pub(crate) fn note_running(
        &self,
        service: &ServiceName,
        version: &Version,
        owner: &Owner,
        daemon: DaemonProcess,
        now_unix_ms: u64,
    ) -> Result<(), ManifestError> {
        private_dir::ensure_private_dir(&self.0)
            .map_err(|source| ManifestError::Directory { path: self.0.clone(), source })?;
        let path = self.file(service.as_str(), &version.to_string());
        let known = match self.read(&path) {
            Ok(manifest) => manifest,
            Err(ManifestError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
                CacheManifest {
                    service_name: service.to_string(),
                    service_version: version.to_string(),
                    created_at_unix_ms: now_unix_ms,
                    ..CacheManifest::default()
                }
            }
            Err(error) => return Err(error),
        };
        if let Some(other) = known.current_daemon.as_ref().filter(|other| other.pid != daemon.pid)
            && is_of_another_broker(&known, owner)
            && State::of(&known) == State::MayRun
        {
            return Err(ManifestError::Taken { path, pid: other.pid, instance: known.broker_instance });
        }
        let observability = ObservabilityInfo {
            health_check_endpoint: owner.socket.clone(),
            ..known.observability.unwrap_or_default()
        };
        write(
            &path,
            CacheManifest {
                last_active_unix_ms: now_unix_ms,
                current_daemon: Some(daemon),
                broker_instance: owner.instance.clone(),
                observability: Some(observability),
                host: Some(this_host()),
                ..known
            },
        )
    }

    /// Writes down that this process serves a version no more; whether it was the one that did.
    ///
    /// # Errors
    /// [`ManifestError`]; whatever is there is untouched.
    pub(crate) fn note_ended(
        &self,
        service: &ServiceName,
        version: &Version,
        pid: u32,
        now_unix_ms: u64,
    ) -> Result<bool, ManifestError> {
        let path = self.file(service.as_str(), &version.to_string());
        let manifest = match self.read(&path) {
            Ok(manifest) => manifest,
            Err(ManifestError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        if manifest.current_daemon.as_ref().is_none_or(|daemon| daemon.pid != pid) {
            return Ok(false);
        }
        if is_a_broker_s_alone(&manifest) {
            std::fs::remove_file(&path).map_err(|source| ManifestError::Write { path, source })?;
        } else {
            let last_active_unix_ms = now_unix_ms;
            write(&path, CacheManifest { current_daemon: None, last_active_unix_ms, ..manifest })?;
        }
        Ok(true)
    }
}

impl Owner {
    /// Whether a manifest was written by this broker, or by a former one in its place.
    pub(crate) fn has_written(&self, manifest: &CacheManifest) -> bool {
        let socket = manifest.observability.as_ref().map(|known| known.health_check_endpoint.as_str());
        manifest.broker_instance == self.instance && socket == Some(&self.socket)
    }
}

/// Whether a manifest was written by a broker, and not by this one or a former one in its place.
fn is_of_another_broker(manifest: &CacheManifest, owner: &Owner) -> bool {
    let endpoint = manifest.observability.as_ref().map(|known| known.health_check_endpoint.as_str());
    let names_one = !manifest.broker_instance.is_empty() && endpoint.is_some_and(|path| !path.is_empty());
    names_one && !owner.has_written(manifest)
}

/// Whether a manifest says nothing but what a broker writes: then it goes with the process.
pub(crate) fn is_a_broker_s_alone(manifest: &CacheManifest) -> bool {
    let CacheManifest { roots, cleanup_policy, depends_on, provides, bundle_id, current_operation, .. } =
        manifest;
    roots.is_empty()
        && cleanup_policy.is_none()
        && depends_on.is_empty()
        && provides.is_empty()
        && bundle_id.is_empty()
        && current_operation.is_none()
}

/// Reads a manifest, whatever it is named.
///
/// # Errors
/// [`ManifestError`].
pub(crate) fn read(path: &Path) -> Result<CacheManifest, ManifestError> {
    let path_buf = || path.to_path_buf();
    let failure = |source| ManifestError::Read { path: path_buf(), source };
    let (file, facts) = files::open_no_follow(path).map_err(failure)?;
    if facts.kind != FileKind::Regular {
        return Err(ManifestError::NotAFile { path: path_buf(), kind: facts.kind });
    }
    if facts.writable_by_others || facts.owner != identity::current_user_key() {
        return Err(ManifestError::Untrusted { path: path_buf() });
    }
    let limit = MAX_MANIFEST as u64;
    if facts.size > limit {
        return Err(ManifestError::TooLong { path: path_buf(), size: facts.size });
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(failure)?;
    manifest::open(&bytes).map_err(|source| ManifestError::Seal { path: path_buf(), source })
}

fn write(path: &Path, manifest: CacheManifest) -> Result<(), ManifestError> {
    files::write_atomically(path, &manifest::seal(manifest))
        .map_err(|source| ManifestError::Write { path: path.to_path_buf(), source })
}

fn this_host() -> HostIdentity {
    HostIdentity {
        hostname: identity::hostname().unwrap_or_default(),
        machine_id: identity::machine_id().unwrap_or_default(),
        boot_id: identity::boot_id().unwrap_or_default(),
        ..HostIdentity::default()
    }
}

#[cfg(test)]
mod tests {
    use broker_protocol::wire::CacheRoot;

    use super::*;

    fn scene() -> (tempfile::TempDir, ManifestDir, ServiceName, Version, Owner) {
        let place = tempfile::tempdir().unwrap();
        let dir = ManifestDir::new(place.path().join("manifests"));
        let owner = Owner { instance: "shared".into(), socket: "/run/s.sock".into() };
        (place, dir, "cache".parse().unwrap(), "1.0.0".parse().unwrap(), owner)
    }

    fn daemon(pid: u32) -> DaemonProcess {
        DaemonProcess { pid, ..DaemonProcess::default() }
    }

    #[test]
    fn a_process_is_written_down_found_and_gone_with_its_end() {
        let (_place, dir, service, version, owner) = scene();
        dir.note_running(&service, &version, &owner, daemon(7), 5).unwrap();
        let (found, left_out) = dir.all().unwrap();
        assert_eq!((found.len(), left_out), (1, 0));
        let manifest = found[0].content.as_ref().unwrap();
        assert_eq!(manifest.current_daemon.as_ref().unwrap().pid, 7);
        assert!(owner.has_written(manifest));
        assert!(!Owner { socket: "/run/other.sock".into(), ..owner.clone() }.has_written(manifest));
        assert!(!dir.note_ended(&service, &version, 8, 6).unwrap(), "that is another one's end");
        assert!(dir.note_ended(&service, &version, 7, 6).unwrap());
        assert_eq!(dir.all().unwrap().0.len(), 0);
        assert!(!dir.note_ended(&service, &version, 7, 6).unwrap());
    }

    #[test]
    fn what_a_service_has_written_itself_stays() {
        let (_place, dir, service, version, owner) = scene();
        private_dir::ensure_private_dir(dir.path()).unwrap();
        let path = dir.file("cache", "1.0.0");
        let own = CacheManifest {
            service_name: "cache".into(),
            service_version: "1.0.0".into(),
            created_at_unix_ms: 1,
            roots: vec![CacheRoot { path: "/var/cache/x".into(), ..CacheRoot::default() }],
            ..CacheManifest::default()
        };
        write(&path, own).unwrap();
        dir.note_running(&service, &version, &owner, daemon(7), 5).unwrap();
        let running = dir.read(&path).unwrap();
        assert_eq!((running.created_at_unix_ms, running.last_active_unix_ms, running.roots.len()), (1, 5, 1));
        dir.note_ended(&service, &version, 7, 6).unwrap();
        let ended = dir.read(&path).unwrap();
        assert_eq!((ended.current_daemon, ended.last_active_unix_ms, ended.roots.len()), (None, 6, 1));
    }

    #[test]
    fn a_damaged_one_is_reported_and_left_alone() {
        let (_place, dir, service, version, owner) = scene();
        dir.note_running(&service, &version, &owner, daemon(7), 5).unwrap();
        let path = dir.file("cache", "1.0.0");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[3] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let written = dir.note_running(&service, &version, &owner, daemon(8), 6).unwrap_err();
        assert!(matches!(written, ManifestError::Seal { .. }), "{written}");
        assert!(dir.note_ended(&service, &version, 7, 6).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn what_is_no_manifest_of_this_user_s_is_not_read() {
        let (place, dir, service, version, owner) = scene();
        dir.note_running(&service, &version, &owner, daemon(7), 5).unwrap();
        let good = dir.file("cache", "1.0.0");
        let misnamed = dir.file("cache", "1.0.1");
        std::fs::copy(&good, &misnamed).unwrap();
        assert!(matches!(dir.read(&misnamed), Err(ManifestError::Name { .. })));
        let long = place.path().join("long");
        std::fs::write(&long, vec![0; MAX_MANIFEST + 1]).unwrap();
        assert!(matches!(read(&long), Err(ManifestError::TooLong { .. })));
        assert!(matches!(
            read(place.path()),
            Err(ManifestError::NotAFile { .. } | ManifestError::Read { .. })
        ));
        assert_eq!(ManifestDir::new(place.path().join("absent")).all().unwrap().0.len(), 0);
    }
}
