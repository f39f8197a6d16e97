//! Walking to a private directory, whose access list says whose it is.
//!
//! Every directory on the way is kept open such that nobody can rename or remove it meanwhile. It belongs to this
//! user or to the system, and others may make something in it, as in a drive's root, but put nothing in another's
//! place. The system's and the user's own links on the way are followed; the last component is none.
//!
//! Invariant: what was checked is what is used further down.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::windows::io::AsHandle;
use std::path::{Component, Path, PathBuf, Prefix};

use windows_sys::Win32::Foundation::ERROR_ALREADY_EXISTS;
use windows_sys::Win32::Storage::FileSystem::{
    DELETE, FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT, FILE_READ_ATTRIBUTES, FILE_SHARE_READ,
    FILE_SHARE_WRITE, FILE_TRAVERSE, GetDriveTypeW, OPEN_EXISTING, READ_CONTROL, SYNCHRONIZE,
};
use windows_sys::Win32::System::WindowsProgramming::DRIVE_REMOTE;

use super::acl::{REPLACE, Scope, WRITE};
use super::calls::wide;
use super::files::facts_of;
use super::identity::own_sid;
use super::security::{Opening, access, create_private_dir};
use crate::files::FileKind;
use crate::private_dir::{Missing, PrivateDirError};

pub(crate) fn walk(path: &Path, missing: Missing) -> Result<(), PrivateDirError> {
    let (mut walked, names) = split(path)?;
    if names.is_empty() {
        // A drive is nobody's alone.
        return Err(PrivateDirError::NotAbsolute { path: path.to_path_buf() });
    }
    // Held until the end of the walk.
    let mut held = vec![enter(&walked, Place::Root)?];
    for (index, name) in names.iter().enumerate() {
        walked.push(name);
        let place = if index + 1 == names.len() { Place::Last } else { Place::Between };
        let entered = match (enter(&walked, place), missing) {
            (Err(PrivateDirError::Io { source, .. }), Missing::Create)
                if source.kind() == io::ErrorKind::NotFound =>
            {
                create(&walked)?;
                enter(&walked, place)
            }
            (entered, _) => entered,
        };
        held.push(entered?);
    }
    Ok(())
}

/// Where a directory stands on the way, and with it what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Root,
    Between,
    Last,
}

/// The drive's root and the names below it.
fn split(path: &Path) -> Result<(PathBuf, Vec<&OsStr>), PrivateDirError> {
    let not_absolute = || PrivateDirError::NotAbsolute { path: path.to_path_buf() };
    let mut root = PathBuf::new();
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Prefix(prefix) => match prefix.kind() {
                Prefix::Disk(_) | Prefix::VerbatimDisk(_) => root.push(component),
                Prefix::UNC(..) | Prefix::VerbatimUNC(..) => return Err(network(path)),
                Prefix::Verbatim(_) | Prefix::DeviceNS(_) => return Err(not_absolute()),
            },
            Component::RootDir => root.push(component),
            Component::CurDir => {}
            Component::Normal(name) => names.push(name),
            // Going up would leave what was checked.
            Component::ParentDir => return Err(not_absolute()),
        }
    }
    if path.is_absolute() { Ok((root, names)) } else { Err(not_absolute()) }
}

fn enter(path: &Path, place: Place) -> Result<File, PrivateDirError> {
    let own = own_sid().map_err(|source| failure("find out the user for", path, source))?;
    let dir = open(path, FILE_FLAG_OPEN_REPARSE_POINT)?;
    let kind = facts_of(dir.as_handle()).map_err(|source| failure("look at", path, source))?.kind;
    let dir = match (kind, place) {
        (FileKind::Directory, _) => dir,
        (FileKind::Symlink, Place::Last) => {
            return Err(PrivateDirError::Symlink { path: path.to_path_buf() });
        }
        (FileKind::Symlink, _) => {
            check(&dir, path, place, own)?;
            open(path, 0)?
        }
        _ => return Err(PrivateDirError::NotADirectory { path: path.to_path_buf() }),
    };
    check(&dir, path, place, own)?;
    Ok(dir)
}

fn check(dir: &File, path: &Path, place: Place, own: &str) -> Result<(), PrivateDirError> {
    let found = access(dir.as_handle()).map_err(|source| failure("look at", path, source))?;
    if !found.is_owned_by(own) {
        let path = path.to_path_buf();
        return Err(PrivateDirError::ForeignOwner { path, owner: found.owner, expected: own.to_owned() });
    }
    let (rights, scope) = match place {
        // A root cannot be removed, whoever has the right to.
        Place::Root => (REPLACE & !DELETE, Scope::Itself),
        Place::Between => (REPLACE, Scope::Itself),
        Place::Last => (WRITE, Scope::WithChildren),
    };
    let Some(who) = found.other_with(rights, scope, own) else { return Ok(()) };
    let (path, who) = (path.to_path_buf(), who.to_owned());
    Err(match place {
        Place::Last => PrivateDirError::OpenToOthers { path, who },
        Place::Root | Place::Between => PrivateDirError::ReplaceableByOthers { path, who },
    })
}

/// The right to go through it is what makes the system keep others from renaming it: looking alone does not.
fn open(path: &Path, flags: u32) -> Result<File, PrivateDirError> {
    let opening = Opening {
        access: FILE_TRAVERSE | FILE_READ_ATTRIBUTES | READ_CONTROL | SYNCHRONIZE,
        share: FILE_SHARE_READ | FILE_SHARE_WRITE,
        disposition: OPEN_EXISTING,
        flags: FILE_FLAG_BACKUP_SEMANTICS | flags,
    };
    opening.open(path).map_err(|source| failure("open", path, source))
}

fn create(path: &Path) -> Result<(), PrivateDirError> {
    match create_private_dir(path) {
        // Somebody else of us was faster; what lies there now is checked all the same.
        Err(error) if error.raw_os_error() == Some(ERROR_ALREADY_EXISTS.cast_signed()) => Ok(()),
        created => created.map_err(|source| failure("create", path, source)),
    }
}

const NETWORK: &str = "of a network share";

pub(crate) fn network_filesystem(path: &Path) -> io::Result<Option<&'static str>> {
    // Where links lead to counts, not where they lie.
    let real = path.canonicalize()?;
    let Some(Component::Prefix(prefix)) = real.components().next() else { return Ok(None) };
    let drive = match prefix.kind() {
        Prefix::Disk(drive) | Prefix::VerbatimDisk(drive) => char::from(drive),
        Prefix::UNC(..) | Prefix::VerbatimUNC(..) => return Ok(Some(NETWORK)),
        Prefix::Verbatim(_) | Prefix::DeviceNS(_) => return Ok(None),
    };
    let root = wide(format!(r"{drive}:\"))?;
    // SAFETY: the text ends with NUL.
    let kind = unsafe { GetDriveTypeW(root.as_ptr()) };
    Ok((kind == DRIVE_REMOTE).then_some(NETWORK))
}

fn network(path: &Path) -> PrivateDirError {
    PrivateDirError::Network { path: path.to_path_buf(), filesystem: NETWORK }
}

fn failure(operation: &'static str, path: &Path, source: io::Error) -> PrivateDirError {
    PrivateDirError::Io { operation, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut;

    use windows_sys::Win32::Security::Authorization::{
        ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
    };
    use windows_sys::Win32::Security::{
        DACL_SECURITY_INFORMATION, PROTECTED_DACL_SECURITY_INFORMATION, SetFileSecurityW,
    };

    use super::super::calls::{Local, done};
    use super::super::files::facts;
    use super::*;

    /// Gives a directory another access list.
    fn permit(path: &Path, list: &str) {
        let text = wide(list.replace("OWN", own_sid().unwrap())).unwrap();
        let path = wide(path).unwrap();
        let mut descriptor = null_mut();
        // SAFETY: the texts end with NUL, and the descriptor is freed after its use.
        unsafe {
            done(ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                SDDL_REVISION_1,
                &raw mut descriptor,
                null_mut(),
            ))
            .unwrap();
            let descriptor = Local(descriptor);
            let which = DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION;
            done(SetFileSecurityW(path.as_ptr(), which, descriptor.0)).unwrap();
        }
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused_and_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("dir");
        walk(&dir, Missing::Create).unwrap();
        for (list, is_fine) in [
            ("D:P(A;OICI;FA;;;OWN)", true),
            ("D:P(A;OICI;FA;;;OWN)(A;OICI;FR;;;WD)", true),
            ("D:P(A;OICI;FA;;;OWN)(A;OICI;FA;;;WD)", false),
            ("D:P(A;OICI;FA;;;OWN)(A;;FRFW;;;WD)", false),
            ("D:P(A;OICI;FA;;;OWN)(A;OICI;FA;;;SY)", true),
        ] {
            permit(&dir, list);
            let (again, below) = (walk(&dir, Missing::Create), walk(&dir.join("below"), Missing::Create));
            assert_eq!(again.is_ok(), is_fine, "{list}: {again:?}");
            assert_eq!(facts(&dir).unwrap().writable_by_others, !is_fine, "{list}");
            if let Err(error) = again {
                let text = error.to_string();
                assert!(matches!(error, PrivateDirError::OpenToOthers { .. }), "{text}");
                assert!(text.contains("S-1-1-0") && text.contains("icacls"), "{text}");
            }
            if list.contains("FA;;;WD") {
                assert!(
                    matches!(below, Err(PrivateDirError::ReplaceableByOthers { .. })),
                    "{list}: {below:?}"
                );
                assert!(!dir.join("below").exists());
            }
            let _ = std::fs::remove_dir(dir.join("below"));
        }
    }

    #[test]
    fn a_directory_of_the_walk_cannot_be_renamed_meanwhile() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("dir");
        walk(&dir, Missing::Create).unwrap();
        let held = enter(&dir, Place::Last).unwrap();
        assert!(std::fs::rename(&dir, place.path().join("other")).is_err());
        drop(held);
        std::fs::rename(&dir, place.path().join("other")).unwrap();
    }

    #[test]
    fn only_a_path_on_a_drive_that_never_goes_up_is_walked() {
        let (root, names) = split(Path::new(r"C:\a\.\b/c")).unwrap();
        assert_eq!((root.as_path(), names.len()), (Path::new(r"C:\"), 3));
        assert_eq!(split(Path::new(r"\\?\C:\a")).unwrap().0, Path::new(r"\\?\C:\"));
        for path in ["a", r"\a", "C:a", r"C:\a\..\b", r"\\.\pipe\a", r"\\?\pipe\a", ""] {
            assert!(matches!(split(Path::new(path)), Err(PrivateDirError::NotAbsolute { .. })), "{path}");
        }
        for path in [r"\\server\share\a", r"\\?\UNC\server\share\a"] {
            assert!(matches!(split(Path::new(path)), Err(PrivateDirError::Network { .. })), "{path}");
        }
        assert!(matches!(walk(Path::new(r"C:\"), Missing::Create), Err(PrivateDirError::NotAbsolute { .. })));
    }
}
