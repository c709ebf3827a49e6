//! Our part of the host's cgroups: leaves made, limited and read.

mod ending;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::mounts::{self, Hierarchy, Kind, Site};
use super::{CgroupError, IoLimit, Leaf, Limits, v1, v2, write};
use crate::facility::{Facility, Missing};

/// What limits something.
const CONTROLLERS: [Facility; 3] = [
    Facility::CgroupCpu,
    Facility::CgroupMemory,
    Facility::CgroupPids,
];

/// What names a leaf: ids only, never a text of a user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeafName {
    /// The short id of the user whose sum it counts against; `None` for a shared instance.
    pub user: Option<String>,
    /// The short id of the isolate.
    pub isolate: String,
}

/// Our part of every hierarchy; without any it does nothing, successfully.
#[derive(Debug)]
pub struct Tree {
    pub(super) hierarchies: Vec<Hierarchy>,
    /// What each leaf may have of a disk, where that is enforced.
    io: Option<IoLimit>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Leaves that a run owns.
    live: HashSet<Arc<str>>,
    /// Users whose group exists, with the limits last written.
    users: HashMap<String, Limits>,
}

impl Tree {
    /// Finds the hierarchies by building in them; says what is missing and why.
    #[must_use]
    pub fn open(
        installation: &str,
        root: Option<&Path>,
        without: &[Facility],
        io: Option<IoLimit>,
    ) -> (Self, Vec<Missing>) {
        let (hierarchies, missing) = mounts::find(&Site {
            name: &format!("legation-{installation}"),
            root,
            without,
            io,
        });
        let tree = Self {
            hierarchies,
            io,
            state: Mutex::default(),
        };
        (tree, missing)
    }

    /// Limits the memory of all isolates together, where memory can be limited.
    ///
    /// # Errors
    /// The kernel refuses the limit.
    pub(crate) fn hold(&self, bytes: u64) -> Result<(), CgroupError> {
        let Some(hierarchy) = self.with(Facility::CgroupMemory) else {
            return Ok(());
        };
        let dir = hierarchy.base.join("isolates");
        mounts::make(&dir)?;
        if hierarchy.kind == Kind::V2 {
            v2::enable(&hierarchy.base, "memory")?;
            return write(&dir.join("memory.max"), &bytes.to_string());
        }
        v1::limit_memory(&dir, bytes)
    }

    /// Where both want the CPU, the gateway's leaf has ten times what all isolates have: calls go through it. Only
    /// where the leaf is ours, beside our part of the tree: nobody else's weight is touched.
    pub(crate) fn go_first(&self) {
        let v2 = |h: &&Hierarchy| h.kind == Kind::V2 && h.facilities.contains(&Facility::CgroupCpu);
        if let Some(above) = self
            .hierarchies
            .iter()
            .find(v2)
            .and_then(|h| h.base.parent())
        {
            v2::go_first(above);
        }
    }

    /// The group of cgroup v2 that all isolates are in; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn isolates(&self) -> Option<Result<PathBuf, CgroupError>> {
        let v2 = |h: &&Hierarchy| matches!(h.kind, Kind::V2 | Kind::Unified);
        let dir = self.hierarchies.iter().find(v2)?.base.join("isolates");
        Some(mounts::make(&dir).map(|()| dir))
    }

    /// The kind of host in one word: v2, hybrid, v1 or none.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        let has = |kind| self.hierarchies.iter().any(|h| h.kind == kind);
        match (has(Kind::V2), has(Kind::Unified), has(Kind::V1)) {
            (true, _, _) => "v2",
            (_, true, true) => "hybrid",
            (_, true, false) => "v2 without controllers",
            (_, _, true) => "v1",
            _ => "none",
        }
    }

    /// Makes a leaf with its CPU limit and, if need be, the user's group with all of its limits. The
    /// rest of the leaf's come by [`Leaf::limit`], when its init may be in it already; a CPU limit
    /// that comes then has the kernel hold back what is in it for a millisecond.
    ///
    /// # Errors
    /// [`CgroupError`]; nothing is left behind.
    pub fn create(
        self: &Arc<Self>,
        name: &LeafName,
        limits: &Limits,
        user_limits: &Limits,
    ) -> Result<Leaf, CgroupError> {
        let group = match &name.user {
            Some(user) => format!("isolates/u-{}", checked(user)?),
            None => "isolates/shared".to_owned(),
        };
        let rel: Arc<str> = format!("{group}/i-{}", checked(&name.isolate)?).into();
        // One at a time: a user's group must not be removed between its making and its leaf's.
        let mut state = self.state();
        if state.live.contains(&rel) {
            return Err(self.occupied(&rel));
        }
        self.make_group(&group, name.user.as_deref(), user_limits, &mut state)?;
        let made = self
            .make_leaf(&rel)
            .and_then(|()| self.limit(&rel, limits, &[Facility::CgroupCpu]))
            .and_then(|()| self.limit_io(&rel));
        if let Err(error) = made {
            self.remove(&rel).ok();
            return Err(error);
        }
        state.live.insert(Arc::clone(&rel));
        Ok(Leaf::new(Arc::clone(self), rel))
    }

    fn make_group(
        &self,
        group: &str,
        user: Option<&str>,
        limits: &Limits,
        state: &mut State,
    ) -> Result<(), CgroupError> {
        let mut fresh = false;
        for hierarchy in &self.hierarchies {
            let dir = hierarchy.base.join(group);
            if dir.is_dir() {
                continue;
            }
            fresh = true;
            mounts::make(&dir)?;
            if hierarchy.kind == Kind::V2 {
                for (controller, facility) in v2::CONTROLLERS {
                    if hierarchy.facilities.contains(&facility) {
                        v2::enable(&hierarchy.base, controller)?;
                        v2::enable(&hierarchy.base.join("isolates"), controller)?;
                        v2::enable(&dir, controller)?;
                    }
                }
            }
        }
        if let Some(user) = user
            && (fresh || state.users.get(user) != Some(limits))
        {
            self.limit(group, limits, &CONTROLLERS)?;
            state.users.insert(user.to_owned(), *limits);
        }
        Ok(())
    }

    fn make_leaf(&self, rel: &str) -> Result<(), CgroupError> {
        for hierarchy in &self.hierarchies {
            let dir = hierarchy.base.join(rel);
            match fs::create_dir(&dir) {
                Ok(()) => {}
                // A leaf nobody owns: counters of the past must not be ours.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    ending::remove_dir(&dir).map_err(|_| self.occupied(rel))?;
                    fs::create_dir(&dir).map_err(|e| CgroupError::io("make", &dir, e))?;
                }
                Err(error) => return Err(CgroupError::io("make", &dir, error)),
            }
        }
        Ok(())
    }

    /// One process out of memory ends the whole leaf, where the kernel can do that.
    pub(super) fn end_together(&self, rel: &str) -> Result<(), CgroupError> {
        match self.with(Facility::CgroupMemory) {
            Some(hierarchy) if hierarchy.kind == Kind::V2 => {
                v2::end_together(&hierarchy.base.join(rel))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn limit(
        &self,
        rel: &str,
        limits: &Limits,
        which: &[Facility],
    ) -> Result<(), CgroupError> {
        for hierarchy in &self.hierarchies {
            let dir = hierarchy.base.join(rel);
            for facility in hierarchy.facilities.iter().filter(|f| which.contains(f)) {
                match (hierarchy.kind, facility) {
                    (Kind::V2, facility) => v2::limit(&dir, *facility, limits)?,
                    (Kind::V1, Facility::CgroupMemory) => {
                        v1::limit_memory(&dir, limits.memory_bytes)?;
                    }
                    (Kind::V1, Facility::CgroupPids) => v1::limit_pids(&dir, limits.pids)?,
                    (Kind::V1, Facility::CgroupCpu) => v1::limit_cpu(&dir, limits.cpu_millis)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn limit_io(&self, rel: &str) -> Result<(), CgroupError> {
        match (self.io, self.with(Facility::CgroupIo)) {
            (Some(limit), Some(h)) => limit.put(&h.base.join(rel), h.kind),
            _ => Ok(()),
        }
    }

    fn occupied(&self, rel: &str) -> CgroupError {
        CgroupError::Occupied {
            path: rel.into(),
            pids: self.pids(rel),
        }
    }

    /// Processes and threads of all leaves of a user; `None` where this host does not count.
    #[must_use]
    pub fn processes_of(&self, user: &str) -> Option<u64> {
        let group = format!("isolates/u-{}", checked(user).ok()?);
        let hierarchy = self.with(Facility::CgroupPids)?;
        super::read_number(&hierarchy.base.join(group).join("pids.current"))
    }

    /// Removes a user's group if no isolate is in it.
    pub fn release_user(&self, user: &str) {
        let Ok(user) = checked(user) else { return };
        let mut state = self.state();
        let group = format!("isolates/u-{user}");
        let in_use = state.live.iter().any(|rel| {
            rel.strip_prefix(group.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        });
        if in_use {
            return;
        }
        for hierarchy in &self.hierarchies {
            fs::remove_dir(hierarchy.base.join(&group)).ok();
        }
        state.users.remove(user);
    }

    pub(super) fn counters(&self, rel: &str) -> super::Counters {
        match self.with(Facility::CgroupMemory) {
            Some(h) if h.kind == Kind::V2 => v2::counters(&h.base.join(rel)),
            Some(h) => v1::counters(&h.base.join(rel)),
            None => super::Counters::default(),
        }
    }

    /// A run no longer owns this leaf.
    pub(super) fn disown(&self, rel: &str) {
        self.state().live.remove(rel);
    }

    pub(super) fn with(&self, facility: Facility) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|h| h.facilities.contains(&facility))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let users: Vec<String> = self.state().users.keys().cloned().collect();
        for user in users {
            self.release_user(&user);
        }
        for hierarchy in &self.hierarchies {
            mounts::remove_base(&hierarchy.base);
        }
    }
}

/// Checks a name that becomes a directory.
fn checked(name: &str) -> Result<&str, CgroupError> {
    let fits = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if fits {
        Ok(name)
    } else {
        Err(CgroupError::Name(name.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: Limits = Limits {
        memory_bytes: 1,
        pids: 1,
        cpu_millis: 1,
    };

    /// A tree in a plain directory: no kernel behind it, but the same paths.
    fn tree(base: &Path) -> Arc<Tree> {
        Arc::new(Tree {
            hierarchies: vec![Hierarchy {
                kind: Kind::Freezer,
                base: base.to_owned(),
                facilities: Vec::new(),
            }],
            io: None,
            state: Mutex::default(),
        })
    }

    fn name(user: Option<&str>, isolate: &str) -> LeafName {
        LeafName {
            user: user.map(str::to_owned),
            isolate: isolate.to_owned(),
        }
    }

    #[test]
    fn names_that_could_leave_the_tree_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tree(dir.path());
        for bad in ["", "..", "a/b", "A", "a b", &"a".repeat(65)] {
            let refused = tree.create(&name(Some(bad), "a"), &LIMITS, &LIMITS);
            assert!(matches!(refused, Err(CgroupError::Name(_))), "{bad}");
            let refused = tree.create(&name(None, bad), &LIMITS, &LIMITS);
            assert!(matches!(refused, Err(CgroupError::Name(_))), "{bad}");
        }
    }

    #[test]
    fn leaves_are_owned_until_dropped_and_swept_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tree(dir.path());
        let leaf = tree
            .create(&name(Some("ada"), "one"), &LIMITS, &LIMITS)
            .unwrap();
        let path = dir.path().join("isolates/u-ada/i-one");
        assert!(path.is_dir());
        let twice = tree.create(&name(Some("ada"), "one"), &LIMITS, &LIMITS);
        assert!(matches!(twice, Err(CgroupError::Occupied { .. })));
        assert_eq!(tree.sweep(Duration::ZERO).unwrap(), 0);
        tree.release_user("ada");
        assert!(path.is_dir(), "a user with an isolate keeps the group");
        drop(leaf);
        assert_eq!(tree.sweep(Duration::ZERO).unwrap(), 1);
        assert!(!path.exists());
        tree.release_user("ada");
        assert!(!dir.path().join("isolates/u-ada").exists());
    }

    #[test]
    fn an_empty_tree_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("legation-x");
        let tree = tree(&base);
        let leaf = tree.create(&name(None, "one"), &LIMITS, &LIMITS).unwrap();
        leaf.remove().unwrap();
        drop(leaf);
        drop(tree);
        assert!(!base.exists());
    }
}
