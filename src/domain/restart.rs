//! The restart policy of a slot: a pure state machine of backoff, quarantine and half-open.
//!
//! It knows no clock: every call gives it the time since some fixed start, and the randomness it
//! may use. It never decides about anything but its own slot, so one slot's failures cannot
//! delay another's start.
//!
//! Sources: exponential backoff with equal jitter (uniform in half to full), systemd's start
//! limit (quarantine is its "failed"), the kubelet's reset after a quiet time, the half-open
//! state of a circuit breaker.

use std::time::Duration;

use super::verdict::Weight;

/// The numbers of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The first delay.
    pub floor: Duration,
    /// The longest delay.
    pub cap: Duration,
    /// Ready for at least this (and twice the last delay) forgives all failures.
    pub reset_after: Duration,
    /// This many failures without a reset end in quarantine.
    pub failures_max: u32,
    /// How long a quarantine lasts before one half-open try.
    pub quarantine: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            floor: Duration::from_millis(250),
            cap: Duration::from_secs(60),
            reset_after: Duration::from_secs(60),
            failures_max: 5,
            quarantine: Duration::from_secs(300),
        }
    }
}

/// What the policy says after a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing to restart; the next call may start it.
    Rest,
    /// Start again at this time.
    Retry {
        /// When.
        at: Duration,
        /// The how many-th failure in a row this was.
        failures: u32,
    },
    /// Not before this time, and then once.
    Quarantine {
        /// When the half-open try is allowed.
        until: Duration,
    },
}

/// Whether a start is allowed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Yes.
    Go,
    /// Yes, one try: a failure goes straight back to quarantine.
    HalfOpen,
    /// No, backing off until then.
    Backoff(Duration),
    /// No, quarantined until then.
    Quarantined(Duration),
}

/// The policy's memory of one slot.
#[derive(Debug, Clone, Copy)]
pub struct Restart {
    settings: Settings,
    failures: u32,
    /// Starts in a row for which others had left nothing. Nobody but a caller needs the next one.
    crowded: u32,
    last_delay: Duration,
    ready_since: Option<Duration>,
    hold: Hold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    None,
    Backoff(Duration),
    Quarantine(Duration),
    HalfOpen,
}

impl Restart {
    /// A slot that never failed.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            failures: 0,
            crowded: 0,
            last_delay: Duration::ZERO,
            ready_since: None,
            hold: Hold::None,
        }
    }

    /// Failures since the last reset.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the last start found no room: what is tried next costs the others who share it.
    #[must_use]
    pub const fn is_crowded(&self) -> bool {
        self.crowded > 0
    }

    /// Whether a start is allowed at `now`. Asking changes nothing; starting does, see
    /// [`Restart::starting`].
    #[must_use]
    pub fn permit(&self, now: Duration) -> Permit {
        match self.hold {
            Hold::None => Permit::Go,
            Hold::Backoff(until) if now < until => Permit::Backoff(until),
            Hold::Backoff(_) => Permit::Go,
            Hold::Quarantine(until) if now < until => Permit::Quarantined(until),
            Hold::Quarantine(_) | Hold::HalfOpen => Permit::HalfOpen,
        }
    }

    /// A start that was permitted has begun.
    pub fn starting(&mut self, now: Duration) {
        self.hold = match self.permit(now) {
            Permit::HalfOpen => Hold::HalfOpen,
            _ => Hold::None,
        };
        self.ready_since = None;
    }

    /// The run became ready.
    pub const fn ready(&mut self, now: Duration) {
        self.crowded = 0;
        self.ready_since = Some(now);
    }

    /// The run ended. `jitter` is uniform in 0..1.
    pub fn ended(&mut self, now: Duration, weight: Weight, jitter: f64) -> Next {
        self.forgive_if_long_ready(now);
        let half_open = self.hold == Hold::HalfOpen;
        self.ready_since = None;
        if weight != Weight::Crowded {
            self.crowded = 0;
        }
        match weight {
            Weight::Wanted => {
                self.hold = if half_open {
                    Hold::Quarantine(now)
                } else {
                    Hold::None
                };
                Next::Rest
            }
            Weight::Crowded => {
                self.crowded = self.crowded.saturating_add(1);
                self.back_off(now, self.crowded.saturating_sub(1).min(31), jitter)
            }
            Weight::Hopeless => self.quarantine(now),
            Weight::Failure(count) => {
                self.failures = self.failures.saturating_add(count);
                if half_open || self.failures >= self.settings.failures_max {
                    self.quarantine(now)
                } else {
                    self.back_off(now, self.failures.saturating_sub(1).min(31), jitter)
                }
            }
        }
    }

    /// An administrator restarts it: all is forgiven.
    pub const fn pardon(&mut self) {
        *self = Self::new(self.settings);
    }

    fn forgive_if_long_ready(&mut self, now: Duration) {
        let quiet = self.settings.reset_after.max(self.last_delay * 2);
        if self
            .ready_since
            .is_some_and(|since| now.saturating_sub(since) >= quiet)
        {
            self.failures = 0;
            self.last_delay = Duration::ZERO;
            self.hold = Hold::None;
        }
    }

    fn quarantine(&mut self, now: Duration) -> Next {
        let until = now + self.settings.quarantine;
        self.hold = Hold::Quarantine(until);
        Next::Quarantine { until }
    }

    fn back_off(&mut self, now: Duration, doublings: u32, jitter: f64) -> Next {
        let full = self
            .settings
            .floor
            .saturating_mul(1 << doublings)
            .min(self.settings.cap);
        let delay = full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        self.last_delay = full;
        self.hold = Hold::Backoff(now + delay);
        Next::Retry {
            at: now + delay,
            failures: self.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CRASH: Weight = Weight::Failure(1);

    fn secs(value: u64) -> Duration {
        Duration::from_secs(value)
    }

    #[test]
    fn who_finds_no_room_backs_off_and_is_never_quarantined_for_it() {
        let mut restart = Restart::new(Settings::default());
        let mut now = Duration::ZERO;
        let mut delays = Vec::new();
        for _ in 0..50 {
            restart.starting(now);
            match restart.ended(now, Weight::Crowded, 1.0) {
                Next::Retry { at, failures: 0 } => {
                    delays.push((at - now).as_millis());
                    now = at;
                }
                other => panic!("{other:?}"),
            }
            assert!(restart.is_crowded());
        }
        let first = [250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000];
        assert_eq!(delays.get(..10), Some(&first[..]));
        assert_eq!(delays.last(), Some(&60000), "no longer than the cap");
        // Failures of its own count as before, and are retried as before.
        restart.starting(now);
        let next = restart.ended(now, CRASH, 1.0);
        assert!(matches!(next, Next::Retry { failures: 1, .. }), "{next:?}");
        assert!(!restart.is_crowded());
        restart.ended(now, Weight::Crowded, 1.0);
        restart.ready(now);
        assert!(!restart.is_crowded(), "there was room");
    }

    #[test]
    fn delays_double_from_the_floor() {
        let mut restart = Restart::new(Settings {
            failures_max: 100,
            ..Settings::default()
        });
        let mut now = secs(0);
        for expected in [250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000] {
            restart.starting(now);
            let Next::Retry { at, .. } = restart.ended(now, CRASH, 1.0) else {
                panic!("retry")
            };
            assert_eq!(at - now, Duration::from_millis(expected));
            assert_eq!(restart.permit(now), Permit::Backoff(at));
            now = at;
            assert_eq!(restart.permit(now), Permit::Go);
        }
    }

    #[test]
    fn five_failures_quarantine_and_one_half_open_try() {
        let mut restart = Restart::new(Settings::default());
        let mut now = secs(0);
        for _ in 0..4 {
            restart.starting(now);
            assert!(matches!(restart.ended(now, CRASH, 0.0), Next::Retry { .. }));
            now += secs(10);
        }
        restart.starting(now);
        let Next::Quarantine { until } = restart.ended(now, CRASH, 0.0) else {
            panic!()
        };
        assert_eq!(until, now + secs(300));
        assert_eq!(restart.permit(until - secs(1)), Permit::Quarantined(until));
        assert_eq!(restart.permit(until), Permit::HalfOpen);
        restart.starting(until);
        assert_eq!(
            restart.ended(until + secs(1), CRASH, 0.0),
            Next::Quarantine {
                until: until + secs(301)
            },
            "a failed half-open try goes straight back"
        );
    }

    #[test]
    fn a_long_ready_half_open_run_forgives_all() {
        let mut restart = Restart::new(Settings::default());
        for _ in 0..5 {
            restart.starting(secs(0));
            restart.ended(secs(0), CRASH, 0.0);
        }
        restart.starting(secs(400));
        restart.ready(secs(401));
        let next = restart.ended(secs(401 + 61), CRASH, 1.0);
        assert!(matches!(next, Next::Retry { failures: 1, .. }), "{next:?}");
    }

    #[test]
    fn a_slow_failure_row_is_still_a_row() {
        let mut restart = Restart::new(Settings::default());
        let mut now = secs(0);
        for _ in 0..4 {
            restart.starting(now);
            now += secs(3600);
            restart.ended(now, CRASH, 0.0);
        }
        restart.starting(now);
        assert!(matches!(
            restart.ended(now, CRASH, 0.0),
            Next::Quarantine { .. }
        ));
    }

    #[test]
    fn oom_counts_double_hopeless_at_once_wanted_not_at_all() {
        let mut restart = Restart::new(Settings::default());
        restart.starting(secs(0));
        let next = restart.ended(secs(0), Weight::Failure(2), 1.0);
        assert_eq!(
            next,
            Next::Retry {
                at: Duration::from_millis(500),
                failures: 2
            }
        );
        restart.pardon();
        restart.starting(secs(1));
        assert_eq!(restart.ended(secs(1), Weight::Wanted, 0.0), Next::Rest);
        assert_eq!(restart.permit(secs(1)), Permit::Go);
        assert!(matches!(
            restart.ended(secs(1), Weight::Hopeless, 0.0),
            Next::Quarantine { .. }
        ));
        restart.pardon();
        assert_eq!(restart.permit(secs(1)), Permit::Go);
    }

    proptest! {
        #[test]
        fn backoff_stays_between_half_the_floor_and_the_cap(
            steps in prop::collection::vec((0u64..200_000, 0u32..3, 0.0f64..1.0), 1..60)
        ) {
            let settings = Settings::default();
            let mut restart = Restart::new(settings);
            let mut now = Duration::ZERO;
            for (lived_ms, weight, jitter) in steps {
                match restart.permit(now) {
                    Permit::Backoff(until) | Permit::Quarantined(until) => {
                        prop_assert!(until > now);
                        now = until;
                    }
                    Permit::Go | Permit::HalfOpen => {}
                }
                let half_open = restart.permit(now) == Permit::HalfOpen;
                restart.starting(now);
                restart.ready(now);
                now += Duration::from_millis(lived_ms);
                let reset = lived_ms >= 120_000;
                match restart.ended(now, Weight::Failure(weight), jitter) {
                    Next::Retry { at, failures } => {
                        prop_assert!(at - now >= settings.floor / 2);
                        prop_assert!(at - now <= settings.cap);
                        prop_assert!(failures < settings.failures_max);
                        prop_assert!(!half_open || reset || lived_ms >= 60_000);
                    }
                    Next::Quarantine { until } => prop_assert_eq!(until, now + settings.quarantine),
                    Next::Rest => prop_assert!(false, "a failure never rests"),
                }
            }
        }

        #[test]
        fn one_slots_failures_never_touch_another(crashes in 0usize..20) {
            let mut failing = Restart::new(Settings::default());
            let sibling = Restart::new(Settings::default());
            for _ in 0..crashes {
                failing.starting(Duration::ZERO);
                failing.ended(Duration::ZERO, CRASH, 0.5);
            }
            prop_assert_eq!(sibling.permit(Duration::ZERO), Permit::Go);
            prop_assert_eq!(sibling.failures(), 0);
        }
    }
}
