//! Values that stand behind a name: `NAME=value`, `name: value`, `--name value`.

use super::{MARKS, REDACTED};

/// Words in front of the secret itself, in lower case, as HTTP headers have them.
const SCHEMES: [&str; 3] = ["basic", "bearer", "token"];

/// Takes the values of secret names out, and tells how many. A value ends at white space, a quoted one at its
/// quote, wherever that is, or else with its line.
pub(super) fn take_out(text: &str) -> (String, u64) {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut count) = (text, 0);
    while let Some(at) = rest.find(['=', ':', ' ', '\t']) {
        let (head, tail) = rest.split_at(at + 1);
        out.push_str(head);
        rest = tail;
        let name = &head[..at];
        let is_marked = match head.as_bytes()[at] {
            b' ' | b'\t' => is_option(name) && !rest.starts_with('-'),
            _ => is_marked(last_word(name)),
        };
        if is_marked {
            let spaces = rest.len() - rest.trim_start_matches([' ', '\t']).len();
            out.push_str(&rest[..spaces]);
            rest = &rest[spaces..];
            let (value, behind) = rest.split_at(value_end(rest));
            if !value.is_empty() {
                out.push_str(REDACTED);
                count += u64::from(value != REDACTED);
            }
            rest = behind;
        }
    }
    out.push_str(rest);
    (out, count)
}

/// Whether this is the name of a secret.
pub(super) fn is_marked(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    MARKS.iter().any(|mark| name.contains(mark))
}

/// The name that a text ends with.
fn last_word(text: &str) -> &str {
    let is_part = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-' | '.');
    let name = text.trim_end().trim_end_matches(['"', '\'', '\\']);
    let start = name.char_indices().rev().take_while(|(_, character)| is_part(*character)).last();
    start.map_or("", |(start, _)| &name[start..])
}

/// Whether a text ends with an option whose value is a secret.
fn is_option(text: &str) -> bool {
    let word = last_word(text);
    word.starts_with("--") && text.ends_with(word) && is_marked(word)
}

/// Where a value ends. What is quoted may go on with what stands right behind it, as a shell joins them.
fn value_end(value: &str) -> usize {
    let mut end = 0;
    loop {
        let rest = &value[end..];
        end += part_end(rest);
        if !rest.starts_with(['"', '\'']) || !value[end..].starts_with(is_joined) {
            return end;
        }
    }
}

fn part_end(value: &str) -> usize {
    if value.strip_prefix(REDACTED).is_some_and(|behind| !behind.starts_with(char::is_alphanumeric)) {
        return REDACTED.len();
    }
    // Looked for only where it counts: a value may have a million parts.
    let line_end = || value.find(['\n', '\r']).unwrap_or(value.len());
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => closing(value, quote).unwrap_or_else(line_end),
        // A quote within a text that is itself quoted.
        Some('\\') if value.starts_with(r#"\""#) => {
            value[2..].find(r#"\""#).map_or_else(line_end, |end| end + 4)
        }
        _ => word_end(value),
    }
}

/// Where a word ends, and behind a scheme the next one.
fn word_end(value: &str) -> usize {
    let end_from =
        |from: usize| value[from..].find(char::is_whitespace).map_or(value.len(), |end| from + end);
    let end = end_from(0);
    let behind = &value[end..];
    let next = value.len() - behind.trim_start_matches([' ', '\t']).len();
    let has_scheme = SCHEMES.iter().any(|scheme| value[..end].eq_ignore_ascii_case(scheme));
    if has_scheme { end_from(next) } else { end }
}

/// Whether what stands right behind a quote goes on with the value.
fn is_joined(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '"' | '\'')
}

/// Where a text in quotes ends. A quote behind a backslash is a part of it.
fn closing(value: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, character) in value.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if character == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_of_secret_names_are_taken_out_wherever_they_stand() {
        let cases = [
            ("API_KEY=abc123 and more", "API_KEY=<redacted> and more"),
            ("error: bad --auth-token=abc", "error: bad --auth-token=<redacted>"),
            ("run --auth-token abc --port 80", "run --auth-token <redacted> --port 80"),
            ("password: hunter2", "password: <redacted>"),
            ("{\"secret\": \"a b c\", \"port\": 1}", "{\"secret\": <redacted>, \"port\": 1}"),
            (r#"{"secret":"a\"b","port":1}"#, r#"{"secret":<redacted>,"port":1}"#),
            (r#""{\"secret\":\"a b\",\"port\":1}""#, r#""{\"secret\":<redacted>,\"port\":1}""#),
            ("PASSPHRASE='a b' x", "PASSPHRASE=<redacted> x"),
            ("PASSPHRASE='a b'\"c d\"e x", "PASSPHRASE=<redacted> x"),
            ("PASSPHRASE='a\nb' x", "PASSPHRASE=<redacted> x"),
            ("PASSPHRASE=\"a b\nx", "PASSPHRASE=<redacted>\nx"),
            ("passwd=", "passwd="),
            ("A_KEY=\nPATH=/bin", "A_KEY=\nPATH=/bin"),
            ("A_KEY=x B_TOKEN=y\r\nC=z", "A_KEY=<redacted> B_TOKEN=<redacted>\r\nC=z"),
            ("X-Api-Key: Bearer abc.def and more", "X-Api-Key: <redacted> and more"),
            ("the key", "the key"),
            ("no key at all", "no key at all"),
            ("give --token", "give --token"),
            ("give --token --port", "give --token --port"),
        ];
        for (text, expected) in cases {
            assert_eq!(take_out(text).0, expected);
            assert_eq!(take_out(expected), (expected.to_owned(), 0), "once more changes nothing");
        }
        assert_eq!(take_out("A_KEY=x B_TOKEN=y").1, 2);
    }

    #[test]
    fn a_value_of_many_parts_takes_no_stack() {
        let text = format!("TOKEN={} x", "\"\"".repeat(1_000_000));
        assert_eq!(take_out(&text), ("TOKEN=<redacted> x".to_owned(), 1));
    }

    proptest! {
        #[test]
        fn whatever_stands_around_it_a_planted_value_is_gone(before in "[^'\"\\\\]{0,20}", behind in any::<String>()) {
            for text in [
                format!("{before} MY_API_TOKEN=pl4nted {behind}"),
                format!("{before}\nsecret: \"pl4nted\"{behind}"),
                format!("{before} --password pl4nted\n{behind}"),
            ] {
                let (out, count) = take_out(&text);
                prop_assert!(!out.contains("pl4nted"), "{text:?} became {out:?}");
                prop_assert!(count >= 1);
            }
        }
    }
}
