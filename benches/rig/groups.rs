//! Cgroups made and limited by hand, as somebody without us would.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Controllers of cgroup v1 and the limit written in each.
const HIERARCHIES: [(&str, &str, &str); 3] = [
    ("memory", "memory.limit_in_bytes", "536870912"),
    ("pids", "pids.max", "128"),
    ("cpu", "cpu.cfs_quota_us", "100000"),
];

/// One cgroup in each v1 hierarchy.
#[derive(Debug)]
pub(crate) struct Groups(Vec<(PathBuf, &'static str, &'static str)>);

impl Groups {
    pub(crate) fn named(number: u32) -> Self {
        let name = format!("legation-bench-{}-{number}", std::process::id());
        let dirs = HIERARCHIES.iter().map(|(hierarchy, file, value)| {
            let dir = Path::new("/sys/fs/cgroup").join(hierarchy).join(&name);
            (dir, *file, *value)
        });
        Self(dirs.collect())
    }

    pub(crate) fn make(&self) -> Result<()> {
        for (dir, file, value) in &self.0 {
            fs::create_dir(dir)?;
            fs::write(dir.join(file), value)?;
        }
        Ok(())
    }

    pub(crate) fn enter(&self, pid: u32) -> Result<()> {
        for (dir, _, _) in &self.0 {
            fs::write(dir.join("tasks"), pid.to_string())?;
        }
        Ok(())
    }

    pub(crate) fn remove(&self) -> Result<()> {
        for (dir, _, _) in &self.0 {
            fs::remove_dir(dir)?;
        }
        Ok(())
    }
}
