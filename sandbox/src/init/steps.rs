//! Doing one step of the plan.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{doors, failed, landlock, secrets, view};
use crate::homes;
use crate::plan::{Identity, Rlimits, Step};
use crate::seccomp;
use crate::status::Failure;
use crate::sys::rights;

/// Does one step; never "continue anyway". `made` are mounts that were made in advance.
pub(super) fn apply(step: &Step, made: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    let place = step.place();
    match step {
        Step::UserMap { uid, gid } => {
            map_ids(*uid, *gid).map_err(|e| failed(place, "map our own uid and gid", &e))
        }
        Step::Errand(errand) => homes::run(errand)
            .and_then(|number| {
                Ok(nix::unistd::write(
                    io::stdout(),
                    number.to_string().as_bytes(),
                )?)
            })
            .map(drop)
            .map_err(|e| failed(place, "do an errand among the homes", &e)),
        Step::CgroupNamespace => unshare(CloneFlags::CLONE_NEWCGROUP)
            .map_err(|e| failed(place, "make a cgroup namespace", &e.into())),
        Step::Loopback => {
            rights::loopback_up().map_err(|e| failed(place, "set the interface `lo` up", &e))
        }
        Step::Doors { ports } => doors::open(ports),
        Step::HostName(name) => nix::unistd::sethostname(name)
            .map_err(|e| failed(place, "set the host name", &e.into())),
        Step::Mounts(wanted) => view::build(wanted, made),
        Step::Secrets(wanted) => secrets::mount(wanted),
        Step::DropBounding => rights::drop_bounding()
            .map_err(|e| failed(place, "empty the bounding set of capabilities", &e)),
        Step::Become(identity) => become_user(*identity).map_err(|e| {
            let Identity { uid, gid } = identity;
            failed(place, &format!("become uid {uid} and gid {gid}"), &e)
        }),
        Step::Landlock { writable } => landlock::restrict(writable),
        Step::Seccomp => seccomp::load_of_server().map_err(|why| {
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            let text = format!("cannot load the system call filter: {why}");
            Failure::new(place.name(), errno, &text)
        }),
        Step::Session => match nix::unistd::setsid() {
            // Already a leader: cannot be for a fresh clone, and would do no harm.
            Ok(_) | Err(nix::Error::EPERM) => Ok(()),
            Err(error) => Err(failed(place, "start a session", &error.into())),
        },
        Step::Subreaper => prctl::set_child_subreaper(true)
            .map_err(|e| failed(place, "become the reaper of orphans", &e.into())),
        Step::OomScore(score) => fs::write("/proc/self/oom_score_adj", score.to_string())
            .map_err(|e| failed(place, "write /proc/self/oom_score_adj", &e)),
        Step::Rlimits(limits) => {
            set_rlimits(limits).map_err(|e| failed(place, "set resource limits", &e))
        }
        Step::NoNewPrivs => {
            prctl::set_no_new_privs().map_err(|e| failed(place, "set no_new_privs", &e.into()))
        }
        Step::Pipes(values) => values.iter().try_for_each(|(number, value)| {
            secrets::pipe(*number, value.bytes())
                .map_err(|e| failed(place, &format!("open descriptor {number} for a secret"), &e))
        }),
        Step::Workdir(path) => std::env::set_current_dir(path)
            .map_err(|e| failed(place, &format!("enter `{}`", path.display()), &e)),
    }
}

/// A map of one id is all an unprivileged process may write for itself, and only with
/// `setgroups` given up first.
fn map_ids(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Whatever was root's is given up, and cannot be had back.
fn become_user(Identity { uid, gid }: Identity) -> io::Result<()> {
    let (uid, gid) = (uid.into(), gid.into());
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    rights::clear_capabilities()
}

fn set_rlimits(limits: &Rlimits) -> io::Result<()> {
    let wanted = [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_MEMLOCK, limits.locked_bytes),
        (Resource::RLIMIT_MSGQUEUE, limits.message_queue_bytes),
    ];
    for (resource, wanted) in wanted {
        // Only root may raise a hard limit; a host that is stricter than the plan stays so.
        let (_, hard) = getrlimit(resource)?;
        let limit = wanted.min(hard);
        setrlimit(resource, limit, limit)?;
    }
    Ok(())
}
