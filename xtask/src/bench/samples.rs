//! What many durations say together.

use std::time::Duration;

/// Durations, in order of size.
#[derive(Debug, Default, Clone)]
pub(super) struct Samples(Vec<Duration>);

impl Samples {
    /// The smallest value that is not below `percent` of all. Zero when there are none.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    pub(super) fn median(&self) -> Duration {
        self.percentile(50)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        let mut all: Vec<_> = durations.into_iter().collect();
        all.sort();
        Self(all)
    }
}

/// With one decimal.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// With two decimals.
pub(super) fn ratio(ours: Duration, theirs: Duration) -> f64 {
    (ours.as_secs_f64() / theirs.as_secs_f64() * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let samples: Samples = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(samples.median(), Duration::from_millis(100));
        assert_eq!(samples.percentile(99), Duration::from_millis(198));
        assert_eq!(samples.percentile(100), Duration::from_millis(200));
        assert_eq!(
            [Duration::from_millis(7)].into_iter().collect::<Samples>().percentile(99),
            Duration::from_millis(7)
        );
        assert_eq!(Samples::default().median(), Duration::ZERO);
    }
}
