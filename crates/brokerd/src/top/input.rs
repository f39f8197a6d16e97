//! What keys mean.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What somebody at the keyboard wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Quit,
    Pause,
    Faster,
    Slower,
    Up,
    Down,
    PageUp,
    PageDown,
    NextTable,
    PreviousTable,
    Help,
}

/// What the help says, key by key.
pub(super) const HELP: [(&str, &str); 7] = [
    ("q, Esc, ctrl-c", "quit"),
    ("p, space", "pause, and go on"),
    ("+, -", "look more rarely, more often"),
    ("Tab, left, right", "choose the table that scrolls"),
    ("j, k, up, down", "scroll it by a row"),
    ("PgUp, PgDn", "scroll it by ten"),
    ("?", "this help"),
];

/// The wish behind a key; `None` for one that means nothing.
pub(super) fn wish(key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Wish::Quit);
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char('p' | ' ') => Some(Wish::Pause),
        KeyCode::Char('+' | '=') => Some(Wish::Slower),
        KeyCode::Char('-') => Some(Wish::Faster),
        KeyCode::Char('k') | KeyCode::Up => Some(Wish::Up),
        KeyCode::Char('j') | KeyCode::Down => Some(Wish::Down),
        KeyCode::PageUp => Some(Wish::PageUp),
        KeyCode::PageDown => Some(Wish::PageDown),
        KeyCode::Tab | KeyCode::Right => Some(Wish::NextTable),
        KeyCode::BackTab | KeyCode::Left => Some(Wish::PreviousTable),
        KeyCode::Char('?' | 'h') => Some(Wish::Help),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quitting_takes_any_of_three_keys_and_a_release_is_no_key() {
        let key = |code, modifiers| wish(KeyEvent::new(code, modifiers));
        for (code, modifiers) in [
            (KeyCode::Char('q'), KeyModifiers::NONE),
            (KeyCode::Esc, KeyModifiers::NONE),
            (KeyCode::Char('c'), KeyModifiers::CONTROL),
        ] {
            assert_eq!(key(code, modifiers), Some(Wish::Quit));
        }
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::CONTROL), None);
        let released =
            KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE) };
        assert_eq!(wish(released), None);
    }

    #[test]
    fn the_sign_on_the_plus_key_means_plus_without_shift_too() {
        for code in ['+', '='] {
            let key = KeyEvent::new(KeyCode::Char(code), KeyModifiers::NONE);
            assert_eq!(wish(key), Some(Wish::Slower));
        }
    }
}
