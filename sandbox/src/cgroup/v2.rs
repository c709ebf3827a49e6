//! Limits and statistics of cgroup v2, by its own files.

use std::fs;
use std::path::Path;

use super::{CgroupError, Counters, Limits, text, write};
use crate::facility::Facility;

/// The controllers we want and what they stand for.
pub(super) const CONTROLLERS: [(&str, Facility); 4] = [
    ("memory", Facility::CgroupMemory),
    ("pids", Facility::CgroupPids),
    ("cpu", Facility::CgroupCpu),
    ("io", Facility::CgroupIo),
];
/// Where the gateway moves itself, so that its own group may have children with controllers.
const SUPERVISOR: &str = "supervisor";
const PERIOD_MICROS: u64 = 100_000;
const QUOTA_MICROS_MIN: u64 = 1_000;

/// Whether the group itself has a controller.
pub(super) fn has(dir: &Path, controller: &str) -> bool {
    fs::read_to_string(dir.join("cgroup.controllers"))
        .is_ok_and(|text| text.split_ascii_whitespace().any(|name| name == controller))
}

/// Turns a controller on for the children of a group.
pub(super) fn enable(dir: &Path, controller: &str) -> Result<(), CgroupError> {
    let file = dir.join("cgroup.subtree_control");
    let on = fs::read_to_string(&file).unwrap_or_default();
    if on.split_ascii_whitespace().any(|name| name == controller) {
        return Ok(());
    }
    write(&file, &format!("+{controller}"))
}

/// Turns a controller on in the group we were put into. If that holds processes (v2 forbids
/// controllers below such a group), the gateway steps aside into a `supervisor` leaf.
pub(super) fn enable_in_own(dir: &Path, controller: &str) -> Result<(), CgroupError> {
    match enable(dir, controller) {
        Err(error) if error.errno() == Some(libc::EBUSY) => {
            let aside = dir.join(SUPERVISOR);
            if let Err(error) = fs::create_dir(&aside)
                && error.kind() != std::io::ErrorKind::AlreadyExists
            {
                return Err(CgroupError::io("make", &aside, error));
            }
            write(&aside.join("cgroup.procs"), "0")?;
            enable(dir, controller)
        }
        other => other,
    }
}

/// What the gateway weighs beside the usual 100 of its isolates.
const WEIGHT: &str = "1000";

/// Gives the leaf that this process is in its weight, if it is the `supervisor` of this group. A leaf that is not
/// ours to write keeps what its owner gave it.
pub(super) fn go_first(above: &Path) {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = text::own_path(&own, None).unwrap_or_default();
    if own.file_name().is_some_and(|name| name == SUPERVISOR) {
        write(&above.join(SUPERVISOR).join("cpu.weight"), WEIGHT).ok();
    }
}

/// The group under which ours belongs: our own, or the one above it if we are in its
/// `supervisor` already (systemd's `DelegateSubgroup`, or an earlier start).
pub(super) fn base_of(own: &Path) -> &Path {
    match (own.file_name(), own.parent()) {
        (Some(name), Some(parent)) if name == SUPERVISOR => parent,
        _ => own,
    }
}

/// Writes the limit one facility stands for.
pub(super) fn limit(dir: &Path, facility: Facility, limits: &Limits) -> Result<(), CgroupError> {
    match facility {
        Facility::CgroupMemory => {
            write(&dir.join("memory.max"), &limits.memory_bytes.to_string())?;
            let swap = dir.join("memory.swap.max");
            if swap.exists() {
                write(&swap, "0")?;
            }
            Ok(())
        }
        Facility::CgroupPids => write(&dir.join("pids.max"), &limits.pids.to_string()),
        Facility::CgroupCpu => {
            let quota =
                (limits.cpu_millis.saturating_mul(PERIOD_MICROS) / 1000).max(QUOTA_MICROS_MIN);
            write(&dir.join("cpu.max"), &format!("{quota} {PERIOD_MICROS}"))
        }
        // What is no controller has no limit.
        _ => Ok(()),
    }
}

/// One process out of memory ends the whole isolate.
pub(super) fn end_together(leaf: &Path) -> Result<(), CgroupError> {
    write(&leaf.join("memory.oom.group"), "1")
}

/// What the kernel counted for memory in this group alone.
pub(super) fn counters(dir: &Path) -> Counters {
    let events = fs::read_to_string(dir.join("memory.events.local")).unwrap_or_default();
    Counters {
        kills: text::keyed(&events, "oom_kill").unwrap_or(0),
        hits: text::keyed(&events, "oom").unwrap_or(0),
    }
}

/// Whether no process is in the group or below it; `None` if there is no such group.
pub(super) fn is_empty(dir: &Path) -> Option<bool> {
    let events = fs::read_to_string(dir.join("cgroup.events")).ok()?;
    Some(text::keyed(&events, "populated") == Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        for file in ["memory.max", "memory.swap.max", "pids.max", "cpu.max"] {
            fs::write(path.join(file), "").unwrap();
        }
        let limits = Limits {
            memory_bytes: 1 << 20,
            pids: 7,
            cpu_millis: 1500,
        };
        for (_, facility) in CONTROLLERS {
            limit(path, facility, &limits).unwrap();
        }
        let read = |file: &str| fs::read_to_string(path.join(file)).unwrap();
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("pids.max"), "7");
        assert_eq!(read("cpu.max"), "150000 100000");
    }

    #[test]
    fn events_are_read_and_a_lack_is_told_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        assert_eq!(is_empty(path), None);
        fs::write(path.join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
        assert_eq!(is_empty(path), Some(true));
        fs::write(
            path.join("memory.events.local"),
            "low 0\nmax 35\noom 1\noom_kill 2\noom_group_kill 1\n",
        )
        .unwrap();
        assert_eq!(counters(path), Counters { kills: 2, hits: 1 });
        let error = end_together(path).unwrap_err();
        assert!(error.to_string().contains("memory.oom.group"));
        assert_eq!(error.errno(), Some(libc::ENOENT));
    }

    #[test]
    fn a_supervisor_belongs_to_the_group_above() {
        assert_eq!(base_of(Path::new("/a/supervisor")), Path::new("/a"));
        assert_eq!(base_of(Path::new("/a/b")), Path::new("/a/b"));
    }
}
