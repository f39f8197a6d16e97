//! The schedules of the threads that share something, searched for one that breaks what they promise.
//!
//! Invariant: a search of nothing fails, so that tests which are renamed are not passed over.

use std::process::{Command, Stdio};

use crate::workspace::{TaskError, TaskResult, root};

/// The crates that share something between threads, with shuttle's locks in their tests.
pub(crate) const SELECTION: [&str; 6] = [
    "--package",
    "broker-transport",
    "--package",
    "broker-client",
    "--features",
    "broker-transport/shuttle,broker-client/shuttle",
];

/// How many crates these are.
const PACKAGES: usize = 2;

/// What takes those locks. The other tests of these crates do not run with them.
const TESTS: &str = "schedules::";

/// How many schedules each scheduler tries, for the tests.
const VARIABLE: &str = "BROKER_SCHEDULES";

const USAGE: &str = "\
usage: cargo xtask schedules              search as `ci` does
       cargo xtask schedules --tries N    try N schedules with each scheduler that chooses at random
";

/// Searches as the options say.
pub(crate) fn run(options: &[&str]) -> TaskResult {
    match options {
        [] => search(None),
        ["--tries", number] => match number.parse() {
            Ok(number) => search(Some(number)),
            Err(_) => Err(format!("{number:?} is not a number of schedules\n{USAGE}").into()),
        },
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => Err(format!("cannot read these options of schedules\n{USAGE}").into()),
    }
}

fn search(tries: Option<usize>) -> TaskResult {
    let mut cargo = Command::new("cargo");
    cargo.arg("test").args(SELECTION).args(["--lib", TESTS]).current_dir(root());
    if let Some(tries) = tries {
        cargo.env(VARIABLE, tries.to_string());
    }
    let output = cargo.stderr(Stdio::inherit()).output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    print!("{told}");
    if !output.status.success() {
        return Err("a schedule breaks a promise; it is printed above".into());
    }
    every_package_ran(&told)
}

fn every_package_ran(told: &str) -> Result<(), TaskError> {
    let ran = told.lines().filter(|line| line.starts_with("running ") && !line.starts_with("running 0 "));
    if ran.count() == PACKAGES {
        Ok(())
    } else {
        Err(format!("expected tests in `{TESTS}` of {PACKAGES} crates, and not all have some").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_such_tests_is_a_failure() {
        assert!(every_package_ran("running 11 tests\nok\nrunning 3 tests\nok").is_ok());
        assert!(every_package_ran("running 11 tests\nok\nrunning 0 tests\nok").is_err());
        assert!(every_package_ran("").is_err());
    }

    #[test]
    fn what_is_no_number_of_schedules_is_refused_with_the_usage() {
        for options in [&["--tries"][..], &["--tries", "many"], &["--tries", "-1"], &["everything"]] {
            let error = run(options).unwrap_err().to_string();
            assert!(error.contains("usage: cargo xtask schedules"), "{error}");
        }
    }
}
