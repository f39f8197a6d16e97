//! What is told about an archive that was written (behaviour.md 7). Keys are contract, in this order.

use std::path::PathBuf;

use serde::Serialize;

use super::gathered::Found;
use super::part::Part;
use crate::redact::{Counts, MARKS, Redactor};

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Diagnosis {
    output: String,
    bundle: Bundle,
    files: Vec<&'static str>,
    redactions: [&'static str; 3],
    redaction_policy: [Rule; 3],
}

#[derive(Debug, Serialize)]
struct Bundle {
    format: &'static str,
    created: bool,
    entries: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    path: &'static str,
    kind: &'static str,
    source: &'static str,
    required: bool,
    redacted: bool,
    /// Whether it is in the archive.
    present: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_count: Option<usize>,
    /// Why it is not there, or what is not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Serialize)]
struct Rule {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<[&'static str; 4]>,
    replacement: &'static str,
    /// How often.
    replaced: u64,
}

const HOME: &str = "home";
const SECRETS: &str = "secret-env";
const IDS: &str = "acl-identities";

impl Diagnosis {
    pub(super) fn new(output: PathBuf) -> Self {
        Self {
            output: output.display().to_string(),
            bundle: Bundle { format: "tar.gz", created: true, entries: Vec::new() },
            files: Vec::new(),
            redactions: [HOME, SECRETS, IDS],
            redaction_policy: policy(Counts::default()),
        }
    }

    /// A part that is there, or why it is not.
    pub(super) fn add(&mut self, part: Part, found: Result<Found, String>, redactor: &Redactor) {
        let present = found.is_ok();
        let (record_count, note) = match found {
            Ok(found) => (found.records, found.note),
            Err(why) => (None, Some(why)),
        };
        if present {
            self.files.push(part.path());
        }
        self.bundle.entries.push(Entry {
            path: part.path(),
            kind: part.kind(),
            source: part.source(),
            required: part.is_required(),
            redacted: true,
            present,
            record_count,
            note: note.map(|note| redactor.text(&note).as_str().to_owned()),
        });
    }

    pub(super) fn with_counts(self, counts: Counts) -> Self {
        Self { redaction_policy: policy(counts), ..self }
    }
}

const fn policy(counts: Counts) -> [Rule; 3] {
    [
        Rule { name: HOME, matches: None, replacement: "~", replaced: counts.homes },
        Rule { name: SECRETS, matches: Some(MARKS), replacement: "<redacted>", replaced: counts.secrets },
        Rule { name: IDS, matches: None, replacement: "stable-hash", replaced: counts.ids },
    ]
}
