//! Bounds of the room that isolates have on their host.

use std::time::Duration;

limits! {
    /// Of the host's memory, what all isolates may have where `isolates.memory_budget_bytes` says nothing.
    pub const BUDGET_PERCENT: u64 = 80;
    /// Of the budget, what may be used before no other isolate is started.
    pub const BUDGET_USABLE_PERCENT: u64 = 90;
    /// Of the host's memory, what must be left for a start where `isolates.host_free_bytes` says nothing.
    pub const HOST_FREE_PERCENT: u64 = 5;
    /// The same, at least.
    pub const HOST_FREE_BYTES_MIN: u64 = 128 << 20;
    /// Pressure on memory counts while the host has less than this of its memory left: above it, a limit of an isolate's is what it waits for.
    pub const PRESSURE_FREE_PERCENT: u64 = 25;
    /// From this share of time on in which everything waits for memory, none is started.
    pub const PRESSURE_MEMORY_FULL_PERCENT: u32 = 20;
    /// The same for something that waits.
    pub const PRESSURE_MEMORY_SOME_PERCENT: u32 = 60;
    /// Of the disk of the homes, what must be left where `isolates.disk_free_bytes` says nothing.
    pub const DISK_FREE_PERCENT: u64 = 5;
    /// The same, at most.
    pub const DISK_FREE_BYTES_MAX: u64 = 2 << 30;
    /// What an isolate must have written since the last look to be ended for a disk that is nearly full.
    pub const DISK_GROWTH_BYTES_MIN: u64 = 1 << 20;
    /// Files of a home that are looked at.
    pub const HOME_ENTRIES_MAX: u32 = 200_000;
    /// Homes that are listed.
    pub const HOMES_LISTED_MAX: usize = 10_000;
    /// For how long their sizes are looked at; the rest is listed without.
    pub const HOMES_WEIGHED_MAX: Duration = Duration::from_secs(15);
    /// When to try again after the host had no room.
    pub const HOST_FULL_RETRY: Duration = Duration::from_secs(10);
    /// A start that the host had no room for is told in the log once in this time, and by `legation status` for so long.
    pub const REFUSAL_TOLD: Duration = Duration::from_secs(60);
    /// An isolate that was idle for so long is stopped when another one needs its room.
    pub const ROOM_IDLE: Duration = Duration::from_secs(5);
    /// When to try again after one was stopped for it.
    pub const ROOM_RETRY: Duration = Duration::from_secs(2);
}
