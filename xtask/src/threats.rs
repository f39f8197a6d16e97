//! Checks the table of threats in SECURITY.md: each row has a defence and a test that shows it.
//!
//! Invariant: a row that passes names at least one test that the workspace has, or a command, and no test that it has
//! not.

use std::collections::BTreeSet;
use std::fs;

use crate::workspace::{TaskError, TaskResult, root, rust_files};

/// Where the tests are.
const FOLDERS: [&str; 4] = ["crates", "examples", "tests", "xtask"];

/// Fails where a threat has no test.
pub(crate) fn check() -> TaskResult {
    let mut sources = Vec::new();
    for folder in FOLDERS {
        for file in rust_files(&root().join(folder))? {
            sources.push(fs::read_to_string(file)?);
        }
    }
    let tests = sources.iter().flat_map(|source| tests_in(source)).collect();
    let rows = check_table(&fs::read_to_string(root().join("SECURITY.md"))?, &tests)?;
    println!("threats: {rows} of them, each with a test that exists");
    Ok(())
}

/// The number of threats, all of which are shown by a test.
fn check_table(text: &str, tests: &BTreeSet<&str>) -> Result<usize, TaskError> {
    let mut faults = Vec::new();
    // Behind the head and the line below it.
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    for row in &rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [threat, defence, shown_by] = cells[..] else {
            faults.push(format!("expected a threat, a defence and a test in {row}"));
            continue;
        };
        if threat.is_empty() || defence.is_empty() {
            faults.push(format!("expected a threat and a defence in {row}"));
        }
        let named: Vec<_> =
            shown_by.split('`').skip(1).step_by(2).filter(|word| is_test_name(word)).collect();
        // What holds for the whole workspace is shown by a command.
        if named.is_empty() && !shown_by.contains("`cargo ") {
            faults.push(format!("'{threat}': no test is named"));
        }
        let absent = named.iter().filter(|name| !tests.contains(*name));
        faults.extend(absent.map(|name| format!("'{threat}': there is no test {name}")));
    }
    if rows.is_empty() {
        faults.push("there is no table".to_owned());
    }
    if faults.is_empty() {
        Ok(rows.len())
    } else {
        Err(format!("SECURITY.md:\n  {}", faults.join("\n  ")).into())
    }
}

/// What is called like a function, and is no file or crate.
fn is_test_name(word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    word.contains('_') && word.chars().all(is_part)
}

/// The functions that are marked as tests.
fn tests_in(source: &str) -> impl Iterator<Item = &str> {
    let mut is_marked = false;
    source.lines().map(str::trim_start).filter_map(move |line| {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_marked = true;
        } else if let Some((_, rest)) = line.split_once("fn ")
            && std::mem::take(&mut is_marked)
        {
            return rest.split_once('(').map(|(name, _)| name);
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
fn helper_of_it() {}
#[test]
fn a_is_so() {}
#[tokio::test(flavor = \"current_thread\")]
// Why it stands here.
async fn b_is_so() {}
fn another_helper() {}
";

    fn faults(rows: &str) -> String {
        let tests = tests_in(SOURCE).collect();
        let text = format!("# S\n\n| threat | defence | shown by |\n|---|---|---|\n{rows}\n");
        check_table(&text, &tests).map_or_else(|error| error.to_string(), |rows| rows.to_string())
    }

    #[test]
    fn only_what_is_marked_as_a_test_is_one() {
        assert_eq!(tests_in(SOURCE).collect::<Vec<_>>(), ["a_is_so", "b_is_so"]);
    }

    #[test]
    fn a_row_needs_a_test_that_exists() {
        assert_eq!(faults("| t | d | `a_is_so` and `b_is_so` |\n| u | d | `x.rs`, `a_is_so` |"), "2");
        assert_eq!(faults("| t | d | `cargo deny check` |"), "1");
        assert!(faults("| t | d | `c_is_so`, `a_is_so` |").contains("'t': there is no test c_is_so"));
        assert!(faults("| t | d | `helper_of_it` |").contains("no test helper_of_it"));
        assert!(faults("| t | d | `x.rs` |").contains("'t': no test is named"));
        assert!(faults("| t | | `a_is_so` |").contains("a threat and a defence"));
        assert!(faults("| t | d |").contains("a threat, a defence and a test"));
        assert!(faults("").contains("no table"));
    }
}
