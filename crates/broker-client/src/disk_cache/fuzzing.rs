//! Entries without their files: the question, the boot and the moment are fixed, so that the bytes alone decide.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{MAX_ENTRY, Moment, Question, entry};
use crate::agreement::Agreement;
use crate::fuzzing::Remembered;
use crate::hello::Hello;
use crate::memory::{Known, LONGEST};
use broker_transport::peer::PeerCredentials;

const BOOT: &str = "this boot";

/// The entries that answer one Hello to one broker in one boot, as they are read at one moment.
#[derive(Debug)]
pub struct DiskEntries {
    question: Question,
    now: Moment,
}

impl DiskEntries {
    /// Longest entry, in bytes.
    pub const LONGEST_ENTRY: usize = MAX_ENTRY;

    /// How long an entry counts at most.
    pub const LONGEST_TIME: Duration = LONGEST;

    /// Those that answer `hello`, said to the broker at `broker`; none where there is no such place.
    pub fn new(broker: &Path, hello: &Hello) -> Option<Self> {
        let now = Moment { instant: Instant::now(), system: moment() };
        Some(Self { question: Question::new(Some(broker), hello)?, now })
    }

    /// The entry of a backend that was agreed upon `age` ago.
    pub fn encode(&self, agreement: &Agreement, listener: PeerCredentials, age: Duration) -> Option<Vec<u8>> {
        let known = Known::new(&Arc::new(agreement.clone()), listener, self.now.instant)?;
        entry::encode(&known, &self.question, BOOT.to_owned(), self.now.system - age)
    }

    /// The backend that an entry tells of, if it is an answer and counts.
    pub fn decode(&self, bytes: &[u8]) -> Option<Remembered> {
        let known = entry::decode(bytes, &self.question, BOOT, self.now)?;
        let agreement = Agreement::clone(known.agreement());
        Some(Remembered { agreement, listener: known.listener(), until: known.until() })
    }

    /// Whether an entry, whatever it is the answer to, is this agreement.
    pub fn holds(&self, bytes: &[u8], agreement: &Agreement) -> bool {
        entry::holds(bytes, agreement)
    }

    /// When the entries are read.
    pub const fn read_at(&self) -> Instant {
        self.now.instant
    }
}

/// A moment long after the epoch, and before every real one.
fn moment() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000)
}
