//! Which files are locked, by the kernel's list (`/proc/locks`, proc_locks(5)).

use std::io;

use rustix::fs::{major, minor};

use crate::files::FileFacts;
use crate::lock::LockEntry;

const LIST: &str = "/proc/locks";

/// Whether somebody holds a lock of flock(2) on this file.
pub(crate) fn is_held(file: &FileFacts, entry: Option<&LockEntry>) -> io::Result<bool> {
    Ok(is_listed(&std::fs::read_to_string(LIST)?, file, entry.map(|entry| entry.pid)))
}

/// A file system may show another device than the kernel has for it, as layered ones do; there the inode and the
/// process that wrote the entry say it together.
fn is_listed(list: &str, file: &FileFacts, writer: Option<u32>) -> bool {
    let device = format!("{:02x}:{:02x}", major(file.device), minor(file.device));
    let (inode, writer) = (file.inode.to_string(), writer.map(|pid| pid.to_string()));
    list.lines().any(|line| {
        // "1: FLOCK  ADVISORY  WRITE 27970 fe:00:5308992 0 EOF"; one that waits has an arrow behind its number.
        let mut words = line.split_ascii_whitespace().skip(1);
        if words.next() != Some("FLOCK") {
            return false;
        }
        let (pid, place) = (words.nth(2), words.next());
        let Some((on, number)) = place.and_then(|place| place.rsplit_once(':')) else { return false };
        number == inode && (on == device || (pid.is_some() && pid == writer.as_deref()))
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::makedev;

    use super::*;
    use crate::files::FileKind;

    #[test]
    fn a_lock_is_found_by_its_file_or_by_its_inode_and_writer() {
        let file = |device, inode| FileFacts {
            kind: FileKind::Regular,
            size: 0,
            modified_ns: 0,
            inode,
            device,
            owner: 0,
            names: 1,
            writable_by_others: false,
        };
        let list = "1: FLOCK  ADVISORY  WRITE 27970 fe:00:5308992 0 EOF\n\
                    1: -> FLOCK  ADVISORY  WRITE 5 fe:00:7 0 EOF\n\
                    2: POSIX  ADVISORY  WRITE 3548 00:42:1339833 0 EOF\n3: FLOCK";
        let (here, elsewhere) = (makedev(0xfe, 0), makedev(0, 0x42));
        assert!(is_listed(list, &file(here, 5_308_992), None));
        assert!(is_listed(list, &file(elsewhere, 5_308_992), Some(27_970)));
        assert!(!is_listed(list, &file(elsewhere, 5_308_992), Some(1)));
        assert!(!is_listed(list, &file(here, 530_899), None));
        assert!(!is_listed(list, &file(here, 7), None), "one that waits holds nothing");
        assert!(!is_listed(list, &file(elsewhere, 1_339_833), Some(3548)), "another kind of lock");
    }
}
