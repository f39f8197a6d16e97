//! What a check finds.
//!
//! Invariant: whatever is not in order comes with what mends it.

use serde::Serialize;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Status {
    /// It cannot apply here.
    Skip,
    /// In order.
    Pass,
    /// It works, though not as it should.
    Warn,
    /// It does not work.
    Fail,
}

impl Status {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
            Self::Skip => "SKIP",
        }
    }
}

/// What a check found, in the order in which JSON has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) status: Status,
    pub(super) found: String,
    pub(super) mend: Option<String>,
    pub(super) detail: Option<String>,
}

impl Finding {
    pub(super) fn pass(found: impl Into<String>) -> Self {
        Self { status: Status::Pass, found: found.into(), mend: None, detail: None }
    }

    /// It cannot apply, for this reason.
    pub(super) fn skip(reason: impl Into<String>) -> Self {
        Self { status: Status::Skip, ..Self::pass(reason) }
    }

    /// It works, though not as it should; `mend` is a command.
    pub(super) fn warn(found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { status: Status::Warn, mend: Some(mend.into()), ..Self::pass(found) }
    }

    /// It does not work; `mend` is a command.
    pub(super) fn fail(found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { status: Status::Fail, ..Self::warn(found, mend) }
    }

    /// Says more than fits on a line.
    #[must_use]
    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(super) fn is_in_order(&self) -> bool {
        self.status <= Status::Pass
    }

    /// The one of them that matters most; of equals the first.
    pub(super) fn worst(findings: impl IntoIterator<Item = Self>) -> Option<Self> {
        findings
            .into_iter()
            .reduce(|worst, finding| if finding.status > worst.status { finding } else { worst })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_findings_counts_and_of_equals_the_first() {
        let all = [Finding::skip("a"), Finding::warn("b", "x"), Finding::warn("c", "x"), Finding::pass("d")];
        assert_eq!(Finding::worst(all).unwrap().found, "b");
        assert_eq!(Finding::worst([]), None);
        assert!(Finding::skip("").is_in_order() && !Finding::fail("", "x").is_in_order());
    }
}
