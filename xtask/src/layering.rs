//! Checks that dependencies point one way, and that the inner crates stay free of the outside world.
//!
//! The arrows are read from `cargo metadata`, the words from the sources. A word in a comment counts
//! too: the price of a check that is simple enough to trust.

use std::fs;
use std::path::Path;

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::workspace::{TaskError, TaskResult, root, rust_files};

/// Each crate and the workspace crates that it may depend on.
const ARROWS: [(&str, &[&str]); 8] = [
    ("broker-protocol", &[]),
    ("broker-core", &["broker-protocol"]),
    ("broker-sim", &["broker-protocol", "broker-core"]),
    ("broker-transport", &["broker-protocol"]),
    ("broker-client", &["broker-protocol", "broker-transport"]),
    ("broker-backend", &["broker-protocol", "broker-transport"]),
    ("brokerd", &["broker-protocol", "broker-core", "broker-transport", "broker-client", "broker-backend"]),
    (
        "broker-fuzz",
        &["broker-protocol", "broker-core", "broker-transport", "broker-client", "broker-backend"],
    ),
];

/// The crates that name nothing of the outside world.
const PURE: [&str; 2] = ["broker-protocol", "broker-core"];

/// What they must not name.
const OUTSIDE: [&str; 10] = [
    "std::net",
    "std::os",
    "std::fs",
    "std::thread",
    "std::process",
    "tokio",
    "Instant::now",
    "SystemTime",
    "Mutex",
    "RwLock",
];

/// What stands nowhere but in the platform's own modules, beside conditions on the platform.
const UNSAFE: [&str; 3] = ["unsafe {", "unsafe fn", "unsafe impl"];

/// Whether a word in a documentation comment counts.
#[derive(Clone, Copy)]
enum Docs {
    Count,
    PassOver,
}

/// Runs both checks.
pub(crate) fn check() -> TaskResult {
    let mut faults = arrows()?;
    faults.extend(outside_words()?);
    faults.extend(platform_words()?);
    if faults.is_empty() {
        println!("layering: every arrow points inwards");
        Ok(())
    } else {
        Err(format!("the layering does not hold:\n  {}", faults.join("\n  ")).into())
    }
}

fn arrows() -> Result<Vec<String>, TaskError> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    let mut faults = Vec::new();
    for (name, allowed) in ARROWS {
        let Some(package) = metadata.packages.iter().find(|package| package.name.as_str() == name) else {
            faults.push(format!("crate {name} is missing"));
            continue;
        };
        let platform = package.dependencies.iter().filter(|dependency| dependency.target.is_some());
        for dependency in platform.filter(|dependency| dependency.kind == DependencyKind::Normal) {
            if name != "broker-transport" {
                faults.push(format!("{name} depends on {} on some platforms only", dependency.name));
            }
        }
        let internal = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
        for dependency in internal.filter(|dependency| dependency.kind == DependencyKind::Normal) {
            if !allowed.contains(&dependency.name.as_str()) {
                faults.push(format!("{name} depends on {}", dependency.name));
            }
        }
    }
    Ok(faults)
}

fn outside_words() -> Result<Vec<String>, TaskError> {
    let mut faults = Vec::new();
    for name in PURE {
        find_words(&root().join("crates").join(name).join("src"), &OUTSIDE, Docs::Count, &mut faults)?;
    }
    Ok(faults)
}

/// Platform differences live in `broker-transport/src/sys` and nowhere else. An example in the docs may say
/// where it runs.
fn platform_words() -> Result<Vec<String>, TaskError> {
    let mut faults = Vec::new();
    let crates = root().join("crates");
    for (name, _) in ARROWS {
        let sources = crates.join(name).join("src");
        find_words(&sources, &UNSAFE, Docs::PassOver, &mut faults)?;
        find_conditions(&sources, &mut faults)?;
    }
    let sys = crates.join("broker-transport/src/sys").display().to_string();
    faults.retain(|fault| !fault.starts_with(&sys));
    Ok(faults)
}

/// Finds every condition on the platform, whatever it is wrapped in and however many lines it takes.
fn find_conditions(folder: &Path, faults: &mut Vec<String>) -> TaskResult {
    for file in rust_files(folder)? {
        let text = fs::read_to_string(&file)?;
        let is_doc = |line: &str| line.trim_start().starts_with("///");
        let code: Vec<_> = text.lines().map(|line| if is_doc(line) { "" } else { line }).collect();
        let code = code.join("\n");
        for (at, opening) in CONDITIONS.iter().flat_map(|opening| code.match_indices(*opening)) {
            let condition = condition(&code[at + opening.len()..], opening == "cfg_attr(");
            if is_about_the_platform(condition) {
                let number = code[..at].matches('\n').count() + 1;
                faults.push(format!("{}:{number}: has a condition on the platform", file.display()));
            }
        }
    }
    Ok(())
}

/// How a condition begins.
const CONDITIONS: [&str; 3] = ["cfg(", "cfg!(", "cfg_attr("];

/// The text up to the parenthesis that closes it, or to the comma behind which there is no condition any more.
fn condition(text: &str, ends_at_comma: bool) -> &str {
    let mut open = 0;
    let end = text.find(|c| {
        match c {
            '(' => open += 1,
            ')' if open > 0 => open -= 1,
            ')' => return true,
            ',' => return ends_at_comma && open == 0,
            _ => {}
        }
        false
    });
    &text[..end.unwrap_or(text.len())]
}

fn is_about_the_platform(condition: &str) -> bool {
    // What stands between quotes is a value.
    let unquoted = condition.split('"').step_by(2);
    let mut words = unquoted.flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_'));
    words.any(|word| matches!(word, "unix" | "windows") || word.starts_with("target_"))
}

fn find_words(folder: &Path, words: &[&str], docs: Docs, faults: &mut Vec<String>) -> TaskResult {
    for file in rust_files(folder)? {
        let text = fs::read_to_string(&file)?;
        for (number, line) in text.lines().enumerate() {
            if matches!(docs, Docs::PassOver) && line.trim_start().starts_with("///") {
                continue;
            }
            for word in words.iter().filter(|word| line.contains(**word)) {
                faults.push(format!("{}:{}: names {word}", file.display(), number + 1));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_word_is_found_with_its_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("inner/a.rs"), "fn f() {}\nuse std::fs;\n").unwrap();
        fs::write(folder.path().join("notes.md"), "std::fs").unwrap();
        let mut faults = Vec::new();
        find_words(folder.path(), &OUTSIDE, Docs::Count, &mut faults).unwrap();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].ends_with("a.rs:2: names std::fs"), "{}", faults[0]);
    }

    #[test]
    fn an_example_in_the_docs_may_say_where_it_runs_and_the_code_may_not() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.rs"), "    /// # #[cfg(unix)] {\n#[cfg(unix)]\nfn f() {}\n").unwrap();
        let mut faults = Vec::new();
        find_conditions(folder.path(), &mut faults).unwrap();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("a.rs:2"), "{}", faults[0]);
    }

    #[test]
    fn a_condition_on_the_platform_is_found_whatever_it_is_wrapped_in() {
        for (code, line) in [
            ("#[cfg(all(feature = \"tokio\", not(target_os = \"linux\")))]", 1),
            ("\nif cfg!(windows) {}", 2),
            ("#[cfg_attr(any(test, unix), allow(dead_code))]", 1),
            ("\n\n#![cfg(any(\n    test,\n    windows,\n))]", 3),
        ] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("a.rs"), code).unwrap();
            let mut faults = Vec::new();
            find_conditions(folder.path(), &mut faults).unwrap();
            assert_eq!(faults.len(), 1, "{code}");
            assert!(faults[0].contains(&format!("a.rs:{line}:")), "{}", faults[0]);
        }
    }

    #[test]
    fn a_condition_on_something_else_is_none_on_the_platform() {
        let folder = tempfile::tempdir().unwrap();
        let code = "#[cfg(feature = \"windows\")]\n#[cfg_attr(test, doc(unix))]\n#[cfg(test)]\nfn unix(windows: u8) {}";
        fs::write(folder.path().join("a.rs"), code).unwrap();
        let mut faults = Vec::new();
        find_conditions(folder.path(), &mut faults).unwrap();
        assert_eq!(faults, Vec::<String>::new());
    }

    #[test]
    fn every_crate_of_the_workspace_has_its_arrows_written_down() {
        let folder = root().join("crates");
        let crates: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        for name in crates {
            assert!(ARROWS.iter().any(|(known, _)| name == *known), "{} is not in ARROWS", name.display());
        }
    }
}
