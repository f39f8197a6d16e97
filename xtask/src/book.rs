//! Checks the book in `docs/`: every page is in its table of contents, and every link leads to a file.
//!
//! It does not render: that is mdBook's part. Links to other hosts are not followed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::workspace::{TaskError, TaskResult, root};

/// The table of contents.
const SUMMARY: &str = "SUMMARY.md";

/// Checks it.
pub(crate) fn check() -> TaskResult {
    let docs = root().join("docs");
    let mut pages = Vec::new();
    collect(&docs, &mut pages)?;
    let summary = docs.join(SUMMARY);
    let listed: BTreeSet<PathBuf> =
        links(&fs::read_to_string(&summary)?).map(|link| normal(&docs.join(link))).collect();
    let mut faults = Vec::new();
    for page in &pages {
        if *page != summary && !listed.contains(page) {
            faults.push(format!("{} is not in {SUMMARY}", shown(page)));
        }
        let place = page.parent().unwrap_or(&docs);
        let text = fs::read_to_string(page)?;
        let broken = links(&text).filter(|link| !is_elsewhere(link) && !place.join(file_of(link)).exists());
        faults.extend(broken.map(|link| format!("{}: {link} leads nowhere", shown(page))));
    }
    if faults.is_empty() {
        println!("book: {} pages, all in {SUMMARY}, no link leads nowhere", pages.len());
        return Ok(());
    }
    Err(TaskError::from(format!("book:\n  {}", faults.join("\n  "))))
}

fn collect(dir: &Path, pages: &mut Vec<PathBuf>) -> TaskResult {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    Ok(())
}

/// The targets of a text's inline links, those in code left out.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    let prose = text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    prose
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')').map(|(link, _)| link))
}

fn is_elsewhere(link: &str) -> bool {
    link.contains("://") || link.starts_with('#') || link.starts_with("mailto:")
}

fn file_of(link: &str) -> &str {
    link.split('#').next().unwrap_or(link)
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => _ = normal.pop(),
            other => normal.push(other),
        }
    }
    normal
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_in_prose_and_not_in_code() {
        let text = "see [a](a.md) and [b](b.md#part)\n```\n[c](c.md)\n```\n[d](https://d)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["a.md", "b.md#part", "https://d"]);
        assert_eq!(file_of("b.md#part"), "b.md");
        assert!(is_elsewhere("https://d") && is_elsewhere("#part") && !is_elsewhere("a.md"));
        assert_eq!(normal(Path::new("/x/docs/./a/../b.md")), Path::new("/x/docs/b.md"));
    }
}
