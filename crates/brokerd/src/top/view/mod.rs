//! The picture, drawn.
//!
//! A terminal of 40 by 10 shows who the broker is, the rates, the percentiles and the table that scrolls; a larger
//! one shows more of it. Invariant: the last line says what is wrong where something is, whatever the size.

mod head;
mod palette;
mod tables;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

pub(super) use self::palette::Palette;
use super::app::{App, Link, Table};
use super::input;
use super::words;

/// Rows that a table takes at least where there are others beside it: its title, its head, and three more.
const TABLE: u16 = 5;
const TITLE_AND_HEAD: usize = 2;
/// Below this the head is three lines.
const TALL: u16 = 16;
/// From here on two tables of refusals stand side by side.
const WIDE: u16 = 100;

/// Draws a frame.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App, palette: Palette) {
    let area = frame.area();
    let lines = head::lines(app, palette, area.width, area.height >= TALL);
    let parts = [Constraint::Length(lines.len() as u16), Constraint::Fill(1), Constraint::Length(1)];
    let [head, body, foot] = area.layout(&Layout::vertical(parts));
    head::draw(frame, head, lines, app, palette);
    if app.shows_help {
        help(frame, body, palette);
    } else {
        tables(frame, body, app, palette);
    }
    frame.render_widget(foot_line(app, palette, area.width), foot);
}

fn tables(frame: &mut Frame<'_>, area: Rect, app: &App, palette: Palette) {
    let is_wide = area.width >= WIDE;
    // Side by side two of them take the room of one.
    let bands: &[&[Table]] = if is_wide {
        &[&[Table::Backends], &[Table::Reasons, Table::Refused], &[Table::Events]]
    } else {
        &[&[Table::Backends], &[Table::Reasons], &[Table::Refused], &[Table::Events]]
    };
    let shown = usize::from(area.height / TABLE).clamp(1, bands.len());
    let focus = bands.iter().position(|band| band.contains(&app.focus)).unwrap_or_default();
    let first = focus.saturating_sub(shown - 1);
    let bands = &bands[first..first + shown];
    let wanted =
        bands.iter().map(|band| band.iter().map(|table| table.rows(app.picture())).max().unwrap_or(0));
    let heights =
        shares(wanted.map(|rows| rows.saturating_add(TITLE_AND_HEAD)).collect(), area.height.into());
    let places = Layout::vertical(heights.into_iter().map(Constraint::Length)).split(area);
    for (band, place) in bands.iter().zip(places.iter()) {
        match band {
            [one] => tables::draw(frame, *place, *one, app, palette),
            [left, right, ..] => {
                let [left_place, right_place] = place
                    .layout(&Layout::horizontal([Constraint::Length(48), Constraint::Fill(1)]).spacing(2));
                tables::draw(frame, left_place, *left, app, palette);
                tables::draw(frame, right_place, *right, app, palette);
            }
            [] => {}
        }
    }
}

/// Divides the lines there are among those who want so many each: what one does not need goes to the others, and to
/// the last one what nobody needs.
fn shares(mut wanted: Vec<usize>, lines: usize) -> Vec<u16> {
    let mut order: Vec<_> = (0..wanted.len()).collect();
    order.sort_by_key(|index| wanted[*index]);
    let mut left = lines;
    for (given, index) in order.into_iter().enumerate() {
        let fair = left / (wanted.len() - given);
        wanted[index] = wanted[index].min(fair);
        left -= wanted[index];
    }
    if let Some(last) = wanted.last_mut() {
        *last += left;
    }
    wanted.into_iter().map(|height| u16::try_from(height).unwrap_or(u16::MAX)).collect()
}

fn help(frame: &mut Frame<'_>, area: Rect, palette: Palette) {
    let keys = input::HELP.iter().map(|(keys, what)| {
        Line::from(vec![Span::styled(format!("{keys:17} "), palette.strong()), Span::raw(*what)])
    });
    let notes = [
        "",
        "Latencies are upper bounds: the broker counts Hellos in buckets, and",
        "a percentile is said to be at most where its bucket ends.",
        "Times are UTC. Of many refusals in a second some are remembered.",
    ];
    let lines: Vec<_> = keys.chain(notes.map(Line::from)).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn foot_line(app: &App, palette: Palette, width: u16) -> Line<'static> {
    let silent = match &app.link {
        Link::Silent { since_unix_ms, why } => {
            let since = words::time(*since_unix_ms);
            Some(format!("no broker since {since}, trying again: {}", why.as_str()))
        }
        Link::Seeking => Some(format!("asking {}", app.socket.as_str())),
        Link::Answers => None,
    };
    match silent {
        Some(text) => Line::styled(text, palette.bad()),
        None if width < 60 => Line::styled("q quit  p pause  Tab table  ? help", palette.weak()),
        None => Line::styled("q quit  p pause  +/- pace  Tab table  j/k scroll  ? help", palette.weak()),
    }
}

#[cfg(test)]
mod tests;
