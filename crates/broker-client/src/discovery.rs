//! Which broker serves a service, and where it listens (protocol.md, "Names and places").
//!
//! The service's definition says so: a broker of its own, the shared one, or a named one. Only what
//! leads to the broker is read here; whether the rest of the definition can be used is the broker's to
//! judge. Invariants: a definition is read from a regular file in a directory that is the user's alone,
//! never through a symbolic link and never more than 1 MiB of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use broker_protocol::limits::MAX_SERVICE_DEFINITION;
use broker_protocol::prost::{DecodeError, Message};
use broker_protocol::wire::{BrokerIsolation, ServiceDefinition};
use broker_protocol::{BrokerInstance, InstanceName, NameError, ServiceName};
use broker_transport::endpoint::{self, EndpointError};
use broker_transport::files::{self, FileKind};
use broker_transport::private_dir::{self, PrivateDirError};
use thiserror::Error;

/// Ending of a definition's file name.
const EXTENSION: &str = "servicedef";

/// The broker that serves a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceBroker {
    /// Which one.
    pub instance: BrokerInstance,
    /// Where it listens; whether it runs is another question.
    pub endpoint: PathBuf,
}

/// Why it is not known which broker serves a service.
#[derive(Debug, Error)]
pub enum DiscoveryError {
    /// The directory of definitions, or the broker's endpoint, cannot be named.
    #[error(transparent)]
    Place(#[from] EndpointError),
    /// Nobody has defined the service.
    #[error(
        "no definition for service '{service}' at {}; add one with `brokerd service add {service} --binary PATH`",
        path.display()
    )]
    NotDefined {
        /// The service.
        service: ServiceName,
        /// Where its definition would be.
        path: PathBuf,
    },
    /// Others could have written the definition.
    #[error("the directory of service definitions cannot be trusted: {0}")]
    Directory(PrivateDirError),
    /// Something else lies where the definition should be.
    #[error("expected a regular file at {}, found {found}; remove it, and add the service anew", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What lies there.
        found: FileKind,
    },
    /// The definition cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The definition cannot be used.
    #[error("{}: {fault}; `brokerd service add` writes it anew", path.display())]
    Definition {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        fault: DefinitionFault,
    },
}

/// What is wrong with a definition.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum DefinitionFault {
    /// It is too large.
    #[error("a definition has at most {MAX_SERVICE_DEFINITION} bytes, this one has more")]
    TooLarge,
    /// It is something else.
    #[error("expected an encoded ServiceDefinition: {0}")]
    Encoding(DecodeError),
    /// It defines another service than its file name says.
    #[error("expected the definition of '{expected}', got that of {actual:?}")]
    OtherService {
        /// The service that was asked for.
        expected: ServiceName,
        /// What `service_name` says.
        actual: String,
    },
    /// Its isolation is a number without meaning.
    #[error("expected isolation 0 (private), 1 (shared) or 2 (explicit instance), got {actual}")]
    Isolation {
        /// What it says.
        actual: i32,
    },
    /// It names an instance, but not the isolation that goes with it.
    #[error("explicit_instance {actual:?} is only for EXPLICIT_INSTANCE isolation")]
    UnwantedInstance {
        /// What it says.
        actual: String,
    },
    /// The instance it names is none.
    #[error("EXPLICIT_INSTANCE isolation needs an explicit_instance, {actual:?} is none: {cause}")]
    InvalidInstance {
        /// What it says.
        actual: String,
        /// Which rule it breaks.
        cause: NameError,
    },
}

/// Finds the broker of a service by the service's definition. Reads one small file.
///
/// # Errors
/// [`DiscoveryError`]; [`DiscoveryError::NotDefined`] when nobody has defined the service.
pub fn broker_of(service: &ServiceName) -> Result<ServiceBroker, DiscoveryError> {
    let instance = instance_in(&endpoint::service_definition_dir()?, service)?;
    let endpoint = endpoint::broker_endpoint(&instance)?;
    Ok(ServiceBroker { instance, endpoint })
}

/// Which broker serves a service whose definition lies in `dir`.
fn instance_in(dir: &Path, service: &ServiceName) -> Result<BrokerInstance, DiscoveryError> {
    let path = dir.join(format!("{service}.{EXTENSION}"));
    let not_defined = || DiscoveryError::NotDefined { service: service.clone(), path: path.clone() };
    match private_dir::check_private_dir(dir) {
        Ok(()) => {}
        Err(PrivateDirError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(not_defined());
        }
        Err(error) => return Err(DiscoveryError::Directory(error)),
    }
    let bytes = match open(&path) {
        Ok(file) => read(file, &path)?,
        Err(DiscoveryError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(not_defined());
        }
        Err(error) => return Err(error),
    };
    instance_of(service, &bytes).map_err(|fault| DiscoveryError::Definition { path, fault })
}

fn open(path: &Path) -> Result<File, DiscoveryError> {
    let not_a_file = |found| DiscoveryError::NotAFile { path: path.to_path_buf(), found };
    match files::open_no_follow(path) {
        Ok((file, facts)) if facts.kind == FileKind::Regular => Ok(file),
        Ok((_, facts)) => Err(not_a_file(facts.kind)),
        // What the system says of a link that is not to be followed helps nobody.
        Err(source) => match files::facts(path) {
            Ok(facts) if facts.kind != FileKind::Regular => Err(not_a_file(facts.kind)),
            Ok(_) | Err(_) => Err(DiscoveryError::Unreadable { path: path.to_path_buf(), source }),
        },
    }
}

/// Reads one byte more than there may be, to know whether there are more.
fn read(file: File, path: &Path) -> Result<Vec<u8>, DiscoveryError> {
    let mut bytes = Vec::new();
    match file.take(MAX_SERVICE_DEFINITION as u64 + 1).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(source) => Err(DiscoveryError::Unreadable { path: path.to_path_buf(), source }),
    }
}

/// Which broker a definition names.
fn instance_of(service: &ServiceName, bytes: &[u8]) -> Result<BrokerInstance, DefinitionFault> {
    if bytes.len() > MAX_SERVICE_DEFINITION {
        return Err(DefinitionFault::TooLarge);
    }
    let definition = ServiceDefinition::decode(bytes).map_err(DefinitionFault::Encoding)?;
    if definition.service_name != service.as_str() {
        let actual = definition.service_name;
        return Err(DefinitionFault::OtherService { expected: service.clone(), actual });
    }
    let isolation = BrokerIsolation::try_from(definition.isolation)
        .map_err(|_| DefinitionFault::Isolation { actual: definition.isolation })?;
    let actual = definition.explicit_instance;
    match (isolation, actual.is_empty()) {
        (BrokerIsolation::PrivateBroker, true) => Ok(BrokerInstance::Service(service.clone())),
        (BrokerIsolation::SharedBroker, true) => Ok(BrokerInstance::Shared),
        (BrokerIsolation::PrivateBroker | BrokerIsolation::SharedBroker, false) => {
            Err(DefinitionFault::UnwantedInstance { actual })
        }
        (BrokerIsolation::ExplicitInstance, _) => InstanceName::parse(&actual)
            .map(BrokerInstance::Named)
            .map_err(|cause| DefinitionFault::InvalidInstance { actual, cause }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> ServiceName {
        ServiceName::parse("cache").unwrap()
    }

    fn definition(isolation: i32, instance: &str) -> Vec<u8> {
        ServiceDefinition {
            service_name: "cache".into(),
            isolation,
            explicit_instance: instance.into(),
            ..ServiceDefinition::default()
        }
        .encode_to_vec()
    }

    /// A private directory, and where the definition of `cache` lies in it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache.servicedef");
        (dir, path)
    }

    #[test]
    fn the_isolation_decides_which_broker() {
        let named = |text: &str| text.parse::<BrokerInstance>().unwrap();
        assert_eq!(instance_of(&service(), &definition(0, "")), Ok(named("svc:cache")));
        assert_eq!(instance_of(&service(), &definition(1, "")), Ok(named("shared")));
        assert_eq!(instance_of(&service(), &definition(2, "ci-1")), Ok(named("inst:ci-1")));
    }

    #[test]
    fn a_definition_that_breaks_a_rule_names_no_broker() {
        let fault = |bytes: &[u8]| instance_of(&service(), bytes).unwrap_err();
        assert_eq!(fault(&definition(3, "")), DefinitionFault::Isolation { actual: 3 });
        for isolation in [0, 1] {
            let unwanted = DefinitionFault::UnwantedInstance { actual: "ci".into() };
            assert_eq!(fault(&definition(isolation, "ci")), unwanted);
        }
        for instance in ["", "Ci"] {
            assert!(matches!(fault(&definition(2, instance)), DefinitionFault::InvalidInstance { .. }));
        }
        assert!(matches!(fault(b"\xFF\xFF"), DefinitionFault::Encoding(_)));
        let other = ServiceDefinition { service_name: "other".into(), ..ServiceDefinition::default() };
        assert!(matches!(fault(&other.encode_to_vec()), DefinitionFault::OtherService { .. }));
    }

    #[test]
    fn a_missing_definition_says_how_to_add_one() {
        let (dir, _) = place();
        for dir in [dir.path().to_path_buf(), dir.path().join("absent")] {
            let error = instance_in(&dir, &service()).unwrap_err();
            assert!(matches!(error, DiscoveryError::NotDefined { .. }), "{error}");
            assert!(error.to_string().contains("`brokerd service add cache --binary PATH`"), "{error}");
        }
    }

    #[test]
    fn the_largest_definition_is_read_and_one_more_byte_is_not() {
        let (dir, path) = place();
        // Field 200 is unknown, so its bytes count for nothing but their number.
        let mut bytes = definition(1, "");
        bytes.extend([0xC2, 0x0C]);
        let filler = MAX_SERVICE_DEFINITION - bytes.len() - 3;
        bytes.extend([filler as u8 | 0x80, (filler >> 7) as u8 | 0x80, (filler >> 14) as u8]);
        bytes.resize(MAX_SERVICE_DEFINITION, 0);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(instance_in(dir.path(), &service()).unwrap(), BrokerInstance::Shared);
        bytes.push(0);
        std::fs::write(&path, &bytes).unwrap();
        let error = instance_in(dir.path(), &service()).unwrap_err();
        let too_large = matches!(error, DiscoveryError::Definition { fault: DefinitionFault::TooLarge, .. });
        assert!(too_large, "{error}");
    }

    #[test]
    #[allow(deprecated, reason = "the one way to make a link that every platform has")]
    fn a_symbolic_link_is_never_followed_and_a_directory_never_read() {
        let (dir, path) = place();
        let target = dir.path().join("target");
        std::fs::write(&target, definition(1, "")).unwrap();
        std::fs::soft_link(&target, &path).unwrap();
        if path.is_symlink() {
            let error = instance_in(dir.path(), &service()).unwrap_err();
            assert!(matches!(error, DiscoveryError::NotAFile { found: FileKind::Symlink, .. }), "{error}");
            std::fs::remove_file(&path).unwrap();
        } else {
            println!("not tested: Wine does not make symbolic links, though it says so");
        }
        std::fs::create_dir(&path).unwrap();
        let error = instance_in(dir.path(), &service()).unwrap_err();
        assert!(matches!(error, DiscoveryError::NotAFile { found: FileKind::Directory, .. }), "{error}");
    }

    #[test]
    #[allow(deprecated, reason = "the one way to make a link that every platform has")]
    fn a_directory_that_cannot_be_trusted_is_not_read() {
        let (dir, path) = place();
        std::fs::write(&path, definition(1, "")).unwrap();
        assert!(instance_in(dir.path(), &service()).is_ok());
        let link = dir.path().join("link");
        std::fs::soft_link(dir.path(), &link).unwrap();
        if !link.is_symlink() {
            println!("not tested: Wine does not make symbolic links, though it says so");
            return;
        }
        let error = instance_in(&link, &service()).unwrap_err();
        assert!(matches!(error, DiscoveryError::Directory(PrivateDirError::Symlink { .. })), "{error}");
    }
}
