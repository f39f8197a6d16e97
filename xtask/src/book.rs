//! Checks the book in `docs/`: every page is in its table of contents, and every link leads to a page or to a
//! heading of one.
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
        for link in links(&text).filter(|link| !is_elsewhere(link)) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { normal(&place.join(file)) };
            if let Some(fault) = fault_of(&docs, &target, heading) {
                faults.push(format!("{}: {link} {fault}", shown(page)));
            }
        }
    }
    if faults.is_empty() {
        println!("book: {} pages, all in {SUMMARY}, every link leads to a page or a heading", pages.len());
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
    prose(text)
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')').map(|(link, _)| link))
}

/// The lines of a text that are not in a block of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Why a link to that heading of that file is not good, if it is not.
fn fault_of(docs: &Path, target: &Path, heading: &str) -> Option<&'static str> {
    // What lies elsewhere is not in the rendered book.
    if !target.starts_with(docs) {
        return Some("leads out of the book");
    }
    let Ok(text) = fs::read_to_string(target) else { return Some("leads nowhere") };
    let is_there = heading.is_empty() || prose(&text).any(|line| anchor(line).as_deref() == Some(heading));
    (!is_there).then_some("leads to no heading of it")
}

/// What a link to a heading says behind its `#`: the words in lower case, with hyphens for the spaces.
fn anchor(line: &str) -> Option<String> {
    let heading = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))?;
    let kept = heading.trim().chars().filter(|&each| each.is_alphanumeric() || "-_ ".contains(each));
    Some(kept.map(|each| if each == ' ' { '-' } else { each.to_ascii_lowercase() }).collect())
}

fn is_elsewhere(link: &str) -> bool {
    link.contains("://") || link.starts_with("mailto:")
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
        assert!(is_elsewhere("https://d") && !is_elsewhere("#part") && !is_elsewhere("a.md"));
        assert_eq!(normal(Path::new("/x/docs/./a/../b.md")), Path::new("/x/docs/b.md"));
    }

    #[test]
    fn a_link_to_a_heading_has_its_words_and_hyphens() {
        assert_eq!(anchor("## When, and *how*").as_deref(), Some("when-and-how"));
        assert_eq!(anchor("# `brokerd top`").as_deref(), Some("brokerd-top"));
        assert_eq!(anchor("#include"), None);
        assert_eq!(anchor("a # b"), None);
    }

    #[test]
    fn a_link_out_of_the_book_or_to_no_heading_is_a_fault() {
        let docs = root().join("docs");
        let page = docs.join("quickstart.md");
        assert_eq!(fault_of(&docs, &page, "install"), None);
        assert_eq!(fault_of(&docs, &page, ""), None);
        assert_eq!(fault_of(&docs, &page, "nothing-of-it"), Some("leads to no heading of it"));
        assert_eq!(fault_of(&docs, &docs.join("no.md"), ""), Some("leads nowhere"));
        assert_eq!(fault_of(&docs, &root().join("README.md"), ""), Some("leads out of the book"));
    }
}
