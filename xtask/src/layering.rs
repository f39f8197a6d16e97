//! Checks that dependencies point one way, and that the inner crates stay free of the outside world.
//!
//! The arrows are read from `cargo metadata`, the words from the sources. A word in a comment counts
//! too: the price of a check that is simple enough to trust.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::workspace::{TaskError, TaskResult, root};

/// Each crate and the workspace crates that it may depend on.
const ARROWS: [(&str, &[&str]); 6] = [
    ("broker-protocol", &[]),
    ("broker-core", &["broker-protocol"]),
    ("broker-transport", &["broker-protocol"]),
    ("broker-client", &["broker-protocol", "broker-transport"]),
    ("broker-backend", &["broker-protocol", "broker-transport"]),
    ("brokerd", &["broker-protocol", "broker-core", "broker-transport", "broker-client", "broker-backend"]),
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

/// What stands nowhere but in the platform's own modules.
const PLATFORM: [&str; 8] = [
    "cfg(target",
    "cfg(unix",
    "cfg(windows",
    "cfg(not(unix",
    "cfg(not(windows",
    "unsafe {",
    "unsafe fn",
    "unsafe impl",
];

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
        find_words(&crates.join(name).join("src"), &PLATFORM, Docs::PassOver, &mut faults)?;
    }
    let sys = crates.join("broker-transport/src/sys").display().to_string();
    faults.retain(|fault| !fault.starts_with(&sys));
    Ok(faults)
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

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, TaskError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
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
        find_words(folder.path(), &PLATFORM, Docs::PassOver, &mut faults).unwrap();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("a.rs:2"), "{}", faults[0]);
    }

    #[test]
    fn every_crate_of_the_workspace_has_its_arrows_written_down() {
        let folder = root().join("crates");
        let crates: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        for name in crates {
            assert!(ARROWS.iter().any(|(known, _)| name == *known), "{} is not in ARROWS", name.display());
        }
    }

    #[test]
    fn every_test_that_the_threat_table_names_exists() {
        let table = fs::read_to_string(root().join("SECURITY.md")).unwrap();
        let sources: String = ["crates", "tests"]
            .iter()
            .flat_map(|folder| rust_files(&root().join(folder)).unwrap())
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        let is_test_name = |word: &&str| {
            word.contains('_')
                && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        let named: Vec<_> = table
            .lines()
            .filter(|line| line.starts_with('|'))
            .flat_map(|line| line.split('`'))
            .filter(is_test_name)
            .collect();
        assert!(named.len() > 10, "{named:?}");
        for name in named {
            assert!(sources.contains(&format!("fn {name}(")), "SECURITY.md names the test {name}");
        }
    }
}
