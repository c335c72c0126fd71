//! Minimum, median and maximum of a few runs.

use std::time::Duration;

use statrs::statistics::{Data, Max, Min, OrderStatistics};

/// What a number of runs gave, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Summary {
    /// The shortest.
    pub min: f64,
    /// Half are shorter, half are longer.
    pub median: f64,
    /// The longest.
    pub max: f64,
}

impl Summary {
    /// Of times; `None` of no times.
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Option<Self> {
        Self::of_millis(times.into_iter().map(millis).collect())
    }

    /// Of numbers of milliseconds; `None` of none.
    pub fn of_millis(times: Vec<f64>) -> Option<Self> {
        if times.is_empty() {
            return None;
        }
        let mut data = Data::new(times);
        Some(Self { min: data.min(), median: data.median(), max: data.max() })
    }
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
        assert_eq!(times(&[9, 1, 5]), Some(Summary { min: 1.0, median: 5.0, max: 9.0 }));
        assert_eq!(times(&[4, 1, 2, 100]), Some(Summary { min: 1.0, median: 3.0, max: 100.0 }));
        assert_eq!(times(&[7]), Some(Summary { min: 7.0, median: 7.0, max: 7.0 }));
        assert_eq!(times(&[]), None);
    }
}
