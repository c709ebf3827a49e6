//! The gates: what must be up before anything is let through; and the root's signs of life.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What must be up before calls, starts or registrations are let through. Readiness is all of it.
#[derive(Debug, Default)]
pub struct Gates {
    /// Processes can be started.
    pub spawn: Flag,
    /// The store answers.
    pub store: Flag,
    /// Audit records can be written.
    pub audit: Flag,
    /// The deny table is loaded.
    pub kill: Flag,
    /// Keys are loaded.
    pub vault: Flag,
    /// Routes are published.
    pub catalog: Flag,
    /// Listeners accept.
    pub listeners: Flag,
}

/// One gate's flag.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Flag {
    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Opens or shuts it.
    pub fn set(&self, open: bool) {
        self.0.store(open, Ordering::Release);
    }
}

impl Gates {
    /// The gates that are shut, by name.
    #[must_use]
    pub fn shut(&self) -> Vec<&'static str> {
        [
            ("spawn", &self.spawn),
            ("store", &self.store),
            ("audit", &self.audit),
            ("kill", &self.kill),
            ("vault", &self.vault),
            ("catalog", &self.catalog),
            ("listeners", &self.listeners),
        ]
        .into_iter()
        .filter(|(_, flag)| !flag.is_open())
        .map(|(name, _)| name)
        .collect()
    }
}

/// When the root supervisor last answered: it does so every second, unless it hangs.
#[derive(Debug)]
pub struct Heart {
    born: Instant,
    beat_ms: AtomicU64,
}

impl Default for Heart {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            beat_ms: AtomicU64::new(0),
        }
    }
}

impl Heart {
    pub(in crate::actors) fn beat(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat_ms.store(now, Ordering::Relaxed);
    }

    /// For how long nothing was heard.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.beat_ms.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(last)
    }
}
