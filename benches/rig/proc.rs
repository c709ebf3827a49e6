//! CPU time and memory of a process and of all its descendants, from `/proc`.

use std::collections::HashMap;
use std::fs;

/// Kernel clock ticks a second: 100 on every Linux that reports times in `/proc`.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// By the process itself.
    pub(crate) own: f64,
    /// By its descendants: those alive, and those it has reaped.
    pub(crate) children: f64,
}

/// Resident memory in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) rss_kib: u64,
    pub(crate) pss_kib: u64,
    /// Written by this process and shared with no other.
    pub(crate) private_kib: u64,
}

struct Stat {
    parent: u32,
    dead: bool,
    own: f64,
    reaped: f64,
}

impl Cpu {
    /// What was used since `earlier`. A child that died and was not reaped in between is lost,
    /// which would show as less than nothing: that is cut at 0.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            own: (self.own - earlier.own).max(0.0),
            children: (self.children - earlier.children).max(0.0),
        }
    }
}

/// CPU time of `pid` and its descendants.
pub(crate) fn cpu(pid: u32) -> Cpu {
    let stats = stats();
    let Some(root) = stats.get(&pid) else {
        return Cpu::default();
    };
    let mut children = root.reaped;
    for child in descendants(pid, &stats) {
        if let Some(stat) = stats.get(&child) {
            children += stat.own + stat.reaped;
        }
    }
    Cpu {
        own: root.own,
        children,
    }
}

/// Descendants of `pid` that have ended and were not reaped.
pub(crate) fn zombies(pid: u32) -> Vec<u32> {
    let stats = stats();
    let dead = |pid: &u32| stats.get(pid).is_some_and(|stat| stat.dead);
    descendants(pid, &stats).into_iter().filter(dead).collect()
}

/// The children of `pid`, youngest last.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let mut found: Vec<u32> = stats()
        .into_iter()
        .filter(|(_, stat)| stat.parent == pid)
        .map(|(pid, _)| pid)
        .collect();
    found.sort_unstable();
    found
}

/// What a process calls itself.
pub(crate) fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Memory of `pid` alone.
pub(crate) fn memory(pid: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse().ok())
            .unwrap_or_default()
    };
    Memory {
        rss_kib: field("Rss:"),
        pss_kib: field("Pss:"),
        private_kib: field("Private_Dirty:"),
    }
}

/// The most memory that `pid` had since [`forget_peak`], in KiB.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.map(|rest| rest.trim().trim_end_matches(" kB").trim());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

/// The most memory of `pid` is what it has now.
pub(crate) fn forget_peak(pid: u32) -> std::io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// The 1-minute load average.
pub(crate) fn load_average() -> String {
    fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next().map(str::to_owned))
        .unwrap_or_else(|| "?".to_owned())
}

fn descendants(pid: u32, stats: &HashMap<u32, Stat>) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        found.extend(
            stats
                .iter()
                .filter(|(_, stat)| stat.parent == parent)
                .map(|(pid, _)| *pid),
        );
    }
    found.split_off(1)
}

fn stats() -> HashMap<u32, Stat> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect()
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and brackets; what follows the last one is regular.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let seconds = |index: usize| -> Option<f64> {
        Some(fields.get(index)?.parse::<f64>().ok()? / TICKS_PER_SECOND)
    };
    Some(Stat {
        dead: fields.first() == Some(&"Z"),
        parent: fields.get(1)?.parse().ok()?,
        own: seconds(11)? + seconds(12)?,
        reaped: seconds(13)? + seconds(14)?,
    })
}
