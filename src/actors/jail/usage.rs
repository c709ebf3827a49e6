//! The kernel's counters in the tree's own words.

use sandbox::cgroup::{Stall as KernelStall, Usage as KernelUsage};

use crate::domain::usage::{Memory, MemoryEvents, Stall, Throttling, Usage};

/// One reading.
pub(super) fn usage(usage: KernelUsage) -> Usage {
    let stall = |stall: KernelStall| Stall {
        some_micros: stall.some_micros,
        full_micros: stall.full_micros,
    };
    Usage {
        memory: usage.memory.map(|memory| Memory {
            bytes: memory.bytes,
            cache_bytes: memory.cache_bytes,
        }),
        memory_peak_bytes: usage.memory_peak_bytes,
        memory_events: usage.memory_events.map(|events| MemoryEvents {
            high: events.high,
            max: events.max,
            oom: events.oom,
            oom_kill: events.oom_kill,
        }),
        pids: usage.pids,
        pids_refused: usage.pids_refused,
        cpu_micros: usage.cpu_micros,
        throttling: usage.throttling.map(|throttling| Throttling {
            periods: throttling.periods,
            throttled_periods: throttling.throttled_periods,
            throttled_micros: throttling.throttled_micros,
        }),
        cpu_stall: usage.cpu_stall.map(stall),
        memory_stall: usage.memory_stall.map(stall),
        io_stall: usage.io_stall.map(stall),
    }
}
