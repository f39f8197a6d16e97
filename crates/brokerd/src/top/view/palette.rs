//! Colours, or none (<https://no-color.org>).

use ratatui::style::{Color, Modifier, Style};

/// Which styles there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::top) enum Palette {
    Coloured,
    /// Bold, dim and reversed only.
    Plain,
}

impl Palette {
    /// As the environment wants it: a `NO_COLOR` that is not empty wants none.
    pub(in crate::top) fn of(no_color: Option<&std::ffi::OsStr>) -> Self {
        if no_color.is_some_and(|value| !value.is_empty()) { Self::Plain } else { Self::Coloured }
    }

    fn coloured(self, style: Style, color: Color) -> Style {
        match self {
            Self::Coloured => style.fg(color),
            Self::Plain => style,
        }
    }

    pub(super) const fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) const fn weak(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(super) const fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn good(self) -> Style {
        self.coloured(Style::new(), Color::Green)
    }

    pub(super) fn warning(self) -> Style {
        self.coloured(self.strong(), Color::Yellow)
    }

    pub(super) fn bad(self) -> Style {
        self.coloured(self.strong(), Color::Red)
    }
}
