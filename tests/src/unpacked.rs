//! What is in an archive of `brokerd diagnose`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

/// The files of an archive, by their names in it.
pub struct Unpacked(BTreeMap<String, Vec<u8>>);

impl Unpacked {
    /// Reads an archive; the test has failed where it is no whole one.
    pub fn of(path: &Path) -> Self {
        let mut archive = tar::Archive::new(GzDecoder::new(File::open(path).unwrap()));
        let files = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (name, content)
        });
        Self(files.collect())
    }

    /// What they are called, in order.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// A file's text.
    pub fn text(&self, name: &str) -> &str {
        let content = self.0.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.names()));
        std::str::from_utf8(content).unwrap()
    }

    /// A file's JSON.
    pub fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(self.text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// All of them.
    pub fn into_files(self) -> impl Iterator<Item = (String, Vec<u8>)> {
        self.0.into_iter()
    }
}
