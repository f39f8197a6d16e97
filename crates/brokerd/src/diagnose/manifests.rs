//! The manifests of this user's services, as far as they help: what identifies the machine is left out.
//!
//! Invariant: no more than [`MOST`] of them are read, and none that is longer than a manifest may be.

use std::path::{Path, PathBuf};

use broker_protocol::wire::{CacheManifest, CacheRoot, DaemonProcess};
use broker_transport::endpoint;
use serde_json::{Value, json};

use super::events::Rows;
use crate::manifests::{Found, ManifestDir};

/// Manifests that an archive holds at most.
const MOST: usize = 256;

/// Every manifest, and each that cannot be read with the reason.
///
/// # Errors
/// There is no directory of them, or it cannot be read.
pub(super) fn all() -> Result<Rows, String> {
    let directory = endpoint::manifest_dir().map_err(|error| error.to_string())?;
    within(directory)
}

fn within(directory: PathBuf) -> Result<Rows, String> {
    if !directory.exists() {
        return Err(format!("there are no manifests: no directory {}", directory.display()));
    }
    let shown = directory.display().to_string();
    let (mut found, unread) =
        ManifestDir::new(directory).all().map_err(|error| format!("{shown}: {error}"))?;
    let left_out = unread + found.len().saturating_sub(MOST);
    found.truncate(MOST);
    let note = (left_out > 0).then(|| format!("{left_out} more were left out"));
    Ok(Rows { rows: found.into_iter().map(|Found { path, content }| row(&path, content)).collect(), note })
}

fn row(path: &Path, content: Result<CacheManifest, impl std::fmt::Display>) -> Value {
    let file = path.display().to_string();
    match content {
        Ok(manifest) => json!({
            "file": file,
            "service_name": manifest.service_name,
            "service_version": manifest.service_version,
            "broker_instance": manifest.broker_instance,
            "created_at_unix_ms": manifest.created_at_unix_ms,
            "last_active_unix_ms": manifest.last_active_unix_ms,
            "valid_until_unix_ms": manifest.valid_until_unix_ms,
            "current_daemon": manifest.current_daemon.as_ref().map(daemon),
            "roots": manifest.roots.iter().map(root).collect::<Value>(),
        }),
        Err(error) => json!({ "file": file, "error": error.to_string() }),
    }
}

fn daemon(daemon: &DaemonProcess) -> Value {
    json!({
        "pid": daemon.pid,
        "exe_path": daemon.exe_path,
        "ipc_endpoint": daemon.ipc_endpoint.as_ref().map(|endpoint| &endpoint.path),
        "started_at_unix_ms": daemon.started_at_unix_ms,
        "idle_timeout_secs": daemon.idle_timeout_secs,
    })
}

fn root(root: &CacheRoot) -> Value {
    json!({
        "path": root.path,
        "kind": root.kind().as_str_name(),
        "disposition": root.disposition().as_str_name(),
        "estimated_size_bytes": root.estimated_size_bytes,
        "labels": root.labels,
        "ownership": root.ownership.as_ref().map(|owner| json!({
            "uid": owner.uid,
            "gid": owner.gid,
            "mode": format!("{:04o}", owner.mode),
            "windows_sid": owner.windows_sid,
        })),
    })
}

#[cfg(test)]
mod tests {
    use broker_protocol::manifest;
    use broker_protocol::wire::{HostIdentity, Ownership};

    use super::*;

    #[test]
    fn a_manifest_is_told_without_its_machine_and_a_damaged_one_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let whole = manifest::seal(CacheManifest {
            service_name: "cache".into(),
            service_version: "1.0.0".into(),
            host: Some(HostIdentity { machine_id: "m4chine".into(), ..HostIdentity::default() }),
            roots: vec![CacheRoot {
                path: "/home/u/.cache".into(),
                ownership: Some(Ownership { uid: 1000, mode: 0o700, ..Ownership::default() }),
                ..CacheRoot::default()
            }],
            ..CacheManifest::default()
        });
        std::fs::write(directory.path().join("cache-1.0.0.pb"), &whole).unwrap();
        std::fs::write(directory.path().join("damaged-1.0.0.pb"), &whole[..whole.len() - 1]).unwrap();
        std::fs::write(directory.path().join("README"), "").unwrap();
        let found = within(directory.path().to_path_buf()).unwrap();
        assert_eq!((found.rows.len(), found.note), (2, None));
        assert_eq!(found.rows[0]["service_name"], "cache");
        assert_eq!(found.rows[0]["roots"][0]["ownership"]["mode"], "0700");
        assert!(!found.rows[0].to_string().contains("m4chine"));
        assert!(found.rows[1]["error"].is_string() && found.rows[1]["file"].is_string());
        let missing = within(directory.path().join("none")).unwrap_err();
        assert!(missing.starts_with("there are no manifests"), "{missing}");
    }

    #[test]
    fn of_more_manifests_than_an_archive_holds_the_rest_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..MOST + 2 {
            std::fs::write(directory.path().join(format!("{number:03}.pb")), "").unwrap();
        }
        let found = within(directory.path().to_path_buf()).unwrap();
        assert_eq!((found.rows.len(), found.note.as_deref()), (MOST, Some("2 more were left out")));
    }
}
