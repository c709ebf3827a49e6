//! What a process tree uses and has used, as the kernel counts it; `None` where a host does not.

use serde::Serialize;

/// One reading of a run's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Memory now.
    pub memory: Option<Memory>,
    /// Bytes at most; only in full readings.
    pub memory_peak_bytes: Option<u64>,
    /// What happened at the memory limit.
    pub memory_events: Option<MemoryEvents>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// Forks refused by the limit.
    pub pids_refused: Option<u64>,
    /// CPU time used, microseconds.
    pub cpu_micros: Option<u64>,
    /// What the CPU limit did.
    pub throttling: Option<Throttling>,
    /// Time lost waiting for a core (PSI).
    pub cpu_stall: Option<Stall>,
    /// For memory.
    pub memory_stall: Option<Stall>,
    /// For disks.
    pub io_stall: Option<Stall>,
}

/// Memory now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Page cache included: what the limit is held against.
    pub bytes: u64,
    /// Of it, page cache that could be given back at once; not in every reading.
    pub cache_bytes: Option<u64>,
}

impl Memory {
    /// Without the page cache that could be given back at once, as far as it is known.
    #[must_use]
    pub fn working_set_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.cache_bytes.unwrap_or(0))
    }
}

/// Events of the memory controller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEvents {
    /// Throttled above `memory.high`.
    pub high: u64,
    /// The limit was hit.
    pub max: u64,
    /// Nothing could be freed at the limit.
    pub oom: u64,
    /// Processes killed for memory.
    pub oom_kill: u64,
}

/// What the CPU limit did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Throttling {
    /// Periods in which it wanted to run.
    pub periods: u64,
    /// Periods in which it was held back.
    pub throttled_periods: u64,
    /// For how long, microseconds.
    pub throttled_micros: u64,
}

/// Pressure stall information of the three resources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// CPU.
    pub cpu: Stall,
    /// Memory.
    pub memory: Stall,
    /// Disks.
    pub io: Stall,
}

/// Time lost, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stall {
    /// Some task waited.
    pub some_micros: u64,
    /// All tasks waited.
    pub full_micros: u64,
}

/// What the counters grew by between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// CPU time, microseconds.
    pub cpu_micros: u64,
    /// Bandwidth control.
    pub throttling: Throttling,
    /// Events at the memory limit.
    pub memory_events: MemoryEvents,
    /// Forks refused.
    pub pids_refused: u64,
    /// Stalls.
    pub pressure: Pressure,
}

impl Usage {
    /// What was spent since an earlier reading of the same run. Never negative: a counter that
    /// cannot be read any more has grown by nothing.
    #[must_use]
    pub fn spent_since(&self, before: &Self) -> Spent {
        let grew = |now: Option<u64>, then: Option<u64>| {
            now.unwrap_or(0).saturating_sub(then.unwrap_or(0))
        };
        let now = self.throttling.unwrap_or_default();
        let then = before.throttling.unwrap_or_default();
        let throttling = Throttling {
            periods: now.periods.saturating_sub(then.periods),
            throttled_periods: now.throttled_periods.saturating_sub(then.throttled_periods),
            throttled_micros: now.throttled_micros.saturating_sub(then.throttled_micros),
        };
        let now = self.memory_events.unwrap_or_default();
        let then = before.memory_events.unwrap_or_default();
        let memory_events = MemoryEvents {
            high: now.high.saturating_sub(then.high),
            max: now.max.saturating_sub(then.max),
            oom: now.oom.saturating_sub(then.oom),
            oom_kill: now.oom_kill.saturating_sub(then.oom_kill),
        };
        let stalled = |now: Option<Stall>, then: Option<Stall>| {
            now.unwrap_or_default().since(then.unwrap_or_default())
        };
        Spent {
            cpu_micros: grew(self.cpu_micros, before.cpu_micros),
            throttling,
            memory_events,
            pids_refused: grew(self.pids_refused, before.pids_refused),
            pressure: Pressure {
                cpu: stalled(self.cpu_stall, before.cpu_stall),
                memory: stalled(self.memory_stall, before.memory_stall),
                io: stalled(self.io_stall, before.io_stall),
            },
        }
    }

    /// The same with the counters that only an earlier reading of the same run has: a sweep reads
    /// some of them in turn, and a group that is being removed loses its files one by one.
    #[must_use]
    pub fn or_earlier(self, before: &Self) -> Self {
        let memory = self.memory.map(|now| Memory {
            cache_bytes: now
                .cache_bytes
                .or(before.memory.and_then(|before| before.cache_bytes)),
            ..now
        });
        Self {
            memory,
            memory_peak_bytes: self.memory_peak_bytes.or(before.memory_peak_bytes),
            memory_events: self.memory_events.or(before.memory_events),
            pids_refused: self.pids_refused.or(before.pids_refused),
            cpu_micros: self.cpu_micros.or(before.cpu_micros),
            throttling: self.throttling.or(before.throttling),
            cpu_stall: self.cpu_stall.or(before.cpu_stall),
            memory_stall: self.memory_stall.or(before.memory_stall),
            io_stall: self.io_stall.or(before.io_stall),
            ..self
        }
    }
}

impl Stall {
    fn since(self, then: Self) -> Self {
        Self {
            some_micros: self.some_micros.saturating_sub(then.some_micros),
            full_micros: self.full_micros.saturating_sub(then.full_micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spent_is_the_difference_and_never_negative() {
        let before = Usage {
            cpu_micros: Some(100),
            pids_refused: Some(2),
            memory_events: Some(MemoryEvents {
                oom_kill: 1,
                ..MemoryEvents::default()
            }),
            ..Usage::default()
        };
        let after = Usage {
            cpu_micros: Some(250),
            memory_events: Some(MemoryEvents {
                oom_kill: 3,
                ..MemoryEvents::default()
            }),
            ..Usage::default()
        };
        let spent = after.spent_since(&before);
        assert_eq!(spent.cpu_micros, 150);
        assert_eq!(spent.memory_events.oom_kill, 2);
        assert_eq!(spent.pids_refused, 0, "it could not be read");
        assert_eq!(Usage::default().spent_since(&after), Spent::default());
        let kept = Usage::default().or_earlier(&after);
        assert_eq!(after.spent_since(&kept), Spent::default(), "spent once");
    }
}
