//! Programs by their names: `.exe` files, as nothing else is a process without an interpreter.
//!
//! Invariant: neither the current directory nor the one of this program is looked into, as the system would.

use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::files::is_executable;

const SUFFIX: &str = ".exe";

pub(crate) fn find(program: &Path) -> io::Result<PathBuf> {
    find_in(&std::env::var_os("PATH").unwrap_or_default(), program)
}

fn find_in(search: &OsStr, program: &Path) -> io::Result<PathBuf> {
    if !is_bare(program) {
        let program = with_suffix(std::path::absolute(program)?);
        std::fs::metadata(&program)?;
        let is_fine = is_executable(&program);
        return if is_fine { Ok(program) } else { Err(io::ErrorKind::PermissionDenied.into()) };
    }
    let directories = std::env::split_paths(search).filter(|directory| directory.is_absolute());
    let mut places = directories.map(|directory| with_suffix(directory.join(program)));
    places.find(|place| is_executable(place)).ok_or_else(|| {
        let name = program.display();
        let what = format!("no absolute directory in PATH has a program {name}{SUFFIX}");
        io::Error::new(io::ErrorKind::NotFound, what)
    })
}

/// Whether it is one name and no path.
fn is_bare(program: &Path) -> bool {
    let text = program.as_os_str().as_encoded_bytes();
    let mut components = program.components();
    !text.iter().any(|byte| [b'\\', b'/'].contains(byte))
        && matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
}

fn with_suffix(program: PathBuf) -> PathBuf {
    if program.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("exe")) {
        return program;
    }
    let mut name = program.into_os_string();
    name.push(SUFFIX);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(search: &str, program: &str) -> Result<PathBuf, io::ErrorKind> {
        find_in(search.as_ref(), program.as_ref()).map_err(|error| error.kind())
    }

    #[test]
    fn a_name_is_looked_for_in_the_absolute_directories_alone() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["tool.exe", "tool-1.2.exe", "text.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        std::fs::create_dir(dir.path().join("folder.exe")).unwrap();
        let place = dir.path().to_str().unwrap();
        for (name, file) in [("tool", "tool.exe"), ("tool.EXE", "tool.EXE"), ("tool-1.2", "tool-1.2.exe")] {
            assert_eq!(found(&format!(r"C:\absent;{place}"), name), Ok(dir.path().join(file)));
        }
        for name in ["text.txt", "text", "folder", "absent", "", ".", "..", "C:tool"] {
            assert!(found(place, name).is_err(), "{name}");
        }
        let relative = place.strip_prefix("C:").unwrap();
        for search in ["", ".", relative] {
            assert_eq!(found(search, "tool"), Err(io::ErrorKind::NotFound), "{search}");
        }
    }

    #[test]
    fn a_path_is_taken_from_the_callers_directory() {
        let dir = tempfile::tempdir().unwrap();
        let tool = dir.path().join("tool.exe");
        std::fs::write(&tool, "").unwrap();
        assert_eq!(found("", tool.to_str().unwrap()), Ok(tool.clone()));
        assert_eq!(found("", tool.with_extension("").to_str().unwrap()), Ok(tool));
        let here = dir.path().to_str().unwrap();
        assert_eq!(found(here, r".\tool"), Err(io::ErrorKind::NotFound));
        assert_eq!(found(here, "./tool"), Err(io::ErrorKind::NotFound));
    }
}
