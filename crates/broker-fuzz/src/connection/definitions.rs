//! The definitions of services, as a shell finds them on disk: each Hello may find another state.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_core::broker::DefinitionCheck;
use broker_core::services::{Definition, DefinitionError, FileStamp};
use broker_protocol::wire::ServiceDefinition;

use super::script::{Hello, Looks};

/// What lies on disk, by service.
#[derive(Debug)]
pub(super) struct Definitions(BTreeMap<&'static str, (ServiceDefinition, FileStamp)>);

impl Definitions {
    pub(super) fn new() -> Self {
        let definitions = Hello::SERVICES.map(|service| {
            let definition = ServiceDefinition {
                service_name: service.into(),
                isolation: 1,
                min_version: "1.0.0-a".into(),
                version_allow_list: Vec::new(),
                ..crate::definition::good()
            };
            (service, (definition, FileStamp { modified_ns: 1, size: 1, inode: 1 }))
        });
        Self(definitions.into())
    }

    /// What a look at a service's definition finds, held against what was loaded.
    pub(super) fn look(&mut self, service: &str, looks: Looks, loaded: Option<FileStamp>) -> DefinitionCheck {
        let Some((wire, stamp)) = self.0.get_mut(service) else { return DefinitionCheck::Absent };
        let fault = || DefinitionError::Unreadable { cause: "it cannot be read".into() };
        if let Looks::Changed(kind) = looks {
            stamp.modified_ns += 1;
            change(wire, kind);
        }
        let definition = Definition::new(wire).expect("the definition keeps the rules");
        match looks {
            Looks::Absent => DefinitionCheck::Absent,
            Looks::Invalid => DefinitionCheck::Invalid(fault()),
            Looks::Unusable => DefinitionCheck::Unusable(Arc::new(definition), fault()),
            Looks::AsItIs | Looks::Changed(_) if loaded == Some(*stamp) => DefinitionCheck::Unchanged,
            Looks::AsItIs | Looks::Changed(_) => DefinitionCheck::Loaded(Arc::new(definition), *stamp),
        }
    }
}

/// Makes a definition another one that keeps the rules too.
fn change(wire: &mut ServiceDefinition, kind: u8) {
    let (label, value) = match kind {
        0 => ("handoff.enabled", "false"),
        1 => ("idle.timeout_secs", "60"),
        2 => ("handoff.endpoint", "/run/offers.sock"),
        3 => ("spawn.another", "x"),
        4 => ("handoff.enabled", "true"),
        5 => ("idle.timeout_secs", "0"),
        6 => {
            wire.version_allow_list = vec!["1.0.0".into()];
            return;
        }
        _ => {
            wire.version_allow_list.clear();
            return;
        }
    };
    wire.labels.insert(label.into(), value.into());
}
