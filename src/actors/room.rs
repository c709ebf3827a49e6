//! Room on the host: what all isolates may take, and whether another one is let in.
//!
//! The kernel holds the sum (the group of all isolates has a limit of its own), but a kernel that is asked
//! for more than there is kills somebody who is innocent. So no start is made that would come near:
//! not above the number, not above nine tenths of the budget, not when the host itself has too little left, and
//! not while it waits for memory already ([`super::pressure`]). Looked at once a second, off the runtime's workers;
//! only a start asks.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::disk::Disk;
use super::pressure::{Pressure, PressureView};
use super::sync::Mutex;
use crate::config::Config;
use crate::domain::limits::{
    BUDGET_PERCENT, BUDGET_USABLE_PERCENT, HOST_FREE_BYTES_MIN, HOST_FREE_PERCENT,
    PRESSURE_FREE_PERCENT, REFUSAL_TOLD,
};

/// How much room there is.
#[derive(Debug)]
pub struct Room {
    isolates_max: usize,
    budget: u64,
    free_min: u64,
    /// Below this pressure on memory is the host's own.
    short: u64,
    used: AtomicU64,
    free: AtomicU64,
    refused: AtomicU64,
    last: Mutex<Last>,
    /// The disk of the homes.
    pub(super) disk: Disk,
    pressure: Pressure,
}

/// What a host lacks for another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lack {
    /// In words, with the setting.
    pub(super) why: String,
    pub(super) mends: Mends,
}

/// What brings room back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mends {
    /// Servers that stop.
    Stopping,
    /// Somebody who clears the disk; no server that stops frees any of it.
    Clearing,
}

impl Mends {
    const fn by(self, why: String) -> Lack {
        Lack { why, mends: self }
    }

    /// What a caller is told to do.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Stopping => "Try again when others have stopped",
            Self::Clearing => "Your operator has to clear it",
        }
    }
}

/// The last start that was refused.
#[derive(Debug, Default)]
struct Last {
    refused: Option<(Instant, String)>,
    /// When the log was told, and how many it was not told of since.
    told: Option<Instant>,
    untold: u64,
}

/// Room as it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoomView {
    /// Isolates that may run at once.
    pub isolates_max: u64,
    /// Memory of all isolates, when it was looked at last.
    pub used_bytes: u64,
    /// What they may have together.
    pub budget_bytes: u64,
    /// Memory the host has left; none if it does not say.
    pub free_bytes: Option<u64>,
    /// What is to be left.
    pub free_min_bytes: u64,
    /// What the disk of the homes has left; none if it does not say.
    pub disk_free_bytes: Option<u64>,
    /// What is to be left of it.
    pub disk_free_min_bytes: u64,
    /// Isolates that were ended because they filled it.
    pub disk_ended: u64,
    /// How long tasks of the host wait.
    pub pressure: PressureView,
    /// Starts that were not made for want of it.
    pub refused: u64,
    /// Why no server is started now, or was not within the last minute.
    pub lacks: Option<String>,
}

/// What the host does not say.
const UNKNOWN: u64 = u64::MAX;

/// The memory all isolates may have: as set, or by the host's.
#[must_use]
pub fn budget(config: &Config) -> u64 {
    let host = host_memory("MemTotal").unwrap_or(UNKNOWN);
    let set = config.isolates.memory_budget_bytes;
    set.unwrap_or_else(|| percent(host, BUDGET_PERCENT))
}

impl Room {
    /// From a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let isolates = &config.isolates;
        let host = host_memory("MemTotal").unwrap_or(0);
        let free_min = isolates
            .host_free_bytes
            .unwrap_or_else(|| percent(host, HOST_FREE_PERCENT).max(HOST_FREE_BYTES_MIN));
        let room = Self {
            isolates_max: isolates.max,
            budget: budget(config),
            free_min,
            short: percent(host, PRESSURE_FREE_PERCENT),
            used: AtomicU64::new(0),
            free: AtomicU64::new(UNKNOWN),
            refused: AtomicU64::new(0),
            last: Mutex::default(),
            disk: Disk::new(isolates.disk_free_bytes),
            pressure: Pressure::of(isolates),
        };
        room.look(0);
        room
    }

    /// Looks again: `used` is what the isolates have now. Reads files.
    pub(super) fn look(&self, used: u64) {
        self.used.store(used, Ordering::Relaxed);
        let free = host_memory("MemAvailable").unwrap_or(UNKNOWN);
        self.free.store(free, Ordering::Relaxed);
        self.pressure.look(free == UNKNOWN || free < self.short);
    }

    /// Whether the host waits for memory, so that what is not used had better go.
    pub(super) fn is_pressed(&self) -> bool {
        self.pressure.is_memory_short()
    }

    /// Why no other isolate is started beside `running` ones; `None` if it is.
    pub(super) fn refuses(&self, running: usize) -> Option<Lack> {
        if running >= self.isolates_max {
            let why =
                format!("{running} servers run on this host, which is the most (isolates.max)");
            return Some(Mends::Stopping.by(why));
        }
        self.lacks()
    }

    /// What is short, however many run.
    fn lacks(&self) -> Option<Lack> {
        let (used, free) = (
            self.used.load(Ordering::Relaxed),
            self.free.load(Ordering::Relaxed),
        );
        let why = if used >= percent(self.budget, BUDGET_USABLE_PERCENT) {
            format!(
                "the servers on this host use {} MiB of the {} they may have together \
                 (isolates.memory_budget_bytes)",
                used >> 20,
                self.budget >> 20
            )
        } else if free < self.free_min {
            format!(
                "this host has {} MiB of memory left, and below {} no server is started \
                 (isolates.host_free_bytes)",
                free >> 20,
                self.free_min >> 20
            )
        } else if self.disk.is_nearly_full() {
            let full = self.disk.why_full();
            let why = format!("the disk of the homes {full}, and meanwhile no server is started");
            return Some(Mends::Clearing.by(why));
        } else {
            self.pressure.refuses()?
        };
        Some(Mends::Stopping.by(why))
    }

    /// Counts a start that was not made for this, and tells the log now and then: it is the host that cannot,
    /// so it is nobody's fault but concerns whoever looks after it.
    pub(super) fn refused(&self, mcp: &str, why: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut last = self.last.lock();
        last.refused = Some((now, why.to_owned()));
        if last.told.is_some_and(|told| now - told < REFUSAL_TOLD) {
            last.untold += 1;
            return;
        }
        let since = std::mem::take(&mut last.untold);
        last.told = Some(now);
        drop(last);
        tracing::warn!(
            mcp.name = mcp,
            starts.refused = since + 1,
            "this host has no room for a server, so it is not started: {why}"
        );
    }

    /// Why no other server behind HTTP is spoken to beside `running` ones; `None` if it is. It takes no memory
    /// and no disk of this host's.
    pub(super) fn refuses_remote(&self, running: usize) -> Option<Lack> {
        if running < self.isolates_max {
            return None;
        }
        Some(Mends::Stopping.by(format!(
            "{running} servers behind HTTP are in use, which is the most (isolates.max)"
        )))
    }

    /// As it is shown.
    #[must_use]
    pub fn view(&self) -> RoomView {
        let free = self.free.load(Ordering::Relaxed);
        let lately = || {
            let last = self.last.lock();
            let (at, why) = last.refused.as_ref()?;
            (at.elapsed() < REFUSAL_TOLD).then(|| why.clone())
        };
        RoomView {
            isolates_max: self.isolates_max as u64,
            used_bytes: self.used.load(Ordering::Relaxed),
            budget_bytes: self.budget,
            free_bytes: (free != UNKNOWN).then_some(free),
            free_min_bytes: self.free_min,
            disk_free_bytes: self.disk.free(),
            disk_free_min_bytes: self.disk.free_min(),
            disk_ended: self.disk.ended(),
            pressure: self.pressure.view(),
            refused: self.refused.load(Ordering::Relaxed),
            lacks: self.lacks().map(|lack| lack.why).or_else(lately),
        }
    }
}

fn percent(of: u64, percent: u64) -> u64 {
    of / 100 * percent
}

/// A line of `/proc/meminfo`, in bytes.
fn host_memory(line: &str) -> Option<u64> {
    read(&std::fs::read_to_string("/proc/meminfo").ok()?, line)
}

fn read(text: &str, line: &str) -> Option<u64> {
    let rest = text.lines().find_map(|l| l.strip_prefix(line))?;
    let kib = rest.strip_prefix(':')?.trim().strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> Room {
        Room {
            isolates_max: 3,
            budget: 1000 << 20,
            free_min: 100 << 20,
            short: 250 << 20,
            used: AtomicU64::new(0),
            free: AtomicU64::new(500 << 20),
            refused: AtomicU64::new(0),
            last: Mutex::default(),
            disk: Disk::new(None),
            pressure: Pressure::of(&crate::config::isolates::Isolates::default()),
        }
    }

    #[test]
    fn each_lack_of_room_refuses_and_names_its_setting() {
        let room = room();
        assert_eq!(room.refuses(2), None);
        assert!(room.refuses(3).unwrap().why.contains("isolates.max"));
        room.used.store(901 << 20, Ordering::Relaxed);
        let text = room.refuses(0).unwrap().why;
        assert!(text.contains("901 MiB of the 1000"), "{text}");
        room.used.store(0, Ordering::Relaxed);
        room.free.store(99 << 20, Ordering::Relaxed);
        let text = room.refuses(0).unwrap().why;
        assert!(text.contains("99 MiB of memory left"), "{text}");
        assert_eq!(room.view().lacks, Some(text));
        // A host that does not say is not held against anybody.
        room.free.store(UNKNOWN, Ordering::Relaxed);
        assert_eq!(room.refuses(0), None);
        assert_eq!(room.view().free_bytes, None);
    }

    /// What the number of isolates refuses is not to be seen from the host, only from who was refused.
    #[tokio::test(start_paused = true)]
    async fn what_was_refused_lately_is_told_for_a_while() {
        let room = room();
        assert_eq!(room.view().lacks, None);
        room.refused("demo", "3 servers run");
        room.refused("demo", "4 servers run");
        assert_eq!(room.view().refused, 2);
        assert_eq!(room.view().lacks.as_deref(), Some("4 servers run"));
        tokio::time::advance(REFUSAL_TOLD).await;
        assert_eq!(room.view().lacks, None);
    }

    #[test]
    fn the_host_s_memory_is_read() {
        let text = "MemTotal:       24649856 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(read(text, "MemTotal"), Some(24_649_856 << 10));
        assert_eq!(read(text, "MemAvailable"), Some(1 << 20));
        assert_eq!(read(text, "Mem"), None);
        assert_eq!(read("MemTotal: x kB\n", "MemTotal"), None);
        assert!(host_memory("MemTotal").unwrap() > 64 << 20);
    }
}
