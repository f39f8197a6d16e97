//! Service definitions on disk: stamping, reading and gathering the facts about their executables.
//!
//! The rules are `broker-core`'s; this module only looks. Invariant: a definition is read from the
//! very file whose stamp is kept, opened once and never through a symlink.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_core::broker::DefinitionCheck;
use broker_core::services::{BinaryFacts, Definition, DefinitionError, FileStamp, PathKind};
use broker_protocol::limits::MAX_SERVICE_DEFINITION;
use broker_protocol::{ServiceName, Version};
use broker_transport::files::{self, FileFacts, FileKind};
use broker_transport::{identity, private_dir};

/// Ending of a definition's file name.
pub(crate) const EXTENSION: &str = "servicedef";

/// The directory that holds the definitions.
#[derive(Clone, Debug)]
pub(crate) struct DefinitionDir(PathBuf);

impl DefinitionDir {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where a service's definition is, or would be.
    pub(crate) fn file(&self, service: &str) -> PathBuf {
        // One allocation: this is on the path of every Hello.
        let mut file =
            PathBuf::with_capacity(self.0.as_os_str().len() + 1 + service.len() + 1 + EXTENSION.len());
        file.push(&self.0);
        file.push(service);
        let text = file.as_mut_os_string();
        text.push(".");
        text.push(EXTENSION);
        file
    }

    /// Compares the file with what was loaded, and loads it where it differs.
    ///
    /// On the Hello path this is one `stat` as long as nothing changed; a file is read and its executable
    /// looked at elsewhere than on the calling thread.
    pub(crate) async fn check(&self, service: &str, loaded: Option<FileStamp>) -> DefinitionCheck {
        let path = self.file(service);
        match files::facts(&path) {
            Ok(facts) if Some(stamp(&facts)) == loaded => return DefinitionCheck::Unchanged,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return DefinitionCheck::Absent,
            Ok(_) | Err(_) => {}
        }
        let (dir, service) = (self.clone(), service.to_owned());
        let looked_at = tokio::task::spawn_blocking(move || {
            let loaded = dir.load_text(&service)?;
            Ok(loaded.map(|(definition, stamp)| (check_default_binary(&definition), definition, stamp)))
        });
        match looked_at.await {
            Ok(Ok(Some((Ok(()), definition, stamp)))) => DefinitionCheck::Loaded(Arc::new(definition), stamp),
            Ok(Ok(Some((Err(error), definition, _)))) => {
                DefinitionCheck::Unusable(Arc::new(definition), error)
            }
            Ok(Ok(None)) => DefinitionCheck::Absent,
            Ok(Err(error)) => DefinitionCheck::Invalid(error),
            Err(error) => DefinitionCheck::Invalid(DefinitionError::Unreadable { cause: error.to_string() }),
        }
    }

    /// Reads and checks a definition and its executable; `None` where there is none.
    pub(crate) fn load(&self, service: &str) -> Result<Option<(Definition, FileStamp)>, DefinitionError> {
        let loaded = self.load_text(service)?;
        if let Some((definition, _)) = &loaded {
            check_default_binary(definition)?;
        }
        Ok(loaded)
    }

    /// Reads and checks a definition without looking at its executable.
    fn load_text(&self, service: &str) -> Result<Option<(Definition, FileStamp)>, DefinitionError> {
        let path = self.file(service);
        if self.0.exists() {
            private_dir::check_private_dir(&self.0)
                .map_err(|error| DefinitionError::Directory { cause: error.to_string() })?;
        }
        let (file, facts) = match files::open_no_follow(&path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&path, &error)),
        };
        if facts.kind != FileKind::Regular {
            return Err(DefinitionError::Unreadable {
                cause: format!("{} is not a regular file", path.display()),
            });
        }
        if facts.writable_by_others || is_foreign(&facts) {
            let cause = format!(
                "{} belongs to another user, or others may write to it; check it, then take that right away and make it yours",
                path.display()
            );
            return Err(DefinitionError::Untrusted { cause });
        }
        if facts.names > 1 {
            let cause = format!(
                "{} has another name elsewhere, by which it can be changed; put a copy in its place",
                path.display()
            );
            return Err(DefinitionError::Untrusted { cause });
        }
        if facts.size > MAX_SERVICE_DEFINITION as u64 {
            return Err(DefinitionError::TooLarge { actual: facts.size });
        }
        let mut bytes = Vec::new();
        let limited = file.take(MAX_SERVICE_DEFINITION as u64 + 1).read_to_end(&mut bytes);
        limited.map_err(|error| unreadable(&path, &error))?;
        Ok(Some((Definition::parse(service, &bytes)?, stamp(&facts))))
    }

    /// The names of all definitions, sorted; files that are named otherwise are left out.
    pub(crate) fn names(&self) -> io::Result<Vec<ServiceName>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION)
                && let Some(Ok(name)) =
                    path.file_stem().and_then(|stem| stem.to_str()).map(ServiceName::parse)
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// The executable to start for a version, checked right before it is used.
///
/// # Errors
/// The rule that it breaks.
pub(crate) fn resolve_binary(definition: &Definition, version: &Version) -> Result<PathBuf, DefinitionError> {
    let candidate = definition.versioned_binary(version).filter(|path| path.exists());
    let path = candidate.unwrap_or_else(|| definition.binary().to_path_buf());
    let facts = binary_facts(&path, definition.version_dir());
    definition.check_binary(&path, &facts)?;
    Ok(facts.resolved)
}

fn check_default_binary(definition: &Definition) -> Result<(), DefinitionError> {
    let facts = binary_facts(definition.binary(), definition.version_dir());
    definition.check_binary(definition.binary(), &facts)
}

/// Whether a file is neither this user's nor the system's own.
fn is_foreign(facts: &FileFacts) -> bool {
    facts.owner != identity::current_user_key() && facts.owner != 0
}

/// Whether somebody else could put another file in the place of one, somewhere from `top` down to it.
fn is_replaceable(resolved: &Path, top: &Path) -> bool {
    let dirs = resolved.ancestors().skip(1).take_while(|dir| dir.starts_with(top));
    dirs.map(files::facts)
        .any(|facts| facts.map_or(true, |facts| facts.writable_by_others || is_foreign(&facts)))
}

/// What the file system says about an executable.
pub(crate) fn binary_facts(path: &Path, version_dir: Option<&Path>) -> BinaryFacts {
    let resolved_version_dir = version_dir.and_then(|dir| dir.canonicalize().ok());
    let missing = BinaryFacts {
        kind: PathKind::Missing,
        executable: false,
        writable_by_others: false,
        foreign: false,
        replaceable: false,
        resolved: path.to_path_buf(),
        resolved_version_dir: resolved_version_dir.clone(),
    };
    let Ok(resolved) = path.canonicalize() else { return missing };
    let Ok(facts) = files::facts(&resolved) else { return missing };
    BinaryFacts {
        kind: if facts.kind == FileKind::Regular { PathKind::File } else { PathKind::Other },
        executable: files::is_executable(&resolved),
        writable_by_others: facts.writable_by_others,
        foreign: is_foreign(&facts),
        replaceable: resolved_version_dir.as_ref().is_some_and(|top| is_replaceable(&resolved, top)),
        resolved,
        resolved_version_dir,
    }
}

fn unreadable(path: &Path, error: &io::Error) -> DefinitionError {
    let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    let cause = if is_link {
        format!("{} is a symbolic link; a definition must be the file itself", path.display())
    } else {
        format!("cannot read {}: {error}", path.display())
    };
    DefinitionError::Unreadable { cause }
}

const fn stamp(facts: &FileFacts) -> FileStamp {
    FileStamp { modified_ns: facts.modified_ns, size: facts.size, inode: facts.inode }
}
