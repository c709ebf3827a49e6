//! How an isolate is confined on Linux.
//!
//! One product binary plays three roles. The **gateway** holds a [`Host`] and asks it for
//! processes. **spawnd** is a small single-threaded process that does the one thing a big
//! multi-threaded one cannot do cheaply: clone. **init** is what it clones: pid 1 of the isolate's
//! pid namespace, a child of the *gateway* (`CLONE_PARENT`), already inside its cgroup. It follows
//! the [`plan`], forks the server as pid 2, reaps, and dies with the gateway.
//!
//! ```text
//! gateway ── Host::spawn ─► spawnd ── clone3(PARENT, PIDFD, INTO_CGROUP, NEWPID) ─► init ─► server
//!    ▲   cgroup and limits first        never maps the plan                          │
//!    └────────────── status pipe: failed | started | exited | signaled ◄─────────────┘
//! ```
//!
//! * [`plan`]: what to do, as a validated, serialisable value; no doing in it.
//! * [`host`]: the gateway's half: facilities, spawn, sweep.
//! * [`cgroup`]: the tree of limits, on v2, hybrid and v1 hosts.
//! * [`facility`]: what a host must offer, and what it means when it does not.
//! * [`profile`]: how thick the walls are.
//! * [`reach`]: what of the host's files a program needs to see.
//! * [`status`]: what init tells the gateway.
//!
//! This crate is the only place with `unsafe`; it knows no async runtime.

pub mod cgroup;
pub mod facility;
pub mod homes;
pub mod host;
pub mod plan;
pub mod profile;
pub mod reach;
pub mod status;
pub mod uids;

mod guard;
mod init;
mod procfs;
#[cfg(test)]
mod properties;
mod seccomp;
mod shelf;
mod spawnd;
mod sys;
mod wire;

use std::ffi::OsStr;
use std::time::Duration;

pub use facility::{Facility, Missing};
pub use host::{Host, HostConfig, HostError, Process, SpawnSpec, Spawned};
pub use profile::{Network, Profile};

/// The hidden first argument that makes the product binary the spawner.
pub const SPAWND_ARGUMENT: &str = "--sandbox-role=spawnd";
/// The same for one in a user namespace of its own.
pub(crate) const MAPPED_ARGUMENT: &str = "--sandbox-role=mapped-spawnd";

/// Ignores SIGHUP from here on, until somebody listens to it. What is executed meanwhile ignores it as well; servers in
/// isolates do not, since init puts every signal back.
pub fn ignore_hangups() {
    sys::ignore_signal(libc::SIGHUP);
}

/// The slice of the CPU that [`answer_soon`] asks for: the shortest there is.
const GATEWAY_SLICE: Duration = Duration::from_micros(100);

/// Has this thread, and those it starts, run as soon as may be when there is something to do.
///
/// # Errors
/// The kernel's answer.
pub fn answer_soon() -> std::io::Result<()> {
    sys::slice(GATEWAY_SLICE)
}

/// The role hook: `main` calls it first, before any thread exists. Returns at once, unless this
/// process was started as the spawner; then it never returns.
pub fn role() {
    let word = std::env::args_os().nth(1);
    if word.as_deref() == Some(OsStr::new(SPAWND_ARGUMENT)) {
        spawnd::run(spawnd::Ids::Host);
    }
    if word.as_deref() == Some(OsStr::new(MAPPED_ARGUMENT)) {
        spawnd::run(spawnd::Ids::Mapped);
    }
}
