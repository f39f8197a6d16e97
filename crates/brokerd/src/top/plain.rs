//! Text of others, made fit to be shown.
//!
//! What a broker tells contains names and reasons that clients chose, and a terminal carries out what it is
//! shown. Invariant: nothing that comes out of here moves a cursor, changes a colour, reorders its line or hides
//! in it.

use serde::{Deserialize, Deserializer};

/// Stands where something was that is not shown.
const INSTEAD: char = '\u{FFFD}';

/// A text of at most one line, in which every character is one that shows itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub(super) struct Plain(String);

impl Plain {
    pub(super) fn of(text: &str) -> Self {
        Self(text.chars().map(|char| if is_hidden(char) { INSTEAD } else { char }).collect())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::of(&text))
    }
}

/// Control characters, C1 included, and what Unicode has for directions, joins, lines and languages.
fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}'
            | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_that_a_terminal_would_carry_out_is_left() {
        assert_eq!(Plain::of("\u{1b}[2Jcache\r\n").as_str(), "\u{FFFD}[2Jcache\u{FFFD}\u{FFFD}");
        assert_eq!(Plain::of("\u{9b}31m\u{7f}").as_str(), "\u{FFFD}31m\u{FFFD}", "C1 and delete, too");
        assert_eq!(Plain::of("a\u{202e}b\u{200b}").as_str(), "a\u{FFFD}b\u{FFFD}");
        assert_eq!(Plain::of("größer, 大").as_str(), "größer, 大", "what shows itself stays");
        let told: Plain = serde_json::from_str(r#""\u001b]0;title\u0007""#).unwrap();
        assert_eq!(told.as_str(), "\u{FFFD}]0;title\u{FFFD}");
    }

    proptest! {
        #[test]
        fn no_text_whatever_keeps_a_control_character(text in any::<String>()) {
            let plain = Plain::of(&text);
            prop_assert!(!plain.as_str().chars().any(is_hidden));
            prop_assert_eq!(plain.as_str().chars().count(), text.chars().count());
        }
    }
}
