//! What is wrong with a file, and where.
//!
//! Invariant: a problem stands on one line, whatever the file holds.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use serde::Serialize;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Problem {
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// The key that it is about.
    pub(crate) key: Option<String>,
    pub(crate) message: String,
    /// What was probably meant.
    pub(crate) suggestion: Option<String>,
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean `{suggestion}`?"),
            None => Ok(()),
        }
    }
}

/// Finds lines and columns of a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a>(pub(super) &'a str);

impl Text<'_> {
    /// A problem with what stands there.
    pub(super) fn problem(self, at: &Range<usize>, key: Option<&str>, message: String) -> Problem {
        let (line, column) = self.place(at.start);
        Problem { line, column, key: key.map(str::to_owned), message, suggestion: None }
    }

    fn place(self, at: usize) -> (usize, usize) {
        let boundary = (0..=at.min(self.0.len())).rev().find(|at| self.0.is_char_boundary(*at));
        let before = &self.0[..boundary.unwrap_or_default()];
        let line = before.rfind('\n').map_or(before, |end| &before[end + 1..]);
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }
}

/// A name as a problem tells it: short, and printable.
pub(super) fn shown(name: &str) -> String {
    const MOST: usize = 64;
    let mut shown: String = name.chars().take(MOST).flat_map(char::escape_debug).collect();
    if name.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

/// The one of these names that is most like this one, if any is.
pub(super) fn nearest<'a>(name: &str, among: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Names that are longer are not a slip.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    // Underscores and capitals are a matter of habit.
    let name = name.to_ascii_lowercase().replace('_', "-");
    let distances = among.into_iter().map(|known| (strsim::damerau_levenshtein(&name, known), known));
    let (distance, known) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= known.len().div_ceil(3)).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = Text("a = 1\nbé = 2\n");
        let places = [0, 4, 5, 6, 8, 9, 10, 14, 99].map(|at| text.place(at));
        assert_eq!(
            places,
            [(1, 1), (1, 5), (1, 6), (2, 1), (2, 2), (2, 3), (2, 4), (3, 1), (3, 1)],
            "the middle of a character is its beginning"
        );
    }

    #[test]
    fn a_slip_is_recognised_and_something_else_is_not() {
        let known = ["hello-burst", "hello-refill", "drain-ms"];
        assert_eq!(nearest("hello_burst", known), Some("hello-burst"));
        assert_eq!(nearest("Hello-Brust", known), Some("hello-burst"));
        assert_eq!(nearest("drain", known), Some("drain-ms"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest(&"x".repeat(65), known), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn what_is_told_of_a_name_is_short_and_printable() {
        assert_eq!(shown("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert_eq!(shown(&"x".repeat(70)).chars().count(), 65);
    }
}
