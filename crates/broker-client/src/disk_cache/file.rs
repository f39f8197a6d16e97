//! Reading and replacing the file of one entry.
//!
//! What the bytes mean is not known here. Invariants: no symbolic link is followed, nobody else's file is
//! read or written, who reads sees a whole file, and a writer that dies leaves at most one file beside the
//! entry's, which the next one uses up.
//!
//! So the temporary file has one name for each entry, and a lock that ends with its holder says whether
//! somebody writes to it. Names of the writer's own would be left behind by each writer that dies, and an
//! unnamed file can be given a name, but not one that is in use.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use broker_transport::files::{self, FileFacts, FileKind};
use broker_transport::identity::current_user_key;

/// Ending of the temporary file's name.
const TEMPORARY: &str = "new";

/// The content of a file of ours that has at most `limit` bytes, in a directory of ours.
///
/// What lies further up is not looked at, which would take longer than all the rest: a file of ours to
/// which nobody else may write holds what we wrote, however it was reached.
pub(super) fn read(path: &Path, limit: usize) -> Option<Vec<u8>> {
    if !is_ours(&files::facts(path.parent()?).ok()?, FileKind::Directory) {
        return None;
    }
    let (file, facts) = files::open_no_follow(path).ok()?;
    if !is_ours(&facts, FileKind::Regular) {
        return None;
    }
    // With room for the one byte more, one read finds the end.
    let mut bytes = Vec::with_capacity(limit + 1);
    // One byte more than there may be tells whether there are more.
    file.take(limit as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= limit).then_some(bytes)
}

/// Replaces a file's content, unless somebody else is just doing so.
///
/// Nothing waits for the disk: an entry that a crash of the machine loses or spoils does not outlive the
/// boot that it is bound to anyway.
///
/// # Errors
/// It cannot be written, or somebody else writes it; the old content stays.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    Temporary::open(path)?.put(content)
}

/// Private, and not only put where one of ours is looked for.
fn is_ours(facts: &FileFacts, kind: FileKind) -> bool {
    facts.kind == kind && facts.owner == current_user_key() && !facts.writable_by_others
}

/// The file that is to take an entry's place.
struct Temporary<'a> {
    path: PathBuf,
    file: File,
    facts: FileFacts,
    target: &'a Path,
}

impl<'a> Temporary<'a> {
    fn open(target: &'a Path) -> io::Result<Self> {
        let path = target.with_extension(TEMPORARY);
        let (file, facts) = files::open_append(&path)?;
        Ok(Self { path, file, facts, target })
    }

    fn put(mut self, content: &[u8]) -> io::Result<()> {
        self.file.try_lock()?;
        // Since it was opened, another writer may have made it the entry. Under the lock none can.
        let named = files::facts(&self.path)?;
        let is_still_it = (named.device, named.inode) == (self.facts.device, self.facts.inode);
        if !is_still_it || !is_ours(&named, FileKind::Regular) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        // A writer that died may have left something.
        self.file.set_len(0)?;
        self.file.write_all(content)?;
        std::fs::rename(&self.path, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 8;

    /// A private directory, and where the entry lies in it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        (dir, path)
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let (dir, path) = place();
        for content in ["first", "the 2nd", ""] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(read(&path, LIMIT).unwrap(), content.as_bytes());
            assert_eq!(names(&dir), ["abc"]);
        }
    }

    #[test]
    fn the_longest_file_is_read_and_one_more_byte_is_not() {
        let (_dir, path) = place();
        assert_eq!(read(&path, LIMIT), None, "absent");
        std::fs::write(&path, [7; LIMIT]).unwrap();
        assert_eq!(read(&path, LIMIT), Some(vec![7; LIMIT]));
        std::fs::write(&path, [7; LIMIT + 1]).unwrap();
        assert_eq!(read(&path, LIMIT), None);
    }

    #[test]
    fn what_a_writer_left_when_it_died_is_used_up_by_the_next() {
        let (dir, path) = place();
        replace(&path, b"old").unwrap();
        let mut died = Temporary::open(&path).unwrap();
        died.file.try_lock().unwrap();
        died.file.write_all(b"much more than the next one writes").unwrap();
        drop(died);
        assert_eq!(read(&path, LIMIT).unwrap(), b"old");
        assert_eq!(names(&dir), ["abc", "abc.new"]);
        replace(&path, b"new").unwrap();
        assert_eq!(read(&path, LIMIT).unwrap(), b"new");
        assert_eq!(names(&dir), ["abc"]);
    }

    #[test]
    fn of_two_writers_one_gives_way_and_the_content_is_whole() {
        let (_dir, path) = place();
        let (first, late) = (Temporary::open(&path).unwrap(), Temporary::open(&path).unwrap());
        let busy = Temporary::open(&path).unwrap();
        busy.file.try_lock().unwrap();
        assert!(replace(&path, b"no").is_err(), "somebody is writing");
        assert_eq!(read(&path, LIMIT), None);
        drop(busy);
        first.put(b"first").unwrap();
        let next = Temporary::open(&path).unwrap();
        assert!(late.put(b"late").is_err(), "what it has opened is the entry by now");
        assert_eq!(read(&path, LIMIT).unwrap(), b"first");
        next.put(b"next").unwrap();
        assert_eq!(read(&path, LIMIT).unwrap(), b"next");
    }

    #[test]
    #[allow(deprecated, reason = "the one way to make a link that every platform has")]
    fn no_link_is_followed() {
        let (dir, path) = place();
        let target = dir.path().join("target");
        std::fs::write(&target, "foreign").unwrap();
        std::fs::soft_link(&target, &path).unwrap();
        if !path.is_symlink() {
            println!("not tested: Wine does not make symbolic links, though it says so");
            return;
        }
        assert_eq!(read(&path, LIMIT), None);
        replace(&path, b"own").unwrap();
        assert_eq!(read(&path, LIMIT).unwrap(), b"own");
        std::fs::soft_link(&target, path.with_extension(TEMPORARY)).unwrap();
        assert!(replace(&path, b"more").is_err());
        assert_eq!(read(&path, LIMIT).unwrap(), b"own");
        assert_eq!(std::fs::read(&target).unwrap(), b"foreign");
    }

    #[test]
    fn what_is_no_file_is_neither_read_nor_replaced() {
        let (dir, path) = place();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(read(&path, LIMIT), None);
        assert!(replace(&path, b"x").is_err());
        std::fs::remove_dir(&path).unwrap();
        std::fs::remove_file(path.with_extension(TEMPORARY)).unwrap();
        std::fs::create_dir(path.with_extension(TEMPORARY)).unwrap();
        assert!(replace(&path, b"x").is_err());
        assert_eq!(names(&dir), ["abc.new"]);
        assert!(replace(&path.join("no/such/place"), b"x").is_err());
    }

    #[test]
    fn only_a_private_file_of_this_user_is_ours() {
        let (_dir, path) = place();
        std::fs::write(&path, "").unwrap();
        let facts = files::facts(&path).unwrap();
        let is_ours = |facts| is_ours(&facts, FileKind::Regular);
        assert!(is_ours(facts));
        assert!(!is_ours(FileFacts { owner: facts.owner ^ 1, ..facts }));
        assert!(!is_ours(FileFacts { writable_by_others: true, ..facts }));
        assert!(!is_ours(FileFacts { kind: FileKind::Directory, ..facts }));
    }
}
