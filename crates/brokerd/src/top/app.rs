//! What the view shows beside the picture: which table scrolls, at what pace the broker is looked at, and whether
//! anybody answers.
//!
//! Pure, as the model is. Invariant: whatever keys come, the table that scrolls shows at least its last row.

use std::time::Duration;

use super::input::Wish;
use super::model::{Model, Picture};
use super::plain::Plain;
use super::poll::{Pace, SHORTEST};
use super::sample::Sample;

/// The steps of the pace, in seconds.
const STEPS: [u64; 6] = [1, 2, 5, 10, 30, 60];
const PAGE: usize = 10;

/// The tables, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Backends,
    Reasons,
    Refused,
    Events,
}

impl Table {
    pub(super) const ALL: [Self; 4] = [Self::Backends, Self::Reasons, Self::Refused, Self::Events];

    pub(super) const fn rows(self, picture: &Picture) -> usize {
        match self {
            Self::Backends => picture.backends.len(),
            Self::Reasons => picture.refusals.len(),
            Self::Refused => picture.last_refused.len(),
            Self::Events => picture.events.len(),
        }
    }
}

/// Whether anybody answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Nobody has been asked yet.
    Seeking,
    Answers,
    /// Not any more, or not yet.
    Silent {
        since_unix_ms: u64,
        why: Plain,
    },
}

/// What becomes of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    Look(Pace),
    Show,
}

/// All that a frame is drawn from.
#[derive(Debug)]
pub(super) struct App {
    model: Model,
    pub(super) link: Link,
    /// Where the broker listens, or should.
    pub(super) socket: Plain,
    pub(super) interval: Duration,
    pub(super) is_paused: bool,
    pub(super) shows_help: bool,
    pub(super) focus: Table,
    first_rows: [usize; Table::ALL.len()],
}

impl App {
    pub(super) fn new(socket: Plain, interval: Duration) -> Self {
        Self {
            model: Model::default(),
            link: Link::Seeking,
            socket,
            interval,
            is_paused: false,
            shows_help: false,
            focus: Table::Backends,
            first_rows: [0; Table::ALL.len()],
        }
    }

    pub(super) const fn picture(&self) -> &Picture {
        self.model.picture()
    }

    pub(super) const fn pace(&self) -> Pace {
        if self.is_paused { Pace::Paused } else { Pace::Every(self.interval) }
    }

    /// The first row of a table that is shown.
    pub(super) fn first_row(&self, table: Table) -> usize {
        self.first_rows[table as usize].min(table.rows(self.picture()).saturating_sub(1))
    }

    pub(super) fn take(&mut self, sample: Sample) {
        self.link = Link::Answers;
        self.model.take(sample);
    }

    pub(super) fn lose(&mut self, why: Plain, now_unix_ms: u64) {
        let since_unix_ms = match self.link {
            Link::Silent { since_unix_ms, .. } => since_unix_ms,
            Link::Seeking | Link::Answers => now_unix_ms,
        };
        self.link = Link::Silent { since_unix_ms, why };
        self.model.lose();
    }

    pub(super) fn apply(&mut self, wish: Wish) -> Effect {
        match wish {
            Wish::Quit if self.shows_help => self.shows_help = false,
            Wish::Quit => return Effect::Quit,
            Wish::Help => self.shows_help = !self.shows_help,
            Wish::Pause => {
                self.is_paused = !self.is_paused;
                return Effect::Look(self.pace());
            }
            Wish::Faster | Wish::Slower => {
                self.interval = step(self.interval, wish == Wish::Slower);
                return Effect::Look(self.pace());
            }
            Wish::Up => self.scroll(|row| row.saturating_sub(1)),
            Wish::Down => self.scroll(|row| row.saturating_add(1)),
            Wish::PageUp => self.scroll(|row| row.saturating_sub(PAGE)),
            Wish::PageDown => self.scroll(|row| row.saturating_add(PAGE)),
            Wish::NextTable => self.focus = Table::ALL[(self.focus as usize + 1) % Table::ALL.len()],
            Wish::PreviousTable => {
                self.focus = Table::ALL[(self.focus as usize + Table::ALL.len() - 1) % Table::ALL.len()];
            }
        }
        Effect::Show
    }

    fn scroll(&mut self, from: impl Fn(usize) -> usize) {
        let last = self.focus.rows(self.picture()).saturating_sub(1);
        self.first_rows[self.focus as usize] = from(self.first_row(self.focus)).min(last);
    }
}

fn step(interval: Duration, is_slower: bool) -> Duration {
    let seconds = interval.as_secs();
    let next = if is_slower {
        STEPS.into_iter().find(|step| *step > seconds)
    } else {
        STEPS.into_iter().rev().find(|step| *step < seconds)
    };
    next.map_or(interval, Duration::from_secs).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::sample::{Backend, State};

    fn app(backends: usize) -> App {
        let mut app = App::new(Plain::default(), Duration::from_secs(2));
        let state = State { backends: vec![Backend::default(); backends], ..State::default() };
        app.take(Sample { state, ..Sample::default() });
        app
    }

    #[test]
    fn a_table_scrolls_to_its_last_row_and_no_further_also_when_it_shrinks() {
        let mut app = app(3);
        for (wish, row) in
            [(Wish::Down, 1), (Wish::PageDown, 2), (Wish::Down, 2), (Wish::Up, 1), (Wish::PageUp, 0)]
        {
            assert_eq!(app.apply(wish), Effect::Show);
            assert_eq!(app.first_row(Table::Backends), row, "{wish:?}");
        }
        app.apply(Wish::PageDown);
        app.take(Sample::default());
        assert_eq!(app.first_row(Table::Backends), 0);
        app.apply(Wish::Down);
        assert_eq!(app.first_row(Table::Backends), 0, "there is nothing to scroll");
    }

    #[test]
    fn the_focus_goes_around_both_ways() {
        let mut app = app(0);
        app.apply(Wish::PreviousTable);
        assert_eq!(app.focus, Table::Events);
        app.apply(Wish::NextTable);
        assert_eq!(app.focus, Table::Backends);
    }

    #[test]
    fn the_pace_stays_between_a_second_and_a_minute_and_a_pause_keeps_it() {
        let mut app = app(0);
        let seconds = |seconds| Effect::Look(Pace::Every(Duration::from_secs(seconds)));
        for (wish, then) in [(Wish::Slower, 5), (Wish::Faster, 2), (Wish::Faster, 1), (Wish::Faster, 1)] {
            assert_eq!(app.apply(wish), seconds(then));
        }
        assert_eq!(app.apply(Wish::Pause), Effect::Look(Pace::Paused));
        assert_eq!(app.apply(Wish::Slower), Effect::Look(Pace::Paused), "it does not end the pause");
        assert_eq!(app.apply(Wish::Pause), seconds(2));
        app.interval = Duration::from_secs(60);
        assert_eq!(app.apply(Wish::Slower), seconds(60));
    }

    #[test]
    fn a_loss_is_dated_from_its_begin_and_leaves_the_picture() {
        let mut app = app(1);
        let why = || Plain::of("it is gone");
        app.lose(why(), 1_000);
        app.lose(why(), 9_000);
        assert_eq!(app.link, Link::Silent { since_unix_ms: 1_000, why: why() });
        assert_eq!(app.picture().backends.len(), 1);
        app.take(Sample::default());
        assert_eq!(app.link, Link::Answers);
    }

    #[test]
    fn the_key_that_quits_closes_the_help_first() {
        let mut app = app(0);
        app.apply(Wish::Help);
        assert_eq!(app.apply(Wish::Quit), Effect::Show);
        assert_eq!(app.apply(Wish::Quit), Effect::Quit);
    }
}
