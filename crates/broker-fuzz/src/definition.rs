//! Service definitions: what is taken keeps every rule of behaviour.md 3, and what is not breaks one.

use std::path::Path;

use broker_core::services::{Definition, DefinitionError};
use broker_protocol::prost::Message;
use broker_protocol::wire::{BrokerIsolation, ServiceDefinition};
use broker_protocol::{BrokerInstance, Version};
use broker_transport::endpoint::Platform;

use crate::configuration::labels_keep_the_rules;
use crate::names::{is_name, is_version};
use crate::seed::{Seed, encoded, seed};

/// Takes the bytes for the content of a definition's file.
pub fn target(bytes: &[u8]) {
    let Ok(wire) = ServiceDefinition::decode(bytes) else {
        assert!(matches!(Definition::parse("cache", bytes), Err(DefinitionError::Encoding(_))));
        return;
    };
    let definition = match Definition::parse(&wire.service_name, bytes) {
        Ok(definition) => {
            assert!(keeps_the_rules(&wire), "{wire:?} is taken");
            definition
        }
        Err(error) => {
            assert!(!keeps_the_rules(&wire), "{wire:?} is not taken: {error}");
            assert!(!error.rule().is_empty() && !error.to_string().is_empty());
            return;
        }
    };
    says_what_was_written(&wire, &definition);
    blocks_by_the_rule(&wire, &definition);
    stays_in_its_directory(&definition);
    let again = Definition::parse(&wire.service_name, &wire.encode_to_vec());
    assert_eq!(again.as_ref(), Ok(&definition), "the order of its fields makes no difference");
    let renamed = Definition::parse("another-name", bytes);
    let is_stem = matches!(renamed, Err(DefinitionError::Stem { .. }));
    assert_eq!(is_stem, wire.service_name != "another-name", "a file is named for its service");
}

fn is_path(path: &str) -> bool {
    Path::new(path).is_absolute() && !path.contains('\0')
}

/// The rules about a definition's own text, said once more in the plainest words.
fn keeps_the_rules(wire: &ServiceDefinition) -> bool {
    let isolation_fits = match BrokerIsolation::try_from(wire.isolation) {
        Ok(BrokerIsolation::PrivateBroker | BrokerIsolation::SharedBroker) => {
            wire.explicit_instance.is_empty()
        }
        Ok(BrokerIsolation::ExplicitInstance) => is_name(&wire.explicit_instance),
        Err(_) => false,
    };
    is_name(&wire.service_name)
        && isolation_fits
        && is_path(&wire.binary_path)
        && (wire.per_version_binary_dir.is_empty() || is_path(&wire.per_version_binary_dir))
        && (wire.min_version.is_empty() || is_version(&wire.min_version))
        && wire.version_allow_list.iter().all(|version| is_version(version))
        && labels_keep_the_rules(&wire.labels)
}

fn says_what_was_written(wire: &ServiceDefinition, definition: &Definition) {
    assert_eq!(definition.service().as_str(), wire.service_name);
    assert_eq!(definition.binary(), Path::new(&wire.binary_path));
    let version_dir = Some(Path::new(&wire.per_version_binary_dir)).filter(|dir| !dir.as_os_str().is_empty());
    assert_eq!(definition.version_dir(), version_dir);
    match definition.instance() {
        BrokerInstance::Service(name) => assert!(wire.isolation == 0 && name == definition.service()),
        BrokerInstance::Shared => assert_eq!(wire.isolation, 1),
        BrokerInstance::Named(name) => {
            assert_eq!((wire.isolation, name.as_str()), (2, &wire.explicit_instance[..]));
        }
    }
}

fn blocks_by_the_rule(wire: &ServiceDefinition, definition: &Definition) {
    let parse = |text: &String| Version::parse(text).expect("it is a version");
    let allowed: Vec<_> = wire.version_allow_list.iter().map(parse).collect();
    let minimum = Some(&wire.min_version).filter(|text| !text.is_empty()).map(parse);
    let other = ["0.0.0", "1.2.3", "1.2.3-rc.1", "9.0.0"].map(|text| parse(&text.to_owned()));
    for wanted in allowed.iter().chain(&minimum).chain(&other) {
        let is_new_enough = minimum.as_ref().is_none_or(|minimum| wanted >= minimum);
        let is_listed = allowed.is_empty() || allowed.contains(wanted);
        assert_eq!(definition.policy().check(wanted).is_ok(), is_new_enough && is_listed, "{wanted}");
        let is_named = allowed.contains(wanted) || minimum.as_ref() == Some(wanted);
        assert_eq!(definition.policy().names(wanted), is_named, "{wanted}");
    }
}

/// The place of a version's own executable is not led away from by what the definition says.
fn stays_in_its_directory(definition: &Definition) {
    let version = Version::parse("1.2.3-a..b").expect("it is a version");
    let Some(binary) = definition.versioned_binary(&version) else { return };
    let dir = definition.version_dir().expect("a version has a place where there is a directory");
    let below = binary.strip_prefix(dir).expect("it lies in the directory");
    let parts: Vec<_> = below.components().collect();
    assert_eq!(parts.len(), 2, "{}", below.display());
    assert!(parts.iter().all(|part| matches!(part, std::path::Component::Normal(_))));
}

/// A definition that keeps every rule.
pub(crate) fn good() -> ServiceDefinition {
    let root = match Platform::CURRENT {
        Platform::Linux | Platform::MacOs => "/opt",
        Platform::Windows => r"C:\opt",
    };
    ServiceDefinition {
        service_name: "cache".into(),
        binary_path: format!("{root}/bin/cached"),
        per_version_binary_dir: format!("{root}/versions"),
        min_version: "1.2.0".into(),
        version_allow_list: vec!["1.2.3".into(), "1.3.0-rc.1".into()],
        labels: [
            ("handoff.enabled", "true"),
            ("spawn.args", "--name 'a b' -v"),
            ("spawn.timeout_ms", "2500"),
            ("idle.timeout_secs", "60"),
            ("env.RUST_LOG", "info"),
            ("spawn.unknown", "x"),
            ("team", "builds"),
        ]
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
        .into(),
        ..ServiceDefinition::default()
    }
}

/// Good ones, and one for each rule that can be broken.
pub fn seeds() -> Vec<Seed> {
    let label = |label: &str, value: &str| {
        let mut definition = good();
        definition.labels.insert(label.into(), value.into());
        definition
    };
    vec![
        seed("empty", []),
        encoded("private", &good()),
        encoded("shared", &ServiceDefinition { isolation: 1, ..good() }),
        encoded("explicit", &ServiceDefinition { isolation: 2, explicit_instance: "ci-1".into(), ..good() }),
        encoded("explicit-without-a-name", &ServiceDefinition { isolation: 2, ..good() }),
        encoded("unwanted-instance", &ServiceDefinition { explicit_instance: "ci-1".into(), ..good() }),
        encoded("unknown-isolation", &ServiceDefinition { isolation: 3, ..good() }),
        encoded("bad-name", &ServiceDefinition { service_name: "../x".into(), ..good() }),
        encoded("relative-binary", &ServiceDefinition { binary_path: "bin/cached".into(), ..good() }),
        encoded("root-as-binary", &ServiceDefinition { binary_path: "/".into(), ..good() }),
        encoded("binary-that-leads-up", &ServiceDefinition { binary_path: "/opt/../..".into(), ..good() }),
        encoded("relative-directory", &ServiceDefinition { per_version_binary_dir: "x".into(), ..good() }),
        encoded("bad-minimum", &ServiceDefinition { min_version: "1.2".into(), ..good() }),
        encoded(
            "bad-version-in-the-list",
            &ServiceDefinition { version_allow_list: vec!["v1".into()], ..good() },
        ),
        encoded("unbalanced-args", &label("spawn.args", "'a")),
        encoded("no-timeout", &label("spawn.timeout_ms", "0")),
        encoded("longest-idle-time", &label("idle.timeout_secs", "31536000")),
        encoded("reserved-variable", &label("env.LISTEN_FDS", "1")),
        encoded("unknown-activation", &label("spawn.activation", "socket")),
        seed("cut", &good().encode_to_vec()[..30]),
    ]
}
