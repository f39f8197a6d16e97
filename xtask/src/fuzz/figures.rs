//! What a run came to, out of what libFuzzer prints.

use std::fmt::{self, Display, Formatter};

/// The figures of one target's run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    target: String,
    executions: u64,
    per_second: u64,
    /// Edges of the program that were reached.
    edges: u64,
    /// Those, each with how often it was reached in one execution.
    features: u64,
    /// Inputs that reach all of it.
    corpus: u64,
    peak_mib: u64,
    failures: usize,
}

impl Figures {
    pub(super) const HEAD: &str = "\
| target | executions | per second | edges | features | corpus | peak MiB | failures |
|---|--:|--:|--:|--:|--:|--:|--:|";

    pub(super) fn read(target: &str, log: &str, failures: usize) -> Self {
        let stat = |name: &str| {
            let prefix = format!("stat::{name}:");
            log.lines()
                .rev()
                .find_map(|line| line.strip_prefix(&prefix)?.trim().parse().ok())
                .unwrap_or_default()
        };
        let status = log.lines().rev().find(|line| line.starts_with('#') && line.contains(" cov: "));
        let shown = |name: &str| {
            let mut words = status.unwrap_or_default().split_whitespace();
            words.find(|word| *word == name);
            let digits = words.next().unwrap_or_default().split('/').next().unwrap_or_default();
            digits.parse().unwrap_or_default()
        };
        Self {
            target: target.to_owned(),
            executions: stat("number_of_executed_units"),
            per_second: stat("average_exec_per_sec"),
            edges: shown("cov:"),
            features: shown("ft:"),
            corpus: shown("corp:"),
            peak_mib: stat("peak_rss_mb"),
            failures,
        }
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { target, executions, per_second, edges, features, corpus, peak_mib, failures } = self;
        write!(
            f,
            "| {target} | {executions} | {per_second} | {edges} | {features} | {corpus} | {peak_mib} | {failures} |"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
INFO: seed corpus: files: 12 min: 1b max: 190b total: 700b rss: 40Mb
#13	INITED cov: 120 ft: 130 corp: 9/400b exec/s: 0 rss: 41Mb
#900	NEW    cov: 125 ft: 140 corp: 10/410b lim: 190 exec/s: 0 rss: 44Mb L: 10/90 MS: 1 EraseBytes-
#2000	DONE   cov: 126 ft: 141 corp: 11/1024b lim: 190 exec/s: 1000 rss: 45Mb
Done 2000 runs in 2 second(s)
stat::number_of_executed_units: 2000
stat::average_exec_per_sec:     1000
stat::new_units_added:          12
stat::slowest_unit_time_sec:    0
stat::peak_rss_mb:              45
";

    #[test]
    fn the_figures_are_those_of_the_last_line_and_of_the_statistics() {
        let figures = Figures::read("frame", LOG, 0);
        assert_eq!(figures.to_string(), "| frame | 2000 | 1000 | 126 | 141 | 11 | 45 | 0 |");
    }

    #[test]
    fn a_run_that_told_nothing_has_no_figures() {
        let figures = Figures::read("frame", "==1== ERROR", 1);
        assert_eq!(figures, Figures { target: "frame".into(), failures: 1, ..Figures::default() });
    }
}
