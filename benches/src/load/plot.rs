//! The latencies as a picture: a group of bars for each number of clients, one bar for each server.

use std::fmt::Write;

use super::report::Figures;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 60.0;
const TOP: f64 = 50.0;
const COLOURS: [&str; 6] = ["#7f8c8d", "#bdc3c7", "#1f6f8b", "#c0723c", "#5b8c5a", "#8e5572"];

/// An SVG of p50 (the bar) and p99 (the line on it) on a logarithmic scale.
pub fn svg(rows: &[Figures]) -> String {
    let mut servers: Vec<&str> = Vec::new();
    let mut clients: Vec<usize> = Vec::new();
    for row in rows {
        if !servers.contains(&row.server.as_str()) {
            servers.push(&row.server);
        }
        if !clients.contains(&row.clients) {
            clients.push(row.clients);
        }
    }
    let scale = Scale::of(rows);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">Time from connecting to the whole answer: bar p50, mark p99 (microseconds, logarithmic)</text>\n"
    );
    draw_scale(&mut out, &scale);
    let group = (WIDTH - LEFT - 20.0) / clients.len().max(1) as f64;
    let bar = group * 0.8 / servers.len().max(1) as f64;
    for (at, count) in clients.iter().enumerate() {
        let start = LEFT + group * at as f64 + group * 0.1;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{count} clients</text>",
            start + group * 0.4,
            HEIGHT - BOTTOM + 18.0
        );
        for row in rows.iter().filter(|row| row.clients == *count) {
            let index = servers.iter().position(|server| *server == row.server).unwrap_or(0);
            draw_bar(
                &mut out,
                &scale,
                row,
                start + bar * index as f64,
                bar * 0.9,
                COLOURS[index % COLOURS.len()],
            );
        }
    }
    for (index, server) in servers.iter().enumerate() {
        let x = LEFT + 160.0 * index as f64;
        let colour = COLOURS[index % COLOURS.len()];
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"{:.1}\">{server}</text>",
            HEIGHT - 28.0,
            x + 18.0,
            HEIGHT - 18.0
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Powers of ten that hold every value.
struct Scale {
    low: i32,
    high: i32,
}

impl Scale {
    fn of(rows: &[Figures]) -> Self {
        let least = rows.iter().map(|row| row.p50).fold(f64::MAX, f64::min).max(1.0);
        let most = rows.iter().map(|row| row.p99).fold(10.0, f64::max);
        Self { low: least.log10().floor() as i32, high: most.log10().ceil() as i32 }
    }

    fn y(&self, micros: f64) -> f64 {
        let share =
            (micros.max(1.0).log10() - f64::from(self.low)) / f64::from((self.high - self.low).max(1));
        HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
    }
}

fn draw_scale(out: &mut String, scale: &Scale) {
    for power in scale.low..=scale.high {
        let value = 10f64.powi(power);
        let y = scale.y(value);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            LEFT - 8.0,
            y + 4.0
        );
    }
}

fn draw_bar(out: &mut String, scale: &Scale, row: &Figures, x: f64, width: f64, colour: &str) {
    let (top, mark, bottom) = (scale.y(row.p50), scale.y(row.p99), HEIGHT - BOTTOM);
    let _ = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
         <line x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"{mark:.1}\" y2=\"{mark:.1}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"10\">{:.0}</text>",
        bottom - top,
        x + width,
        x + width / 2.0,
        top + 12.0,
        row.p50
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_and_every_number_of_clients_is_in_the_picture() {
        let row = |server: &str, clients, p50| Figures {
            server: server.into(),
            clients,
            samples: 1,
            p50,
            p99: p50 * 3.0,
            p999: p50 * 9.0,
            throughput: 1.0,
            cpu_us: 1.0,
        };
        let picture = svg(&[
            row("bare", 1, 45.0),
            row("broker", 1, 47.0),
            row("bare", 64, 900.0),
            row("broker", 64, 950.0),
        ]);
        for part in ["bare", "broker", "1 clients", "64 clients", ">45<", ">950<"] {
            assert!(picture.contains(part), "{part}");
        }
        assert_eq!(picture.matches("<rect").count(), 1 + 4 + 2);
    }
}
