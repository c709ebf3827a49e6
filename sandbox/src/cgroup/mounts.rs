//! Which hierarchies this host has for us, and where in them we may build: found by doing.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::text::{self, Mount};
use super::{CgroupError, IoLimit, Limits, v1, v2};
use crate::facility::{Facility, Missing};

/// How a hierarchy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The whole tree.
    V2,
    /// The v2 tree of a hybrid host: no controllers, but kill, events and entry.
    Unified,
    /// v1 controllers.
    V1,
    /// The v1 freezer, for hosts without `cgroup.kill`.
    Freezer,
}

/// One hierarchy we build in.
#[derive(Debug)]
pub(super) struct Hierarchy {
    pub(super) kind: Kind,
    /// `…/legation-<installation>`.
    pub(super) base: PathBuf,
    /// What it enforces.
    pub(super) facilities: Vec<Facility>,
}

/// Where to build, and what to act as if it were missing.
pub(super) struct Site<'a> {
    /// `legation-<installation>`.
    pub(super) name: &'a str,
    /// A path inside every hierarchy; our own group if not given.
    pub(super) root: Option<&'a Path>,
    /// Facilities not even tried.
    pub(super) without: &'a [Facility],
    /// What an isolate may have of a disk; the facility is tried if it is given.
    pub(super) io: Option<IoLimit>,
}

/// A limit no isolate meets while it is probed.
const PROBE_LIMITS: Limits = Limits {
    memory_bytes: 64 << 20,
    pids: 64,
    cpu_millis: 100,
};

/// Tries every hierarchy; what could not be had is told with the path and the kernel's answer.
pub(super) fn find(site: &Site<'_>) -> (Vec<Hierarchy>, Vec<Missing>) {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = text::mounts(&mountinfo);
    let mut finder = Finder {
        site,
        own,
        top: None,
        found: Vec::new(),
        missing: Vec::new(),
    };
    let v1: Vec<&Mount> = mounts.iter().filter(|m| m.controllers.is_some()).collect();
    let unified = mounts.iter().find(|m| m.controllers.is_none());
    if let Some(mount) = unified {
        finder.v2(mount);
    }
    for (controller, facility) in v2::CONTROLLERS {
        finder.v1(&v1, controller, facility);
    }
    finder.finish(&v1)
}

struct Finder<'a> {
    site: &'a Site<'a>,
    own: String,
    /// The v2 group under which we would build.
    top: Option<PathBuf>,
    found: Vec<Hierarchy>,
    missing: Vec<Missing>,
}

impl Finder<'_> {
    fn wanted(&self, facility: Facility) -> bool {
        let asked = facility != Facility::CgroupIo || self.site.io.is_some();
        asked && !self.site.without.contains(&facility)
    }

    fn has(&self, facility: Facility) -> bool {
        self.found.iter().any(|h| h.facilities.contains(&facility))
    }

    fn lack(&mut self, facility: Facility, why: String) {
        self.missing.push(Missing { facility, why });
    }

    /// The directory of the group we are in, or of the configured one.
    fn site_in(&self, mount: &Mount, controller: Option<&str>) -> PathBuf {
        let inside = match self.site.root {
            Some(root) => root.to_owned(),
            None => text::own_path(&self.own, controller).unwrap_or_else(|| "/".into()),
        };
        // A container sees only a part of the hierarchy, and may see its path with or without it.
        let below = inside.strip_prefix(&mount.root).unwrap_or(&inside);
        mount.point.join(below.strip_prefix("/").unwrap_or(below))
    }

    fn v2(&mut self, mount: &Mount) {
        let own = self.site_in(mount, None);
        let top = v2::base_of(&own).to_owned();
        let base = top.join(self.site.name);
        self.top = Some(top.clone());
        let mut facilities = Vec::new();
        for (controller, facility) in v2::CONTROLLERS {
            // On a hybrid host the controller is in v1; what neither has is told by `finish`.
            if !self.wanted(facility) || !v2::has(&top, controller) {
                continue;
            }
            let enabled = v2::enable_in_own(&top, controller)
                .and_then(|()| make(&base.join("isolates")))
                .and_then(|()| v2::enable(&base, controller))
                .and_then(|()| v2::enable(&base.join("isolates"), controller))
                .and_then(|()| {
                    probe(&base, |leaf| match facility {
                        Facility::CgroupIo => self.try_io(leaf, Kind::V2),
                        _ => v2::limit(leaf, facility, &PROBE_LIMITS),
                    })
                });
            match enabled {
                Ok(()) => facilities.push(facility),
                Err(error) => self.lack(facility, error.to_string()),
            }
        }
        let kind = if facilities.is_empty() {
            Kind::Unified
        } else {
            Kind::V2
        };
        if self.wanted(Facility::CgroupKill) {
            let killable = probe(&base, |leaf| super::write(&leaf.join("cgroup.kill"), "1"));
            match killable {
                Ok(()) => facilities.push(Facility::CgroupKill),
                Err(error) => self.lack(Facility::CgroupKill, error.to_string()),
            }
        }
        if facilities.is_empty() {
            remove_base(&base);
        } else {
            self.found.push(Hierarchy {
                kind,
                base,
                facilities,
            });
        }
    }

    fn v1(&mut self, mounts: &[&Mount], controller: &str, facility: Facility) {
        if !self.wanted(facility) || self.has(facility) || self.told(facility) {
            return;
        }
        let controller = match facility {
            Facility::CgroupIo => "blkio",
            _ => controller,
        };
        let Some(mount) = mount_of(mounts, controller) else {
            return;
        };
        let base = self.site_in(mount, Some(controller)).join(self.site.name);
        let tried = probe(&base, |leaf| match facility {
            Facility::CgroupMemory => v1::limit_memory(leaf, PROBE_LIMITS.memory_bytes),
            Facility::CgroupPids => v1::limit_pids(leaf, PROBE_LIMITS.pids),
            Facility::CgroupIo => self.try_io(leaf, Kind::V1),
            _ => v1::limit_cpu(leaf, PROBE_LIMITS.cpu_millis),
        });
        match tried {
            Err(error) if geteuid().is_root() => self.lack(facility, error.to_string()),
            Err(error) => {
                let kind = match self.top {
                    Some(_) => "hybrid",
                    None => "v1",
                };
                let why = format!(
                    "{error}; this host is {kind}: its controller is one of cgroup v1, which systemd delegates to \
                     root only (boot it with cgroup v2, systemd.unified_cgroup_hierarchy=1)"
                );
                self.lack(facility, why);
            }
            // Controllers mounted together share a directory.
            Ok(()) => match self.found.iter_mut().find(|h| h.base == base) {
                Some(hierarchy) => hierarchy.facilities.push(facility),
                None => self.found.push(Hierarchy {
                    kind: Kind::V1,
                    base,
                    facilities: vec![facility],
                }),
            },
        }
    }

    fn try_io(&self, leaf: &Path, kind: Kind) -> Result<(), CgroupError> {
        let limit = self.site.io.map(|limit| limit.probe().put(leaf, kind));
        limit.unwrap_or(Ok(()))
    }

    fn told(&self, facility: Facility) -> bool {
        self.missing.iter().any(|m| m.facility == facility)
    }

    fn finish(mut self, v1: &[&Mount]) -> (Vec<Hierarchy>, Vec<Missing>) {
        let limits = v2::CONTROLLERS.map(|(_, facility)| facility);
        for facility in limits.into_iter().chain([Facility::CgroupKill]) {
            let unasked = facility == Facility::CgroupIo && self.site.io.is_none();
            if unasked || self.has(facility) || self.told(facility) {
                continue;
            }
            let why = if self.wanted(facility) {
                match &self.top {
                    Some(top) => format!(
                        "neither `{}` nor a v1 mount offers the controller",
                        top.join("cgroup.controllers").display()
                    ),
                    None => "no cgroup hierarchy with it is mounted".to_owned(),
                }
            } else {
                "left out by the configuration".to_owned()
            };
            self.lack(facility, why);
        }
        if !self.has(Facility::CgroupKill)
            && !self.found.is_empty()
            && let Some(mount) = mount_of(v1, "freezer")
        {
            let base = self.site_in(mount, Some("freezer")).join(self.site.name);
            if probe(&base, |_| Ok(())).is_ok() {
                self.found.push(Hierarchy {
                    kind: Kind::Freezer,
                    base,
                    facilities: Vec::new(),
                });
            }
        }
        self.missing.sort_by_key(|m| m.facility);
        (self.found, self.missing)
    }
}

fn mount_of<'m>(mounts: &[&'m Mount], controller: &str) -> Option<&'m Mount> {
    mounts
        .iter()
        .find(|m| {
            m.controllers
                .iter()
                .flatten()
                .any(|name| name == controller)
        })
        .copied()
}

/// Makes a directory and those above it.
pub(super) fn make(dir: &Path) -> Result<(), CgroupError> {
    fs::create_dir_all(dir).map_err(|e| CgroupError::io("make", dir, e))
}

/// Makes a group below `isolates`, does something to it, and removes it.
fn probe(base: &Path, act: impl Fn(&Path) -> Result<(), CgroupError>) -> Result<(), CgroupError> {
    let leaf = base
        .join("isolates")
        .join(format!("probe-{}", std::process::id()));
    let result = make(&leaf).and_then(|()| act(&leaf));
    let removed = fs::remove_dir(&leaf).map_err(|e| CgroupError::io("remove", &leaf, e));
    if let Err(error) = result {
        remove_base(base);
        return Err(error);
    }
    removed
}

/// Removes what is left of our part of a hierarchy, if nobody is in it.
pub(super) fn remove_base(base: &Path) {
    for dir in [&base.join("isolates/shared"), &base.join("isolates"), base] {
        // Not empty means that it is in use; not there means that it is done.
        fs::remove_dir(dir).ok();
    }
}
