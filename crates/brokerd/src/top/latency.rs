//! How long Hellos took, as far as a histogram can tell.
//!
//! It counts by buckets, so a percentile is known only to lie in one of them. Invariant: what is told is the upper
//! bound of that bucket, and nothing is put in between.

use std::time::Duration;

use serde::Serialize;

/// Where the percentile lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    /// In the bucket that ends here, in microseconds.
    AtMostUs(u64),
    /// In the one without an end; the last bound there is.
    MoreThanUs(u64),
}

/// The percentiles of so many Hellos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Percentiles {
    pub(super) hellos: u64,
    pub(super) p50: Bound,
    pub(super) p90: Bound,
    pub(super) p99: Bound,
}

impl Percentiles {
    /// From the counts of each bucket, the one without an end last; `None` where nothing was counted, or where
    /// bounds and counts do not belong together.
    pub(super) fn of(bounds_us: &[u64], counts: &[u64]) -> Option<Self> {
        let last = *bounds_us.last().filter(|_| counts.len() == bounds_us.len() + 1)?;
        let hellos = counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        if hellos == 0 {
            return None;
        }
        let bound = |percent: u64| {
            let rank = (u128::from(hellos) * u128::from(percent)).div_ceil(100);
            let mut seen = 0_u128;
            let reached = counts.iter().position(|count| {
                seen += u128::from(*count);
                seen >= rank
            });
            let bound = reached.and_then(|bucket| bounds_us.get(bucket));
            bound.map_or(Bound::MoreThanUs(last), |bound| Bound::AtMostUs(*bound))
        };
        Some(Self { hellos, p50: bound(50), p90: bound(90), p99: bound(99) })
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sign, micros) = match *self {
            Self::AtMostUs(micros) => ('≤', micros),
            Self::MoreThanUs(micros) => ('>', micros),
        };
        // std writes 2500 µs as 2.5ms, and 1 s as 1s.
        write!(f, "{sign} {:?}", Duration::from_micros(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [u64; 3] = [10, 2_500, 1_000_000];

    #[test]
    fn a_percentile_is_the_upper_bound_of_its_bucket() {
        let told = Percentiles::of(&BOUNDS, &[50, 40, 9, 1]).unwrap();
        let at_most = Bound::AtMostUs;
        assert_eq!(
            (told.hellos, told.p50, told.p90, told.p99),
            (100, at_most(10), at_most(2_500), at_most(1_000_000))
        );
        let told = Percentiles::of(&BOUNDS, &[49, 40, 9, 2]).unwrap();
        assert_eq!(
            (told.p50, told.p90, told.p99),
            (at_most(2_500), at_most(1_000_000), Bound::MoreThanUs(1_000_000))
        );
    }

    #[test]
    fn one_hello_is_all_percentiles_and_none_is_no_percentile() {
        let told = Percentiles::of(&BOUNDS, &[0, 1, 0, 0]).unwrap();
        assert!([told.p50, told.p90, told.p99].iter().all(|bound| *bound == Bound::AtMostUs(2_500)));
        assert_eq!(Percentiles::of(&BOUNDS, &[0; 4]), None);
    }

    #[test]
    fn counts_of_other_bounds_and_counts_without_measure_do_no_harm() {
        assert_eq!(Percentiles::of(&BOUNDS, &[1; 3]), None);
        assert_eq!(Percentiles::of(&[], &[1]), None);
        assert_eq!(Percentiles::of(&BOUNDS, &[u64::MAX; 4]).unwrap().p50, Bound::AtMostUs(10));
    }

    #[test]
    fn a_bound_says_that_it_is_one() {
        let text = |bound: Bound| bound.to_string();
        assert_eq!(text(Bound::AtMostUs(50)), "≤ 50µs");
        assert_eq!(text(Bound::AtMostUs(2_500)), "≤ 2.5ms");
        assert_eq!(text(Bound::MoreThanUs(10_000_000)), "> 10s");
    }
}
