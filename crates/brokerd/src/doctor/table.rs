//! Every check, in the order in which they are made and shown.
//!
//! Invariant: an id never changes its meaning; docs/doctor.md says what each means.

use super::checks::{backends, broker, config, definitions, dirs, endpoint, env, manifests, system, systemd};
use super::facts::Facts;
use super::finding::Finding;

/// A check and its id; of one that looks at several things, what all their ids begin with.
pub(super) struct Check {
    pub(super) id: &'static str,
    pub(super) look: Look,
}

/// How many things a check looks at.
#[derive(Clone, Copy)]
pub(super) enum Look {
    One(fn(&Facts) -> Finding),
    /// Each by its name.
    Each(fn(&Facts) -> Vec<(String, Finding)>),
}

pub(super) const fn one(id: &'static str, look: fn(&Facts) -> Finding) -> Check {
    Check { id, look: Look::One(look) }
}

const fn each(id: &'static str, look: fn(&Facts) -> Vec<(String, Finding)>) -> Check {
    Check { id, look: Look::Each(look) }
}

pub(super) const CHECKS: &[Check] = &[
    one("env.disable", env::disable),
    one("env.client-timeout", env::client_timeout),
    one("env.hello-timeout", env::hello_timeout),
    one("env.service-def-dir", env::service_def_dir),
    one("env.settings", env::of_settings),
    one("env.allow-privileged", env::allow_privileged),
    one("env.backend", env::of_a_backend),
    one("env.unknown", env::unknown),
    one("env.runtime-place", env::runtime_place),
    one("system.user", system::user),
    one("system.machine-id", system::machine_id),
    one("system.boot-id", system::boot_id),
    one("system.descriptors", system::descriptors),
    one("system.clock", system::clock),
    one("system.file-times", system::file_times),
    one("config.file", config::file),
    one("config.service-dir", config::service_dir),
    one("dirs.runtime-dir", dirs::runtime),
    one("dirs.socket-dir", dirs::socket),
    one("dirs.service-dir", dirs::services),
    one("dirs.state-dir", dirs::state),
    one("dirs.events", dirs::events),
    one("dirs.manifest-dir", dirs::manifests),
    one("manifests.files", manifests::files),
    one("disk.network", dirs::network),
    one("disk.space", dirs::space),
    one("disk.inodes", dirs::inodes),
    one("endpoint.path", endpoint::path),
    one("endpoint.backend-path", endpoint::backend_path),
    one("endpoint.socket", endpoint::socket),
    one("endpoint.lock", endpoint::lock),
    one("endpoint.listener", endpoint::listener),
    one("endpoint.hello", endpoint::hello),
    one("endpoint.healthz", endpoint::healthz),
    one("endpoint.readyz", endpoint::readyz),
    one("endpoint.leftovers", endpoint::leftovers),
    one("broker.instance", broker::instance),
    one("broker.version", broker::version),
    one("broker.executable", broker::executable),
    one("broker.service-dir", broker::service_dir),
    one("broker.connections", broker::connections),
    one("broker.pressure", broker::pressure),
    one("systemd.kill-mode", systemd::kill_mode),
    one("definitions.files", definitions::files),
    each("definition", definitions::each),
    each("backend", backends::each),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_has_an_id_of_its_own_and_its_line_in_the_docs() {
        let ids: BTreeSet<_> = CHECKS.iter().map(|check| check.id).collect();
        assert_eq!(ids.len(), CHECKS.len());
        let docs = include_str!("../../../../docs/doctor.md");
        for check in CHECKS {
            let id = match check.look {
                Look::One(_) => format!("| `{}` |", check.id),
                Look::Each(_) => format!("| `{}.", check.id),
            };
            assert!(docs.contains(&id), "{id}");
        }
    }
}
