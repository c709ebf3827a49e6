//! How leaves end: killed, waited for, removed; and swept, where an earlier life left them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::mounts::{Hierarchy, Kind};
use super::super::{CgroupError, text, v2, write};
use super::Tree;
use crate::facility::Facility;

/// First and longest pause between looks at a group that is dying.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(5));
/// Tries to remove a group the kernel still calls busy.
const REMOVE_TRIES: u32 = 6;
/// How deep a server may nest groups of its own below its leaf and still have them removed.
const DEPTH_MAX: u32 = 16;
impl Tree {
    /// Kills and removes every leaf no run owns: what an earlier life left. Blocks up to `wait`.
    /// Gives the number of leaves removed.
    ///
    /// # Errors
    /// [`CgroupError::Occupied`] names what would not die.
    pub fn sweep(&self, wait: Duration) -> Result<usize, CgroupError> {
        let stale = self.stale();
        for rel in &stale {
            self.kill(rel);
        }
        let until = Instant::now() + wait;
        let mut removed = 0;
        let mut stuck = None;
        for rel in &stale {
            if self.wait_empty(rel, until) && self.remove(rel).is_ok() {
                removed += 1;
            } else {
                stuck = Some(self.occupied(rel));
            }
        }
        let state = self.state();
        for dir in self
            .hierarchies
            .iter()
            .flat_map(|h| children(&h.base.join("isolates")))
        {
            let user = dir.file_name().and_then(|n| n.to_str()?.strip_prefix("u-"));
            if user.is_some_and(|user| !state.users.contains_key(user)) {
                fs::remove_dir(&dir).ok();
            }
        }
        stuck.map_or(Ok(removed), Err)
    }

    /// Processes in leaves no run owns.
    #[must_use]
    pub fn unowned(&self) -> usize {
        self.stale().iter().map(|rel| self.pids(rel).len()).sum()
    }

    fn stale(&self) -> BTreeSet<String> {
        let state = self.state();
        let mut stale = BTreeSet::new();
        for hierarchy in &self.hierarchies {
            for leaf in children(&hierarchy.base.join("isolates"))
                .iter()
                .flat_map(|group| children(group))
            {
                if let Ok(rel) = leaf.strip_prefix(&hierarchy.base)
                    && let Some(rel) = rel.to_str()
                    && !state.live.contains(rel)
                {
                    stale.insert(rel.to_owned());
                }
            }
        }
        stale
    }

    /// Kills whoever is in a leaf: by `cgroup.kill`, else frozen and signalled one by one.
    pub(in crate::cgroup) fn kill(&self, rel: &str) {
        if let Some(hierarchy) = self.with(Facility::CgroupKill)
            && write(&hierarchy.base.join(rel).join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        let freezer = self.hierarchies.iter().find(|h| h.kind == Kind::Freezer);
        let freeze = |state: &str| {
            if let Some(freezer) = freezer {
                write(&freezer.base.join(rel).join("freezer.state"), state).ok();
            }
        };
        freeze("FROZEN");
        for pid in self.pids(rel) {
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
        }
        freeze("THAWED");
    }

    /// Whether nobody is in a leaf, or there is none.
    pub(in crate::cgroup) fn is_empty(&self, rel: &str) -> bool {
        let v2 = |h: &&Hierarchy| matches!(h.kind, Kind::V2 | Kind::Unified);
        match self.hierarchies.iter().find(v2) {
            Some(hierarchy) => v2::is_empty(&hierarchy.base.join(rel)).unwrap_or(true),
            None => self.pids(rel).is_empty(),
        }
    }

    /// Blocks until a leaf is empty; kills again meanwhile, for hosts without `cgroup.kill`.
    fn wait_empty(&self, rel: &str, until: Instant) -> bool {
        let (mut pause, longest) = LOOK_AGAIN;
        while !self.is_empty(rel) {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
            self.kill(rel);
        }
        true
    }

    /// Everybody in a leaf, by the first hierarchy that knows it.
    pub(in crate::cgroup) fn pids(&self, rel: &str) -> Vec<i32> {
        self.hierarchies
            .iter()
            .find_map(|h| fs::read_to_string(h.base.join(rel).join("cgroup.procs")).ok())
            .map(|procs| text::pids(&procs))
            .unwrap_or_default()
    }

    /// Removes a leaf everywhere; blocks for milliseconds at most.
    pub(in crate::cgroup) fn remove(&self, rel: &str) -> Result<(), CgroupError> {
        for hierarchy in &self.hierarchies {
            remove_dir(&hierarchy.base.join(rel))?;
        }
        Ok(())
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes a group and those a server may have made below it. The kernel may call a group busy for
/// a moment after its last process has gone.
pub(super) fn remove_dir(dir: &Path) -> Result<(), CgroupError> {
    remove_below(dir, DEPTH_MAX);
    let mut pause = Duration::from_micros(500);
    for _ in 0..REMOVE_TRIES {
        match fs::remove_dir(dir) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => return other.map_err(|e| CgroupError::io("remove", dir, e)),
        }
    }
    fs::remove_dir(dir).map_err(|e| CgroupError::io("remove", dir, e))
}

fn remove_below(dir: &Path, depth: u32) {
    for child in children(dir) {
        if depth > 0 {
            remove_below(&child, depth - 1);
        }
        fs::remove_dir(&child).ok();
    }
}
