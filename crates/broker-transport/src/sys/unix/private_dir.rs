//! Walking to a private directory, from descriptor to descriptor.
//!
//! Invariant: a component that was checked is used through its descriptor from then on, so nobody can
//! put another directory in its place between the check and the use.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::super::os::{self, DIRECTORY_HANDLE};
use crate::private_dir::{Missing, PrivateDirError};

const OTHERS_WRITE: u32 = 0o002;
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;
const ROOT: u32 = 0;

pub(crate) use os::network_filesystem;

pub(crate) fn walk(path: &Path, missing: Missing) -> Result<(), PrivateDirError> {
    let components = names(path)?;
    let mut walked = PathBuf::from("/");
    let mut dir = rustix::fs::open("/", DIRECTORY_HANDLE, Mode::empty())
        .map_err(|errno| failure("open", &walked, errno))?;
    let mut strictness = Strictness::Lenient.of_children(permissions(&stat(&dir, &walked)?), &walked)?;
    for (index, name) in components.iter().enumerate() {
        walked.push(name);
        let is_last = index + 1 == components.len();
        let rule = if is_last { Strictness::Strict } else { strictness };
        dir = enter(&dir, name, &walked, rule, missing)?;
        let stat = stat(&dir, &walked)?;
        if rule == Strictness::Strict {
            check(&stat, &walked, is_last)?;
        }
        if !is_last {
            strictness = strictness.of_children(permissions(&stat), &walked)?;
        }
    }
    Ok(())
}

/// How a component is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strictness {
    /// The system's and the user's own directories: links are followed, owners not asked for.
    Lenient,
    /// Anybody could have made it: it must be a directory of ours that only we write to. On the way there, one of
    /// root's is as good.
    Strict,
}

impl Strictness {
    /// How the children of a directory with this mode are looked at: once strict, always strict.
    fn of_children(self, mode: u32, path: &Path) -> Result<Self, PrivateDirError> {
        if mode & OTHERS_WRITE == 0 {
            return Ok(self);
        }
        if mode & STICKY == 0 {
            return Err(PrivateDirError::UnsafeParent { path: path.to_path_buf(), mode });
        }
        Ok(Self::Strict)
    }
}

fn names(path: &Path) -> Result<Vec<&std::ffi::OsStr>, PrivateDirError> {
    let not_absolute = || PrivateDirError::NotAbsolute { path: path.to_path_buf() };
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name),
            // Going up would leave what was checked.
            Component::ParentDir | Component::Prefix(_) => return Err(not_absolute()),
        }
    }
    if path.is_absolute() { Ok(names) } else { Err(not_absolute()) }
}

fn enter(
    dir: &OwnedFd,
    name: &std::ffi::OsStr,
    walked: &Path,
    rule: Strictness,
    missing: Missing,
) -> Result<OwnedFd, PrivateDirError> {
    let flags = match rule {
        Strictness::Strict => DIRECTORY_HANDLE | OFlags::NOFOLLOW,
        Strictness::Lenient => DIRECTORY_HANDLE,
    };
    let open = || rustix::fs::openat(dir, name, flags, Mode::empty());
    let opened = match (open(), missing) {
        (Err(Errno::NOENT), Missing::Create) => match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
            // Somebody else of us was faster; what lies there now is checked all the same.
            Ok(()) | Err(Errno::EXIST) => open(),
            Err(errno) => return Err(failure("create", walked, errno)),
        },
        (opened, _) => opened,
    };
    opened.map_err(|errno| match errno {
        Errno::NOTDIR | Errno::LOOP => what_lies_there(dir, name, walked),
        errno => failure("open", walked, errno),
    })
}

fn what_lies_there(dir: &OwnedFd, name: &std::ffi::OsStr, walked: &Path) -> PrivateDirError {
    let path = walked.to_path_buf();
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
            PrivateDirError::Symlink { path }
        }
        _ => PrivateDirError::NotADirectory { path },
    }
}

fn check(stat: &Stat, path: &Path, is_last: bool) -> Result<(), PrivateDirError> {
    let expected = rustix::process::geteuid().as_raw();
    if stat.st_uid != expected && (is_last || stat.st_uid != ROOT) {
        return Err(PrivateDirError::ForeignOwner {
            path: path.to_path_buf(),
            owner: stat.st_uid.to_string(),
            expected: expected.to_string(),
        });
    }
    let mode = permissions(stat);
    if mode & GROUP_OR_OTHERS_WRITE != 0 {
        return Err(PrivateDirError::WritableByOthers { path: path.to_path_buf(), mode });
    }
    Ok(())
}

fn stat(dir: &OwnedFd, path: &Path) -> Result<Stat, PrivateDirError> {
    rustix::fs::fstat(dir).map_err(|errno| failure("look at", path, errno))
}

fn permissions(stat: &Stat) -> u32 {
    os::raw_mode(stat) & 0o7777
}

fn failure(operation: &'static str, path: &Path, errno: Errno) -> PrivateDirError {
    PrivateDirError::Io { operation, path: path.to_path_buf(), source: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_root_s_is_good_on_the_way_and_not_at_the_end() {
        let usr = rustix::fs::stat("/usr").unwrap();
        assert_eq!(usr.st_uid, ROOT);
        check(&usr, Path::new("/usr"), false).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(check(&usr, Path::new("/usr"), true).is_ok(), is_root);
    }

    #[test]
    fn what_everybody_may_write_to_makes_all_below_it_strict_or_is_refused() {
        let children = |own: Strictness, mode| own.of_children(mode, Path::new("/x"));
        assert_eq!(children(Strictness::Lenient, 0o775).unwrap(), Strictness::Lenient);
        assert_eq!(children(Strictness::Strict, 0o700).unwrap(), Strictness::Strict);
        assert_eq!(children(Strictness::Lenient, 0o1777).unwrap(), Strictness::Strict);
        let error = children(Strictness::Lenient, 0o777).unwrap_err();
        assert!(matches!(error, PrivateDirError::UnsafeParent { mode: 0o777, .. }));
    }
}
