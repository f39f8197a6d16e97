//! How a command fails: what, where, what to do next, and which exit code.

use std::fmt::{self, Display, Formatter};
use std::process::ExitCode;

use broker_transport::service_manager;

use crate::{journal, output};

/// Refused, or unhealthy.
pub(crate) const EXIT_REFUSED: u8 = 1;
/// The command line, or a file it names, is wrong.
pub(crate) const EXIT_USAGE: u8 = 2;
/// Another broker is there already.
pub(crate) const EXIT_ALREADY_RUNNING: u8 = 3;

/// A failure that a person reads.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    next: Option<String>,
    code: u8,
}

impl Failure {
    /// Something was refused or does not work.
    pub(crate) fn refused(what: impl Display) -> Self {
        Self { what: what.to_string(), next: None, code: EXIT_REFUSED }
    }

    /// The command line is wrong.
    pub(crate) fn usage(what: impl Display) -> Self {
        Self { code: EXIT_USAGE, ..Self::refused(what) }
    }

    /// Another broker is there.
    pub(crate) fn already_running(what: impl Display) -> Self {
        Self { code: EXIT_ALREADY_RUNNING, ..Self::refused(what) }
    }

    /// Says what to do next.
    #[must_use]
    pub(crate) fn next(mut self, advice: impl Into<String>) -> Self {
        self.next = Some(advice.into());
        self
    }

    /// Tells a person, who may not be there any more.
    pub(crate) fn tell(&self) {
        let text = format!("{self}\n");
        let is_journal = service_manager::logs_to_journal();
        output::for_people(&if is_journal { journal::lines(journal::ERROR, &text) } else { text });
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}
