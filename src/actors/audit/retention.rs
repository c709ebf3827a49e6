//! Removing what is older, or more, than shall be kept. What goes is put on record first, with its
//! last hash and signed, so that a log that begins later is not a log whose beginning is missing.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::domain::audit::check::{REMOVED, head};

use super::Entry;
use super::files::{Lines, Segment};
use super::log::Log;
use super::segment::sync_dir;

impl Log {
    /// Removes the oldest segments, one by one, until what is left may stay. Never the open one.
    ///
    /// # Errors
    /// What the file system says; what was not removed stays on record as if it were, and is
    /// removed by the next try.
    pub(super) fn retain(&mut self) -> io::Result<()> {
        while self.segment.is_some() {
            let Some(oldest) = self.closed.first().filter(|oldest| self.outlived(oldest)) else {
                return Ok(());
            };
            let oldest = oldest.clone();
            let entry = self.removal_of(&oldest)?;
            self.append_signed(&[entry])?;
            match std::fs::remove_file(&oldest.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            sync_dir(&self.setup.dir)?;
            self.closed.remove(0);
            self.counters.removed.fetch_add(1, Ordering::Relaxed);
            tracing::info!(
                segment = oldest.name(),
                bytes = oldest.bytes,
                "retention removed an audit segment"
            );
        }
        Ok(())
    }

    fn outlived(&self, oldest: &Segment) -> bool {
        let open = self.segment.as_ref().map_or(0, |segment| segment.bytes);
        let all: u64 = self.closed.iter().map(|one| one.bytes).sum::<u64>() + open;
        self.setup.retention_bytes_max.is_some_and(|max| all > max)
            || self
                .setup
                .retention
                .is_some_and(|keep| self.age(oldest).is_some_and(|age| age > keep))
    }

    /// Since the segment was written last; `None` if nobody can tell.
    fn age(&self, segment: &Segment) -> Option<Duration> {
        let written = std::fs::metadata(&segment.path).ok()?.modified().ok()?;
        let written = written.duration_since(std::time::UNIX_EPOCH).ok()?;
        let now = u64::try_from(self.setup.clock.wall_ms()).ok()?;
        Duration::from_millis(now).checked_sub(written)
    }

    fn removal_of(&self, oldest: &Segment) -> io::Result<Entry> {
        // Its last hash is what the next one is bound to.
        let next = self
            .closed
            .get(1)
            .map(|next| (next.first, &next.path))
            .or_else(|| self.segment.as_ref().map(|open| (open.first, &open.path)));
        let (first, path) = next.ok_or_else(|| io::Error::other("it is the newest segment"))?;
        let mut lines = Lines::open(path, 0)?;
        let bound = lines.next()?.and_then(head).ok_or_else(|| {
            io::Error::other(format!("{} does not begin with its head", path.display()))
        })?;
        Ok(Entry::new(REMOVED, self.setup.clock.wall_ms())
            .field("segment", &oldest.name())
            .number("first_seq", oldest.first)
            .number("last_seq", first.saturating_sub(1))
            .field("last_hash", &bound.prev)
            .number("bytes", oldest.bytes))
    }
}
