//! Who is dying: that a run is killed once, and that burials wait while others still have to die.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::domain::limits::{BURIAL_PATIENCE, KILL_AGAIN};

/// Runs that were killed and have not ended yet, of all the process.
static DYING: AtomicUsize = AtomicUsize::new(0);

const ALIVE: u8 = 0;
const STRUCK: u8 = 1;
const OVER: u8 = 2;

/// One run's part in it.
#[derive(Debug)]
pub(super) struct Dying {
    state: AtomicU8,
    born: Instant,
    /// Microseconds from its birth to the last kill, plus one; 0 before the first.
    struck: AtomicU64,
    /// Microseconds from its birth to its end.
    ended: AtomicU64,
}

impl Default for Dying {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(ALIVE),
            born: Instant::now(),
            struck: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        }
    }
}

impl Dying {
    /// Whether a kill is to be sent: one has just been if not. Whoever wants an end says so (the
    /// switch, the warden, the barrier), and each of hundreds costs the kernel a walk.
    pub(super) fn strike(&self) -> bool {
        let began =
            self.state
                .compare_exchange(ALIVE, STRUCK, Ordering::Relaxed, Ordering::Relaxed);
        if began.is_ok() {
            DYING.fetch_add(1, Ordering::Relaxed);
        }
        let now = self.age() + 1;
        let last = self.struck.load(Ordering::Relaxed);
        let again = u64::try_from(KILL_AGAIN.as_micros()).unwrap_or(u64::MAX);
        if last != 0 && now.saturating_sub(last) < again {
            return false;
        }
        self.struck.store(now, Ordering::Relaxed);
        true
    }

    /// Its init has ended.
    pub(super) fn over(&self) {
        self.ended.store(self.age(), Ordering::Relaxed);
        if self.state.swap(OVER, Ordering::Relaxed) == STRUCK {
            DYING.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits while others die, but not for long: one that cannot die must not hold up the burials.
    pub(super) async fn pass_by(&self) {
        let ended = Duration::from_micros(self.ended.load(Ordering::Relaxed));
        let until = self.born + ended + BURIAL_PATIENCE;
        while DYING.load(Ordering::Relaxed) > 0 {
            let look = Instant::now() + Duration::from_millis(2);
            if look > until {
                return;
            }
            sleep_until(look).await;
        }
    }

    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Drop for Dying {
    fn drop(&mut self) {
        self.over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_run_is_killed_once_and_again_only_later() {
        let one = Dying::default();
        assert!(one.strike());
        assert!(!one.strike(), "it was killed just now");
        tokio::time::advance(KILL_AGAIN).await;
        assert!(one.strike(), "it lives on");
        one.over();
        drop(one);
    }

    #[tokio::test(start_paused = true)]
    async fn burials_wait_for_the_dying_but_not_for_one_that_cannot_die() {
        let (dead, stuck) = (Dying::default(), Dying::default());
        stuck.strike();
        dead.over();
        let since = Instant::now();
        dead.pass_by().await;
        let waited = since.elapsed();
        assert!(
            waited <= BURIAL_PATIENCE && waited > BURIAL_PATIENCE / 2,
            "{waited:?}"
        );
        let late = Instant::now();
        dead.pass_by().await;
        assert_eq!(late.elapsed(), Duration::ZERO, "its patience is over");
    }
}
