//! Every definition, by every rule, and what lies beside them.

use std::path::{Path, PathBuf};

use broker_core::services::{BinaryRule, Definition, DefinitionError};
use broker_protocol::{ServiceName, Version};
use broker_transport::endpoint::Platform;
use broker_transport::{files, identity, limits};

use super::{executables, redefine};
use crate::definitions::{self, DefinitionDir, EXTENSION};
use crate::doctor::facts::Facts;
use crate::doctor::finding::Finding;
use crate::doctor::mend;

/// What lies where definitions are and is none.
pub(in crate::doctor) fn files(facts: &Facts) -> Finding {
    let Some(dir) = facts.service_dir.known() else { return Finding::skip("no directory is known") };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Finding::skip("there are no definitions yet");
        }
        // Its own check tells.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Finding::skip(format!("{} is no directory", dir.display()));
        }
        Err(error) => {
            let mend = if mend::may_be_changed(dir) {
                mend::make_private(dir)
            } else {
                facts.service_dir.elsewhere()
            };
            return Finding::fail(format!("cannot list {}: {error}", dir.display()), mend);
        }
    };
    let (mut definitions, mut leftovers, mut misnamed) = (0, Vec::new(), Vec::new());
    for path in entries.flatten().map(|entry| entry.path()) {
        match kind_of(&path) {
            Named::Definition => definitions += 1,
            Named::Leftover => leftovers.push(path),
            Named::Wrongly => misnamed.push(path),
            Named::Otherwise => {}
        }
    }
    if !misnamed.is_empty() {
        let mends: Vec<_> = misnamed.iter().map(|path| mend::set_aside(path)).collect();
        return Finding::warn(
            format!("{} is named as no service can be, and passed over", misnamed[0].display()),
            mends.join(" && "),
        )
        .detail("a service's name has 1 to 64 of a-z, 0-9 and -");
    }
    if !leftovers.is_empty() {
        let found = format!("{} files were left behind when a definition was written", leftovers.len());
        return Finding::warn(found, mend::remove(&leftovers));
    }
    Finding::pass(format!("{definitions} definitions in {}", dir.display()))
}

/// What a file in the directory of definitions is by its name.
enum Named {
    Definition,
    /// What an interrupted `brokerd service add` leaves.
    Leftover,
    /// As a definition, of a service that cannot be.
    Wrongly,
    Otherwise,
}

fn kind_of(path: &Path) -> Named {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with('.') && name.ends_with(".tmp") && name.contains(&format!(".{EXTENSION}.")) {
        return Named::Leftover;
    }
    match name.strip_suffix(EXTENSION).and_then(|stem| stem.strip_suffix('.')) {
        Some(stem) if ServiceName::parse(stem).is_ok() => Named::Definition,
        Some(_) => Named::Wrongly,
        None => Named::Otherwise,
    }
}

pub(in crate::doctor) fn each(facts: &Facts) -> Vec<(String, Finding)> {
    let Some(dir) = facts.definitions() else { return Vec::new() };
    let names = dir.names().unwrap_or_default();
    names.into_iter().map(|name| (name.to_string(), look(facts, &dir, &name))).collect()
}

fn look(facts: &Facts, dir: &DefinitionDir, name: &ServiceName) -> Finding {
    let file = dir.file(name.as_str());
    let definition = match dir.load(name.as_str()) {
        Ok(Some((definition, _))) => definition,
        Ok(None) => return Finding::skip("it was removed just now"),
        Err(DefinitionError::Directory { .. }) => {
            return Finding::skip("not read, as its directory is not this user's alone");
        }
        Err(error) => return broken(facts, dir, &file, &error),
    };
    let binaries = [Some(definition.binary().to_path_buf())].into_iter().chain(side_by_side(&definition));
    for binary in binaries.flatten() {
        if let Some(finding) = without_interpreter(&binary, &file) {
            return finding;
        }
    }
    if let Some(finding) = broken_version(facts, dir, &definition, &file) {
        return finding;
    }
    let warnings = &definition.settings().warnings;
    if !warnings.is_empty()
        && let Some(wire) = redefine::read(&file)
    {
        let command = redefine::without_labels(&wire, &redefine::unknown_labels(&wire));
        return Finding::warn(warnings.join("; "), facts.service_command(&command));
    }
    Finding::pass(format!("{}, served by '{}'", definition.binary().display(), definition.instance()))
}

/// Versions that have a directory of their own.
fn versions(definition: &Definition) -> Vec<Version> {
    let entries = definition.version_dir().and_then(|dir| std::fs::read_dir(dir).ok());
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| Version::parse(name.to_str()?).ok()).collect()
}

fn side_by_side(definition: &Definition) -> Vec<Option<PathBuf>> {
    let binaries = versions(definition).into_iter().map(|version| definition.versioned_binary(&version));
    binaries.map(|binary| binary.filter(|path| path.exists())).collect()
}

/// The first version whose executable breaks a rule.
fn broken_version(
    facts: &Facts,
    dir: &DefinitionDir,
    definition: &Definition,
    file: &Path,
) -> Option<Finding> {
    let resolve = |version: &Version| definitions::resolve_binary(definition, version).err();
    versions(definition).iter().find_map(resolve).map(|error| broken(facts, dir, file, &error))
}

/// A program whose interpreter is missing is not found, says the system, though it is there.
fn without_interpreter(binary: &Path, file: &Path) -> Option<Finding> {
    let interpreter = executables::interpreter(binary)?;
    if files::is_executable(&interpreter) {
        return None;
    }
    let found = format!("{} needs {}, which cannot be executed", binary.display(), interpreter.display());
    Some(
        Finding::fail(found, mend::set_aside(file))
            .detail("better install what it needs; the command only takes the service away"),
    )
}

/// The finding about a definition that breaks a rule.
fn broken(facts: &Facts, dir: &DefinitionDir, file: &Path, error: &DefinitionError) -> Finding {
    let anew = "then write it anew with `brokerd service add`";
    let aside = || Finding::fail(error.to_string(), mend::set_aside(file)).detail(anew);
    match error {
        DefinitionError::Unreadable { .. } => {
            let found = files::facts(file);
            let mend = match found.map(|found| found.kind) {
                Ok(files::FileKind::Symlink) if file.exists() => mend::replace_by_copy(file),
                Ok(files::FileKind::Regular) => mend::make_own_and_private(file),
                Ok(_) | Err(_) => return aside(),
            };
            Finding::fail(error.to_string(), mend)
        }
        DefinitionError::Untrusted { .. } => Finding::fail(error.to_string(), trusted_again(file)),
        DefinitionError::Stem { service, .. } if !dir.file(service.as_str()).exists() => {
            Finding::fail(error.to_string(), mend::rename(file, &dir.file(service.as_str())))
        }
        DefinitionError::Label { label, .. } => match redefine::read(file) {
            Some(wire) => {
                let command = redefine::without_labels(&wire, std::slice::from_ref(label));
                Finding::fail(error.to_string(), facts.service_command(&command))
            }
            None => aside(),
        },
        DefinitionError::Binary { path, rule } => match binary_again(path, *rule, file) {
            Some(mend) => Finding::fail(error.to_string(), mend),
            None => Finding::fail(error.to_string(), mend::set_aside(file)).detail(
                "better put the executable where it belongs; the command only takes the service away",
            ),
        },
        DefinitionError::Directory { .. }
        | DefinitionError::TooLarge { .. }
        | DefinitionError::Encoding(_)
        | DefinitionError::Name { .. }
        | DefinitionError::Stem { .. }
        | DefinitionError::Isolation { .. }
        | DefinitionError::Instance(_)
        | DefinitionError::NotAbsolute { .. }
        | DefinitionError::Version { .. } => aside(),
    }
}

/// All that keeps a file from being trusted, one after the other.
fn trusted_again(path: &Path) -> String {
    let Ok(found) = files::facts(path) else { return mend::set_aside(path) };
    let mut mends = Vec::new();
    if found.kind == files::FileKind::Regular && found.names > 1 {
        mends.push(mend::replace_by_copy(path));
    }
    if is_foreign(&found) {
        mends.push(mend::make_own(path));
    }
    if found.writable_by_others || mends.is_empty() {
        mends.push(mend::close_to_others(path));
    }
    mends.join(" && ")
}

fn is_foreign(found: &files::FileFacts) -> bool {
    found.owner != identity::current_user_key() && found.owner != 0
}

/// The command that makes an executable one that can be used, where one does.
fn binary_again(path: &Path, rule: BinaryRule, file: &Path) -> Option<String> {
    let resolved = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    match rule {
        BinaryRule::NotExecutable if limits::space(&resolved).is_ok_and(|space| space.no_execution) => {
            Some(mend::as_root(&format!(
                "mount -o remount,exec \"$(findmnt -n -o TARGET -T {})\"",
                mend::word(&resolved)
            )))
        }
        BinaryRule::NotExecutable if Platform::CURRENT == Platform::Windows => None,
        BinaryRule::NotExecutable => Some(mend::make_executable(&resolved)),
        BinaryRule::WritableByOthers => Some(mend::close_to_others(&resolved)),
        BinaryRule::Foreign => mend::may_be_changed(&resolved).then(|| trusted_again(&resolved)),
        BinaryRule::Replaceable => {
            let top = redefine::read(file)?.per_version_binary_dir;
            let top = Path::new(&top).canonicalize().ok()?;
            let dirs = resolved.ancestors().skip(1).take_while(|dir| dir.starts_with(&top));
            let open = dirs.filter(|dir| {
                files::facts(dir).is_ok_and(|found| found.writable_by_others || is_foreign(&found))
            });
            let open: Vec<_> = open.collect();
            if !open.iter().all(|dir| mend::may_be_changed(dir)) {
                return None;
            }
            Some(open.into_iter().map(trusted_again).collect::<Vec<_>>().join(" && "))
        }
        BinaryRule::Missing | BinaryRule::NotAFile | BinaryRule::OutsideVersionDir => None,
    }
}
