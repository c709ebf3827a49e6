//! The group of one run.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use super::mounts::Kind;
use super::stats::Rare;
use super::{CgroupError, Counters, Limits, OomScope, Tree, Usage, attribute, stats};
use crate::facility::Facility;

/// The group of one run, owned by it: while this lives, no sweep touches it.
#[derive(Debug)]
pub struct Leaf {
    tree: Arc<Tree>,
    rel: Arc<str>,
    /// What the user's group had counted before this run's server began.
    user_before: Counters,
}

/// What a new process needs to be born into a leaf.
#[derive(Debug)]
pub struct Entry {
    /// The v2 directory, for `CLONE_INTO_CGROUP`.
    pub dir: Option<OwnedFd>,
    /// v1 `tasks` files, for init to write `0` into.
    pub tasks: Vec<OwnedFd>,
}

/// Of a new memory limit, what may be in use: the kernel counts in batches, and servers go on.
const RELIMIT_PERCENT: u64 = 90;

impl Leaf {
    pub(super) fn new(tree: Arc<Tree>, rel: Arc<str>) -> Self {
        Self {
            tree,
            rel,
            user_before: Counters::default(),
        }
    }

    /// Writes the limits of memory and processes, and notes what the user's group has counted until
    /// now. Init may be in it already; its server may not.
    ///
    /// # Errors
    /// The kernel refuses a limit.
    pub fn limit(&mut self, limits: &Limits) -> Result<(), CgroupError> {
        self.tree.end_together(&self.rel)?;
        let rest = [Facility::CgroupMemory, Facility::CgroupPids];
        self.tree.limit(&self.rel, limits, &rest)?;
        self.user_before = self.tree.counters(self.group());
        Ok(())
    }

    /// Changes its limits while its processes run.
    ///
    /// # Errors
    /// They need more memory than that and nothing was changed; or the kernel refuses a limit.
    pub fn relimit(&self, limits: &Limits) -> Result<(), CgroupError> {
        let memory = stats::read(&self.tree.hierarchies, &self.rel, Rare::All).memory;
        let held = memory.map_or(0, |m| m.bytes.saturating_sub(m.cache_bytes.unwrap_or(0)));
        // The kernel makes room by giving cache back, and then by killing.
        if held > limits.memory_bytes / 100 * RELIMIT_PERCENT {
            return Err(CgroupError::InUse {
                held,
                limit: limits.memory_bytes,
            });
        }
        let all = [
            Facility::CgroupMemory,
            Facility::CgroupPids,
            Facility::CgroupCpu,
        ];
        self.tree.limit(&self.rel, limits, &all)
    }

    /// The user's group.
    fn group(&self) -> &str {
        self.rel.rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// Its path below the installation's root.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.rel
    }

    /// Whether there is any group at all behind it on this host.
    #[must_use]
    pub fn is_real(&self) -> bool {
        !self.tree.hierarchies.is_empty()
    }

    /// Opens what a new process needs to enter.
    ///
    /// # Errors
    /// Out of descriptors, or the group is gone.
    pub fn entry(&self) -> Result<Entry, CgroupError> {
        let mut entry = Entry {
            dir: None,
            tasks: Vec::new(),
        };
        for hierarchy in &self.tree.hierarchies {
            let dir = hierarchy.base.join(&*self.rel);
            if matches!(hierarchy.kind, Kind::V2 | Kind::Unified) {
                let opened = OpenOptions::new()
                    .read(true)
                    .custom_flags(libc::O_DIRECTORY)
                    .open(&dir)
                    .map_err(|e| CgroupError::io("open", &dir, e))?;
                entry.dir = Some(opened.into());
            } else {
                let tasks = dir.join("tasks");
                let opened = OpenOptions::new()
                    .write(true)
                    .open(&tasks)
                    .map_err(|e| CgroupError::io("open", &tasks, e))?;
                entry.tasks.push(opened.into());
            }
        }
        Ok(entry)
    }

    /// Kills everybody in it.
    pub fn kill(&self) {
        self.tree.kill(&self.rel);
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tree.is_empty(&self.rel)
    }

    /// Everybody in it.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        self.tree.pids(&self.rel)
    }

    /// Resource use now, the peak included.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            memory_peak_bytes: stats::peak(&self.tree.hierarchies, &self.rel),
            ..stats::read(&self.tree.hierarchies, &self.rel, Rare::All)
        }
    }

    /// Resource use now, the cheap reading: without the peak, and of the rare counters only a sixth,
    /// another one with each turn.
    #[must_use]
    pub fn sample(&self, turn: u32) -> Usage {
        stats::read(&self.tree.hierarchies, &self.rel, Rare::Turn(turn))
    }

    /// Whose memory limit the kernel enforced on it, if any. Read before it is removed.
    #[must_use]
    pub fn oom(&self) -> Option<OomScope> {
        let leaf = self.tree.counters(&self.rel);
        if leaf.kills == 0 {
            return None;
        }
        let user = self.tree.counters(self.group());
        attribute(leaf, self.user_before, user)
    }

    /// On v1 the kernel kills one process, not the isolate: an eventfd that tells when memory ran
    /// out here or in the user's group, for someone to look at [`Leaf::oom`] a moment later.
    /// `None` on v2, where `memory.oom.group` does it.
    ///
    /// # Errors
    /// Out of descriptors, or a kernel without the v1 event interface.
    pub fn oom_events(&self) -> Result<Option<OwnedFd>, CgroupError> {
        let Some(hierarchy) = self
            .tree
            .with(Facility::CgroupMemory)
            .filter(|h| h.kind == Kind::V1)
        else {
            return Ok(None);
        };
        let dir = hierarchy.base.join(&*self.rel);
        let register = || {
            let control = File::open(dir.join("memory.oom_control"))?;
            crate::sys::oom_eventfd(&control, |line| {
                fs::OpenOptions::new()
                    .write(true)
                    .open(dir.join("cgroup.event_control"))
                    .and_then(|mut file| std::io::Write::write_all(&mut file, line.as_bytes()))
            })
        };
        register()
            .map(Some)
            .map_err(|e| CgroupError::io("register for the end of memory at", &dir, e))
    }

    /// Removes it; blocks for milliseconds at most. Nobody may be in it.
    ///
    /// # Errors
    /// Somebody is.
    pub fn remove(&self) -> Result<(), CgroupError> {
        self.tree.remove(&self.rel)
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        self.tree.disown(&self.rel);
    }
}
