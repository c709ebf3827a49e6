//! What the log tells of itself: counters for metrics, plain and without a lock where they are
//! counted.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::domain::account::Millis;
use crate::domain::audit::Category;

/// Upper bounds of the buckets of [`SyncTimes`], in microseconds; one more bucket has the rest.
pub const SYNC_BOUNDS_US: [u64; 13] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_500_000,
];

/// How long the disk took, in buckets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// Syncs by bucket (not cumulative): bounded by [`SYNC_BOUNDS_US`], the last is the rest.
    pub buckets: [u64; SYNC_BOUNDS_US.len() + 1],
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

/// The log in numbers.
#[derive(Debug, Clone, Default)]
pub struct AuditStats {
    /// Records taken, in the order of [`Category::ALL`].
    pub events: [u64; Category::COUNT],
    /// Records lost to a full queue, in the same order.
    pub dropped: [u64; Category::COUNT],
    /// Failed tries to write.
    pub write_errors: u64,
    /// Records waiting for the disk.
    pub queued: u64,
    /// Age of the oldest of them.
    pub lag: Duration,
    /// How long syncs took.
    pub sync: SyncTimes,
    /// The last record of the chain.
    pub seq: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Segments that retention removed in this life.
    pub segments_removed: u64,
    /// When the newest checkpoint was made; `None` before the first of this life.
    pub checkpoint_at: Option<Millis>,
    /// What the last check of the chain found, or the writer, which only finds damage; `None` before the first.
    pub chain_ok: Option<bool>,
    /// The last record that is in the index.
    pub indexed_seq: u64,
}

/// The cells behind [`AuditStats`], except those the queue keeps.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) write_errors: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) segments: AtomicU64,
    pub(super) removed: AtomicU64,
    pub(super) checkpoint_at: AtomicI64,
    pub(super) indexed: AtomicU64,
    chain: AtomicU8,
    buckets: [AtomicU64; SYNC_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Counters {
    pub(super) fn synced(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = SYNC_BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(super) fn checked(&self, whole: bool) {
        self.chain
            .store(if whole { 1 } else { 2 }, Ordering::Relaxed);
    }

    /// Fills in what these cells know.
    pub(super) fn read(&self, stats: &mut AuditStats) {
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        stats.write_errors = get(&self.write_errors);
        stats.bytes = get(&self.bytes);
        stats.segments = get(&self.segments);
        stats.segments_removed = get(&self.removed);
        stats.indexed_seq = get(&self.indexed);
        let at = self.checkpoint_at.load(Ordering::Relaxed);
        stats.checkpoint_at = (at != 0).then_some(at);
        stats.chain_ok = match self.chain.load(Ordering::Relaxed) {
            0 => None,
            word => Some(word == 1),
        };
        for (to, from) in stats.sync.buckets.iter_mut().zip(&self.buckets) {
            *to = get(from);
        }
        stats.sync.sum_us = get(&self.sum_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_fall_into_their_buckets() {
        let counters = Counters::default();
        for us in [1, 50, 51, 9_999_999] {
            counters.synced(Duration::from_micros(us));
        }
        let mut stats = AuditStats::default();
        counters.read(&mut stats);
        assert_eq!(stats.sync.buckets[0], 2);
        assert_eq!(stats.sync.buckets[1], 1);
        assert_eq!(stats.sync.buckets.last(), Some(&1));
        assert_eq!(stats.sync.sum_us, 10_000_101);
        assert_eq!((stats.chain_ok, stats.checkpoint_at), (None, None));
        counters.checked(false);
        counters.read(&mut stats);
        assert_eq!(stats.chain_ok, Some(false));
    }
}
