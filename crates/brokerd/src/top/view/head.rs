//! The lines above the tables: who the broker is, how much it does, and how long that takes.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline};

use super::Palette;
use crate::top::app::App;
use crate::top::model::{MINUTES, RECENT_MINUTES};
use crate::top::words;

/// What the lines take at least of the width; what is left shows the last minutes.
const LINES: u16 = 60;
/// With fewer minutes than this nothing of them is shown.
const FEWEST_MINUTES: u16 = 20;
/// From here on there is room to say what a percentile is.
const ROOM_FOR_NOTE: u16 = 74;
const RATES: usize = 1;

/// The lines, fewer where the terminal is not tall.
pub(super) fn lines(app: &App, palette: Palette, width: u16, is_tall: bool) -> Vec<Line<'static>> {
    let picture = app.picture();
    let mut lines = vec![broker(app, palette), rates(app, palette)];
    let now = words::percentiles(picture.latency_now);
    if !is_tall {
        lines.push(Line::raw(now));
        return lines;
    }
    lines.push(Line::raw(format!("latency  now    {now}")));
    let calm = words::percentiles(picture.latency_last_minutes);
    let note = if width >= ROOM_FOR_NOTE { "  (upper bounds)" } else { "" };
    lines.push(Line::from(vec![
        Span::raw(format!("         {RECENT_MINUTES} min  {calm}")),
        Span::styled(note, palette.weak()),
    ]));
    lines.insert(RATES, load(app, palette));
    lines
}

/// Draws them, with the last minutes where there is room.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    lines: Vec<Line<'static>>,
    app: &App,
    palette: Palette,
) {
    frame.render_widget(Paragraph::new(lines), area);
    let hour = &app.picture().hellos_per_minute;
    let shown = area.width.saturating_sub(LINES).min(MINUTES as u16);
    if shown < FEWEST_MINUTES || area.height < 5 {
        return;
    }
    let minutes = &hour[hour.len().saturating_sub(shown.into())..];
    let [_, right] = area.layout(&Layout::horizontal([Constraint::Fill(1), Constraint::Length(shown)]));
    let rows = [Constraint::Length(1), Constraint::Length(2), Constraint::Fill(1)];
    let [title, bars, _] = right.layout(&Layout::vertical(rows));
    let most = minutes.iter().copied().max().unwrap_or_default();
    let text = Line::styled(format!("Hellos/min, most {most}"), palette.weak());
    frame.render_widget(text.right_aligned(), title);
    frame.render_widget(Sparkline::default().data(minutes).style(palette.good()), bars);
}

fn broker(app: &App, palette: Palette) -> Line<'static> {
    let broker = &app.picture().broker;
    if broker.pid == 0 {
        return Line::styled("brokerd top", palette.strong());
    }
    let (state, style) =
        if !broker.is_accepting { ("draining", palette.warning()) } else { ("accepting", palette.good()) };
    Line::from(vec![
        Span::styled(broker.instance.as_str().to_owned(), palette.strong()),
        Span::styled(format!("  {state}"), style),
        Span::raw(format!(
            "  pid {}  up {}  {}",
            broker.pid,
            words::duration(broker.uptime_seconds),
            broker.version.as_str()
        )),
    ])
}

fn load(app: &App, palette: Palette) -> Line<'static> {
    let broker = &app.picture().broker;
    let used = broker.descriptors_used_ratio * 100.0;
    let text = format!("connections {}  descriptors {used:.0}%", broker.connections_open);
    let mut spans = vec![Span::raw(text)];
    if broker.is_short_of_descriptors {
        spans.push(Span::styled("  short of descriptors", palette.bad()));
    }
    if broker.events_dropped > 0 {
        spans.push(Span::styled(format!("  events dropped {}", broker.events_dropped), palette.warning()));
    }
    let at = if broker.at_unix_ms == 0 {
        String::new()
    } else {
        format!("  {} UTC", words::time(broker.at_unix_ms))
    };
    spans.push(Span::styled(at, palette.weak()));
    spans.push(pace(app, palette));
    Line::from(spans)
}

fn pace(app: &App, palette: Palette) -> Span<'static> {
    if app.is_paused {
        Span::styled("  PAUSED", palette.warning())
    } else {
        Span::styled(format!("  {}", words::interval(app.interval)), palette.weak())
    }
}

fn rates(app: &App, palette: Palette) -> Line<'static> {
    let rates = app.picture().rates;
    let negotiated = words::or_dash(rates, |rates| words::rate(rates.negotiated_per_second));
    let refused = words::or_dash(rates, |rates| words::rate(rates.refused_per_second));
    let style = if rates.is_some_and(|rates| rates.refused_per_second > 0.0) {
        palette.warning()
    } else {
        palette.strong()
    };
    let mut spans = vec![
        Span::raw("negotiated "),
        Span::styled(negotiated, palette.strong()),
        Span::raw("  refused "),
        Span::styled(refused, style),
    ];
    if app.is_paused {
        spans.push(pace(app, palette));
    }
    Line::from(spans)
}
