//! The kernel's cgroup texts, parsed.

use std::path::PathBuf;

/// The value of a key in a "flat keyed" file (`memory.events`, `cgroup.events`, `cpu.stat`).
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// The pids in a `cgroup.procs`. 0 is a process of another pid namespace: not ours to signal.
pub(super) fn pids(text: &str) -> Vec<i32> {
    text.lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .collect()
}

/// One mounted cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where it is mounted.
    pub(super) point: PathBuf,
    /// Which part of the hierarchy is mounted there.
    pub(super) root: PathBuf,
    /// v1 controllers; `None` is v2.
    pub(super) controllers: Option<Vec<String>>,
}

/// The cgroup mounts of a `/proc/self/mountinfo`.
pub(super) fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(3);
    let root = unescape(head.next()?);
    let point = unescape(head.next()?);
    let mut tail = tail.split(' ');
    let controllers = match tail.next()? {
        "cgroup2" => None,
        "cgroup" => Some(
            tail.nth(1)?
                .split(',')
                .filter(|option| !matches!(*option, "rw" | "ro"))
                .map(str::to_owned)
                .collect(),
        ),
        _ => return None,
    };
    Some(Mount {
        point,
        root,
        controllers,
    })
}

/// mountinfo writes blanks and backslashes in octal.
fn unescape(field: &str) -> PathBuf {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
        .into()
}

/// Our own path in the hierarchy with this v1 controller, or in v2, from `/proc/self/cgroup`.
pub(super) fn own_path(cgroup: &str, controller: Option<&str>) -> Option<PathBuf> {
    cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let id = fields.next()?;
        let names = fields.next()?;
        let path = fields.next()?;
        let matches = match controller {
            Some(wanted) => names.split(',').any(|name| name == wanted),
            None => id == "0" && names.is_empty(),
        };
        matches.then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
24 1 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
25 24 0:23 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct
26 24 0:24 /docker/ab /sys/fs/cgroup/mem\\040ory rw - cgroup cgroup rw,memory
27 24 0:25 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
28 24 0:26 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
";

    #[test]
    fn mounts_of_a_hybrid_host() {
        let mounts = mounts(MOUNTINFO);
        assert_eq!(mounts.len(), 4);
        assert_eq!(
            mounts[0].controllers,
            Some(vec!["cpu".to_owned(), "cpuacct".to_owned()])
        );
        assert_eq!(mounts[1].point, PathBuf::from("/sys/fs/cgroup/mem ory"));
        assert_eq!(mounts[1].root, PathBuf::from("/docker/ab"));
        assert_eq!(mounts[2].controllers, None);
    }

    #[test]
    fn own_paths_of_both_kinds() {
        let text = "9:name=systemd:/\n4:memory:/a/b:c\n2:cpu,cpuacct:/x\n0::/user.slice\n";
        assert_eq!(own_path(text, Some("memory")), Some("/a/b:c".into()));
        assert_eq!(own_path(text, Some("cpuacct")), Some("/x".into()));
        assert_eq!(own_path(text, Some("pids")), None);
        assert_eq!(own_path(text, None), Some("/user.slice".into()));
    }

    #[test]
    fn keyed_files_and_pid_lists() {
        let events = "populated 1\nfrozen 0\n";
        assert_eq!(keyed(events, "populated"), Some(1));
        assert_eq!(keyed("oom 3\noom_kill 5\n", "oom_kill"), Some(5));
        assert_eq!(keyed("oom_kill 5\n", "oom"), None);
        assert_eq!(keyed("oom x\n", "oom"), None);
        assert_eq!(pids("12\n0\n7\n"), [12, 7]);
    }
}
