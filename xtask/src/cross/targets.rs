//! The targets that are type-checked.
//!
//! Every package is checked for every target.

use crate::workspace::TaskError;

/// The target whose tests are run as well.
pub(super) const WINDOWS: &str = "x86_64-pc-windows-gnu";

/// A target, and what is special about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) triple: &'static str,
    /// Variables for the build.
    pub(super) environment: &'static [(&'static str, &'static str)],
}

/// All of them.
pub(super) const TARGETS: [Target; 3] = [
    // The pinned toolchain checks it too; this one is newer, and tells what its successor will say.
    Target { triple: "x86_64-unknown-linux-gnu", environment: &[] },
    Target { triple: WINDOWS, environment: &[] },
    Target {
        triple: "aarch64-apple-darwin",
        // Some dependencies compile C, for which there is no compiler here. Nothing is linked, so no object is
        // missed.
        environment: &[("CC_aarch64_apple_darwin", "true"), ("AR_aarch64_apple_darwin", "true")],
    },
];

/// The target of this name.
pub(super) fn find(triple: &str) -> Result<&'static Target, TaskError> {
    TARGETS.iter().find(|target| target.triple == triple).ok_or_else(|| {
        let known: Vec<_> = TARGETS.iter().map(|target| target.triple).collect();
        format!("cross does not know the target {triple:?}; it knows: {}", known.join(", ")).into()
    })
}
