//! Latencies and their percentiles.

use std::time::Duration;

/// Latencies in the order in which they were measured, or sorted.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    nanos: Vec<u64>,
    is_sorted: bool,
}

impl Samples {
    /// Adds one.
    pub fn push(&mut self, latency: Duration) {
        self.nanos.push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        self.is_sorted = false;
    }

    /// Adds those of another.
    pub fn extend(&mut self, other: &Self) {
        self.nanos.extend(&other.nanos);
        self.is_sorted = false;
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.nanos.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.nanos.is_empty()
    }

    /// The latency that `share` (0 to 1) of all do not exceed, in microseconds; 0 without any.
    pub fn percentile_us(&mut self, share: f64) -> f64 {
        if !self.is_sorted {
            self.nanos.sort_unstable();
            self.is_sorted = true;
        }
        let rank = (share * self.nanos.len() as f64).ceil() as usize;
        let index = rank.clamp(1, self.nanos.len().max(1)) - 1;
        self.nanos.get(index).map_or(0.0, |nanos| *nanos as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_smallest_sample_that_enough_do_not_exceed() {
        let mut samples = Samples::default();
        assert!(samples.is_empty() && samples.percentile_us(0.5) < f64::EPSILON);
        for micros in (1..=100).rev() {
            samples.push(Duration::from_micros(micros));
        }
        assert_eq!(samples.len(), 100);
        let percentiles = [0.0, 0.5, 0.99, 0.999, 1.0].map(|share| samples.percentile_us(share) as u64);
        assert_eq!(percentiles, [1, 50, 99, 100, 100]);
        samples.extend(&samples.clone());
        assert_eq!((samples.len(), samples.percentile_us(0.5) as u64), (200, 50));
    }
}
