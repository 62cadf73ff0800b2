//! A histogram with fixed buckets, one per power of two.

/// Number of buckets; values of 2^31 and more share the last one.
const BUCKETS: usize = 33;

/// A histogram of magnitudes: bucket 0 holds zeros, bucket `b` holds `2^(b-1)..2^b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum: 0 }
    }
}

impl Histogram {
    /// Counts `value` once.
    pub fn record(&mut self, value: u64) {
        let bucket = ((u64::BITS - value.leading_zeros()) as usize).min(BUCKETS - 1);
        self.buckets[bucket] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Number of recorded values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Sum of all values, saturating.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Mean of all values; `None` when there are none.
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum as f64 / count as f64)
    }

    /// Upper bound of the `q`-quantile (`0.0..=1.0`), at most twice its true value, except in the last bucket;
    /// `None` when there are no values.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((count as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        self.upper_bounds().find_map(|(bound, here)| {
            seen += here;
            (seen >= rank).then_some(bound)
        })
    }

    /// Each bucket as (upper bound, count), smallest first.
    pub fn upper_bounds(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().enumerate().map(|(bucket, &count)| {
            let bound = if bucket + 1 == BUCKETS { u64::MAX } else { (1 << bucket) - 1 };
            (bound, count)
        })
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_bound_what_was_recorded() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        assert_eq!(histogram.mean(), None);
        for value in 0..1_000 {
            histogram.record(value);
        }
        assert_eq!(histogram.count(), 1_000);
        assert_eq!(histogram.mean(), Some(499.5));
        assert_eq!(histogram.quantile(0.0), Some(0));
        assert_eq!(histogram.quantile(0.5), Some(511));
        assert_eq!(histogram.quantile(1.0), Some(1_023));
    }

    #[test]
    fn huge_values_share_the_last_bucket() {
        let mut histogram = Histogram::default();
        histogram.record(u64::MAX);
        histogram.record(1 << 32);
        assert_eq!(histogram.count(), 2);
        assert_eq!(histogram.quantile(0.5), Some(u64::MAX));
    }

    #[test]
    fn adding_is_counting_both() {
        let (mut a, mut b, mut both) = (Histogram::default(), Histogram::default(), Histogram::default());
        for value in [0, 1, 5, 70] {
            a.record(value);
            both.record(value);
        }
        for value in [2, 5, 1 << 40] {
            b.record(value);
            both.record(value);
        }
        a.add(&b);
        assert_eq!(a, both);
    }
}
