//! What a host must offer before it may run an isolate, and how a lack of it is told.
//!
//! A lack is found by doing (making a cgroup, cloning with a namespace), never by a kernel version,
//! and is named: facility, cause with path, what to do. Nothing degrades unless it was named.

use std::fmt;
use std::str::FromStr;

/// One thing the kernel must do for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Facility {
    /// Memory limits, and telling whose limit was hit.
    CgroupMemory,
    /// Limits on processes and threads.
    CgroupPids,
    /// Limits on CPU time.
    CgroupCpu,
    /// Limits on what is read from and written to the disk of the homes.
    CgroupIo,
    /// Killing a whole tree in one write (`cgroup.kill`, kernel 5.14).
    CgroupKill,
    /// An own pid namespace: a sure kill and no orphans.
    PidNamespace,
    /// An own mount namespace with a view built in it (`open_tree`, `mount_setattr`, kernel 5.12).
    MountNamespace,
    /// An own network namespace.
    NetworkNamespace,
    /// Own System V and POSIX message queues.
    IpcNamespace,
    /// An own host name.
    UtsNamespace,
    /// Own cgroup as the root of what can be seen.
    CgroupNamespace,
    /// A uid of its own for each user.
    UserRange,
    /// The system call filter.
    Seccomp,
    /// Landlock rules on files.
    Landlock,
    /// A program that keeps isolates with the host's network from metadata addresses.
    NetworkGuard,
}

/// A text that names no facility.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a facility; known are {known}", known = Facility::names())]
pub struct UnknownFacility(pub String);

impl Facility {
    /// Every facility, in the order they are shown.
    pub const ALL: [Self; 15] = [
        Self::CgroupMemory,
        Self::CgroupPids,
        Self::CgroupCpu,
        Self::CgroupIo,
        Self::CgroupKill,
        Self::PidNamespace,
        Self::MountNamespace,
        Self::NetworkNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::CgroupNamespace,
        Self::UserRange,
        Self::Seccomp,
        Self::Landlock,
        Self::NetworkGuard,
    ];

    /// Those every profile stands on.
    pub const GROUND: [Self; 5] = [
        Self::CgroupMemory,
        Self::CgroupPids,
        Self::CgroupCpu,
        Self::CgroupKill,
        Self::PidNamespace,
    ];

    /// What is required only where something asks for it.
    pub const ASKED_FOR: [Self; 2] = [Self::CgroupIo, Self::NetworkGuard];

    /// All names, for people.
    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// The name used in `allow_degraded`, in status and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CgroupMemory => "cgroup_memory",
            Self::CgroupPids => "cgroup_pids",
            Self::CgroupCpu => "cgroup_cpu",
            Self::CgroupIo => "cgroup_io",
            Self::CgroupKill => "cgroup_kill",
            Self::PidNamespace => "pid_namespace",
            Self::MountNamespace => "mount_namespace",
            Self::NetworkNamespace => "network_namespace",
            Self::IpcNamespace => "ipc_namespace",
            Self::UtsNamespace => "uts_namespace",
            Self::CgroupNamespace => "cgroup_namespace",
            Self::UserRange => "user_range",
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::NetworkGuard => "network_guard",
        }
    }

    /// What the probe did, where it is there.
    #[must_use]
    pub const fn evidence(self) -> &'static str {
        match self {
            Self::CgroupMemory => "made a cgroup with a limit of memory",
            Self::CgroupPids => "made a cgroup with a limit of processes",
            Self::CgroupCpu => "made a cgroup with a limit of CPU time",
            Self::CgroupIo => "made a cgroup with a limit on the disk of the homes",
            Self::CgroupKill => "made a cgroup with a cgroup.kill",
            Self::PidNamespace => "cloned into a new pid namespace",
            Self::MountNamespace => "built a read-only view and entered it",
            Self::NetworkNamespace => "set up `lo` in a new network namespace",
            Self::IpcNamespace => "cloned into a new ipc namespace",
            Self::UtsNamespace => "set the name of a new uts namespace",
            Self::CgroupNamespace => "entered a new cgroup namespace",
            Self::UserRange => "became a uid of the range, without capabilities",
            Self::Seccomp => "loaded the system call filter",
            Self::Landlock => "restricted a process with landlock",
            Self::NetworkGuard => "attached it to the cgroup of all isolates",
        }
    }

    /// What to do when it is missing.
    #[must_use]
    pub const fn fix(self) -> &'static str {
        match self {
            Self::CgroupMemory | Self::CgroupPids | Self::CgroupCpu => {
                "run as root; or, which needs cgroup v2 as the whole tree (unified), as a systemd unit with \
                 Delegate=cpu io memory pids; without systemd, start us in a cgroup that our account \
                 may write to and whose parent has the controller in its cgroup.subtree_control"
            }
            Self::CgroupIo => {
                "needs the controller io of cgroup v2 (systemd: Delegate=cpu io memory pids) or \
                 blkio of v1, with the homes on a disk and not in memory or on btrfs; or unset \
                 isolates.disk_bytes_per_second"
            }
            Self::CgroupKill => {
                "needs kernel 5.14 and cgroup2, mounted as the whole tree or at \
                 /sys/fs/cgroup/unified, writable for us"
            }
            Self::PidNamespace
            | Self::MountNamespace
            | Self::NetworkNamespace
            | Self::IpcNamespace
            | Self::UtsNamespace
            | Self::CgroupNamespace => {
                "run as root, or allow user namespaces (user.max_user_namespaces > 0 and, where \
                 the distribution has it, kernel.unprivileged_userns_clone = 1)"
            }
            Self::UserRange => {
                "run as root with a free range of uids (sandbox.uid_base, sandbox.uid_count); or \
                 install newuidmap (package uidmap), give our account a range in /etc/subuid and \
                 /etc/subgid (usermod --add-subuids 700000000-700065535 --add-subgids 700000000-700065535 \
                 ACCOUNT), and start us without NoNewPrivileges"
            }
            Self::Seccomp => "needs a kernel with CONFIG_SECCOMP_FILTER",
            Self::Landlock => {
                "needs kernel 5.13 with CONFIG_SECURITY_LANDLOCK, and landlock in the list of lsm="
            }
            Self::NetworkGuard => {
                "needs cgroup2 (the whole tree, or at /sys/fs/cgroup/unified) and root, or the \
                 capabilities CAP_BPF and CAP_NET_ADMIN; only mcps with `--network host` need it"
            }
        }
    }
}

impl fmt::Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Facility {
    type Err = UnknownFacility;

    fn from_str(text: &str) -> Result<Self, UnknownFacility> {
        Self::ALL
            .into_iter()
            .find(|facility| facility.name() == text)
            .ok_or_else(|| UnknownFacility(text.chars().take(64).collect()))
    }
}

/// A facility this host does not offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub facility: Facility,
    /// What was tried, on which path, and the kernel's answer.
    pub why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { facility, why } = self;
        write!(f, "{facility}: {why}; {}", facility.fix())
    }
}

/// What the probe found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// How processes are confined, in one line.
    pub summary: String,
    /// Facilities in force.
    pub enforced: Vec<Facility>,
    /// Facilities that are missing; every one of them was allowed to be.
    pub missing: Vec<Missing>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_a_lack_names_cause_and_fix() {
        for facility in Facility::ALL {
            assert_eq!(facility.name().parse(), Ok(facility));
        }
        let unknown = "everything".parse::<Facility>().unwrap_err().to_string();
        assert!(
            unknown.contains("pid_namespace, mount_namespace"),
            "{unknown}"
        );
        let missing = Missing {
            facility: Facility::CgroupKill,
            why: "no cgroup.kill in /x".to_owned(),
        };
        let text = missing.to_string();
        assert!(text.starts_with("cgroup_kill: no cgroup.kill in /x; needs kernel 5.14"));
    }

    #[test]
    fn every_fix_names_the_same_controllers_to_delegate_and_each_that_is_used() {
        let told: Vec<&str> = Facility::ALL
            .into_iter()
            .filter_map(|facility| facility.fix().split_once("Delegate="))
            .map(|(_, rest)| rest.split([';', ')', ',']).next().unwrap())
            .collect();
        assert_eq!(told.len(), 4, "{told:?}");
        for controllers in told {
            assert_eq!(controllers, "cpu io memory pids");
        }
    }
}
