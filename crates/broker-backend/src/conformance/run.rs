//! One check after another, and what follows from one for the next.
//!
//! It knows the order and no rule. Invariants: a check whose ground another one has taken away is skipped and
//! says so; once the service does not answer any more, nothing else is asked of it.

use std::path::PathBuf;

use super::report::{Check, Outcome, Report, Verdict, skipped};
use super::subject::Subject;

/// The checks under way.
pub(super) struct Run {
    report: Report,
    /// The check after which the service was found to be gone.
    gone_since: Option<Check>,
}

impl Run {
    pub(super) const fn new(endpoint: PathBuf) -> Self {
        Self { report: Report::new(endpoint), gone_since: None }
    }

    pub(super) fn into_report(self) -> Report {
        self.report
    }

    /// Notes what a check found that asks nothing of the service.
    pub(super) fn note(&mut self, check: Check, outcome: Outcome) {
        self.report.add(check, outcome.into());
    }

    /// Carries out a check, if those that it stands on have passed.
    pub(super) async fn check(
        &mut self,
        subject: &Subject,
        check: Check,
        needs: &[Check],
        carry_out: impl Future<Output = Outcome>,
    ) {
        let outcome = match self.hindrance(needs) {
            Some(why) => Err(skipped(why)),
            None => carry_out.await,
        };
        let verdict = Verdict::from(outcome);
        let is_failed = matches!(verdict, Verdict::Failed { .. });
        self.report.add(check, verdict);
        if is_failed && self.gone_since.is_none() && subject.probe_anew().await.is_err() {
            self.gone_since = Some(check);
        }
    }

    fn hindrance(&self, needs: &[Check]) -> Option<String> {
        if let Some(since) = self.gone_since {
            return Some(format!("the service does not answer any more since {}", since.name));
        }
        let missing = needs.iter().find(|need| self.report.verdict(**need) != Some(&Verdict::Passed))?;
        Some(format!("{} did not pass", missing.name))
    }
}
