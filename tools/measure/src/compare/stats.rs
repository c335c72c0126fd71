//! Minimum, median, maximum and spread of a few runs.

use std::time::Duration;

/// The least number of runs that have a middle half.
const QUARTERS: usize = 4;

/// The times of some runs, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Summary {
    pub min: f64,
    /// Half of the runs are shorter, and half are longer.
    pub median: f64,
    pub max: f64,
    /// The interquartile range, which is the width of the middle half. `None` for too few runs.
    pub iqr: Option<f64>,
}

impl Summary {
    /// The summary of some times. `None` without times.
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Option<Self> {
        Self::of_millis(times.into_iter().map(millis).collect())
    }

    /// The summary of some times in milliseconds. `None` without times.
    pub fn of_millis(mut times: Vec<f64>) -> Option<Self> {
        times.sort_by(f64::total_cmp);
        let (min, max) = (*times.first()?, *times.last()?);
        let iqr = (times.len() >= QUARTERS).then(|| quantile(&times, 0.75) - quantile(&times, 0.25));
        Some(Self { min, median: quantile(&times, 0.5), max, iqr })
    }
}

/// A quantile of sorted values, independent of their distribution (Hyndman and Fan, "Sample Quantiles in
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
    fn the_spread_is_the_width_of_the_middle_half() {
        let iqr = |millis: &[u64]| Summary::of(millis.iter().copied().map(Duration::from_millis)).unwrap().iqr;
        assert_eq!(iqr(&[7; 3]), None);
        assert_eq!(iqr(&[5; 9]), Some(0.0));
        // One run that was disturbed does not change it much.
        let runs = [10, 11, 12, 13, 14, 15, 16, 17, 1000];
        assert!(iqr(&runs).is_some_and(|iqr| (3.0..7.0).contains(&iqr)), "{:?}", iqr(&runs));
    }
}
