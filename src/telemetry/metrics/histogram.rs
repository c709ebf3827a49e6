//! A histogram that costs two atomic adds: fixed bounds, whole microseconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::family::{Family, Kind};

/// Counts of durations by upper bound.
#[derive(Debug)]
pub struct Timings {
    bounds: &'static [f64],
    /// The bounds in microseconds, so that nothing is converted while counting.
    micros: Box<[u64]>,
    /// One more than bounds: what is above them all.
    counts: Box<[AtomicU64]>,
    sum_micros: AtomicU64,
}

/// A reading of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Upper bounds in seconds and how many were at most that.
    pub cumulative: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// Their sum in seconds.
    pub sum: f64,
}

impl Timings {
    /// Empty, with these bounds in seconds, rising.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        let micros = bounds
            .iter()
            .map(|seconds| {
                let micros = Duration::from_secs_f64(*seconds).as_micros();
                u64::try_from(micros).unwrap_or(u64::MAX)
            })
            .collect();
        Self {
            bounds,
            micros,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_micros: AtomicU64::new(0),
        }
    }

    /// Empty, with a family's bounds.
    pub(super) fn of(family: &Family) -> Self {
        Self::new(match family.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        })
    }

    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = self.micros.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
            self.sum_micros.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// What was counted. The count is the sum of the buckets, so the two always agree.
    #[must_use]
    pub fn read(&self) -> Reading {
        let counts = self.counts.iter().map(|one| one.load(Ordering::Relaxed));
        let sum = Duration::from_micros(self.sum_micros.load(Ordering::Relaxed));
        Reading::new(self.bounds, counts, sum)
    }
}

impl Reading {
    /// Of counts by bound, the last of what is above them all.
    pub(super) fn new(
        bounds: &'static [f64],
        counts: impl Iterator<Item = u64>,
        sum: Duration,
    ) -> Self {
        let mut count = 0;
        let mut cumulative = Vec::with_capacity(bounds.len());
        for (at, bucket) in counts.enumerate() {
            count += bucket;
            if let Some(bound) = bounds.get(at) {
                cumulative.push((*bound, count));
            }
        }
        Self {
            cumulative,
            count,
            sum: sum.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_inside_its_bucket() {
        let timings = Timings::new(&[0.001, 0.01]);
        for micros in [0, 1_000, 1_001, 10_000, 10_001, 9_000_000] {
            timings.observe(Duration::from_micros(micros));
        }
        let read = timings.read();
        assert_eq!(read.cumulative, [(0.001, 2), (0.01, 4)]);
        assert_eq!(read.count, 6);
        assert!((read.sum - 9.022_002).abs() < 1e-9);
    }
}
