//! Whether the server can be reached, since when it cannot, and how long to wait for it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::actors::clock::{Clock, HostClock, jitter};
use crate::domain::limits::{BRIDGE_AWAY_WAIT, BRIDGE_RETRY_CAP, BRIDGE_RETRY_FLOOR};

/// A server that cannot be reached.
#[derive(Debug, Clone)]
pub(super) struct Away {
    since: Instant,
    /// For people.
    at: String,
    pub(super) why: String,
}

// === impl Away ===

impl Away {
    pub(super) fn now(why: String) -> Self {
        Self {
            since: Instant::now(),
            at: wall(),
            why,
        }
    }

    /// How long a request may still wait for it.
    pub(super) fn patience(&self) -> Duration {
        BRIDGE_AWAY_WAIT.saturating_sub(self.since.elapsed())
    }

    /// What people and models are told.
    pub(super) fn told(&self, url: &str) -> String {
        let Self { at, why, .. } = self;
        format!(
            "Legation at {url} is not reachable: {}. It has been away since {at}; it is being \
             retried, and this goes on by itself when it is back",
            why.trim_end_matches('.')
        )
    }

    pub(super) fn lasted(&self) -> Duration {
        self.since.elapsed()
    }
}

/// The time, to the second.
pub(super) fn wall() -> String {
    Timestamp::from_second(HostClock.wall_ms() / 1000)
        .map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string())
}

/// The pause before try `n + 1`: doubled each time, capped, and half of it random, so that many
/// bridges do not come back in step.
pub(super) fn pause(n: u32) -> Duration {
    pause_of(n, jitter())
}

fn pause_of(n: u32, random: f64) -> Duration {
    let whole = BRIDGE_RETRY_FLOOR.saturating_mul(1 << n.min(10));
    let half = whole.min(BRIDGE_RETRY_CAP) / 2;
    half + half.mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_cap_and_half_of_each_is_random() {
        for (n, whole) in [
            (0, 250),
            (1, 500),
            (3, 2000),
            (7, 30_000),
            (u32::MAX, 30_000),
        ] {
            let whole = Duration::from_millis(whole);
            assert_eq!(pause_of(n, 1.0), whole, "{n}");
            assert_eq!(pause_of(n, 0.0), whole / 2, "{n}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_longer_it_is_away_the_less_is_waited_for_it() {
        let away = Away::now("connection refused".to_owned());
        assert_eq!(away.patience(), BRIDGE_AWAY_WAIT);
        tokio::time::advance(BRIDGE_AWAY_WAIT * 2).await;
        assert_eq!(away.patience(), Duration::ZERO);
        let told = away.told("https://x.example/mcp");
        assert!(
            told.contains("x.example") && told.contains("refused"),
            "{told}"
        );
        assert!(told.contains("since 2"), "{told}");
    }
}
