//! Minimum, median, maximum and spread of a few runs.

use std::time::Duration;

/// So many runs have a middle half.
const QUARTERS: usize = 4;

/// What a number of runs gave, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Summary {
    /// The shortest.
    pub min: f64,
    /// Half are shorter, half are longer.
    pub median: f64,
    /// The longest.
    pub max: f64,
    /// The interquartile range: how far apart the ends of the middle half are. `None` of too few runs to have one.
    pub iqr: Option<f64>,
}

impl Summary {
    /// Of times; `None` of no times.
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Option<Self> {
        Self::of_millis(times.into_iter().map(millis).collect())
    }

    /// Of numbers of milliseconds; `None` of none.
    pub fn of_millis(mut times: Vec<f64>) -> Option<Self> {
        times.sort_by(f64::total_cmp);
        let (min, max) = (*times.first()?, *times.last()?);
        let iqr = (times.len() >= QUARTERS).then(|| quantile(&times, 0.75) - quantile(&times, 0.25));
        Some(Self { min, median: quantile(&times, 0.5), max, iqr })
    }
}

/// A quantile of sorted values, estimated without regard to how they are distributed (Hyndman and Fan, "Sample Quantiles in
/// Statistical Packages", 1996, definition 8).
fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let count = sorted.len() as f64;
    let place = (((3.0 * count + 1.0) * fraction - 2.0) / 3.0).clamp(0.0, count - 1.0);
    let [below, above] = [place.floor(), place.ceil()].map(|place| sorted[place as usize]);
    below + (above - below) * place.fract()
}

/// A time in milliseconds.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_sorted_times_is_taken() {
        let times = |millis: &[u64]| Summary::of(millis.iter().copied().map(Duration::from_millis));
        let found = |millis| times(millis).map(|found| (found.min, found.median, found.max));
        assert_eq!(found(&[9, 1, 5]), Some((1.0, 5.0, 9.0)));
        assert_eq!(found(&[4, 1, 2, 100]), Some((1.0, 3.0, 100.0)));
        assert_eq!(found(&[7]), Some((7.0, 7.0, 7.0)));
        assert_eq!(times(&[]), None);
    }
    #[test]
    fn the_spread_is_that_of_the_middle_half() {
        let iqr = |millis: &[u64]| Summary::of(millis.iter().copied().map(Duration::from_millis)).unwrap().iqr;
        assert_eq!(iqr(&[7; 3]), None);
        assert_eq!(iqr(&[5; 9]), Some(0.0));
        // One run that was disturbed does not change it much.
        let runs = [10, 11, 12, 13, 14, 15, 16, 17, 1000];
        assert!(iqr(&runs).is_some_and(|iqr| (3.0..7.0).contains(&iqr)), "{:?}", iqr(&runs));
    }
}
