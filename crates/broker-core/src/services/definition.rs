//! A service definition that satisfies every rule (behaviour.md 3).
//!
//! The rules come in two halves: those about the definition's own text, in [`Definition::parse`], and
//! those about the executable it names, in [`Definition::check_binary`], which judges facts that the
//! caller gathered from the file system.

use std::path::{Path, PathBuf};

use broker_protocol::prost::Message;
use broker_protocol::wire::{BrokerIsolation, ServiceDefinition};
use broker_protocol::{BrokerInstance, InstanceName, NameError, ServiceName, Version, VersionError, limits};
use thiserror::Error;

use super::labels::Settings;
use super::policy::VersionPolicy;

/// What tells one state of a definition file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// Time of the last modification, in nanoseconds since the Unix epoch.
    pub modified_ns: i128,
    /// Size in bytes.
    pub size: u64,
    /// Inode number, or the file index where there are no inodes.
    pub inode: u64,
}

/// What lies at a path, links resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// Nothing, or nothing that can be reached.
    Missing,
    /// A regular file.
    File,
    /// Anything else.
    Other,
}

/// What the file system says about the executable of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinaryFacts {
    /// What lies there.
    pub kind: PathKind,
    /// Whether this user may execute it.
    pub executable: bool,
    /// Whether its group or others may write it.
    pub writable_by_others: bool,
    /// Whether it belongs to somebody else than this user or the system's.
    pub foreign: bool,
    /// Whether a directory from `per_version_binary_dir` down to it belongs to somebody else, or may be
    /// written by its group or others; `false` where there is no such directory.
    pub replaceable: bool,
    /// Its path with every link resolved.
    pub resolved: PathBuf,
    /// The per-version directory with every link resolved; `None` where there is none to resolve.
    pub resolved_version_dir: Option<PathBuf>,
}

/// Which rule a definition breaks.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum DefinitionError {
    /// It cannot be read.
    #[error("{cause}")]
    Unreadable {
        /// What the system said, with the path.
        cause: String,
    },
    /// The directory it lies in is not the user's alone.
    #[error("{cause}")]
    Directory {
        /// What is wrong with it, with the path.
        cause: String,
    },
    /// Others could have written it.
    #[error("{cause}")]
    Untrusted {
        /// Who else, with the path.
        cause: String,
    },
    /// It is larger than a definition may be.
    #[error("the file has {actual} bytes; a definition has at most {}", limits::MAX_SERVICE_DEFINITION)]
    TooLarge {
        /// Its size in bytes.
        actual: u64,
    },
    /// It is no `ServiceDefinition`.
    #[error("the file is no encoded ServiceDefinition: {0}")]
    Encoding(broker_protocol::prost::DecodeError),
    /// Its service name breaks the rule.
    #[error("service_name {actual:?}: {source}")]
    Name {
        /// What it says.
        actual: String,
        /// Which rule it breaks.
        source: NameError,
    },
    /// Its file is called otherwise.
    #[error("the file is named for '{stem}' but defines '{service}'; both must be the same")]
    Stem {
        /// The file name's stem.
        stem: String,
        /// `service_name`.
        service: ServiceName,
    },
    /// Its isolation is a number without meaning.
    #[error("isolation {actual} is not known; it is 0 (private), 1 (shared) or 2 (explicit instance)")]
    Isolation {
        /// What it says.
        actual: i32,
    },
    /// `explicit_instance` without, or EXPLICIT_INSTANCE with an invalid one.
    #[error("{0}")]
    Instance(InstanceRule),
    /// `binary_path` or `per_version_binary_dir` is not absolute.
    #[error("{field} {actual:?} is not an absolute path")]
    NotAbsolute {
        /// Which field.
        field: &'static str,
        /// What it says.
        actual: String,
    },
    /// A version that is none.
    #[error("{field} {actual:?}: {source}")]
    Version {
        /// Which field.
        field: &'static str,
        /// What it says.
        actual: String,
        /// Which rule it breaks.
        source: VersionError,
    },
    /// A label's value.
    #[error("label '{label}' is {actual:?}, expected {expected}")]
    Label {
        /// The label.
        label: String,
        /// What it can be.
        expected: &'static str,
        /// What it is.
        actual: String,
    },
    /// The executable.
    #[error("binary_path {}: {rule}", path.display())]
    Binary {
        /// Where it should be.
        path: PathBuf,
        /// Which rule it breaks.
        rule: BinaryRule,
    },
}

/// The rules about `explicit_instance`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InstanceRule {
    /// A name where there must be none.
    #[error("explicit_instance {actual:?} is only for EXPLICIT_INSTANCE isolation")]
    Unwanted {
        /// What it says.
        actual: String,
    },
    /// No name, or a bad one.
    #[error("EXPLICIT_INSTANCE isolation needs a valid explicit_instance, {actual:?} is none: {source}")]
    Invalid {
        /// What it says.
        actual: String,
        /// Which rule it breaks.
        source: NameError,
    },
}

/// The rules about the executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BinaryRule {
    /// Nothing there.
    #[error("there is no such file")]
    Missing,
    /// A directory or a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// Not executable.
    #[error("it is not executable by this user; try chmod u+x")]
    NotExecutable,
    /// Anybody could replace it.
    #[error("its group or others may write it; try chmod go-w")]
    WritableByOthers,
    /// Somebody else's, who could replace it.
    #[error("it belongs to another user")]
    Foreign,
    /// Somebody else could put another one in its place.
    #[error(
        "a directory from per_version_binary_dir down to it belongs to another user, or others may write to it"
    )]
    Replaceable,
    /// Not inside the directory it must be inside of.
    #[error("it does not lie inside per_version_binary_dir once links are resolved")]
    OutsideVersionDir,
}

impl DefinitionError {
    /// The rule's stable word, for `Refused.details`.
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::Directory { .. } => "directory",
            Self::Untrusted { .. } => "untrusted",
            Self::TooLarge { .. } => "size",
            Self::Encoding(_) => "encoding",
            Self::Name { .. } => "service-name",
            Self::Stem { .. } => "file-stem",
            Self::Isolation { .. } => "isolation",
            Self::Instance(_) => "explicit-instance",
            Self::NotAbsolute { .. } => "absolute-path",
            Self::Version { .. } => "version",
            Self::Label { .. } => "label",
            Self::Binary { rule, .. } => match rule {
                BinaryRule::Missing => "binary-missing",
                BinaryRule::NotAFile => "binary-not-a-file",
                BinaryRule::NotExecutable => "binary-not-executable",
                BinaryRule::WritableByOthers => "binary-writable-by-others",
                BinaryRule::Foreign => "binary-foreign",
                BinaryRule::Replaceable => "binary-replaceable",
                BinaryRule::OutsideVersionDir => "binary-outside-version-dir",
            },
        }
    }
}

/// A service definition that satisfies every rule about its own text.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    service: ServiceName,
    binary: PathBuf,
    version_dir: Option<PathBuf>,
    instance: BrokerInstance,
    policy: VersionPolicy,
    settings: Settings,
}

impl Definition {
    /// Decodes and checks the content of the file whose name has this stem.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn parse(stem: &str, bytes: &[u8]) -> Result<Self, DefinitionError> {
        if bytes.len() > limits::MAX_SERVICE_DEFINITION {
            return Err(DefinitionError::TooLarge { actual: bytes.len() as u64 });
        }
        let definition = Self::new(&ServiceDefinition::decode(bytes).map_err(DefinitionError::Encoding)?)?;
        if definition.service.as_str() != stem {
            return Err(DefinitionError::Stem { stem: stem.to_owned(), service: definition.service });
        }
        Ok(definition)
    }

    /// Checks a decoded definition.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn new(wire: &ServiceDefinition) -> Result<Self, DefinitionError> {
        let service = ServiceName::parse(&wire.service_name)
            .map_err(|source| DefinitionError::Name { actual: wire.service_name.clone(), source })?;
        let instance = instance(&service, wire)?;
        let binary = absolute("binary_path", &wire.binary_path)?;
        let version_dir = match wire.per_version_binary_dir.as_str() {
            "" => None,
            path => Some(absolute("per_version_binary_dir", path)?),
        };
        let minimum = match wire.min_version.as_str() {
            "" => None,
            text => Some(version("min_version", text)?),
        };
        let allowed = wire.version_allow_list.iter().map(|text| version("version_allow_list", text));
        let policy = VersionPolicy::new(minimum, allowed.collect::<Result<_, _>>()?);
        let settings = Settings::from_labels(&wire.labels)?;
        Ok(Self { service, binary, version_dir, instance, policy, settings })
    }

    /// Judges what the file system says about the executable.
    ///
    /// # Errors
    /// [`DefinitionError::Binary`] with the first rule it breaks.
    pub fn check_binary(&self, path: &Path, facts: &BinaryFacts) -> Result<(), DefinitionError> {
        let broken = |rule| Err(DefinitionError::Binary { path: path.to_path_buf(), rule });
        match facts.kind {
            PathKind::Missing => return broken(BinaryRule::Missing),
            PathKind::Other => return broken(BinaryRule::NotAFile),
            PathKind::File => {}
        }
        if !facts.executable {
            return broken(BinaryRule::NotExecutable);
        }
        if facts.writable_by_others {
            return broken(BinaryRule::WritableByOthers);
        }
        if facts.foreign {
            return broken(BinaryRule::Foreign);
        }
        let inside = |dir: &PathBuf| facts.resolved.starts_with(dir);
        if self.version_dir.is_some() && !facts.resolved_version_dir.as_ref().is_some_and(inside) {
            return broken(BinaryRule::OutsideVersionDir);
        }
        if facts.replaceable {
            return broken(BinaryRule::Replaceable);
        }
        Ok(())
    }

    /// The service.
    pub const fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The broker that serves it.
    pub const fn instance(&self) -> &BrokerInstance {
        &self.instance
    }

    /// Which versions may be asked for.
    pub const fn policy(&self) -> &VersionPolicy {
        &self.policy
    }

    /// What its labels say.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The executable where no version has one of its own.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The directory of side-by-side versions.
    pub fn version_dir(&self) -> Option<&Path> {
        self.version_dir.as_deref()
    }

    /// The version's own executable, to be preferred where it exists.
    pub fn versioned_binary(&self, version: &Version) -> Option<PathBuf> {
        Some(self.version_dir.as_ref()?.join(version.to_string()).join(self.binary.file_name()?))
    }
}

fn instance(service: &ServiceName, wire: &ServiceDefinition) -> Result<BrokerInstance, DefinitionError> {
    let isolation = BrokerIsolation::try_from(wire.isolation)
        .map_err(|_| DefinitionError::Isolation { actual: wire.isolation })?;
    let actual = &wire.explicit_instance;
    match isolation {
        BrokerIsolation::PrivateBroker | BrokerIsolation::SharedBroker if !actual.is_empty() => {
            Err(DefinitionError::Instance(InstanceRule::Unwanted { actual: actual.clone() }))
        }
        BrokerIsolation::PrivateBroker => Ok(BrokerInstance::Service(service.clone())),
        BrokerIsolation::SharedBroker => Ok(BrokerInstance::Shared),
        BrokerIsolation::ExplicitInstance => match InstanceName::parse(actual) {
            Ok(name) => Ok(BrokerInstance::Named(name)),
            Err(source) => {
                Err(DefinitionError::Instance(InstanceRule::Invalid { actual: actual.clone(), source }))
            }
        },
    }
}

fn absolute(field: &'static str, path: &str) -> Result<PathBuf, DefinitionError> {
    if Path::new(path).is_absolute() && !path.contains('\0') {
        Ok(PathBuf::from(path))
    } else {
        Err(DefinitionError::NotAbsolute { field, actual: path.to_owned() })
    }
}

fn version(field: &'static str, text: &str) -> Result<Version, DefinitionError> {
    Version::parse(text).map_err(|source| DefinitionError::Version { field, actual: text.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::absolute_path;

    fn wire() -> ServiceDefinition {
        ServiceDefinition {
            service_name: "cache".into(),
            binary_path: absolute_path("/opt/cache/1.0.0/cached"),
            ..ServiceDefinition::default()
        }
    }

    fn rule_of(change: impl FnOnce(&mut ServiceDefinition)) -> &'static str {
        let mut wire = wire();
        change(&mut wire);
        Definition::new(&wire).map_or_else(|error| error.rule(), |_| "none")
    }

    #[test]
    fn each_rule_about_the_text_has_its_word() {
        assert_eq!(rule_of(|_| {}), "none");
        assert_eq!(rule_of(|w| w.service_name = "Cache".into()), "service-name");
        assert_eq!(rule_of(|w| w.isolation = 3), "isolation");
        assert_eq!(rule_of(|w| w.explicit_instance = "x".into()), "explicit-instance");
        assert_eq!(rule_of(|w| w.isolation = 2), "explicit-instance");
        assert_eq!(rule_of(|w| w.binary_path = "bin/cached".into()), "absolute-path");
        assert_eq!(rule_of(|w| w.binary_path = absolute_path("/bin/a\0b")), "absolute-path");
        assert_eq!(rule_of(|w| w.per_version_binary_dir = "opt".into()), "absolute-path");
        assert_eq!(rule_of(|w| w.min_version = "1".into()), "version");
        assert_eq!(
            rule_of(|w| w.version_allow_list = vec!["1.0.0".into(), "99999999999999999999.0.0".into()]),
            "version"
        );
        assert_eq!(rule_of(|w| drop(w.labels.insert("spawn.timeout_ms".into(), "soon".into()))), "label");
    }

    #[test]
    fn isolation_decides_the_broker() {
        let instance = |isolation: BrokerIsolation, explicit: &str| {
            let wire = ServiceDefinition {
                isolation: isolation.into(),
                explicit_instance: explicit.into(),
                ..wire()
            };
            Definition::new(&wire).map(|definition| definition.instance().to_string())
        };
        assert_eq!(instance(BrokerIsolation::PrivateBroker, "").unwrap(), "svc:cache");
        assert_eq!(instance(BrokerIsolation::SharedBroker, "").unwrap(), "shared");
        assert_eq!(instance(BrokerIsolation::ExplicitInstance, "ci").unwrap(), "inst:ci");
    }

    #[test]
    fn the_file_is_named_like_the_service() {
        let bytes = wire().encode_to_vec();
        assert!(Definition::parse("cache", &bytes).is_ok());
        assert!(matches!(Definition::parse("other", &bytes), Err(DefinitionError::Stem { .. })));
        assert_eq!(Definition::parse("cache", &[0xFF]).map_err(|error| error.rule()), Err("encoding"));
    }

    #[test]
    fn a_definition_has_at_most_a_mebibyte() {
        let padded = |size: usize| {
            let mut wire = wire();
            let without = wire.encoded_len();
            // 64 KiB short of the target first, to learn what the label costs around its value
            wire.labels.insert("pad".into(), "x".repeat(size - without - 65_536));
            let overhead = wire.encoded_len() - without - (size - without - 65_536);
            wire.labels.insert("pad".into(), "x".repeat(size - without - overhead));
            wire.encode_to_vec()
        };
        let largest = padded(limits::MAX_SERVICE_DEFINITION);
        assert_eq!(largest.len(), limits::MAX_SERVICE_DEFINITION);
        assert!(Definition::parse("cache", &largest).is_ok());
        let larger = padded(limits::MAX_SERVICE_DEFINITION + 1);
        assert_eq!(
            Definition::parse("cache", &larger),
            Err(DefinitionError::TooLarge { actual: limits::MAX_SERVICE_DEFINITION as u64 + 1 })
        );
    }

    #[test]
    fn each_rule_about_the_executable_has_its_word() {
        let good = BinaryFacts {
            kind: PathKind::File,
            executable: true,
            writable_by_others: false,
            foreign: false,
            replaceable: false,
            resolved: absolute_path("/opt/cache/1.0.0/cached").into(),
            resolved_version_dir: None,
        };
        let plain = Definition::new(&wire()).unwrap();
        let check = |definition: &Definition, facts: BinaryFacts| {
            definition
                .check_binary(definition.binary(), &facts)
                .map_or_else(|error| error.rule(), |()| "none")
        };
        assert_eq!(check(&plain, good.clone()), "none");
        assert_eq!(check(&plain, BinaryFacts { kind: PathKind::Missing, ..good.clone() }), "binary-missing");
        assert_eq!(check(&plain, BinaryFacts { kind: PathKind::Other, ..good.clone() }), "binary-not-a-file");
        assert_eq!(check(&plain, BinaryFacts { executable: false, ..good.clone() }), "binary-not-executable");
        assert_eq!(
            check(&plain, BinaryFacts { writable_by_others: true, ..good.clone() }),
            "binary-writable-by-others"
        );

        assert_eq!(check(&plain, BinaryFacts { foreign: true, ..good.clone() }), "binary-foreign");

        let wire = ServiceDefinition { per_version_binary_dir: absolute_path("/opt/cache"), ..wire() };
        let versioned = Definition::new(&wire).unwrap();
        let dir = |dir: &str| Some(PathBuf::from(absolute_path(dir)));
        let inside = BinaryFacts { resolved_version_dir: dir("/opt/cache"), ..good.clone() };
        assert_eq!(check(&versioned, inside.clone()), "none");
        assert_eq!(check(&versioned, BinaryFacts { replaceable: true, ..inside }), "binary-replaceable");
        for outside in [dir("/opt/other"), dir("/opt/cach"), None] {
            let facts = BinaryFacts { resolved_version_dir: outside, ..good.clone() };
            assert_eq!(check(&versioned, facts), "binary-outside-version-dir");
        }
    }

    #[test]
    fn a_version_may_have_an_executable_of_its_own() {
        let version = Version::parse("2.0.0-rc.1").unwrap();
        assert_eq!(Definition::new(&wire()).unwrap().versioned_binary(&version), None);
        let wire = ServiceDefinition { per_version_binary_dir: absolute_path("/opt/cache"), ..wire() };
        assert_eq!(
            Definition::new(&wire).unwrap().versioned_binary(&version),
            Some(PathBuf::from(absolute_path("/opt/cache/2.0.0-rc.1/cached")))
        );
    }
}
