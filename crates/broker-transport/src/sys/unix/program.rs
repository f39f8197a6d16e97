//! Programs by their names, and who may execute them (access(2)).

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

pub(crate) fn find(program: &Path) -> io::Result<PathBuf> {
    find_in(&std::env::var_os("PATH").unwrap_or_default(), program)
}

fn find_in(search: &OsStr, program: &Path) -> io::Result<PathBuf> {
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        let program = std::path::absolute(program)?;
        return executable(&program).map(|()| program);
    }
    let directories = std::env::split_paths(search).filter(|directory| directory.is_absolute());
    let places = directories.map(|directory| directory.join(program));
    places.into_iter().find(|place| executable(place).is_ok()).ok_or_else(|| {
        let name = program.display();
        let what = format!("no absolute directory in PATH has an executable file {name}");
        io::Error::new(io::ErrorKind::NotFound, what)
    })
}

fn executable(program: &Path) -> io::Result<()> {
    access(program, Access::EXEC_OK)?;
    if std::fs::metadata(program)?.is_file() { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(search: &str, program: &str) -> Result<PathBuf, io::ErrorKind> {
        find_in(search.as_ref(), program.as_ref()).map_err(|error| error.kind())
    }

    #[test]
    fn a_name_is_looked_for_in_the_absolute_directories_alone() {
        let sh = || Ok(PathBuf::from("/bin/sh"));
        assert_eq!(found("/absent:/bin", "sh"), sh());
        assert_eq!(found("bin:.::/bin", "sh"), sh());
        let upwards = format!("{}bin", "../".repeat(64));
        assert!(Path::new(&upwards).join("sh").exists());
        for search in ["", "bin", ".", &upwards] {
            assert_eq!(found(search, "sh"), Err(io::ErrorKind::NotFound), "{search}");
        }
        assert_eq!(found("/bin", ""), Err(io::ErrorKind::NotFound), "a directory is no program");
    }

    #[test]
    fn a_path_is_taken_from_the_callers_directory() {
        let here = std::env::current_dir().unwrap();
        let upwards = format!("{}bin/sh", "../".repeat(64));
        assert_eq!(found("", &upwards), Ok(here.join(&upwards)));
        assert_eq!(found("/bin", "./sh"), Err(io::ErrorKind::NotFound));
        assert_eq!(found("", "/bin/"), Err(io::ErrorKind::PermissionDenied));
        assert_eq!(found("", "/dev/null"), Err(io::ErrorKind::PermissionDenied));
    }
}
