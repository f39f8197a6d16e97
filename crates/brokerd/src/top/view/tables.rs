//! The tables: backends, refusals by reason, the last refusals, and what else has happened.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Row, Table as Grid};

use super::Palette;
use crate::top::app::{App, Table};
use crate::top::model::{BackendRow, ReasonRow};
use crate::top::sample::Event;
use crate::top::words;

/// A column: its head, its width, and from which width of the table on it is there.
type Column = (&'static str, Constraint, u16);

const BACKENDS: [Column; 8] = [
    ("SERVICE", Constraint::Fill(4), 0),
    ("VERSION", Constraint::Fill(3), 0),
    ("STATE", Constraint::Length(8), 0),
    ("PID", Constraint::Length(8), 60),
    ("LAST HELLO", Constraint::Length(10), 0),
    ("HELLOS", Constraint::Length(9), 60),
    // By service, as the broker counts them.
    ("SVC HANDOFFS", Constraint::Length(12), 80),
    ("LAST ERROR", Constraint::Fill(8), 100),
];
const REASONS: [Column; 3] = [
    ("REASON", Constraint::Fill(1), 0),
    ("SINCE START", Constraint::Length(11), 0),
    ("LAST HOUR", Constraint::Length(9), 38),
];
const REFUSED: [Column; 3] = [
    ("TIME", Constraint::Length(8), 0),
    ("SERVICE", Constraint::Length(16), 60),
    ("REASON", Constraint::Fill(1), 0),
];
const EVENTS: [Column; 4] = [
    ("TIME", Constraint::Length(8), 0),
    ("EVENT", Constraint::Length(18), 0),
    ("SERVICE", Constraint::Length(16), 60),
    ("REASON", Constraint::Fill(1), 0),
];

/// Draws one of them.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, table: Table, app: &App, palette: Palette) {
    let picture = app.picture();
    let (title, columns): (&str, &[Column]) = match table {
        Table::Backends => ("Backends", &BACKENDS),
        Table::Reasons => ("Refusals by reason", &REASONS),
        Table::Refused => ("Last refusals", &REFUSED),
        Table::Events => ("Events", &EVENTS),
    };
    let rows: Vec<(Vec<String>, Style)> = match table {
        Table::Backends => picture.backends.iter().map(|row| backend(row, palette)).collect(),
        Table::Reasons => picture.refusals.iter().map(|row| (reason(row), Style::new())).collect(),
        Table::Refused => picture.last_refused.iter().map(|event| (refused(event), Style::new())).collect(),
        Table::Events => picture.events.iter().map(|row| (event(row), Style::new())).collect(),
    };
    let first = app.first_row(table);
    let title = if first == 0 {
        format!("{title} ({})", rows.len())
    } else {
        format!("{title} ({}, from {})", rows.len(), first + 1)
    };
    let style = if app.focus == table { palette.chosen() } else { palette.strong() };
    let is_there = |column: &Column| column.2 <= area.width;
    let widths = columns.iter().filter(|column| is_there(column)).map(|column| column.1);
    let heads = columns.iter().filter(|column| is_there(column)).map(|column| Cell::from(column.0));
    let shown = rows.into_iter().skip(first).take(usize::from(area.height)).map(|(cells, style)| {
        let cells = cells.into_iter().zip(columns).filter(|(_, column)| is_there(column));
        Row::new(cells.map(|(text, _)| Cell::from(text))).style(style)
    });
    let grid = Grid::new(shown, widths)
        .header(Row::new(heads).style(palette.weak()))
        .column_spacing(1)
        .block(Block::new().title_top(Line::styled(title, style)));
    frame.render_widget(grid, area);
}

fn backend(row: &BackendRow, palette: Palette) -> (Vec<String>, Style) {
    let style = match row.state.as_str() {
        "failed" => palette.bad(),
        "spawning" | "draining" => palette.warning(),
        _ => Style::new(),
    };
    let cells = vec![
        row.service.as_str().to_owned(),
        row.version.as_str().to_owned(),
        row.state.as_str().to_owned(),
        words::or_dash(row.pid, |pid| pid.to_string()),
        words::or_dash(row.last_hello_seconds_ago, words::duration),
        words::or_dash(row.hellos_per_second, words::rate),
        row.handoffs_of_service.to_string(),
        words::or_dash(row.last_error.as_ref(), |error| error.as_str().to_owned()),
    ];
    (cells, style)
}

fn reason(row: &ReasonRow) -> Vec<String> {
    vec![row.reason.as_str().to_owned(), row.since_start.to_string(), row.last_hour.to_string()]
}

fn refused(event: &Event) -> Vec<String> {
    vec![words::time(event.ts_ms), event.service_name.as_str().to_owned(), event.reason.as_str().to_owned()]
}

fn event(event: &Event) -> Vec<String> {
    vec![
        words::time(event.ts_ms),
        event.kind.as_str().to_owned(),
        event.service_name.as_str().to_owned(),
        event.reason.as_str().to_owned(),
    ]
}
