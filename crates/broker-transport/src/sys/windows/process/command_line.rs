//! A command line that programs take apart into the arguments it was made of.
//!
//! Windows passes one text; the C runtime splits it, as `CommandLineToArgvW` does. Invariant: what is split by
//! their rules is what came in, whatever it holds. Pure.

const QUOTE: u16 = b'"' as u16;
const BACKSLASH: u16 = b'\\' as u16;
const SPACE: u16 = b' ' as u16;
const TAB: u16 = b'\t' as u16;

/// Longest command line that a process can be created with, its NUL included.
pub(super) const MAX_COMMAND_LINE: usize = 32_767;

/// Joins a program's path, which has no quote in it, and its arguments; ends with NUL.
pub(super) fn join<'a>(program: &[u16], args: impl Iterator<Item = &'a [u16]>) -> Vec<u16> {
    let mut line = Vec::with_capacity(program.len() + 3);
    // The first word has rules of its own: everything up to the next quote, backslashes as they are.
    line.push(QUOTE);
    line.extend_from_slice(program);
    line.push(QUOTE);
    for arg in args {
        line.push(SPACE);
        push_quoted(&mut line, arg);
    }
    line.push(0);
    line
}

/// Backslashes mean themselves unless a quote follows: then each is doubled, and the quote gets one more.
fn push_quoted(line: &mut Vec<u16>, arg: &[u16]) {
    if !arg.is_empty() && !arg.iter().any(|unit| [SPACE, TAB, QUOTE].contains(unit)) {
        line.extend_from_slice(arg);
        return;
    }
    line.push(QUOTE);
    let mut backslashes = 0;
    for unit in arg {
        match *unit {
            BACKSLASH => backslashes += 1,
            QUOTE => {
                line.extend(std::iter::repeat_n(BACKSLASH, backslashes + 1));
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
        line.push(*unit);
    }
    line.extend(std::iter::repeat_n(BACKSLASH, backslashes));
    line.push(QUOTE);
}

#[cfg(test)]
mod tests {
    use windows_sys::Win32::UI::Shell::CommandLineToArgvW;

    use super::super::super::calls::Local;
    use super::*;

    fn units(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    fn line(args: &[&str]) -> String {
        let args: Vec<Vec<u16>> = args.iter().map(|arg| units(arg)).collect();
        let line = join(&units(r"C:\a b\x.exe"), args.iter().map(Vec::as_slice));
        String::from_utf16(line.strip_suffix(&[0]).unwrap()).unwrap()
    }

    /// As the system splits it.
    fn split(line: &str) -> Vec<String> {
        let mut line = units(line);
        line.push(0);
        let mut count = 0;
        // SAFETY: the line ends with NUL; the result holds `count` texts that end with NUL and is freed once.
        unsafe {
            let args = CommandLineToArgvW(line.as_ptr(), &raw mut count);
            assert!(!args.is_null());
            let _freed = Local(args.cast());
            let text = |arg: *mut u16| {
                let length = (0..).take_while(|index| *arg.add(*index) != 0).count();
                String::from_utf16(std::slice::from_raw_parts(arg, length)).unwrap()
            };
            (0..count as usize).map(|index| text(*args.add(index))).collect()
        }
    }

    #[test]
    fn only_what_needs_quotes_gets_them() {
        let program = r#""C:\a b\x.exe""#;
        for (arg, quoted) in [
            ("plain", "plain"),
            (r"C:\dir\", r"C:\dir\"),
            ("", r#""""#),
            ("a b", r#""a b""#),
            (r#"a"b"#, r#""a\"b""#),
            (r#"a\\"b"#, r#""a\\\\\"b""#),
            (r"a b\", r#""a b\\""#),
            (r"a\ b", r#""a\ b""#),
            ("a\tb", "\"a\tb\""),
        ] {
            assert_eq!(line(&[arg]), format!("{program} {quoted}"), "{arg}");
        }
        assert_eq!(line(&[]), program);
    }

    #[test]
    fn what_the_system_splits_is_what_was_joined() {
        let pieces = ["", "a", " ", "\"", "\\", "\\\\", "\t", "ä\u{1F980}", "%PATH%", "^&|<>"];
        for first in pieces {
            for second in pieces {
                for third in pieces {
                    let arg = [first, second, third].concat();
                    let args = [arg.as_str(), third, arg.as_str()];
                    assert_eq!(split(&line(&args))[1..], args, "{args:?}");
                }
            }
        }
        assert_eq!(split(&line(&["x"]))[0], r"C:\a b\x.exe");
    }
}
