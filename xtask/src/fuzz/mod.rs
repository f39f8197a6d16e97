//! Runs the fuzz targets, and tells what each came to.
//!
//! What is built, found and logged lies in `target/fuzz`; only `--keep` writes into the repository, into
//! `fuzz/corpus`, a few inputs that reach what nothing there does. Invariant: a target that was asked for is run for
//! the whole time, or has failed, and then this fails.

mod figures;
mod kept;
mod programs;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use figures::Figures;
use programs::Programs;

use crate::workspace::{TaskError, TaskResult, root};

const USAGE: &str = "\
usage: cargo xtask fuzz [TARGET]... [--seconds N] [--jobs N] [--keep]

options:
  TARGET        the targets to run, out of fuzz/fuzz_targets (without one, all of them)
  --seconds N   how long each of them runs (600)
  --jobs N      how many of them run at a time (1)
  --keep        add to fuzz/corpus, in the end, a few inputs that reach most of what nothing there does
";

/// How long a target runs where nobody says otherwise, in seconds.
const SECONDS: u64 = 600;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    targets: Vec<String>,
    seconds: u64,
    jobs: usize,
    keeps: bool,
}

/// Where a target's files are.
#[derive(Clone, Debug)]
struct Places {
    /// The inputs in the repository.
    corpus: PathBuf,
    /// What runs have found since.
    found: PathBuf,
    /// Inputs that it failed on.
    failures: PathBuf,
    log: PathBuf,
}

impl Places {
    fn of(target: &str) -> Self {
        let work = root().join("target/fuzz");
        Self {
            corpus: root().join("fuzz/corpus").join(target),
            found: work.join("found").join(target),
            failures: work.join("failures").join(target),
            log: work.join("logs").join(target).with_extension("log"),
        }
    }
}

/// Does what the options ask for.
pub(crate) fn run(options: &[&str]) -> TaskResult {
    if matches!(options, ["help" | "--help" | "-h"]) {
        print!("{USAGE}");
        return Ok(());
    }
    let plan = parse(options, &targets()?)?;
    let programs = Programs::build()?;
    println!("{}", Figures::HEAD);
    let waiting: Mutex<VecDeque<_>> = Mutex::new(plan.targets.iter().cloned().collect());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..plan.jobs {
            scope.spawn(|| {
                while let Some(target) = take(&waiting) {
                    match fuzz(&programs, &target, &plan) {
                        Ok(figures) => println!("{figures}"),
                        Err(error) => {
                            println!("{error}");
                            lock(&failed).push(target);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    if failed.is_empty() { Ok(()) } else { Err(format!("fuzz: failed: {}", failed.join(", ")).into()) }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn take(waiting: &Mutex<VecDeque<String>>) -> Option<String> {
    lock(waiting).pop_front()
}

fn fuzz(programs: &Programs, target: &str, plan: &Plan) -> Result<Figures, String> {
    let places = Places::of(target);
    let told = |error: TaskError| format!("{target}: {error}");
    let ended = programs.fuzz(target, &places, plan.seconds).map_err(told)?;
    let log = fs::read_to_string(&places.log).map_err(|error| told(error.into()))?;
    let figures = Figures::read(target, &log, files_in(&places.failures));
    if !ended.success() {
        let (log, failures) = (places.log.display(), places.failures.display());
        // Who is interrupted has failed on no input.
        return Err(match files_in(&places.failures) {
            0 => format!("{figures}\n{target} has ended before its time; {log} tells how"),
            _ => format!("{figures}\n{target} has failed; {log} tells how, and the input lies in {failures}"),
        });
    }
    if plan.keeps {
        programs.keep(target, &places).map_err(told)?;
    }
    Ok(figures)
}

fn files_in(folder: &Path) -> usize {
    fs::read_dir(folder).map(Iterator::count).unwrap_or_default()
}

/// Every target there is, by name.
fn targets() -> Result<Vec<String>, TaskError> {
    let mut names: Vec<_> = fs::read_dir(root().join("fuzz/fuzz_targets"))?
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn parse(options: &[&str], known: &[String]) -> Result<Plan, TaskError> {
    let mut plan = Plan { targets: Vec::new(), seconds: SECONDS, jobs: 1, keeps: false };
    let mut options = options.iter().copied();
    while let Some(option) = options.next() {
        let mut number = || {
            let value = options.next().and_then(|value| value.parse().ok()).filter(|number| *number > 0);
            value.ok_or_else(|| format!("{option} takes a number of at least 1\n{USAGE}"))
        };
        match option {
            "--seconds" => plan.seconds = number()?,
            "--jobs" => plan.jobs = usize::try_from(number()?)?,
            "--keep" => plan.keeps = true,
            target if known.iter().any(|name| name == target) => plan.targets.push(target.to_owned()),
            _ => return Err(format!("there is no target {option:?}; there are: {}", known.join(", ")).into()),
        }
    }
    if plan.targets.is_empty() {
        plan.targets = known.to_vec();
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<String> {
        ["frame", "hello"].map(str::to_owned).to_vec()
    }

    #[test]
    fn without_a_name_every_target_runs_for_ten_minutes_one_after_the_other() {
        let plan = parse(&[], &known()).unwrap();
        assert_eq!(plan, Plan { targets: known(), seconds: 600, jobs: 1, keeps: false });
    }

    #[test]
    fn targets_and_options_come_in_any_order() {
        let plan = parse(&["--jobs", "2", "hello", "--keep", "--seconds", "5"], &known()).unwrap();
        assert_eq!(plan, Plan { targets: vec!["hello".into()], seconds: 5, jobs: 2, keeps: true });
    }

    #[test]
    fn what_is_no_target_or_no_number_is_said() {
        let error = parse(&["goodbye"], &known()).unwrap_err().to_string();
        assert!(error.contains("goodbye") && error.contains("frame, hello"), "{error}");
        for options in [&["--seconds"][..], &["--seconds", "0"], &["--jobs", "many"]] {
            assert!(parse(options, &known()).unwrap_err().to_string().contains("number"), "{options:?}");
        }
    }
}
