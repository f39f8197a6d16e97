//! What a run came to: rows for people, JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::samples::Samples;

/// One server under one number of clients.
#[derive(Debug)]
pub struct Row {
    /// Which server.
    pub server: String,
    /// Clients at once.
    pub clients: usize,
    /// From before connecting to after the last byte of the answer.
    pub latencies: Samples,
    /// Answers per second, the median over the rounds.
    pub throughput: f64,
    /// CPU time of the server per answer, in microseconds.
    pub cpu_us: f64,
}

/// One server, whatever the load.
#[derive(Debug)]
pub struct Cost {
    /// Which server.
    pub server: String,
    /// System calls per answer, where they could be counted.
    pub syscalls: Option<f64>,
    /// Allocations per answer, where they could be counted.
    pub allocations: Option<f64>,
    /// Resident memory before the load, in KiB.
    pub idle_kib: u64,
    /// Resident memory with 512 connections held open in silence, in KiB.
    pub held_kib: u64,
    /// Resident memory at its highest, in KiB.
    pub peak_kib: u64,
}

/// The median; 0 of nothing.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

/// Both tables as Markdown; ratios are to the first server's row for as many clients.
pub fn table(rows: &mut [Row], costs: &[Cost]) -> String {
    let mut text = String::from(
        "| clients | server | p50 us | p99 us | p99.9 us | answers/s | CPU us | p50 | p99 | answers/s |\n\
         |--:|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let measured: Vec<_> = rows.iter_mut().map(figures).collect();
    for row in &measured {
        let base = measured.iter().find(|base| base.clients == row.clients).unwrap_or(row);
        let ratio = |value: f64, base: f64| if base > 0.0 { value / base } else { 0.0 };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {:.1} | {:.1} | {:.0} | {:.1} | {:.2}x | {:.2}x | {:.2}x |",
            row.clients,
            row.server,
            row.p50,
            row.p99,
            row.p999,
            row.throughput,
            row.cpu_us,
            ratio(row.p50, base.p50),
            ratio(row.p99, base.p99),
            ratio(row.throughput, base.throughput),
        );
    }
    text.push_str(
        "\n| server | system calls per answer | allocations per answer | idle KiB | 512 held KiB | peak KiB |\n|---|--:|--:|--:|--:|--:|\n",
    );
    for cost in costs {
        let [syscalls, allocations] = [cost.syscalls, cost.allocations]
            .map(|count| count.map_or_else(|| "not counted".to_owned(), |count| format!("{count:.2}")));
        let _ = writeln!(
            text,
            "| {} | {syscalls} | {allocations} | {} | {} | {} |",
            cost.server, cost.idle_kib, cost.held_kib, cost.peak_kib
        );
    }
    text
}

/// Everything as JSON.
pub fn to_json(rows: &mut [Row], costs: &[Cost]) -> Value {
    let rows: Vec<_> = rows.iter_mut().map(figures).collect();
    json!({
        "rows": rows.iter().map(|row| json!({
            "server": row.server,
            "clients": row.clients,
            "samples": row.samples,
            "p50_us": row.p50,
            "p99_us": row.p99,
            "p999_us": row.p999,
            "answers_per_second": row.throughput,
            "cpu_us_per_answer": row.cpu_us,
        })).collect::<Vec<_>>(),
        "costs": costs.iter().map(|cost| json!({
            "server": cost.server,
            "syscalls_per_answer": cost.syscalls,
            "allocations_per_answer": cost.allocations,
            "idle_kib": cost.idle_kib,
            "held_512_kib": cost.held_kib,
            "peak_kib": cost.peak_kib,
        })).collect::<Vec<_>>(),
    })
}

/// A row's figures, worked out.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Which server.
    pub server: String,
    /// Clients at once.
    pub clients: usize,
    /// How many latencies were measured.
    pub samples: usize,
    /// Half took at most this long, in microseconds.
    pub p50: f64,
    /// 99 of 100 took at most this long.
    pub p99: f64,
    /// 999 of 1000 took at most this long.
    pub p999: f64,
    /// Answers per second.
    pub throughput: f64,
    /// The server's CPU time per answer, in microseconds.
    pub cpu_us: f64,
}

/// Works a row out.
pub fn figures(row: &mut Row) -> Figures {
    Figures {
        server: row.server.clone(),
        clients: row.clients,
        samples: row.latencies.len(),
        p50: row.latencies.percentile_us(0.5),
        p99: row.latencies.percentile_us(0.99),
        p999: row.latencies.percentile_us(0.999),
        throughput: row.throughput,
        cpu_us: row.cpu_us,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn row(server: &str, micros: u64) -> Row {
        let mut latencies = Samples::default();
        latencies.push(Duration::from_micros(micros));
        Row { server: server.into(), clients: 1, latencies, throughput: 1e6 / micros as f64, cpu_us: 1.0 }
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_it() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&mut [4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&mut []).abs() < f64::EPSILON);
    }

    #[test]
    fn ratios_are_to_the_first_server() {
        let cost = Cost {
            server: "bare".into(),
            syscalls: Some(8.0),
            allocations: None,
            idle_kib: 1,
            held_kib: 2,
            peak_kib: 3,
        };
        let text = table(&mut [row("bare", 40), row("other", 50)], &[cost]);
        assert!(
            text.contains("| 1 | other | 50.0 | 50.0 | 50.0 | 20000 | 1.0 | 1.25x | 1.25x | 0.80x |"),
            "{text}"
        );
        assert!(text.contains("| bare | 8.00 | not counted | 1 | 2 | 3 |"), "{text}");
    }
}
