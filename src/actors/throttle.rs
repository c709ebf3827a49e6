//! Two small brakes: the host-wide restart budget, and failed registrations per key.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::limits::FAILED_KEYS_MAX;

use super::sync::Mutex;

/// A token bucket over all restarts after failures: a cause that strikes the whole host must not
/// melt it.
#[derive(Debug)]
pub struct Restarts {
    per_second: u32,
    state: Mutex<(Instant, f64)>,
}

impl Restarts {
    /// A full bucket of one second's worth.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let per_second = per_second.max(1);
        Self {
            per_second,
            state: Mutex::new((Instant::now(), f64::from(per_second))),
        }
    }

    /// Takes one restart; `false`: not now.
    #[must_use]
    pub fn take(&self) -> bool {
        let mut state = self.state.lock();
        let now = Instant::now();
        let rate = f64::from(self.per_second);
        let filled = (state.1 + now.duration_since(state.0).as_secs_f64() * rate).min(rate);
        let taken = filled >= 1.0;
        *state = (now, if taken { filled - 1.0 } else { filled });
        taken
    }
}

/// Failed registrations by key prefix: an office behind one address is not one attacker.
#[derive(Debug)]
pub struct Failures {
    tries_max: u32,
    window: Duration,
    by_prefix: Mutex<HashMap<Box<str>, (Instant, u32)>>,
}

impl Failures {
    /// None yet.
    #[must_use]
    pub fn new(tries_max: u32, window: Duration) -> Self {
        Self {
            tries_max,
            window,
            by_prefix: Mutex::default(),
        }
    }

    /// How long this prefix must wait; `None`: not at all.
    #[must_use]
    pub fn wait(&self, prefix: &str) -> Option<Duration> {
        let by_prefix = self.by_prefix.lock();
        let (since, tries) = by_prefix.get(prefix)?;
        let left = self.window.checked_sub(since.elapsed())?;
        (*tries >= self.tries_max && !left.is_zero()).then_some(left)
    }

    /// A registration with this prefix failed.
    pub fn count(&self, prefix: &str) {
        let now = Instant::now();
        let mut by_prefix = self.by_prefix.lock();
        if by_prefix.len() >= FAILED_KEYS_MAX && !by_prefix.contains_key(prefix) {
            by_prefix.retain(|_, (since, _)| now.duration_since(*since) < self.window);
            if by_prefix.len() >= FAILED_KEYS_MAX {
                // Full of fresh failures: forgetting the oldest is better than growing.
                let oldest = by_prefix.iter().min_by_key(|(_, (since, _))| *since);
                if let Some(oldest) = oldest.map(|(prefix, _)| prefix.clone()) {
                    by_prefix.remove(&oldest);
                }
            }
        }
        let entry = by_prefix.entry(prefix.into()).or_insert((now, 0));
        if now.duration_since(entry.0) >= self.window {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn restarts_refill_and_never_pile_up() {
        let bucket = Restarts::new(10);
        let taken = (0..100).filter(|_| bucket.take()).count();
        assert_eq!(taken, 10);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!((0..100).filter(|_| bucket.take()).count(), 2);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!((0..100).filter(|_| bucket.take()).count(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_count_per_key_and_are_bounded() {
        let failures = Failures::new(3, WINDOW);
        for _ in 0..3 {
            assert!(failures.wait("aaaa").is_none());
            failures.count("aaaa");
        }
        assert!(failures.wait("aaaa").is_some());
        assert!(
            failures.wait("bbbb").is_none(),
            "another key of the same office is free"
        );
        tokio::time::advance(WINDOW).await;
        assert!(failures.wait("aaaa").is_none());
        for n in 0..FAILED_KEYS_MAX * 2 {
            failures.count(&format!("{n}"));
        }
        assert!(failures.by_prefix.lock().len() <= FAILED_KEYS_MAX);
    }
}
