//! Private directories on a real file system.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test may end at any surprise")]

#[cfg(windows)]
#[path = "common/wine.rs"]
mod wine;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use broker_transport::files::facts;
use broker_transport::private_dir::{
    PrivateDirError, check_private_dir, ensure_private_dir, refuse_network_filesystem,
};

fn named(error: &PrivateDirError, path: &Path) -> bool {
    error.to_string().contains(path.to_str().unwrap())
}

#[test]
fn missing_directories_are_created_private_all_the_way() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("running-process/broker");
    ensure_private_dir(&dir).unwrap();
    for made in [&dir, dir.parent().unwrap()] {
        assert!(!facts(made).unwrap().writable_by_others, "{made:?}");
    }
    ensure_private_dir(&dir).unwrap();
    check_private_dir(&dir).unwrap();
}

#[test]
fn checking_creates_nothing() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("absent");
    let error = check_private_dir(&dir).unwrap_err();
    assert!(matches!(&error, PrivateDirError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound));
    assert!(!dir.exists());
}

#[test]
fn a_file_a_relative_path_and_one_that_goes_up_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let error = ensure_private_dir(&file).unwrap_err();
    assert!(matches!(error, PrivateDirError::NotADirectory { .. }) && named(&error, &file));
    for path in [PathBuf::from("relative"), place.path().join("../up"), PathBuf::new()] {
        assert!(matches!(ensure_private_dir(&path), Err(PrivateDirError::NotAbsolute { .. })), "{path:?}");
    }
}

#[test]
fn a_local_place_is_accepted_before_it_exists() {
    let place = tempfile::tempdir().unwrap();
    refuse_network_filesystem(place.path()).unwrap();
    refuse_network_filesystem(&place.path().join("not/yet/there")).unwrap();
}

#[cfg(unix)]
mod unix {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_created_has_mode_0700() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("running-process/broker");
        ensure_private_dir(&dir).unwrap();
        assert_eq!((mode(dir.parent().unwrap()), mode(&dir)), (0o700, 0o700));
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused_with_the_remedy_and_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("open");
        fs::create_dir(&dir).unwrap();
        for (permissions, is_fine) in [(0o755, true), (0o775, false), (0o757, false), (0o720, false)] {
            chmod(&dir, permissions);
            let result = ensure_private_dir(&dir);
            assert_eq!(result.is_ok(), is_fine, "{permissions:o}: {result:?}");
            assert_eq!(mode(&dir), permissions);
            if let Err(error) = result {
                assert!(error.to_string().contains(&format!("chmod 700 {}", dir.display())), "{error}");
            }
        }
    }

    #[test]
    fn a_directory_for_everybody_is_not_to_be_closed_to_them() {
        let place = tempfile::tempdir().unwrap();
        chmod(place.path(), 0o1777);
        let message = ensure_private_dir(place.path()).unwrap_err().to_string();
        assert!(message.contains("mkdir -m 700") && !message.contains("chmod"), "{message}");
    }

    #[test]
    fn a_link_is_no_private_directory_even_to_one() {
        let place = tempfile::tempdir().unwrap();
        let (target, link) = (place.path().join("target"), place.path().join("link"));
        ensure_private_dir(&target).unwrap();
        symlink(&target, &link).unwrap();
        let error = ensure_private_dir(&link).unwrap_err();
        assert!(matches!(error, PrivateDirError::Symlink { .. }) && named(&error, &link), "{error}");
    }

    #[test]
    fn below_a_directory_for_everybody_every_component_is_checked() {
        let place = tempfile::tempdir_in("/tmp").unwrap();
        let dir = place.path().join("broker");
        ensure_private_dir(&dir).unwrap();
        chmod(place.path(), 0o770);
        let error = ensure_private_dir(&dir).unwrap_err();
        assert!(
            matches!(&error, PrivateDirError::WritableByOthers { path, mode: 0o770 } if path == place.path())
        );
        chmod(place.path(), 0o700);

        let link = tempfile::Builder::new().make_in("/tmp", |link| symlink(place.path(), link)).unwrap();
        let error = ensure_private_dir(&link.path().join("broker")).unwrap_err();
        assert!(matches!(&error, PrivateDirError::Symlink { path } if path == link.path()), "{error}");
    }

    #[test]
    fn below_a_directory_where_anybody_may_rename_nothing_is_private() {
        let place = tempfile::tempdir().unwrap();
        let open = place.path().join("open");
        fs::create_dir(&open).unwrap();
        chmod(&open, 0o777);
        let error = ensure_private_dir(&open.join("dir")).unwrap_err();
        assert!(named(&error, &open), "{error}");
        assert!(!open.join("dir").exists());
    }

    #[test]
    fn a_foreign_directory_is_refused() {
        if !broker_transport::identity::is_privileged() {
            return; // Only root can give a directory away.
        }
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("foreign");
        ensure_private_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, Some(65_534), None).unwrap();
        let error = ensure_private_dir(&dir).unwrap_err();
        assert!(matches!(&error, PrivateDirError::ForeignOwner { owner, .. } if owner == "65534"), "{error}");
    }
}

#[cfg(windows)]
mod windows {
    use std::os::windows::fs::symlink_dir;

    use super::*;

    #[test]
    fn a_link_is_no_private_directory_even_to_one() {
        let place = tempfile::tempdir().unwrap();
        let (target, link) = (place.path().join("target"), place.path().join("link"));
        ensure_private_dir(&target).unwrap();
        if wine::goes_without("make symbolic links, though it says so") {
            return;
        }
        if let Err(error) = symlink_dir(&target, &link) {
            println!("not tested: this user may not make symbolic links: {error}");
            return;
        }
        let error = ensure_private_dir(&link).unwrap_err();
        assert!(matches!(error, PrivateDirError::Symlink { .. }) && named(&error, &link), "{error}");
    }

    #[test]
    fn a_share_is_no_local_place() {
        let share = Path::new(r"\\server\share\broker");
        assert!(matches!(ensure_private_dir(share), Err(PrivateDirError::Network { .. })));
    }
}
