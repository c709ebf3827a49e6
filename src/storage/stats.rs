//! What the store did, in numbers: plain atomics that metrics read and nobody resets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What kind of operation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Reads, alone or as of one moment.
    Read,
    /// One statement that writes.
    Write,
    /// A transaction that writes, from its wait for a connection to its end.
    Tx,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Tx];

    /// Its name as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Tx => "tx",
        }
    }
}

/// The upper bounds of the cells of durations; one cell more takes what is longer.
pub const DURATION_BOUNDS: [Duration; 14] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(10),
];

/// One class's numbers.
#[derive(Debug, Default)]
struct Cells {
    durations: [AtomicU64; DURATION_BOUNDS.len() + 1],
    micros: AtomicU64,
    failed: AtomicU64,
    again: AtomicU64,
}

/// The numbers of all classes.
#[derive(Debug, Default)]
pub struct StoreStats {
    read: Cells,
    write: Cells,
    tx: Cells,
    /// The last that was heard of the database's disk is that it is full.
    full: AtomicBool,
}

/// A class's numbers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassNumbers {
    /// How many took at most as long as each of [`DURATION_BOUNDS`] and longer than the one
    /// before; the last: longer than all. Not cumulative.
    pub durations: [u64; DURATION_BOUNDS.len() + 1],
    /// The sum of all durations.
    pub total: Duration,
    /// How many failed; a broken constraint is a failure too.
    pub failed: u64,
    /// How many tries were not the first.
    pub again: u64,
}

impl ClassNumbers {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.durations.iter().sum()
    }
}

/// Connections of a pool at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolNumbers {
    /// How many there may be.
    pub max: u32,
    /// How many are open.
    pub open: u32,
    /// How many of those do nothing.
    pub idle: u32,
}

/// Measures one operation; what is dropped in its middle has failed.
#[derive(Debug)]
pub(super) struct Timer {
    stats: Arc<StoreStats>,
    class: Class,
    since: Instant,
    failed: bool,
}

// === impl StoreStats ===

impl StoreStats {
    /// What a class did so far.
    #[must_use]
    pub fn of(&self, class: Class) -> ClassNumbers {
        let cells = self.cells(class);
        let mut durations = [0; DURATION_BOUNDS.len() + 1];
        for (number, cell) in durations.iter_mut().zip(&cells.durations) {
            *number = cell.load(Ordering::Relaxed);
        }
        ClassNumbers {
            durations,
            total: Duration::from_micros(cells.micros.load(Ordering::Relaxed)),
            failed: cells.failed.load(Ordering::Relaxed),
            again: cells.again.load(Ordering::Relaxed),
        }
    }

    const fn cells(&self, class: Class) -> &Cells {
        match class {
            Class::Read => &self.read,
            Class::Write => &self.write,
            Class::Tx => &self.tx,
        }
    }

    pub(super) fn begin(self: &Arc<Self>, class: Class) -> Timer {
        Timer {
            stats: Arc::clone(self),
            class,
            since: Instant::now(),
            failed: false,
        }
    }

    /// The database said that its disk is full, or wrote what it would not have room for.
    pub(super) fn note_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(super) fn again(&self, class: Class) {
        self.cells(class).again.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl Timer ===

impl Timer {
    pub(super) fn failed(&mut self) {
        self.failed = true;
    }

    /// Takes note of how it went.
    pub(super) fn note<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.failed |= result.is_err();
        result
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        let cell = DURATION_BOUNDS.partition_point(|bound| *bound < took);
        let cells = self.stats.cells(self.class);
        if let Some(cell) = cells.durations.get(cell) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        cells.micros.fetch_add(micros, Ordering::Relaxed);
        if self.failed {
            cells.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_counted_once_in_the_cell_of_its_length() {
        let stats = Arc::new(StoreStats::default());
        drop(stats.begin(Class::Read));
        let mut timer = stats.begin(Class::Tx);
        let _ = timer.note::<()>(Err(sqlx::Error::RowNotFound));
        let _ = timer.note(Ok(()));
        drop(timer);
        stats.again(Class::Write);
        let (read, tx) = (stats.of(Class::Read), stats.of(Class::Tx));
        assert_eq!((read.count(), read.failed), (1, 0));
        assert_eq!((tx.count(), tx.failed), (1, 1));
        let write = stats.of(Class::Write);
        assert_eq!((write.count(), write.again), (0, 1));
        assert!(DURATION_BOUNDS.is_sorted());
    }
}
