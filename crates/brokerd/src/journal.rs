//! Lines for the journal: each begins with its priority (sd-daemon(3)), and has no time, which the journal knows.
//!
//! Invariant: every line has a priority of this program's choice, whatever a message holds.

use std::io::{self, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// What a person has to see to, as syslog numbers it.
pub(crate) const ERROR: u8 = 3;
const WARNING: u8 = 4;
const INFO: u8 = 6;
const DEBUG: u8 = 7;

/// The text with a priority before each of its lines.
pub(crate) fn lines(priority: u8, text: &str) -> String {
    text.lines().map(|line| format!("<{priority}>{line}\n")).collect()
}

/// Standard error, where it goes to the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Journal;

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Prioritised;

    fn make_writer(&'a self) -> Prioritised {
        Prioritised(INFO)
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Prioritised {
        Prioritised(match *of.level() {
            Level::ERROR => ERROR,
            Level::WARN => WARNING,
            Level::INFO => INFO,
            Level::DEBUG | Level::TRACE => DEBUG,
        })
    }
}

/// Gets one event at a time.
#[derive(Debug)]
pub(crate) struct Prioritised(u8);

impl Write for Prioritised {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(lines(self.0, &String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_message_chooses_its_own_priority() {
        assert_eq!(lines(ERROR, "error: x\n<0>y\n"), "<3>error: x\n<3><0>y\n");
        assert_eq!(lines(INFO, ""), "");
    }
}
