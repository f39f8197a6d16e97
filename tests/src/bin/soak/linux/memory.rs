//! What the last broker holds in memory, from when it was left alone.

use std::fmt::{self, Display, Formatter};
use std::fs;

/// By how much the median of the last quarter may be above that of the second, in KiB: buffers that grow to what
/// is needed once, and no more.
const SLACK_KIB: u64 = 512;

/// Resident KiB at each look, with all clients pausing.
#[derive(Debug, Default)]
pub(super) struct Memory(Vec<u64>);

impl Memory {
    pub(super) fn sample(&mut self, pid: u32) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        self.0.push(resident.trim().trim_end_matches(" kB").parse().unwrap());
    }

    /// What is wrong with it. Too few samples tell nothing.
    pub(super) fn judge(&self, is_long: bool) -> Option<String> {
        let (early, late) = self.quarters()?;
        (is_long && late > early + SLACK_KIB).then(|| format!("memory grows: {self}"))
    }

    /// The medians of the second and of the last quarter.
    fn quarters(&self) -> Option<(u64, u64)> {
        let quarter = self.0.len() / 4;
        let median = |samples: &[u64]| {
            let mut sorted = samples.to_vec();
            sorted.sort_unstable();
            sorted[sorted.len() / 2]
        };
        (quarter > 0)
            .then(|| (median(&self.0[quarter..2 * quarter]), median(&self.0[self.0.len() - quarter..])))
    }
}

impl Display for Memory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.quarters() {
            Some((early, late)) => {
                let samples = self.0.len();
                write!(
                    f,
                    "resident KiB of the broker that was left alone: {early} in the second quarter, {late} in the last ({samples} samples)"
                )
            }
            None => write!(f, "resident KiB of the broker that was left alone: {:?}", self.0),
        }
    }
}
