//! Which files a thread may change, and that it executes none, by Landlock.
//!
//! Reading is not restricted: definitions, executables and what `/proc` tells lie anywhere. Rules of younger
//! kernels are added where there are some; the scope of signals stays open, as backends are signalled.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};

use crate::sandbox::{InForce, SandboxError};

/// The youngest kernel whose rules this profile was thought through for (Linux 6.12).
const RULES: ABI = ABI::V6;

#[cold]
pub(super) fn restrict(writable: &[PathBuf]) -> Result<InForce, SandboxError> {
    let refused = |error: landlock::RulesetError| SandboxError::Refused {
        operation: "restrict access to files",
        cause: error.to_string(),
    };
    let changes = AccessFs::from_write(RULES);
    let mut ruleset = Ruleset::default()
        .handle_access(changes | AccessFs::Execute)
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(RULES)))
        .and_then(|ruleset| ruleset.scope(Scope::AbstractUnixSocket))
        .and_then(Ruleset::create)
        .map_err(refused)?;
    // A broker makes files, directories and sockets; nobody has use for a device.
    let ours = changes & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    for path in writable {
        let directory = PathFd::new(path)
            .map_err(|error| SandboxError::Directory { path: path.clone(), cause: error.to_string() })?;
        ruleset = ruleset.add_rule(PathBeneath::new(directory, ours)).map_err(refused)?;
    }
    match ruleset.restrict_self().map_err(refused)?.ruleset {
        RulesetStatus::FullyEnforced => Ok(InForce::Whole),
        RulesetStatus::PartiallyEnforced => Ok(InForce::ByOlderRules),
        RulesetStatus::NotEnforced => {
            Err(SandboxError::NotOffered { means: "Landlock (Linux 5.13, and `landlock` among its `lsm=`)" })
        }
    }
}
