//! Wall time and randomness, so that tests can set both. Monotonic time is `tokio::time`.

use std::sync::atomic::{AtomicI64, Ordering};

use rand::Rng as _;

use crate::domain::account::Millis;
use crate::domain::ids::ID_BYTES;

/// Wall time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self) -> Millis;
}

/// The host's clock.
#[derive(Debug, Default)]
pub struct HostClock;

impl Clock for HostClock {
    fn wall_ms(&self) -> Millis {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the host's clock"
        )]
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH)
            .ok()
            .and_then(|since| Millis::try_from(since.as_millis()).ok())
            .unwrap_or_default()
    }
}

/// A clock that stands until it is set.
#[derive(Debug, Default)]
pub struct SetClock(AtomicI64);

impl SetClock {
    /// A clock at this time.
    #[must_use]
    pub const fn at(ms: Millis) -> Self {
        Self(AtomicI64::new(ms))
    }

    /// Moves it forward.
    pub fn advance(&self, ms: Millis) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn wall_ms(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

/// Random bytes from the operating system's generator, for ids, tokens and keys.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// The bits of a new id.
#[must_use]
pub fn id_bits() -> [u8; ID_BYTES] {
    random()
}

/// Uniform in 0..1, for jitter.
#[must_use]
pub fn jitter() -> f64 {
    f64::from(u32::from_le_bytes(random())) / f64::from(u32::MAX)
}
