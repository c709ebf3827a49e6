//! Three small brakes: the host-wide restart budget, failed registrations per key, and calls per key.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::ids::KeyId;
use crate::domain::limits::{FAILED_KEYS_MAX, RATED_KEYS_MAX};

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

/// Calls by key: a token bucket each, that holds a sixth of a minute's calls.
///
/// Of a bucket only the time is kept when it is full again, so one that is full is not kept at all.
#[derive(Debug)]
pub struct CallRates {
    per_minute: u32,
    full: Mutex<HashMap<KeyId, Instant>>,
    /// That of all keys for which there is no room.
    others: Mutex<Instant>,
}

impl CallRates {
    /// So many calls of each key in a minute; 0: any number.
    #[must_use]
    pub fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            full: Mutex::default(),
            others: Mutex::new(Instant::now()),
        }
    }

    /// How many a minute.
    #[must_use]
    pub const fn per_minute(&self) -> u32 {
        self.per_minute
    }

    /// Takes one call of the key's.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&self, key: &KeyId) -> Result<(), Duration> {
        if self.per_minute == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let mut full = self.full.lock();
        if full.len() >= RATED_KEYS_MAX && !full.contains_key(key) {
            full.retain(|_, at| *at > now);
            if full.len() >= RATED_KEYS_MAX {
                return self.take_of(&mut self.others.lock(), now);
            }
        }
        self.take_of(full.entry(key.clone()).or_insert(now), now)
    }

    fn take_of(&self, full: &mut Instant, now: Instant) -> Result<(), Duration> {
        let one = Duration::from_secs(60) / self.per_minute;
        let whole = one * (self.per_minute / 6).max(1);
        let after = (*full).max(now) + one;
        match after.duration_since(now).checked_sub(whole) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                *full = after;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::domain::ids::ID_BYTES;

    #[tokio::test(start_paused = true)]
    async fn calls_of_a_key_are_counted_apart_and_come_back_with_time() {
        let key = |n: u8| KeyId::from_random([n; ID_BYTES]);
        let rates = CallRates::new(60);
        let take = |n: u8, most: usize| (0..most).filter(|_| rates.take(&key(n)).is_ok()).count();
        assert_eq!(take(1, 100), 10);
        assert_eq!(take(2, 100), 10, "another key's are its own");
        assert_eq!(rates.take(&key(1)), Err(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(rates.take(&key(1)), Err(Duration::from_millis(1)));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(take(1, 100), 1);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(take(1, 100), 10, "they do not pile up");
        let any = CallRates::new(0);
        assert!((0..100_000).all(|_| any.take(&key(1)).is_ok()));
        let slow = CallRates::new(1);
        assert!(slow.take(&key(1)).is_ok());
        assert_eq!(slow.take(&key(1)), Err(Duration::from_secs(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_beyond_the_bound_share_a_bucket_until_others_are_full() {
        let rates = CallRates::new(60);
        let key = |n: usize| {
            let mut bits = [0; ID_BYTES];
            bits[..8].copy_from_slice(&n.to_be_bytes());
            KeyId::from_random(bits)
        };
        let all = RATED_KEYS_MAX + 1_000;
        let taken = (0..all).filter(|n| rates.take(&key(*n)).is_ok()).count();
        assert_eq!(taken, RATED_KEYS_MAX + 10);
        assert_eq!(rates.full.lock().len(), RATED_KEYS_MAX);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(rates.take(&key(all)).is_ok());
        assert_eq!(rates.full.lock().len(), 1);
    }

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
