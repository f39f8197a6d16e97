//! Taking out of a text what should not leave this machine.
//!
//! For what a backend wrote to its standard error before it died: that goes to clients and into events.
//! Taken out are values of variables and options whose name has KEY, TOKEN, SECRET or PASS in it; the
//! home directory becomes `~`.

/// What a secret becomes.
const REDACTED: &str = "<redacted>";
/// Parts of names that mark a secret, in lower case.
const MARKS: [&str; 4] = ["key", "token", "secret", "pass"];

/// Redacts one text, which may have several lines.
pub(crate) fn redact(text: &str, home: Option<&str>) -> String {
    let without_secrets = text.lines().map(redact_line).collect::<Vec<_>>().join("\n");
    match home.map(|home| home.trim_end_matches(['/', '\\'])).filter(|home| !home.is_empty()) {
        Some(home) => without_secrets.replace(home, "~"),
        None => without_secrets,
    }
}

/// Redacts `NAME=value` and `name: value`, where the name marks a secret; a value ends at white space,
/// a quoted one at its quote.
fn redact_line(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(['=', ':']) {
        let (head, tail) = rest.split_at(at + 1);
        out.push_str(head);
        rest = tail;
        if marks_a_secret(&head[..at]) {
            let spaces = rest.len() - rest.trim_start().len();
            out.push_str(&rest[..spaces]);
            rest = &rest[spaces..];
            let end = value_end(rest);
            if end > 0 {
                out.push_str(REDACTED);
            }
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    out
}

/// Whether the word that ends here is the name of a secret.
fn marks_a_secret(head: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-' | '.');
    let name = head.trim_end().trim_end_matches(['"', '\'']);
    let start = name.char_indices().rev().take_while(|(_, character)| is_part(*character)).last();
    let name = start.map_or("", |(start, _)| &name[start..]).to_lowercase();
    MARKS.iter().any(|mark| name.contains(mark))
}

fn value_end(value: &str) -> usize {
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].find(quote).map_or(value.len(), |end| end + 2),
        _ => value.find(char::is_whitespace).unwrap_or(value.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_names_are_taken_out_wherever_they_stand() {
        let cases = [
            ("API_KEY=abc123 and more", "API_KEY=<redacted> and more"),
            ("error: bad --auth-token=abc", "error: bad --auth-token=<redacted>"),
            ("password: hunter2", "password: <redacted>"),
            ("{\"secret\": \"a b c\", \"port\": 1}", "{\"secret\": <redacted>, \"port\": 1}"),
            ("PASSPHRASE='a b' x", "PASSPHRASE=<redacted> x"),
            ("passwd=", "passwd="),
            ("A_KEY=x B_TOKEN=y", "A_KEY=<redacted> B_TOKEN=<redacted>"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(text, None), expected);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in
            ["cannot bind /run/x.sock: in use", "port=80 host=a", "thread 'main' panicked at a.rs:3:5:"]
        {
            assert_eq!(redact(text, None), text);
        }
    }

    #[test]
    fn the_home_directory_becomes_a_tilde() {
        assert_eq!(redact("open /home/u/.cache/x\nat /home/u", Some("/home/u/")), "open ~/.cache/x\nat ~");
        assert_eq!(redact("/ stays", Some("/")), "/ stays");
    }
}
