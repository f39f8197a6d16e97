//! The definition files, and those who edit them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker_core::broker::DefinitionCheck;
use broker_core::services::{Definition, DefinitionError, FileStamp};
use broker_protocol::wire::ServiceDefinition;

use crate::chance::Chance;
use crate::plan::Plan;

#[derive(Clone, Debug)]
enum File {
    Good(Arc<Definition>),
    /// Its text is good, its executable is not.
    Unusable(Arc<Definition>),
    Bad,
    Absent,
}

/// The directory of definitions.
#[derive(Debug)]
pub(crate) struct Disk {
    files: BTreeMap<usize, (File, FileStamp)>,
    edits: u64,
}

/// What looking at a definition comes to.
pub(crate) enum Look {
    /// At once.
    Done(DefinitionCheck),
    /// Once the file is read.
    Reading(DefinitionCheck),
}

impl Disk {
    pub(crate) fn new(plan: &Plan, chance: &mut Chance) -> Self {
        let mut disk = Self { files: BTreeMap::new(), edits: 0 };
        for service in 0..plan.services {
            let file = File::Good(definition(plan, chance, service));
            disk.write(service, file);
        }
        disk
    }

    fn write(&mut self, service: usize, file: File) {
        self.edits += 1;
        let stamp = FileStamp { modified_ns: self.edits.into(), size: self.edits, inode: self.edits };
        self.files.insert(service, (file, stamp));
    }

    /// Somebody edits a definition, breaks it, or takes it away.
    pub(crate) fn edit(&mut self, plan: &Plan, chance: &mut Chance) {
        let service = chance.below(plan.services);
        let file = match chance.below(5) {
            0 => File::Absent,
            1 => File::Bad,
            2 => File::Unusable(definition(plan, chance, service)),
            _ => File::Good(definition(plan, chance, service)),
        };
        self.write(service, file);
    }

    /// Looks at the definition of a service, of which the broker knows the one with this stamp.
    pub(crate) fn look(&self, service: usize, known: Option<FileStamp>) -> Look {
        match self.files.get(&service) {
            None | Some((File::Absent, _)) => Look::Done(DefinitionCheck::Absent),
            Some((File::Good(_), stamp)) if known == Some(*stamp) => Look::Done(DefinitionCheck::Unchanged),
            Some((File::Good(definition), stamp)) => {
                Look::Reading(DefinitionCheck::Loaded(Arc::clone(definition), *stamp))
            }
            Some((File::Unusable(definition), _)) => {
                Look::Reading(DefinitionCheck::Unusable(Arc::clone(definition), broken()))
            }
            Some((File::Bad, _)) => Look::Reading(DefinitionCheck::Invalid(broken())),
        }
    }
}

fn broken() -> DefinitionError {
    DefinitionError::Unreadable { cause: "somebody is at it".to_owned() }
}

/// A service's name.
pub(crate) fn service_name(service: usize) -> String {
    format!("service-{service}")
}

/// A version's name.
pub(crate) fn version_name(version: usize) -> String {
    format!("{}.0.0", version + 1)
}

/// A path that is absolute on every system. Nothing ever looks there.
fn executable() -> String {
    std::path::absolute("backend")
        .map_or_else(|_| "/backend".to_owned(), |path| path.to_string_lossy().into_owned())
}

fn definition(plan: &Plan, chance: &mut Chance, service: usize) -> Arc<Definition> {
    let mut wire = ServiceDefinition {
        service_name: service_name(service),
        binary_path: executable(),
        ..ServiceDefinition::default()
    };
    if chance.percent(20) {
        wire.min_version = version_name(chance.below(plan.versions));
    }
    if chance.percent(10) {
        wire.version_allow_list = vec![version_name(chance.below(plan.versions))];
    }
    let mut label = |name: &str, value: String| wire.labels.insert(name.to_owned(), value);
    label("spawn.timeout_ms", plan.spawn_timeout.as_millis().to_string());
    label("idle.timeout_secs", plan.idle_timeout.unwrap_or(Duration::ZERO).as_secs().to_string());
    if plan.listens_early {
        label("spawn.activation", "listen-fds".to_owned());
    }
    if chance.percent(20) {
        label("handoff.enabled", "false".to_owned());
    }
    if chance.percent(40) {
        label("handoff.endpoint", format!("/run/offers-of-{service}"));
    }
    // It is made of parts that are all valid.
    match Definition::new(&wire) {
        Ok(definition) => Arc::new(definition),
        Err(error) => unreachable!("a definition of the simulation is not valid: {error}"),
    }
}
