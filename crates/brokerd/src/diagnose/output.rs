//! Where an archive goes, and why it cannot go there.

use std::io;
use std::path::{Path, PathBuf};

use broker_core::time::UnixMillis;
use broker_transport::files;

use super::system::Surroundings;
use super::{DiagnoseError, utc};

/// What an archive is called where nobody says.
pub(crate) fn default_name(now: UnixMillis) -> String {
    format!("brokerd-diagnose-{}.tar.gz", utc::file_name(now.get()))
}

/// The path that a request names; where it names none, one in the broker's state directory.
///
/// # Errors
/// A path that could mean anything.
pub(crate) fn output_of(
    requested: &str,
    state_dir: &Path,
    now: UnixMillis,
) -> Result<PathBuf, DiagnoseError> {
    if requested.is_empty() {
        return Ok(state_dir.join(default_name(now)));
    }
    let path = PathBuf::from(requested);
    if !path.is_absolute() {
        return Err(DiagnoseError::NotAbsolute { path });
    }
    if path.file_name().is_none() || requested.ends_with(std::path::is_separator) {
        return Err(DiagnoseError::NoFile { path });
    }
    Ok(path)
}

/// Before any work is done. What comes into being meanwhile is not overwritten either.
pub(super) fn refuse_to_overwrite(path: &Path) -> Result<(), DiagnoseError> {
    match files::facts(path) {
        Ok(facts) => Err(DiagnoseError::Exists { path: path.to_owned(), kind: facts.kind }),
        Err(_) => Ok(()),
    }
}

/// Why nothing can be written there.
pub(super) fn unwritable(path: &Path, error: io::Error, surroundings: &Surroundings) -> DiagnoseError {
    let directory = path.parent().unwrap_or(path);
    let path = path.to_owned();
    match error.kind() {
        // Somebody else was faster.
        io::ErrorKind::AlreadyExists => match refuse_to_overwrite(&path) {
            Err(exists) => exists,
            Ok(()) => DiagnoseError::Io { path, source: error },
        },
        io::ErrorKind::NotFound if !directory.exists() => {
            DiagnoseError::NoDirectory { directory: directory.to_owned(), path }
        }
        io::ErrorKind::PermissionDenied if surroundings.sandbox => {
            let name = path.file_name().unwrap_or_default();
            DiagnoseError::Sandboxed { instead: surroundings.state_dir.join(name), path }
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiagnoseError::DiskFull { path },
        _ => DiagnoseError::Io { path, source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_an_absolute_path_of_a_file_or_one_in_the_state_directory() {
        let state = std::env::temp_dir();
        let now = UnixMillis::new(1_769_860_800_250);
        let of = |requested: &str| output_of(requested, &state, now);
        let default = of("").unwrap();
        assert_eq!(default, state.join("brokerd-diagnose-20260131T120000.250Z.tar.gz"));
        let file = state.join("x.tar.gz");
        assert_eq!(of(file.to_str().unwrap()).unwrap(), file);
        assert!(matches!(of("x.tar.gz"), Err(DiagnoseError::NotAbsolute { .. })));
        for no_file in [format!("{}/", file.display()), state.join("..").display().to_string()] {
            assert!(matches!(of(&no_file), Err(DiagnoseError::NoFile { .. })), "{no_file}");
        }
    }
}
