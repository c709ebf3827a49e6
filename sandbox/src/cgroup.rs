//! The tree of limits: `legation-<installation>/isolates/u-<user>/i-<isolate>` in every hierarchy
//! the host has for us.
//!
//! Three kinds of host: **v2** (one hierarchy), **hybrid** (v1 controllers, and a v2 tree without
//! controllers whose `cgroup.kill` and `cgroup.events` are used), **v1**. Limits and statistics of
//! v1 go through cgroups-rs; making, entering, killing and removing never do, because it starts at
//! the host's root and moves tasks there.
//!
//! The invariant: limits are written before a server can be in the group (its init, which is ours,
//! may be), and a leaf is removed only when it is empty.

mod io;
mod leaf;
mod mounts;
mod oom;
#[cfg(test)]
pub(crate) mod properties;
mod stats;
mod text;
mod tree;
mod v1;
mod v2;

use std::io as std_io;
use std::path::{Path, PathBuf};

pub use self::io::{Disk, IoLimit};
pub use leaf::{Entry, Leaf};
pub use oom::{Counters, OomScope, attribute};
pub use tree::{LeafName, Tree};

/// The kernel's limits of one isolate, or of all isolates of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, page cache and tmpfs included; no swap beyond it.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Thousandths of a core.
    pub cpu_millis: u64,
}

/// Resource use; `None` where this host does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory now.
    pub memory: Option<Memory>,
    /// Bytes at most; only in [`Leaf::usage`].
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
    /// Time lost waiting for a core (PSI, v2 or hybrid).
    pub cpu_stall: Option<Stall>,
    /// For memory.
    pub memory_stall: Option<Stall>,
    /// For disks.
    pub io_stall: Option<Stall>,
}

/// Memory of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it, page cache included: what the limit is held against.
    pub bytes: u64,
    /// Of it, page cache that could be given back at once (`inactive_file`); not in every reading.
    pub cache_bytes: Option<u64>,
}

/// Events of the memory controller since the group was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Throttled above `memory.high`; v2 only.
    pub high: u64,
    /// The limit was hit (v1: `failcnt`).
    pub max: u64,
    /// Nothing could be freed at the limit; v2 only.
    pub oom: u64,
    /// Processes killed for memory.
    pub oom_kill: u64,
}

/// Bandwidth control of the CPU controller since the group was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which the group wanted to run.
    pub periods: u64,
    /// Periods in which it was held back.
    pub throttled_periods: u64,
    /// For how long, microseconds.
    pub throttled_micros: u64,
}

/// Pressure stall information of one resource: microseconds since the group was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stall {
    /// Some task waited.
    pub some_micros: u64,
    /// All tasks waited.
    pub full_micros: u64,
}

/// What went wrong with a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file or directory of the tree.
    #[error("cannot {what} `{path}`: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// The kernel's answer.
        source: std_io::Error,
    },
    /// A name that could leave the tree.
    #[error("`{0}` cannot name a cgroup; names are 1 to 64 of a-z, 0-9")]
    Name(String),
    /// An earlier run's processes are still in the leaf.
    #[error("`{path}` still holds the processes {pids:?} of an earlier run")]
    Occupied {
        /// The leaf.
        path: PathBuf,
        /// Who is in it.
        pids: Vec<i32>,
    },
    /// Memory that is in use cannot be taken away.
    #[error("{} MiB are in use, which is too much for a limit of {} MiB", held >> 20, limit >> 20)]
    InUse {
        /// Bytes that could not be given back.
        held: u64,
        /// The limit that was wanted.
        limit: u64,
    },
}

impl CgroupError {
    fn io(what: &'static str, path: &Path, source: std_io::Error) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }

    /// The kernel's answer, where there was one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// Writes one of our own files; one `write`, as the kernel wants it.
fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let attempt = || {
        let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
        std_io::Write::write_all(&mut file, value.as_bytes())
    };
    attempt().map_err(|e| CgroupError::io("write", path, e))
}

/// Reads one number; `None` if the file or the number is not there.
fn read_number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
