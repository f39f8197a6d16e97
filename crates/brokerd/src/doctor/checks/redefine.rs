//! The command that writes a definition again, without what is wrong with it.

use std::io::Read;
use std::path::Path;

use broker_core::services::Definition;
use broker_protocol::limits::MAX_SERVICE_DEFINITION;
use broker_protocol::prost::Message;
use broker_protocol::wire::{BrokerIsolation, ServiceDefinition};
use broker_transport::files;

use crate::doctor::mend;

/// What a definition file says, where it is one.
pub(super) fn read(path: &Path) -> Option<ServiceDefinition> {
    let (file, facts) = files::open_no_follow(path).ok()?;
    if facts.kind != files::FileKind::Regular {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_SERVICE_DEFINITION as u64).read_to_end(&mut bytes).ok()?;
    ServiceDefinition::decode(&bytes[..]).ok()
}

/// The labels of a definition that are passed over.
pub(super) fn unknown_labels(wire: &ServiceDefinition) -> Vec<String> {
    let is_unknown = |(key, value): &(&String, &String)| {
        let alone = ServiceDefinition { labels: [((*key).clone(), (*value).clone())].into(), ..wire.clone() };
        Definition::new(&alone).is_ok_and(|definition| !definition.settings().warnings.is_empty())
    };
    wire.labels.iter().filter(is_unknown).map(|(key, _)| key.clone()).collect()
}

/// `add ...`, as `brokerd service` takes it, for all that a definition says but these labels.
pub(super) fn without_labels(wire: &ServiceDefinition, labels: &[String]) -> String {
    let mut command =
        format!("add {} --binary {}", mend::word(&wire.service_name), mend::word(&wire.binary_path));
    let mut option = |name: &str, value: &str| command.push_str(&format!(" --{name} {}", mend::word(value)));
    match wire.isolation() {
        BrokerIsolation::PrivateBroker => {}
        BrokerIsolation::SharedBroker => option("isolation", "shared"),
        BrokerIsolation::ExplicitInstance => {
            option("isolation", &format!("instance:{}", wire.explicit_instance));
        }
    }
    if !wire.per_version_binary_dir.is_empty() {
        option("version-dir", &wire.per_version_binary_dir);
    }
    if !wire.min_version.is_empty() {
        option("min-version", &wire.min_version);
    }
    for version in &wire.version_allow_list {
        option("allow-version", version);
    }
    for (key, value) in wire.labels.iter().filter(|(key, _)| !labels.contains(key)) {
        option("label", &format!("{key}={value}"));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_written_again_with_all_but_the_labels_that_nobody_reads() {
        let wire = ServiceDefinition {
            service_name: "cache".into(),
            binary_path: "/opt/cache/cached".into(),
            isolation: BrokerIsolation::ExplicitInstance.into(),
            explicit_instance: "ci".into(),
            min_version: "1.2.0".into(),
            version_allow_list: vec!["1.2.0".into(), "2.0.0".into()],
            labels: [("a", "b"), ("spawn.colour", "red")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..ServiceDefinition::default()
        };
        let command = without_labels(&wire, &["spawn.colour".to_owned()]);
        for part in ["add ", "instance:ci", "--min-version", "2.0.0", "a=b"] {
            assert!(command.contains(part), "{part}: {command}");
        }
        assert!(!command.contains("colour"), "{command}");
    }
}
