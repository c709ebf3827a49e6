//! The kernel's counters in the tree's own words.

use sandbox::cgroup::{Stall as KernelStall, Usage as KernelUsage};

use crate::domain::usage::{Memory, MemoryEvents, Pressure, Stall, Throttling, Usage};

/// One reading.
pub(super) fn usage(usage: KernelUsage) -> Usage {
    let stall = |stall: KernelStall| Stall {
        some_micros: stall.some_micros,
        full_micros: stall.full_micros,
    };
    Usage {
        memory: usage.memory.map(|memory| Memory {
            bytes: memory.bytes,
            working_set_bytes: memory.working_set_bytes,
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
        pressure: usage.pressure.map(|pressure| Pressure {
            cpu: stall(pressure.cpu),
            memory: stall(pressure.memory),
            io: stall(pressure.io),
        }),
    }
}
