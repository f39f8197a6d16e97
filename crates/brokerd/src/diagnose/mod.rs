//! `diagnose`: one archive with everything that helps to understand a broker, and nothing that is a secret.
//!
//! The broker writes it, so every client that speaks the admin protocol can ask for one. Here is what happens
//! beside its event loop, on a thread that may wait for a disk; `serve/diagnosis.rs` gathers what the broker
//! knows. Invariants: nothing is written that was not redacted, as an archive takes nothing but a
//! [`Redacted`](crate::redact::Redacted); what exists is not overwritten; at the output path is a whole archive
//! or nothing of it; of everything that grows only so much is read, and it is said how much.

mod answer;
mod archive;
pub(crate) mod command;
mod error;
mod events;
mod gathered;
mod manifests;
mod output;
mod part;
mod processes;
mod report;
mod system;
pub(crate) mod utc;

use std::path::PathBuf;

use broker_core::time::UnixMillis;

pub(crate) use self::answer::Diagnosis;
use self::archive::Archive;
pub(crate) use self::error::DiagnoseError;
use self::gathered::Gathered;
pub(crate) use self::output::output_of;
use self::part::Part;
pub(crate) use self::system::Surroundings;
use crate::redact::Redactor;

/// What the broker says about itself: bodies of its own admin answers.
pub(crate) struct Said {
    pub(crate) status: String,
    pub(crate) dump: String,
    pub(crate) config: String,
    pub(crate) metrics: String,
}

/// An archive that is to be written.
pub(crate) struct Order {
    pub(crate) output: PathBuf,
    pub(crate) now: UnixMillis,
    pub(crate) said: Said,
    pub(crate) event_log: PathBuf,
    pub(crate) surroundings: Surroundings,
}

impl Order {
    /// Writes the archive. Takes as long as the disk does.
    ///
    /// # Errors
    /// [`DiagnoseError`]; then there is nothing at the output path, or what was there before.
    pub(crate) fn carry_out(self) -> Result<Diagnosis, DiagnoseError> {
        output::refuse_to_overwrite(&self.output)?;
        let unwritable = |error| output::unwritable(&self.output, error, &self.surroundings);
        let redactor = Redactor::of_this_user();
        let gathered = Gathered::new(&self, &redactor);
        // All of it first: while there is a file beside the output path, the broker had better not end.
        let parts = Part::ALL.map(|part| (part, gathered.part(part)));
        drop(gathered);
        let mut diagnosis = Diagnosis::new(self.output.clone());
        let mut archive = Archive::create(&self.output, self.now).map_err(unwritable)?;
        for (part, found) in parts {
            if let Ok(found) = &found {
                archive.add(part.path(), &found.text).map_err(unwritable)?;
            }
            diagnosis.add(part, found, &redactor);
        }
        archive.finish().map_err(unwritable)?;
        Ok(diagnosis.with_counts(redactor.counts()))
    }
}
