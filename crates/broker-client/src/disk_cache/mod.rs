//! Where backends listened last time, on disk: for programs that are a new process each time, which a
//! memory of their own does not help.
//!
//! It is the [memory](crate::memory) of all processes of a user together, under the same bounds, and like
//! it says only where to try first. What an entry holds and when it counts is `entry`'s, how its file is
//! read and replaced is `file`'s; which entry is asked for is decided here. Invariants: a cache that cannot
//! be used (no place, not private, full, read-only) costs nothing but the Hello that it would have saved;
//! it has at most [`SLOTS`] entries of [`MAX_ENTRY`] bytes, whatever was asked for; and an entry counts only
//! for the very question that it answers.
//!
//! A process is told by its id alone here, as its start cannot be learnt through the socket. To be taken
//! for another one wrongly, the other must belong to the same user, must have bound the same endpoint
//! (which is random, but for a backend that was registered by hand) and must have been given the same id,
//! all within [`LONGEST`](crate::memory::LONGEST) of the Hello. A system that hands out ids in turn would
//! have had to go through all of them by then.

mod entry;
mod file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use broker_protocol::local::RememberedBackend;
use broker_protocol::local::remembered_backend::Route;
use broker_transport::endpoint;
use broker_transport::identity::boot_id;
use broker_transport::private_dir::ensure_private_dir;

use crate::agreement::Agreement;
use crate::hello::Hello;
use crate::memory::Known;

/// Longest entry, in bytes: what the usual file system takes for even the shortest file.
const MAX_ENTRY: usize = 4096;

/// How many entries there are at most. Two questions that share one forget each other's answer.
const SLOTS: u64 = 4096;

/// Name of the default place, in the directory of the user's sockets.
const DIRECTORY: &str = "hello-skip";

/// One moment by both clocks: another process knows only the system's, and only the other never goes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) instant: Instant,
    pub(crate) system: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { instant: Instant::now(), system: SystemTime::now() }
    }
}

/// Where the cache lies.
#[derive(Clone, Debug)]
pub(crate) enum DiskCache {
    /// Beside the user's sockets, which a restart of the machine usually clears away.
    DefaultPlace,
    /// In this directory.
    In(PathBuf),
}

impl DiskCache {
    /// Where the answer to `hello` lies, said to the broker at this endpoint, or to the one that the
    /// service's definition names; none where there is no place for it.
    pub(crate) fn slot(&self, broker: Option<&Path>, hello: &Hello) -> Option<Slot> {
        let dir = match self {
            Self::DefaultPlace => endpoint::current_runtime_dir().ok()?.join(DIRECTORY),
            Self::In(dir) => dir.clone(),
        };
        Some(Slot { dir, question: Question::new(broker, hello)? })
    }
}

/// What an entry is the answer to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    service_name: String,
    wanted_version: String,
    offered_capabilities: u64,
    route: Route,
}

impl Question {
    fn new(broker: Option<&Path>, hello: &Hello) -> Option<Self> {
        let bytes = |path: PathBuf| path.into_os_string().into_encoded_bytes();
        let route = match broker {
            // Another process may be in another directory.
            Some(path) => Route::BrokerEndpoint(bytes(endpoint::absolute(path).ok()?)),
            None => Route::DefinitionDir(bytes(endpoint::service_definition_dir().ok()?)),
        };
        Some(Self {
            service_name: hello.service().to_string(),
            wanted_version: hello.version().to_string(),
            offered_capabilities: hello.offered().bits(),
            route,
        })
    }

    fn is_answered_by(&self, entry: &RememberedBackend) -> bool {
        self.service_name == entry.service_name
            && self.wanted_version == entry.wanted_version
            && self.offered_capabilities == entry.offered_capabilities
            && entry.route.as_ref() == Some(&self.route)
    }

    /// A file name that is short and plain, whatever was asked for.
    fn file_name(&self) -> String {
        let (kind, route) = match &self.route {
            Route::BrokerEndpoint(path) => (b"endpoint".as_slice(), path),
            Route::DefinitionDir(path) => (b"definition".as_slice(), path),
        };
        let capabilities = self.offered_capabilities.to_le_bytes();
        let mut hasher = blake3::Hasher::new();
        for part in [self.service_name.as_bytes(), self.wanted_version.as_bytes(), &capabilities, kind, route]
        {
            // With its length, so that no byte can move from one part to the next.
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
        format!("{:03x}", u64::from_le_bytes([a, b, c, d, e, f, g, h]) % SLOTS)
    }
}

/// The place of one entry.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    dir: PathBuf,
    question: Question,
}

impl Slot {
    /// What the last process left, if it counts at `now`. Reads one small file.
    pub(crate) fn recall(&self, now: Moment) -> Option<Known> {
        let bytes = file::read(&self.path(), MAX_ENTRY)?;
        entry::decode(&bytes, &self.question, &boot_id().ok()?, now)
    }

    /// Leaves a backend that was agreed upon at `now` to the next process.
    pub(crate) fn remember(&self, known: &Known, now: SystemTime) {
        if known.agreement().keepalive.is_zero() {
            return;
        }
        let Ok(boot_id) = boot_id() else { return };
        let Some(entry) = entry::encode(known, &self.question, boot_id, now) else { return };
        if entry.len() <= MAX_ENTRY && ensure_private_dir(&self.dir).is_ok() {
            // Whatever is wrong with the disk, the session is there and the next one asks the broker.
            let _ = file::replace(&self.path(), &entry);
        }
    }

    /// Removes the entry if it is this agreement. One that another process puts there at the same moment
    /// may go with it, and costs that process's successor a Hello.
    pub(crate) fn forget(&self, agreement: &Agreement) {
        let path = self.path();
        if file::read(&path, MAX_ENTRY).is_some_and(|bytes| entry::holds(&bytes, agreement)) {
            // It may be gone already, which is what was wanted.
            let _ = std::fs::remove_file(&path);
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(self.question.file_name())
    }
}

/// What the tests of this module and of its parts have in common.
#[cfg(test)]
mod samples;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker_transport::endpoint::Platform;

    use super::samples::{agreement, hello, known, moment};
    use super::*;

    fn slot(dir: &Path, broker: &str) -> Slot {
        DiskCache::In(dir.to_path_buf()).slot(Some(Path::new(broker)), &hello("cache", "1.2.3")).unwrap()
    }

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn what_one_process_leaves_the_next_one_finds() {
        let dir = dir();
        let (here, now) = (dir.path().join("in/a/new/place"), moment());
        assert!(slot(&here, "/b").recall(now).is_none());
        slot(&here, "/b").remember(&known(&agreement()), now.system);
        assert_eq!(**slot(&here, "/b").recall(now).unwrap().agreement(), agreement());
        let newer = Agreement { warnings: vec!["newer".into()], ..agreement() };
        slot(&here, "/b").remember(&known(&newer), now.system);
        assert_eq!(**slot(&here, "/b").recall(now).unwrap().agreement(), newer);
    }

    #[test]
    fn an_entry_in_the_place_of_another_question_s_answer_is_none() {
        let (dir, now) = (dir(), moment());
        let (one, other) = (slot(dir.path(), "/b"), slot(dir.path(), "/c"));
        one.remember(&known(&agreement()), now.system);
        std::fs::copy(one.path(), other.path()).unwrap();
        assert!(one.recall(now).is_some() && other.recall(now).is_none());
    }

    #[test]
    fn nothing_that_is_no_entry_is_recalled() {
        let (dir, now) = (dir(), moment());
        let slot = slot(dir.path(), "/b");
        for content in [&b""[..], b"\xFF", b"garbage", &[0; MAX_ENTRY], &[0x0A; MAX_ENTRY + 1]] {
            std::fs::write(slot.path(), content).unwrap();
            assert!(slot.recall(now).is_none());
            slot.forget(&agreement());
        }
        slot.remember(&known(&agreement()), now.system);
        assert!(slot.recall(now).is_some(), "and it stands in nobody's way");
    }

    #[test]
    fn the_longest_entry_is_written_and_one_more_byte_is_not() {
        let (dir, now) = (dir(), moment());
        let slot = slot(dir.path(), "/b");
        let warned = |length| Agreement { warnings: vec!["x".repeat(length)], ..agreement() };
        slot.remember(&known(&warned(MAX_ENTRY / 2)), now.system);
        let rest = MAX_ENTRY - usize::try_from(slot.path().metadata().unwrap().len()).unwrap();
        let longest = warned(MAX_ENTRY / 2 + rest);
        slot.remember(&known(&longest), now.system);
        assert_eq!(slot.path().metadata().unwrap().len(), MAX_ENTRY as u64);
        assert_eq!(**slot.recall(now).unwrap().agreement(), longest);
        slot.remember(&known(&warned(MAX_ENTRY / 2 + rest + 1)), now.system);
        assert_eq!(**slot.recall(now).unwrap().agreement(), longest);
    }

    #[test]
    fn a_backend_without_keepalive_is_not_written_down() {
        let dir = dir();
        let unkept = Agreement { keepalive: Duration::ZERO, ..agreement() };
        slot(dir.path(), "/b").remember(&known(&unkept), moment().system);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_the_agreement_that_failed_is_forgotten() {
        let (dir, now) = (dir(), moment());
        let slot = slot(dir.path(), "/b");
        let failed = Agreement { warnings: vec!["older".into()], ..agreement() };
        slot.remember(&known(&agreement()), now.system);
        slot.forget(&failed);
        assert!(slot.recall(now).is_some());
        slot.forget(&agreement());
        assert!(!slot.path().exists());
        slot.forget(&agreement());
    }

    #[test]
    #[allow(deprecated, reason = "the one way to make a link that every platform has")]
    fn a_place_that_cannot_be_used_is_done_without() {
        let (place, now) = (dir(), moment());
        let (file, real, link) =
            (place.path().join("f"), place.path().join("real"), place.path().join("link"));
        std::fs::write(&file, "").unwrap();
        slot(&real, "/b").remember(&known(&agreement()), now.system);
        std::fs::soft_link(&real, &link).unwrap();
        let mut unusable = vec![file.join("below"), file, PathBuf::from("relative"), PathBuf::new()];
        // Wine says that it has made a link, and has not.
        unusable.extend(link.is_symlink().then_some(link));
        for dir in unusable {
            let slot = slot(&dir, "/b");
            slot.remember(&known(&agreement()), now.system);
            assert!(slot.recall(now).is_none(), "{}", dir.display());
            slot.forget(&agreement());
        }
        assert!(slot(&real, "/b").recall(now).is_some(), "nothing was changed through the link");
        assert!(!Path::new("relative").exists());
    }

    #[test]
    fn a_file_name_is_short_and_plain_whatever_was_asked_for() {
        let long = format!("/{}", "../x\n".repeat(1_000));
        let names: Vec<_> = ["/b", "/c", &long]
            .iter()
            .map(|broker| slot(Path::new("/d"), broker).question.file_name())
            .collect();
        for name in &names {
            assert!(name.len() == 3 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        }
        assert!(names[0] != names[1] && names[1] != names[2]);
    }

    #[test]
    fn each_part_of_a_question_makes_it_another_one() {
        let ask = |broker, service, version| Question::new(broker, &hello(service, version)).unwrap();
        let endpoint = Some(Path::new("/b"));
        let question = ask(endpoint, "cache", "1.2.3");
        let offering = hello("cache", "1.2.3").capabilities(broker_protocol::Capabilities::EARLY_DATA);
        for other in [
            ask(Some(Path::new("/c")), "cache", "1.2.3"),
            ask(endpoint, "cachf", "1.2.3"),
            ask(endpoint, "cache", "1.2.4"),
            Question::new(endpoint, &offering).unwrap(),
        ] {
            assert_ne!(question, other);
            assert_ne!(question.file_name(), other.file_name());
        }
        let same_bytes = Question { route: Route::DefinitionDir(b"/b".into()), ..question.clone() };
        assert_ne!(question.file_name(), same_bytes.file_name());
        let here = match Platform::CURRENT {
            Platform::Linux | Platform::MacOs => std::env::current_dir().unwrap().join("b.sock"),
            Platform::Windows => r"\\.\pipe\b.sock".into(),
        };
        assert_eq!(ask(Some(&here), "cache", "1.2.3"), ask(Some(Path::new("b.sock")), "cache", "1.2.3"));
    }
}
