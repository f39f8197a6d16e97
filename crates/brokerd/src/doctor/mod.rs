//! `brokerd doctor`: looks for what keeps brokers, clients and backends from working, and says how to mend it.
//!
//! A check is a function from [`Facts`] to [`Finding`]s; `table` lists them all. Invariants: nothing is created,
//! changed or locked; and the report comes, whoever does not answer: a check that does not end is one that fails.

mod checks;
mod contact;
mod facts;
mod finding;
mod mend;
mod place;
mod report;
mod table;

use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use facts::Facts;
use finding::{Finding, Status};
use report::{Report, Row};
use table::{CHECKS, Check, Look};

use crate::cli::DoctorArgs;
use crate::failure::EXIT_REFUSED;

/// How long one check may take. Those that ask somebody end well before; what takes longer is a file system that
/// does not answer, or an executable without end.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// Makes every check and prints what they found.
pub(crate) fn run(args: DoctorArgs) -> ExitCode {
    let is_json = args.json;
    let report = Report::new(examine(CHECKS, Facts::new(args), CHECK_LIMIT));
    if is_json {
        report.print_json();
    } else {
        report.print_text();
    }
    if report.has(Status::Fail) { ExitCode::from(EXIT_REFUSED) } else { ExitCode::SUCCESS }
}

/// The checks run one after the other on a thread of their own, so that one that hangs does not keep the others'
/// findings back.
fn examine(checks: &'static [Check], facts: Facts, limit: Duration) -> Vec<Row> {
    let (sender, findings) = channel();
    std::thread::spawn(move || make(checks, &facts, &sender));
    let mut rows = Vec::new();
    for (position, check) in checks.iter().enumerate() {
        match findings.recv_timeout(limit) {
            Ok(found) => rows.extend(found),
            Err(error) => {
                rows.push(Row { id: check.id.to_owned(), finding: unfinished(error, limit) });
                let rest = checks[position + 1..].iter();
                rows.extend(rest.map(|check| Row {
                    id: check.id.to_owned(),
                    finding: Finding::skip("not looked at, as a check before it did not end"),
                }));
                break;
            }
        }
    }
    rows
}

fn make(checks: &[Check], facts: &Facts, findings: &Sender<Vec<Row>>) {
    for check in checks {
        // Whoever waited has given up.
        if findings.send(rows_of(check, facts)).is_err() {
            return;
        }
    }
}

fn rows_of(check: &Check, facts: &Facts) -> Vec<Row> {
    match check.look {
        Look::One(look) => vec![Row { id: check.id.to_owned(), finding: look(facts) }],
        Look::Each(look) => {
            let named = look(facts).into_iter();
            let row = |(name, finding): (String, _)| Row { id: format!("{}.{name}", check.id), finding };
            named.map(row).collect()
        }
    }
}

fn unfinished(error: RecvTimeoutError, limit: Duration) -> Finding {
    let found = match error {
        RecvTimeoutError::Timeout => format!("the check did not end within {} s", limit.as_secs()),
        RecvTimeoutError::Disconnected => "the check broke off".to_owned(),
    };
    Finding::fail(found, "df").detail("where `df` hangs as well, a file system does not answer: unmount it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use table::one;

    #[test]
    fn a_check_that_hangs_or_breaks_off_fails_and_what_others_found_is_told() {
        const HANGING: &[Check] = &[
            one("a", |_| Finding::pass("fine")),
            one("b", |_| {
                loop {
                    std::thread::park();
                }
            }),
            one("c", |_| Finding::pass("never told")),
        ];
        let args = || DoctorArgs {
            json: false,
            instance: broker_protocol::BrokerInstance::Shared,
            socket: None,
            service_dir: None,
            state_dir: None,
        };
        let rows = examine(HANGING, Facts::new(args()), Duration::from_secs(1));
        let statuses: Vec<_> = rows.iter().map(|row| (&*row.id, row.finding.status)).collect();
        assert_eq!(statuses, [("a", Status::Pass), ("b", Status::Fail), ("c", Status::Skip)]);
        assert!(rows[1].finding.found.contains("within 1 s"), "{}", rows[1].finding.found);

        const BREAKING: &[Check] = &[one("a", |_| panic!("as a check must not"))];
        let rows = examine(BREAKING, Facts::new(args()), CHECK_LIMIT);
        assert_eq!(rows[0].finding.status, Status::Fail);
    }
}
