//! What the checks found, for people and for a test's `assert`.
//!
//! It judges nothing. Invariant: every check that exists is in a report once, and one that was not carried
//! out says why.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

/// A check, by its name and by the rule that it holds a service to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// `group/what`, as in `probe/pid`.
    pub name: &'static str,
    /// Where the rule stands: the file of the specification and its section.
    pub section: &'static str,
}

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The service keeps the rule.
    Passed,
    /// It does not.
    Failed {
        /// What the rule asks for.
        expected: String,
        /// What the service did.
        came: String,
    },
    /// It could not be found out, or there is nothing to find out.
    Skipped {
        /// Why.
        why: String,
    },
}

/// A check and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// What became of it.
    pub verdict: Verdict,
}

/// Every check, in the order in which they were carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    endpoint: PathBuf,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) const fn new(endpoint: PathBuf) -> Self {
        Self { endpoint, findings: Vec::new() }
    }

    pub(super) fn add(&mut self, check: Check, verdict: Verdict) {
        self.findings.push(Finding { check, verdict });
    }

    pub(super) fn verdict(&self, check: Check) -> Option<&Verdict> {
        self.findings.iter().find(|finding| finding.check == check).map(|finding| &finding.verdict)
    }

    /// The endpoint of the service that was checked.
    pub fn endpoint(&self) -> &Path {
        &self.endpoint
    }

    /// All findings.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The names of the checks that failed.
    pub fn failed(&self) -> Vec<&'static str> {
        self.named(|verdict| matches!(verdict, Verdict::Failed { .. }))
    }

    /// The names of the checks that were skipped.
    pub fn skipped(&self) -> Vec<&'static str> {
        self.named(|verdict| matches!(verdict, Verdict::Skipped { .. }))
    }

    /// Fails the test that calls it, with the report as a table, if any check failed. A skipped one is no
    /// failure: [`Report::skipped`] names those.
    ///
    /// # Panics
    /// A check failed.
    #[track_caller]
    pub fn assert_passed(&self) {
        assert!(self.failed().is_empty(), "{self}");
    }

    fn named(&self, is_wanted: impl Fn(&Verdict) -> bool) -> Vec<&'static str> {
        let wanted = self.findings.iter().filter(|finding| is_wanted(&finding.verdict));
        wanted.map(|finding| finding.check.name).collect()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (failed, skipped) = (self.failed().len(), self.skipped().len());
        let passed = self.findings.len() - failed - skipped;
        writeln!(f, "{}: {passed} passed, {failed} failed, {skipped} skipped", self.endpoint.display())?;
        let width = self.findings.iter().map(|finding| finding.check.name.len()).max().unwrap_or(0);
        for Finding { check: Check { name, section }, verdict } in &self.findings {
            match verdict {
                Verdict::Passed => writeln!(f, "  passed   {name}")?,
                Verdict::Skipped { why } => writeln!(f, "  skipped  {name:width$}  {why}")?,
                Verdict::Failed { expected, came } => {
                    writeln!(f, "  FAILED   {name:width$}  {section}")?;
                    writeln!(f, "             expected  {expected}")?;
                    writeln!(f, "             came      {came}")?;
                }
            }
        }
        Ok(())
    }
}

/// Why a check does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Failed { expected: String, came: String },
    Skipped { why: String },
}

/// How a check ends.
pub(super) type Outcome<T = ()> = Result<T, Stop>;

pub(super) fn failed(expected: impl Display, came: impl Display) -> Stop {
    Stop::Failed { expected: expected.to_string(), came: came.to_string() }
}

pub(super) fn skipped(why: impl Display) -> Stop {
    Stop::Skipped { why: why.to_string() }
}

/// That `came` is what was expected; otherwise the failure that names the two.
pub(super) fn expect_same<T: PartialEq + Display>(what: &str, expected: T, came: T) -> Outcome {
    if expected == came {
        Ok(())
    } else {
        Err(failed(format_args!("{what} {expected}"), format_args!("{came}")))
    }
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(()) => Self::Passed,
            Err(Stop::Failed { expected, came }) => Self::Failed { expected, came },
            Err(Stop::Skipped { why }) => Self::Skipped { why },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Check = Check { name: "probe/good", section: "protocol.md, 1" };
    const BAD: Check = Check { name: "probe/quite-bad", section: "protocol.md, 2" };
    const LEFT: Check = Check { name: "probe/left", section: "protocol.md, 3" };

    fn report() -> Report {
        let mut report = Report::new("/run/me.sock".into());
        report.add(GOOD, Ok(()).into());
        report.add(BAD, expect_same("pid", 7, 8).into());
        report.add(LEFT, Err(skipped("nobody asked")).into());
        report
    }

    #[test]
    fn a_failure_says_what_was_expected_what_came_and_where_the_rule_stands() {
        let expected = "\
/run/me.sock: 1 passed, 1 failed, 1 skipped
  passed   probe/good
  FAILED   probe/quite-bad  protocol.md, 2
             expected  pid 7
             came      8
  skipped  probe/left       nobody asked
";
        assert_eq!(report().to_string(), expected);
        assert_eq!((report().failed(), report().skipped()), (vec![BAD.name], vec![LEFT.name]));
    }

    #[test]
    #[should_panic(expected = "FAILED   probe/quite-bad")]
    fn a_failure_fails_the_test() {
        report().assert_passed();
    }

    #[test]
    fn what_was_skipped_fails_no_test() {
        let mut report = Report::new("/run/me.sock".into());
        report.add(LEFT, Err(skipped("nobody asked")).into());
        report.assert_passed();
        assert_eq!(report.verdict(LEFT), Some(&Verdict::Skipped { why: "nobody asked".into() }));
        assert_eq!(report.verdict(GOOD), None);
    }
}
