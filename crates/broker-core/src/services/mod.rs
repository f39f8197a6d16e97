//! Which services there are, which broker serves each, and which versions may be asked for.
//!
//! Definitions arrive as bytes and as facts about files; reading them is somebody else's. Invariant:
//! a [`Definition`] that exists satisfies every rule of behaviour.md 3.

mod definition;
mod domain;
mod labels;
mod policy;

pub use definition::{BinaryFacts, BinaryRule, Definition, DefinitionError, FileStamp, PathKind};
pub use domain::TrustDomain;
pub use labels::{Activation, Settings};
pub use policy::VersionPolicy;

/// A path that is absolute on the system of the tests: on Windows, one without a drive is not.
#[cfg(test)]
pub(crate) fn absolute_path(path: &str) -> String {
    match std::path::MAIN_SEPARATOR {
        '\\' => format!("C:{path}"),
        _ => path.to_owned(),
    }
}
