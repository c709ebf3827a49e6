//! What an mcp leaves to the configuration: the values that it does not set itself follow the
//! configuration of each start, and are not written down with the definition.

use serde::{Deserialize, Serialize};

use super::{Limits, Mcp, Times};

/// A value of an mcp that the configuration gives where the definition says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Usual {
    /// [`Limits::memory_bytes`].
    MemoryBytes,
    /// [`Limits::pids`].
    Pids,
    /// [`Limits::cpu_millis`].
    CpuMillis,
    /// [`Times::call_ms`].
    CallMs,
    /// [`Times::idle_ms`].
    IdleMs,
}

/// What the configuration gives an mcp that does not say otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Kernel limits of one isolate.
    pub limits: Limits,
    /// Deadlines and idle time.
    pub times: Times,
}

// === impl Usual ===

impl Usual {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::MemoryBytes,
        Self::Pids,
        Self::CpuMillis,
        Self::CallMs,
        Self::IdleMs,
    ];

    /// Its field in [`Limits`] or [`Times`].
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::MemoryBytes => "memory_bytes",
            Self::Pids => "pids",
            Self::CpuMillis => "cpu_millis",
            Self::CallMs => "call_ms",
            Self::IdleMs => "idle_ms",
        }
    }

    /// The configuration's key that gives it.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::MemoryBytes => "isolates.memory_bytes",
            Self::Pids => "isolates.pids",
            Self::CpuMillis => "isolates.cpu_millis",
            Self::CallMs => "calls.deadline_ms",
            Self::IdleMs => "isolates.idle_ms",
        }
    }
}

// === impl Mcp ===

impl Mcp {
    /// Leaves a value to the configuration.
    pub fn leave(&mut self, value: Usual, to: &Defaults) {
        match value {
            Usual::MemoryBytes => self.limits.memory_bytes = to.limits.memory_bytes,
            Usual::Pids => self.limits.pids = to.limits.pids,
            Usual::CpuMillis => self.limits.cpu_millis = to.limits.cpu_millis,
            Usual::CallMs => self.times.call_ms = to.times.call_ms,
            Usual::IdleMs => self.times.idle_ms = to.times.idle_ms,
        }
        self.as_configured.insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_a_field_that_is_written() {
        let limits = serde_json::to_value(Limits::default()).unwrap();
        let times = serde_json::to_value(Times::default()).unwrap();
        for one in Usual::ALL {
            let there = limits.get(one.field()).or_else(|| times.get(one.field()));
            assert!(there.is_some(), "{one:?}");
            assert_eq!(serde_json::to_value(one).unwrap(), one.field());
        }
    }
}
