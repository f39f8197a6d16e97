//! The configuration file on disk: which one it is, and whether it is to be trusted.
//!
//! What it says decides what a broker does with its user's rights, so it must be that user's or root's, and nobody
//! else's to write. A symbolic link is followed, as configuration is often linked from where it is kept; what is
//! judged is the file that is read, by the facts of the open file. Another name of the same file does no harm, as
//! its content is still the user's own.
//!
//! Invariant: not one byte is taken from a file that breaks a rule, and no more than [`MAX_FILE`] are read.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_transport::files::{self, FileKind};
use broker_transport::{endpoint, identity};
use thiserror::Error;

use super::parse::{self, Values};
use super::problem::Problem;
use crate::failure::Failure;

/// Names the file, where no flag does.
pub(crate) const CONFIG_VARIABLE: &str = "RUNNING_PROCESS_BROKER_CONFIG";

/// Longest file in bytes.
const MAX_FILE: u64 = 256 * 1024;
/// Problems that a failure tells of.
const TOLD_PROBLEMS: usize = 20;

/// For whom a file speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It lies at the usual place.
    EveryBroker,
    /// It was named.
    OneBroker,
}

/// Where the file is.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    path: Option<Arc<Path>>,
    reach: Reach,
    named: Named,
}

/// Whether somebody has named a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Yes,
    No,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    /// Which file it was; `None` where there is none.
    pub(crate) path: Option<Arc<Path>>,
    pub(crate) values: Values,
    /// What it said, word for word.
    pub(crate) text: Arc<str>,
}

/// Why a file is not used.
#[derive(Debug, Error)]
#[error("{}{fault}", Shown(.path, .fault))]
pub(crate) struct NotRead {
    pub(crate) path: Arc<Path>,
    pub(crate) fault: Fault,
}

#[derive(Debug, Error)]
pub(crate) enum Fault {
    #[error("there is no such file")]
    Absent,
    #[error("it cannot be read: {0}")]
    Io(io::Error),
    #[error("it is a link that cannot be followed: {0}")]
    Link(io::Error),
    #[error("expected a regular file, got {0}")]
    NotRegular(FileKind),
    #[error("it belongs to another user; see to what it says, then make it yours")]
    Foreign,
    #[error("others may write to it; see to what it says, then take that right away")]
    WritableByOthers,
    #[error("it has {actual} bytes, expected at most {MAX_FILE}")]
    TooLong { actual: u64 },
    #[error("{}", listed(.0))]
    Wrong(Vec<Problem>),
}

/// One problem stands behind the path; several have lines of their own.
struct Shown<'a>(&'a Path, &'a Fault);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.0.display();
        match self.1 {
            Fault::Wrong(problems) if problems.len() == 1 => write!(f, "{path}:"),
            Fault::Wrong(problems) => writeln!(f, "{path}: {} problems", problems.len()),
            _ => write!(f, "{path}: "),
        }
    }
}

fn listed(problems: &[Problem]) -> String {
    if let [only] = problems {
        return only.to_string();
    }
    let mut lines: Vec<_> =
        problems.iter().take(TOLD_PROBLEMS).map(|problem| format!("  line {problem}")).collect();
    let others = problems.len().saturating_sub(TOLD_PROBLEMS);
    if others > 0 {
        lines.push(format!("  and {others} more"));
    }
    lines.join("\n")
}

impl NotRead {
    /// What `serve` says.
    pub(crate) fn into_failure(self) -> Failure {
        let advice = match &self.fault {
            Fault::Absent => "name one that is there with --config FILE, or leave that out".to_owned(),
            Fault::Wrong(_) => {
                format!(
                    "put that right; `brokerd config check {}` says whether all is well",
                    self.path.display()
                )
            }
            Fault::Io(_)
            | Fault::Link(_)
            | Fault::NotRegular(_)
            | Fault::Foreign
            | Fault::WritableByOthers
            | Fault::TooLong { .. } => "put that right, or name another file with --config FILE".to_owned(),
        };
        Failure::usage(self).next(advice)
    }

    /// The first of what is wrong, each on a line of its own that says where.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = self.all_lines();
        lines.truncate(TOLD_PROBLEMS);
        lines
    }

    /// All of it.
    pub(super) fn all_lines(&self) -> Vec<String> {
        let path = self.path.display();
        match &self.fault {
            Fault::Wrong(problems) => problems.iter().map(|problem| format!("{path}:{problem}")).collect(),
            fault => vec![format!("{path}: {fault}")],
        }
    }
}

impl Location {
    /// The file that was named, or the usual one.
    ///
    /// # Errors
    /// A relative path in a directory that is not there any more.
    pub(crate) fn new(named: Option<&Path>) -> Result<Self, Failure> {
        match named {
            Some(path) => {
                let path = std::path::absolute(path)
                    .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
                // Named or not, it is the one that everybody reads.
                let is_usual = Self::usual().is_some_and(|usual| usual == path);
                let reach = if is_usual { Reach::EveryBroker } else { Reach::OneBroker };
                Ok(Self { path: Some(path.into()), reach, named: Named::Yes })
            }
            None => {
                let path = Self::usual().map(Into::into);
                Ok(Self { path, reach: Reach::EveryBroker, named: Named::No })
            }
        }
    }

    /// Without a home there is no usual place, and no file there.
    fn usual() -> Option<PathBuf> {
        endpoint::config_file().ok()
    }

    /// Where it is, or would be.
    pub(crate) const fn path(&self) -> Option<&Arc<Path>> {
        self.path.as_ref()
    }

    /// Reads it; where nobody has named one and there is none, there is nothing in it. Blocks for as long as the
    /// disk does.
    ///
    /// # Errors
    /// [`NotRead`].
    pub(crate) fn read(&self) -> Result<File, NotRead> {
        let Some(path) = &self.path else { return Ok(File::default()) };
        match content(path) {
            Ok(text) => self.file_of(text.into()),
            Err(Fault::Absent) if self.named == Named::No => Ok(File::default()),
            Err(fault) => Err(NotRead { path: Arc::clone(path), fault }),
        }
    }

    /// The file as if this was what it says.
    ///
    /// # Errors
    /// [`NotRead`], where that is not to be taken.
    pub(crate) fn file_of(&self, text: Arc<str>) -> Result<File, NotRead> {
        let path = self.path.clone();
        match parse::parse(&text, self.reach) {
            Ok(values) => Ok(File { path, values, text }),
            Err(problems) => Err(NotRead {
                path: path.unwrap_or_else(|| Path::new("").into()),
                fault: Fault::Wrong(problems),
            }),
        }
    }
}

fn content(path: &Path) -> Result<String, Fault> {
    let absent = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Fault::Absent,
        _ => Fault::Io(error),
    };
    // One lookup where there is none, which is the usual case.
    let link = files::facts(path).map_err(absent)?;
    let resolved = if link.kind == FileKind::Symlink {
        // Somebody has put it there: that it leads nowhere is not the same as no file.
        path.canonicalize().map_err(Fault::Link)?
    } else {
        path.to_path_buf()
    };
    let (file, facts) = files::open_no_follow(&resolved).map_err(absent)?;
    if facts.kind != FileKind::Regular {
        return Err(Fault::NotRegular(facts.kind));
    }
    if facts.owner != identity::current_user_key() && facts.owner != 0 {
        return Err(Fault::Foreign);
    }
    if facts.writable_by_others {
        return Err(Fault::WritableByOthers);
    }
    if facts.size > MAX_FILE {
        return Err(Fault::TooLong { actual: facts.size });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(Fault::Io)?;
    // It may have grown meanwhile.
    if bytes.len() as u64 > MAX_FILE {
        return Err(Fault::TooLong { actual: bytes.len() as u64 });
    }
    text(bytes)
}

fn text(bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let good = String::from_utf8_lossy(good);
        let message = "this is no UTF-8, which TOML is written in".to_owned();
        Fault::Wrong(vec![super::problem::Text(&good).problem(&(good.len()..good.len()), None, message)])
    })
}
