//! The terminal, taken and given back.
//!
//! Invariant: however this process ends, short of being killed, the terminal is as it was: its own screen, its
//! modes, and its cursor. A panic aborts a release build, so it is the panic hook that gives it back then.

use std::io::{self, IsTerminal};

use crossterm::cursor;
use ratatui::{DefaultTerminal, Frame};

use crate::failure::Failure;

const ONCE: &str = "`brokerd top --once` prints one frame as plain text";

/// A terminal that shows frames; given back when dropped.
pub(super) struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal.
    pub(super) fn open() -> io::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => {
                // The hook that was set just now gives back all but the cursor.
                let others = std::panic::take_hook();
                std::panic::set_hook(Box::new(move |panic| {
                    show_cursor();
                    others(panic);
                }));
                Ok(Self(terminal))
            }
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Shows a frame.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    show_cursor();
    // Whoever is told that this failed would be told on the same terminal.
    let _ = ratatui::try_restore();
}

fn show_cursor() {
    let _ = crossterm::execute!(io::stdout(), cursor::Show);
}

/// Whether there is a terminal that can do it; what to do where there is none.
pub(super) fn check() -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::usage("`brokerd top` needs a terminal, and this is none").next(ONCE));
    }
    if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return Err(Failure::usage("TERM=dumb is a terminal that cannot move its cursor").next(ONCE));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);
    const HELPER: &str = "BROKERD_TEST_PANIC";
    /// What a shell does in the terminal.
    const SHELL: &str = r#"
        before=$(stty -g)
        "$0" --exact top::screen::tests::helper_that_panics --ignored --nocapture
        [ "$before" = "$(stty -g)" ] && echo modes kept || echo modes lost
        read -r _
    "#;

    /// Not a test of its own: it takes the terminal that it runs in.
    #[test]
    #[ignore = "run by a_panic_gives_the_terminal_back"]
    fn helper_that_panics() {
        if std::env::var_os(HELPER).is_none() {
            return;
        }
        let mut screen = Screen::open().unwrap();
        screen.draw(|frame| frame.render_widget("drawn", frame.area())).unwrap();
        // A release build aborts, and drops nothing.
        std::mem::forget(screen);
        panic!("planted");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_and_is_to_be_read() {
        if !Command::new("tmux").arg("-V").output().is_ok_and(|output| output.status.success()) {
            println!("not tested, as tmux is not installed: a panic in a terminal");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let tmux = |arguments: &[&str]| {
            let mut command = Command::new("tmux");
            command.env(HELPER, "1").arg("-S").arg(dir.path().join("tmux.sock")).args(arguments);
            String::from_utf8(command.output().unwrap().stdout).unwrap()
        };
        let program = std::env::current_exe().unwrap();
        let start =
            ["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "--", "sh", "-c", SHELL];
        tmux(&[&start[..], &[program.to_str().unwrap()]].concat());
        let deadline = Instant::now() + PATIENCE;
        let text = loop {
            let text = tmux(&["capture-pane", "-p"]);
            if text.contains("modes ") || Instant::now() > deadline {
                break text;
            }
        };
        let state = tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        tmux(&["kill-server"]);
        assert!(text.contains("planted") && text.contains("modes kept"), "{text}");
        assert!(!text.contains("drawn"), "{text}");
        assert_eq!(state.trim(), "0 1", "its own screen, and its cursor");
    }
}
