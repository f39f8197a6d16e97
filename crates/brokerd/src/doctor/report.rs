//! The report, for people and for programs.
//!
//! Invariant: whatever names and values were found, a terminal sees them as text and is told nothing by them.

use std::fmt::Write as _;
use std::io::IsTerminal;

use serde::Serialize;

use super::finding::{Finding, Status};
use crate::output;

/// A check's id and what it found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) id: String,
    #[serde(flatten)]
    pub(super) finding: Finding,
}

/// All rows.
pub(super) struct Report {
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Body<'a> {
    checks: &'a [Row],
    summary: Summary,
}

#[derive(Serialize)]
struct Summary {
    pass: usize,
    warn: usize,
    fail: usize,
    skip: usize,
}

/// Whether a status is told by colour, too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Colour {
    On,
    Off,
}

impl Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    fn wanted() -> Self {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if std::io::stdout().is_terminal() && !is_unwanted { Self::On } else { Self::Off }
    }

    fn paint(self, status: Status) -> String {
        let code = match status {
            Status::Pass => 32,
            Status::Warn => 33,
            Status::Fail => 31,
            Status::Skip => 2,
        };
        match self {
            Self::On => format!("\x1b[{code}m{}\x1b[0m", status.as_str()),
            Self::Off => status.as_str().to_owned(),
        }
    }
}

impl Report {
    pub(super) const fn new(rows: Vec<Row>) -> Self {
        Self { rows }
    }

    pub(super) fn has(&self, status: Status) -> bool {
        self.count(status) > 0
    }

    fn count(&self, status: Status) -> usize {
        self.rows.iter().filter(|row| row.finding.status == status).count()
    }

    fn summary(&self) -> Summary {
        Summary {
            pass: self.count(Status::Pass),
            warn: self.count(Status::Warn),
            fail: self.count(Status::Fail),
            skip: self.count(Status::Skip),
        }
    }

    pub(super) fn print_json(&self) {
        output::json_answer("doctor", &Body { checks: &self.rows, summary: self.summary() });
    }

    pub(super) fn print_text(&self) {
        output::text_out(&self.to_text(Colour::wanted()));
    }

    fn to_text(&self, colour: Colour) -> String {
        let width = self.rows.iter().map(|row| row.id.chars().count()).max().unwrap_or_default();
        let mut text = String::new();
        let mut group = "";
        for Row { id, finding } in &self.rows {
            let own = id.split('.').next().unwrap_or_default();
            if own != group {
                group = own;
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{}{group}", if text.is_empty() { "" } else { "\n" });
            }
            let status = colour.paint(finding.status);
            let _ = writeln!(text, "  {status}  {id:width$}  {}", plain(&finding.found));
            if let Some(mend) = &finding.mend {
                let _ = writeln!(text, "        mend: {}", plain(mend));
            }
            if let Some(detail) = finding.detail.as_ref().filter(|_| !finding.is_in_order()) {
                let _ = writeln!(text, "        note: {}", plain(detail));
            }
        }
        let Summary { pass, warn, fail, skip } = self.summary();
        let _ = writeln!(text, "\n{pass} PASS, {warn} WARN, {fail} FAIL, {skip} SKIP");
        text
    }
}

/// Without anything that a terminal would act on.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            character if character.is_control() => plain.extend(character.escape_default()),
            character => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let row = |id: &str, finding| Row { id: id.to_owned(), finding };
        Report::new(vec![
            row("env.a", Finding::pass("fine").detail("unseen")),
            row("env.longer", Finding::warn("\x1b[2Jred\n", "unset 'A'").detail("why")),
            row("dirs.a", Finding::skip("none")),
        ])
    }

    #[test]
    fn a_check_is_a_line_in_its_group_and_what_is_not_in_order_has_its_mend_below() {
        let expected = "env\n\
            \u{20} PASS  env.a       fine\n\
            \u{20} WARN  env.longer  \\u{1b}[2Jred\\n\n\
            \u{20}       mend: unset 'A'\n\
            \u{20}       note: why\n\
            \n\
            dirs\n\
            \u{20} SKIP  dirs.a      none\n\
            \n\
            1 PASS, 1 WARN, 0 FAIL, 1 SKIP\n";
        assert_eq!(report().to_text(Colour::Off), expected);
    }

    #[test]
    fn colour_is_the_status_words_alone() {
        let text = report().to_text(Colour::On);
        assert!(text.contains("\x1b[33mWARN\x1b[0m  env.longer  \\u{1b}"), "{text}");
        assert_eq!(text.matches('\x1b').count(), 6);
    }

    #[test]
    fn programs_get_the_same_keys_for_every_check() {
        let rows = serde_json::to_value(report().rows).unwrap();
        for row in rows.as_array().unwrap() {
            let keys: Vec<_> = row.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["id", "status", "found", "mend", "detail"]);
        }
        assert_eq!((&rows[1]["status"], &rows[2]["mend"]), (&"WARN".into(), &serde_json::Value::Null));
    }
}
