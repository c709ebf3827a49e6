//! How much one run may have the gateway do: queries and connections cost the gateway's own CPU time, which no limit of
//! the isolate holds. Beyond its pace it is served more slowly, and what it sends meanwhile is its own kernel's to keep
//! or to drop.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::domain::limits::{EGRESS_BURST, EGRESS_PER_SECOND};

/// The pace of one listener. Not shared, so that no lock is taken.
#[derive(Debug)]
pub(super) struct Pace {
    /// When all that was served would have been served evenly.
    even: Instant,
}

impl Pace {
    /// What one more takes.
    const EACH: Duration = Duration::from_nanos(Self::EACH_NANOS);
    /// How far ahead of that it may be.
    const AHEAD: Duration = Duration::from_nanos(Self::EACH_NANOS * EGRESS_BURST as u64);
    const EACH_NANOS: u64 = 1_000_000_000 / EGRESS_PER_SECOND as u64;

    pub(super) fn new() -> Self {
        Self {
            even: Instant::now(),
        }
    }

    /// Waits until one more may be served.
    pub(super) async fn next(&mut self) {
        let now = Instant::now();
        self.even = self.even.max(now) + Self::EACH;
        let due = self.even.checked_sub(Self::AHEAD).unwrap_or(now);
        if due > now {
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_served_at_once_and_a_flood_at_its_pace() {
        let mut pace = Pace::new();
        let since = Instant::now();
        for _ in 0..EGRESS_BURST {
            pace.next().await;
        }
        assert_eq!(since.elapsed(), Duration::ZERO);
        for _ in 0..2 * EGRESS_PER_SECOND {
            pace.next().await;
        }
        let took = since.elapsed();
        assert!(
            took > Duration::from_millis(1900) && took < Duration::from_millis(2200),
            "{took:?}"
        );
        // Who was quiet has its burst again, and no more than that.
        tokio::time::advance(Duration::from_secs(100)).await;
        let since = Instant::now();
        for _ in 0..2 * EGRESS_BURST {
            pace.next().await;
        }
        assert!(
            since.elapsed() > Duration::from_millis(500),
            "{:?}",
            since.elapsed()
        );
    }
}
