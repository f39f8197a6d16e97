//! A compressed archive that is there as a whole or not at all.
//!
//! It is written beside its place, under a name that nobody can guess, into a file of its user alone, and gets its
//! own name when everything is on the disk. Invariant: the name is given only where nothing has it, not even a link
//! that leads nowhere; on any failure before that the file is removed. A process that ends meanwhile leaves the
//! file beside it, which is called like one that may be removed.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use broker_core::time::UnixMillis;
use broker_transport::files;
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;

use crate::redact::Redacted;

type Beside = NamedTempFile<File>;

/// An archive that is being written.
pub(super) struct Archive {
    tar: tar::Builder<GzEncoder<BufWriter<Beside>>>,
    output: PathBuf,
    modified_secs: u64,
}

impl Archive {
    /// Begins one that is to be at `output`.
    pub(super) fn create(output: &Path, now: UnixMillis) -> io::Result<Self> {
        let directory = output.parent().unwrap_or(output);
        let file = tempfile::Builder::new()
            .prefix(".brokerd-diagnose-")
            .suffix(".tmp")
            .make_in(directory, files::create_private)?;
        let compressed = GzEncoder::new(BufWriter::new(file), Compression::default());
        let tar = tar::Builder::new(compressed);
        Ok(Self { tar, output: output.to_owned(), modified_secs: now.get() / 1_000 })
    }

    /// Adds a file. It says nothing about who wrote it.
    pub(super) fn add(&mut self, path: &str, text: &Redacted) -> io::Result<()> {
        let content = text.as_str().as_bytes();
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.modified_secs);
        header.set_uid(0);
        header.set_gid(0);
        self.tar.append_data(&mut header, path, content)
    }

    /// Puts it on the disk, and there gives it its name.
    pub(super) fn finish(self) -> io::Result<()> {
        let file = self.tar.into_inner()?.finish()?.into_inner()?;
        file.as_file().sync_all()?;
        file.persist_noclobber(&self.output)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn text(text: &str) -> Redacted {
        Redacted::made_of_redacted(text.to_owned())
    }

    fn names_in(directory: &Path) -> Vec<String> {
        let names = std::fs::read_dir(directory).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_was_added_is_in_it_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("a.tar.gz");
        let mut archive = Archive::create(&output, UnixMillis::new(7_000)).unwrap();
        archive.add("a/b.txt", &text("one")).unwrap();
        archive.add("c.txt", &text("")).unwrap();
        archive.finish().unwrap();
        assert_eq!(names_in(directory.path()), ["a.tar.gz"]);
        let mut unpacked = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&output).unwrap()));
        let files = unpacked.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let header = entry.header();
            let facts = (header.mode().unwrap(), header.mtime().unwrap(), header.uid().unwrap());
            assert_eq!(facts, (0o600, 7, 0));
            let path = entry.path().unwrap().display().to_string();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            (path, content)
        });
        assert!(files.eq([("a/b.txt".into(), "one".into()), ("c.txt".into(), String::new())]));
    }

    #[test]
    fn what_takes_its_name_meanwhile_stays_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("a.tar.gz");
        let mut archive = Archive::create(&output, UnixMillis::new(0)).unwrap();
        archive.add("x", &text("x")).unwrap();
        std::fs::write(&output, "somebody's").unwrap();
        assert_eq!(archive.finish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&output).unwrap(), "somebody's");
        assert_eq!(names_in(directory.path()), ["a.tar.gz"]);
    }

    #[test]
    fn one_that_is_given_up_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut archive = Archive::create(&directory.path().join("a.tar.gz"), UnixMillis::new(0)).unwrap();
        archive.add("x", &text("x")).unwrap();
        assert_eq!(names_in(directory.path()).len(), 1);
        drop(archive);
        assert!(names_in(directory.path()).is_empty());
    }
}
