//! What this host offers, found out by doing: first the namespaces by a clone, then a rehearsal of
//! all walls by an init without a program. Only if that fails each wall is tried by itself.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::link::{self, Link};
use super::process::{self, Process};
use super::{HostConfig, HostError};
use crate::cgroup::Tree;
use crate::facility::{Facility, Missing};
use crate::guard;
use crate::plan::build::{Built, Ground};
use crate::plan::view::{Accounts, Base, Kind, Mount, Needs, View};
use crate::plan::{Identity, Plan, Step};
use crate::profile::{Network, Profile};
use crate::status::{Decoder, Failure, Record};
use crate::sys;
use crate::uids::Range;
use crate::wire::{Ask, Request};

/// What is told of a facility the configuration leaves out.
const LEFT_OUT: &str = "left out by the configuration";

/// Whether namespaces come with a user namespace: a pid namespace is had as we are, else inside
/// one; else it is missing.
pub(super) fn namespaces(
    link: &Link,
    config: &HostConfig,
    missing: &mut Vec<Missing>,
) -> Result<bool, HostError> {
    let mut lacks = |why: String| {
        missing.push(Missing {
            facility: Facility::PidNamespace,
            why,
        });
    };
    if config.without.contains(&Facility::PidNamespace) {
        lacks(LEFT_OUT.to_owned());
        return Ok(false);
    }
    let mut why = String::new();
    for (user, flags, name) in [
        (false, sys::CLONE_NEWPID, "clone(CLONE_NEWPID)"),
        (
            true,
            sys::CLONE_NEWPID | sys::CLONE_NEWUSER,
            "clone(CLONE_NEWPID|CLONE_NEWUSER)",
        ),
    ] {
        let Some(refused) = clone(link, flags)? else {
            return Ok(user);
        };
        if !why.is_empty() {
            why.push_str(", ");
        }
        why.push_str(&format!("{name} failed: {refused}"));
    }
    lacks(why);
    Ok(false)
}

/// Clones a child that ends at once; the kernel's refusal, if it refuses.
fn clone(link: &Link, namespaces: u64) -> Result<Option<io::Error>, HostError> {
    use std::os::fd::AsFd;
    let request = Request {
        ask: Ask::Probe,
        namespaces,
    };
    match link.ask(request, &[], || {}) {
        Ok((_, pidfd)) => Ok(match process::wait_blocking(pidfd.as_fd())? {
            sys::Ended::Code(0) => None,
            sys::Ended::Code(errno) => Some(io::Error::from_raw_os_error(errno)),
            sys::Ended::Signal(signal) => Some(io::Error::other(format!("signal {signal}"))),
        }),
        Err(HostError::Clone(error)) => Ok(Some(error)),
        Err(other) => Err(other),
    }
}

/// Puts the guard of the host's network in place; why not, if not.
pub(super) fn guard(tree: &Tree, config: &HostConfig, missing: &[Missing]) -> Option<Missing> {
    let attached = if config.without.contains(&Facility::NetworkGuard) {
        Err(LEFT_OUT.to_owned())
    } else {
        match tree.isolates() {
            Some(Ok(group)) => guard::attach(&group)
                .map_err(|error| format!("cannot attach it to {}: {error}", group.display())),
            Some(Err(error)) => Err(error.to_string()),
            None => Err(groupless(missing)),
        }
    };
    attached.err().map(|why| Missing {
        facility: Facility::NetworkGuard,
        why,
    })
}

/// Why isolates have no group of cgroup2, which is what is told of `cgroup_kill`: nothing else has that.
fn groupless(missing: &[Missing]) -> String {
    let mut missing = missing.iter();
    match missing.find(|lack| lack.facility == Facility::CgroupKill) {
        Some(lack) => format!("isolates have no group of cgroup2: {}", lack.why),
        None => "there is no cgroup2 tree here".to_owned(),
    }
}

/// One wall by itself.
struct Wall {
    facility: Facility,
    namespaces: u64,
    steps: Vec<Step>,
}

/// Which of the walls cannot be had, and why.
pub(super) fn walls(
    link: &Link,
    config: &HostConfig,
    ground: &Ground,
    range: Option<Range>,
) -> Result<Vec<Missing>, HostError> {
    let mut missing = Vec::new();
    let is_root = ground.own.uid == 0;
    // Under root an own uid cannot be left out.
    let without = |facility| {
        config.without.contains(&facility) && !(is_root && facility == Facility::UserRange)
    };
    let (left_out, mut tried): (Vec<Facility>, Vec<Facility>) = Profile::Strict
        .required()
        .iter()
        .partition(|facility| without(**facility));
    let mut lacks = |facility, why: &str| {
        missing.push(Missing {
            facility,
            why: why.to_owned(),
        });
    };
    for facility in left_out {
        lacks(facility, LEFT_OUT);
    }
    if ground
        .missing
        .iter()
        .any(|lack| lack.facility == Facility::PidNamespace)
    {
        // Its `/proc` would be the host's.
        tried.retain(|facility| *facility != Facility::MountNamespace);
        if !without(Facility::MountNamespace) {
            lacks(
                Facility::MountNamespace,
                "there is no pid namespace to show in its /proc",
            );
        }
    }
    let becomes = match range {
        Some(range) => Some(range.probe()),
        None => config.probe_identity.filter(|_| is_root),
    };
    if becomes.is_none() {
        tried.retain(|facility| *facility != Facility::UserRange);
        if !without(Facility::UserRange) {
            lacks(
                Facility::UserRange,
                match (&config.subordinate, is_root) {
                    (Err(why), false) => why,
                    _ => "no range of uids is claimed",
                },
            );
        }
    }
    let walls: Vec<Wall> = tried
        .into_iter()
        .map(|facility| wall(facility, becomes))
        .collect();
    let together = Wall {
        facility: Facility::Landlock,
        namespaces: walls.iter().fold(0, |all, wall| all | wall.namespaces),
        steps: in_order(walls.iter().flat_map(|wall| wall.steps.clone()).collect()),
    };
    if rehearse(link, ground, &together)?.is_none() {
        return Ok(missing);
    }
    for wall in walls {
        if let Some(why) = rehearse(link, ground, &wall)? {
            missing.push(Missing {
                facility: wall.facility,
                why,
            });
        }
    }
    Ok(missing)
}

fn wall(facility: Facility, becomes: Option<Identity>) -> Wall {
    let (namespaces, steps) = match facility {
        Facility::MountNamespace => (
            sys::CLONE_NEWNS | sys::CLONE_NEWPID,
            vec![Step::Mounts(view())],
        ),
        Facility::NetworkNamespace => (sys::CLONE_NEWNET, vec![Step::Loopback]),
        Facility::IpcNamespace => (sys::CLONE_NEWIPC, Vec::new()),
        Facility::UtsNamespace => (
            sys::CLONE_NEWUTS,
            vec![Step::HostName("isolate".to_owned())],
        ),
        Facility::CgroupNamespace => (0, vec![Step::CgroupNamespace]),
        Facility::UserRange => (0, becomes.map(Step::Become).into_iter().collect()),
        Facility::Seccomp => (0, vec![Step::NoNewPrivs, Step::Seccomp]),
        Facility::Landlock => (
            0,
            vec![
                Step::NoNewPrivs,
                Step::Landlock {
                    writable: vec!["/dev".into()],
                },
            ],
        ),
        Facility::CgroupMemory
        | Facility::CgroupPids
        | Facility::CgroupCpu
        | Facility::CgroupIo
        | Facility::CgroupKill
        | Facility::PidNamespace
        | Facility::NetworkGuard => (0, Vec::new()),
    };
    Wall {
        facility,
        namespaces,
        steps,
    }
}

/// A view like any other; its home is a device nobody can harm.
fn view() -> View {
    let accounts = Accounts { uid: 1, gid: 1 };
    let mut view = View::own(
        &Needs::default(),
        Path::new("/dev/null"),
        Network::None,
        accounts,
    );
    view.base = Base::Empty;
    view.mounts
        .retain(|mount: &Mount| !matches!(mount.kind, Kind::Text(_)));
    view
}

fn in_order(mut steps: Vec<Step>) -> Vec<Step> {
    steps.sort_by_key(Step::place);
    steps.dedup_by_key(|step| step.place());
    steps
}

/// Has an init follow these steps and become nothing; why it could not.
fn rehearse(link: &Link, ground: &Ground, wall: &Wall) -> Result<Option<String>, HostError> {
    let mut namespaces = wall.namespaces;
    let mut steps = wall.steps.clone();
    let needs_rights = namespaces != 0 || steps.contains(&Step::CgroupNamespace);
    if ground.user_namespace && needs_rights {
        namespaces |= sys::CLONE_NEWUSER;
        steps.push(Step::UserMap {
            uid: ground.own.uid,
            gid: ground.own.gid,
        });
    }
    let plan = Plan {
        steps: in_order(steps),
        program: None,
    };
    plan.check()?;
    let built = Built {
        plan,
        namespaces,
        degraded: Vec::new(),
    };
    let (process, ends) = match link::spawn(link, &built, &[], false, &[], || Ok(())) {
        Ok(spawned) => spawned,
        Err(HostError::Clone(error)) => return Ok(Some(format!("clone failed: {error}"))),
        Err(other) => return Err(other),
    };
    let told = read(&process, ends.status.into())?;
    Ok(match told.into_iter().next() {
        Some(Record::Started) => None,
        Some(Record::Failed(Failure { step, text, .. })) => Some(format!("step {step}: {text}")),
        _ => Some("the rehearsal ended without a word".to_owned()),
    })
}

/// What init tells to its end; then it is reaped.
pub(super) fn read(process: &Process, mut status: File) -> Result<Vec<Record>, HostError> {
    use std::os::fd::AsFd;
    let mut bytes = Vec::new();
    let read = status.read_to_end(&mut bytes);
    process::wait_blocking(process.as_fd())?;
    read.map_err(|e| HostError::io("read a rehearsal's status", e))?;
    Ok(Decoder::default().feed(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_group_is_told_the_reason_and_not_that_there_is_no_tree() {
        let why = "make /sys/fs/cgroup/unified/legation-1: permission denied";
        let lack = |facility| Missing {
            facility,
            why: why.to_owned(),
        };
        let told = groupless(&[lack(Facility::CgroupCpu), lack(Facility::CgroupKill)]);
        assert_eq!(told, format!("isolates have no group of cgroup2: {why}"));
        assert_eq!(groupless(&[]), "there is no cgroup2 tree here");
    }
}
