//! What the metrics read of kill switches: plain counters, and the times of the last kills.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::domain::kill::Scope;
use crate::domain::limits::KILL_TIMES_KEPT;

use super::super::sync::Mutex;

/// What happened to a deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It was switched on.
    On,
    /// It was lifted.
    Off,
    /// Its time was over.
    Expired,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 3] = [Self::On, Self::Off, Self::Expired];

    /// Its word in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Expired => "expired",
        }
    }
}

/// One kill that was measured: from the request to the end of the last process, or of the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// Counts all kills, from one: whoever polls knows what is new to him.
    pub number: u64,
    /// Of which scope.
    pub scope: Scope,
    /// How long.
    pub took: Duration,
}

type PerScope = [AtomicU64; Scope::ALL.len()];

/// Totals since the start.
#[derive(Debug, Default)]
pub struct KillStats {
    denied: PerScope,
    cancelled: PerScope,
    changes: [PerScope; Action::ALL.len()],
    unkillable: AtomicU64,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    count: u64,
    last: VecDeque<Propagation>,
}

impl KillStats {
    /// Calls that were refused by a deny of this scope.
    #[must_use]
    pub fn denied(&self, scope: Scope) -> u64 {
        count(&self.denied, scope)
    }

    /// Calls in flight or waiting that a deny of this scope cut off.
    #[must_use]
    pub fn cancelled(&self, scope: Scope) -> u64 {
        count(&self.cancelled, scope)
    }

    /// Changes of this kind.
    #[must_use]
    pub fn changes(&self, scope: Scope, action: Action) -> u64 {
        self.changes
            .get(action as usize)
            .map_or(0, |scopes| count(scopes, scope))
    }

    /// Process trees that outlived a kill switch's `kill_wait`.
    #[must_use]
    pub fn unkillable(&self) -> u64 {
        self.unkillable.load(Ordering::Relaxed)
    }

    /// The last kills after this number, oldest first, at most [`KILL_TIMES_KEPT`].
    #[must_use]
    pub fn propagations_after(&self, number: u64) -> Vec<Propagation> {
        let times = self.times.lock();
        let new = times.last.iter().filter(|one| one.number > number);
        new.copied().collect()
    }

    pub(crate) fn count_denied(&self, scope: Scope) {
        add(&self.denied, scope, 1);
    }

    pub(crate) fn count_cancelled(&self, scope: Scope, calls: u64) {
        add(&self.cancelled, scope, calls);
    }

    pub(crate) fn count_change(&self, scope: Scope, action: Action) {
        if let Some(scopes) = self.changes.get(action as usize) {
            add(scopes, scope, 1);
        }
    }

    pub(crate) fn count_unkillable(&self, trees: u64) {
        self.unkillable.fetch_add(trees, Ordering::Relaxed);
    }

    pub(crate) fn observe(&self, scope: Scope, took: Duration) {
        let mut times = self.times.lock();
        times.count += 1;
        if times.last.len() == KILL_TIMES_KEPT {
            times.last.pop_front();
        }
        let number = times.count;
        times.last.push_back(Propagation {
            number,
            scope,
            took,
        });
    }
}

fn count(of: &PerScope, scope: Scope) -> u64 {
    of.get(scope.index())
        .map_or(0, |one| one.load(Ordering::Relaxed))
}

fn add(to: &PerScope, scope: Scope, calls: u64) {
    if let Some(one) = to.get(scope.index()) {
        one.fetch_add(calls, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_polls_sees_each_kill_once_and_the_ring_is_bounded() {
        let stats = KillStats::default();
        for n in 0..KILL_TIMES_KEPT as u64 + 10 {
            stats.observe(Scope::Mcp, Duration::from_millis(n));
        }
        let all = stats.propagations_after(0);
        assert_eq!(all.len(), KILL_TIMES_KEPT);
        let last = all.last().unwrap().number;
        assert!(stats.propagations_after(last).is_empty());
        stats.observe(Scope::All, Duration::ZERO);
        assert_eq!(stats.propagations_after(last)[0].scope, Scope::All);
        stats.count_change(Scope::Tool, Action::Expired);
        assert_eq!(stats.changes(Scope::Tool, Action::Expired), 1);
        assert_eq!(stats.changes(Scope::Tool, Action::On), 0);
    }
}
