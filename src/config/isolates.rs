//! `[isolates]` and `[restart]`: what runs, how much of it, and how often it may try again.

use std::num::NonZeroUsize;

use super::schema::{any, section, within};
use crate::domain::limits;

/// Start permits per core where `start_parallel` is not set.
const STARTS_PER_CORE: usize = 4;

section! {
    /// Users' running copies of mcps. An mcp's own limits go before `memory_bytes`, `pids`,
    /// `cpu_millis` and `idle_ms`, which hold from the next start for all mcps that set none (`mcp show` tells,
    /// `mcp update NAME --memory default` goes back to them); a user's sum holds for all of them together.
    Isolates = "isolates" {
        /// An isolate without calls stops after this.
        idle_ms: u64 = limits::millis(limits::IDLE_AFTER), within(1_000, 30 * 86_400_000);
        /// Memory of one isolate.
        memory_bytes: u64 = limits::ISOLATE_MEMORY_BYTES, within(8 << 20, 1 << 40);
        /// Processes and threads of one isolate.
        pids: u64 = limits::ISOLATE_PIDS, within(4, 1 << 20);
        /// CPU of one isolate, in thousandths of a core.
        cpu_millis: u64 = limits::ISOLATE_CPU_MILLIS, within(10, 1_000_000);
        /// Isolates that run at once on this host.
        max: usize = limits::ISOLATES_MAX, within(1, 1_000_000);
        /// Memory of all isolates together: held by the kernel, and from nine tenths of it no isolate is
        /// started. Unset: four fifths of the host's.
        memory_budget_bytes: Option<u64> = None, within(64 << 20, 1 << 50);
        /// No isolate is started while the host has less memory than this. Unset: a twentieth of the
        /// host's, 128 MiB at least.
        host_free_bytes: Option<u64> = None, within(0, 1 << 50);
        /// No isolate is started while the disk of the homes has less left than this, and one that goes on
        /// filling it is ended. Unset: a twentieth of the disk, 2 GiB at most.
        disk_free_bytes: Option<u64> = None, within(0, 1 << 50);
        /// Bytes that each isolate may read from the disk of the homes in a second, and as many that it may write
        /// (cgroup v2; v1 counts reads and direct writes only). Unset: as many as there are.
        disk_bytes_per_second: Option<u64> = None, within(64 << 10, 1 << 40);
        /// No isolate is started while everything on the host that has work waited for memory for this share of the
        /// last ten seconds (PSI `full`), until it is a quarter less; while the host has a quarter of its memory
        /// left, it does not count. Idle isolates are stopped meanwhile. 0: not looked at.
        memory_pressure_full_percent: u32 = limits::PRESSURE_MEMORY_FULL_PERCENT, within(0, 100);
        /// The same for anything that waited for memory (PSI `some`).
        memory_pressure_some_percent: u32 = limits::PRESSURE_MEMORY_SOME_PERCENT, within(0, 100);
        /// The same for anything that waited for a core, which isolates at their own limit do as well. 0: not looked at.
        cpu_pressure_percent: u32 = 0, within(0, 100);
        /// The same for everything that waited for a disk (PSI `full`). 0: not looked at.
        io_pressure_percent: u32 = 0, within(0, 100);
        /// Isolates of one user.
        per_user_max: usize = limits::ISOLATES_PER_USER_MAX, within(1, 1_000);
        /// Memory of all isolates of one user.
        user_memory_bytes: u64 = limits::USER_MEMORY_BYTES, within(8 << 20, 1 << 40);
        /// Processes and threads of all isolates of one user.
        user_pids: u64 = limits::USER_PIDS, within(4, 1 << 20);
        /// CPU of all isolates of one user, in thousandths of a core.
        user_cpu_millis: u64 = limits::USER_CPU_MILLIS, within(10, 1_000_000);
        /// Isolates that start at once, host-wide. Unset: four for each core.
        start_parallel: Option<usize> = None, within(1, 4096);
        /// A kill that took longer leaves the isolate stuck: shut and named.
        kill_wait_ms: u64 = limits::millis(limits::KILL_WAIT), within(100, 60_000);
        /// The `PATH` of isolates, in which commands are looked up.
        path: String = "/usr/local/bin:/usr/bin:/bin".into(), any();
    }
}

impl Isolates {
    /// Isolates that start at once, host-wide, as set or by the number of cores.
    #[must_use]
    pub fn starts_at_once(&self) -> usize {
        self.start_parallel.unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            STARTS_PER_CORE.saturating_mul(cores)
        })
    }
}

section! {
    /// When a server that failed starts again.
    Restart = "restart" {
        /// Wait after the first failure; it doubles with each further one.
        floor_ms: u64 = limits::millis(limits::RESTART_FLOOR), within(10, 600_000);
        /// The longest wait.
        cap_ms: u64 = limits::millis(limits::RESTART_CAP), within(10, 3_600_000);
        /// How long a server that failed too often is left alone before one more try.
        quarantine_ms: u64 = limits::millis(limits::RESTART_QUARANTINE),
            within(1_000, 86_400_000);
        /// Failures that are too many, unless a ready time of `window_ms` forgave them. Out of memory counts as two.
        failures_max: u32 = limits::RESTART_FAILURES_MAX, within(1, 100);
        /// A server that was ready for this long is forgiven its failures.
        window_ms: u64 = limits::millis(limits::RESTART_WINDOW), within(1_000, 3_600_000);
        /// Restarts per second, host-wide.
        per_second: u32 = limits::RESTARTS_PER_SECOND, within(1, 1_000);
    }
}
