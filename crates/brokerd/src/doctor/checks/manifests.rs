//! The manifests of backends that outlive their broker.

use crate::doctor::facts::Facts;
use crate::doctor::finding::Finding;
use crate::doctor::{mend, place};
use crate::manifests::ManifestDir;

/// Whether each can be read: one that cannot is left alone by every broker, and keeps the backend of that version from
/// being written down.
pub(in crate::doctor) fn files(_: &Facts) -> Finding {
    let Ok(path) = place::manifest_dir().path else { return Finding::skip("no directory is known") };
    let (found, left_out) = match ManifestDir::new(path.clone()).all() {
        Ok(found) => found,
        // Its own check tells.
        Err(error) => return Finding::skip(format!("cannot list {}: {error}", path.display())),
    };
    let damaged: Vec<_> =
        found.iter().filter_map(|found| Some((&found.path, found.content.as_ref().err()?))).collect();
    if let [(_, why), ..] = &damaged[..] {
        let others = match damaged.len() - 1 {
            0 => String::new(),
            others => format!(", and {others} more"),
        };
        let mends: Vec<_> = damaged.iter().map(|(path, _)| mend::set_aside(path)).collect();
        return Finding::warn(format!("{why}{others}"), mends.join(" && ")).detail(
            "no broker touches it, so the backend of that version is not found again after a broker's end",
        );
    }
    if left_out > 0 {
        return Finding::warn(
            format!("{left_out} more in {} than are read", path.display()),
            "brokerd manifest prune",
        );
    }
    Finding::pass(format!("{} in {}", found.len(), path.display()))
}
