//! `brokerd config check`: whether a file would be taken, and everything that is wrong with it.
//!
//! Asks no broker and changes nothing. Exit codes: 0 it would be taken, 1 it would not, 2 there is nothing to read.

use std::process::ExitCode;

use serde::Serialize;

use super::file::{Fault, Location, NotRead};
use super::problem::Problem;
use crate::cli::ConfigCheckArgs;
use crate::failure::{EXIT_REFUSED, EXIT_USAGE, Failure};
use crate::output;

#[derive(Serialize)]
struct Report {
    file: Option<String>,
    /// Whether there is one.
    found: bool,
    ok: bool,
    /// What is wrong with the file as a whole.
    error: Option<String>,
    problems: Vec<Problem>,
}

/// Checks the file that is named, or the usual one.
pub(crate) fn run(args: &ConfigCheckArgs) -> Result<ExitCode, Failure> {
    let location = Location::new(args.file.as_deref())?;
    let file = location.path().map(|path| path.display().to_string());
    let mut report = Report { file, found: true, ok: false, error: None, problems: Vec::new() };
    let (code, lines) = match location.read() {
        Ok(file) => {
            report.ok = true;
            report.found = file.path.is_some();
            let path = report.file.as_deref().unwrap_or("(no place for it)");
            let verdict =
                if report.found { "it is good" } else { "there is no such file, so the defaults hold" };
            (0, vec![format!("{path}: {verdict}")])
        }
        Err(not_read) => {
            let lines = not_read.all_lines();
            let code = match not_read {
                NotRead { fault: Fault::Wrong(problems), .. } => {
                    report.problems = problems;
                    EXIT_REFUSED
                }
                NotRead { fault, .. } => {
                    report.error = Some(fault.to_string());
                    report.found = !matches!(fault, Fault::Absent);
                    if matches!(fault, Fault::Absent | Fault::Io(_) | Fault::Link(_)) {
                        EXIT_USAGE
                    } else {
                        EXIT_REFUSED
                    }
                }
            };
            (code, lines)
        }
    };
    if args.json {
        output::json_answer("config-check", &report);
    } else {
        output::text_out(&(lines.join("\n") + "\n"));
    }
    Ok(ExitCode::from(code))
}
