//! The gateway's half: what the host offers, and one call per spawn.
//!
//! All calls here are short and blocking: a few file writes and one round trip to spawnd, which is
//! bounded. An async caller runs [`Host::spawn`], [`Host::heal`] and [`Host::sweep`] where blocking
//! is allowed.

mod link;
mod process;

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use process::{End, Process};

use crate::cgroup::{CgroupError, Leaf, LeafName, Limits, Tree};
use crate::facility::{Capabilities, Facility, Missing};
use crate::plan::{Plan, PlanError, Program, Rlimits, Step};
use crate::sys;
use crate::wire::{Ask, Request};
use link::Link;
use process::Known;

/// Hex digits of the installation's id in the name of its cgroup.
const INSTALLATION_DIGITS: usize = 12;
/// Isolates go before the gateway when the host runs out of memory.
const OOM_SCORE: i32 = 500;
/// Bytes a process may lock in memory.
const LOCKED_BYTES: u64 = 64 << 10;
/// Bytes of [`SpawnSpec::opening`]: what an empty pipe takes at once on any kernel, so that the
/// write of it never waits for a reader that is not there yet.
pub const OPENING_BYTES_MAX: usize = 4096;

/// How to set up a host.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// The product binary; its `main` calls [`crate::role`] first.
    pub executable: PathBuf,
    /// The installation's id: at least twelve lower-case hex digits, of which twelve name its cgroup.
    pub installation_id: String,
    /// Facilities that may be missing.
    pub allow_degraded: Vec<Facility>,
    /// A path inside every cgroup hierarchy under which to build; our own group if not given.
    pub cgroup_root: Option<PathBuf>,
    /// Facilities to act without even if the host has them, to see what degradation does.
    pub without: Vec<Facility>,
}

impl HostConfig {
    /// The defaults: this very executable, our own cgroup, nothing may be missing.
    #[must_use]
    pub fn new(installation_id: &str) -> Self {
        Self {
            executable: "/proc/self/exe".into(),
            installation_id: installation_id.to_owned(),
            allow_degraded: Vec::new(),
            cgroup_root: None,
            without: Vec::new(),
        }
    }
}

/// Why the host could not.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The installation's id cannot name a cgroup.
    #[error(
        "`{0}` is no installation id; it must start with {INSTALLATION_DIGITS} lower-case hex digits"
    )]
    Installation(String),
    /// A facility is missing and was not allowed to be.
    #[error("{missing}; or name it in allow_degraded to run without")]
    Unavailable {
        /// The first of them.
        missing: Missing,
    },
    /// spawnd is not there.
    #[error("the spawner is away ({0}); it is started again by itself")]
    SpawnerLost(String),
    /// The kernel would not clone.
    #[error("the kernel refused a new process: {0}")]
    Clone(#[source] io::Error),
    /// A cgroup could not be made.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The plan is none.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Out of descriptors or memory.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl HostError {
    pub(crate) fn io(what: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            source: source.into(),
        }
    }
}

/// What to spawn.
#[derive(Debug, Clone)]
pub struct SpawnSpec {
    /// Names its cgroup.
    pub leaf: LeafName,
    /// What is run.
    pub program: Program,
    /// Its working directory.
    pub workdir: PathBuf,
    /// The kernel's limits of the isolate.
    pub limits: Limits,
    /// The kernel's limits of all isolates of the user.
    pub user_limits: Limits,
    /// Open files of one process.
    pub open_files: u64,
    /// Bytes of the largest file a process may write.
    pub file_bytes: u64,
    /// What waits in its stdin when it begins; at most [`OPENING_BYTES_MAX`].
    pub opening: Vec<u8>,
}

/// A new init, its plan not yet followed: the status pipe tells how that goes.
#[derive(Debug)]
pub struct Spawned {
    /// The init.
    pub process: Process,
    /// Its cgroup.
    pub leaf: Leaf,
    /// Write end of the server's stdin.
    pub stdin: OwnedFd,
    /// Read end of the server's stdout.
    pub stdout: OwnedFd,
    /// Read end of the server's stderr.
    pub stderr: OwnedFd,
    /// Read end of the status pipe; see [`crate::status`].
    pub status: OwnedFd,
    /// Time to make the cgroup and write its limits.
    pub cgroup_took: Duration,
    /// Time for everything else: pipes, the plan, the clone.
    pub clone_took: Duration,
}

/// The gateway's half of the sandbox; cheap to clone.
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: HostConfig,
    tree: Arc<Tree>,
    capabilities: Capabilities,
    namespaces: u64,
    link: Mutex<Link>,
}

impl Host {
    /// Starts spawnd and finds out, by doing, what this host offers.
    ///
    /// # Errors
    /// [`HostError::Unavailable`] if a facility is missing that is not in `allow_degraded`.
    pub fn start(config: HostConfig) -> Result<Self, HostError> {
        let installation = installation(&config.installation_id)?;
        sys::wait_for_children();
        // First, because it may move this process aside, and the spawner is to come along.
        let (tree, mut missing) =
            Tree::open(installation, config.cgroup_root.as_deref(), &config.without);
        let link = Link::start(&config.executable)?;
        let namespaces = probe_namespaces(&link, &config)?;
        let namespaces = namespaces.unwrap_or_else(|why| {
            missing.push(Missing {
                facility: Facility::PidNamespace,
                why,
            });
            0
        });
        if let Some(lack) = missing
            .iter()
            .find(|lack| !config.allow_degraded.contains(&lack.facility))
        {
            return Err(HostError::Unavailable {
                missing: lack.clone(),
            });
        }
        let enforced = Facility::ALL
            .into_iter()
            .filter(|facility| missing.iter().all(|lack| lack.facility != *facility))
            .collect();
        let capabilities = Capabilities {
            summary: summary(&tree, namespaces),
            enforced,
            missing,
        };
        Ok(Self(Arc::new(Inner {
            config,
            tree: Arc::new(tree),
            capabilities,
            namespaces,
            link: Mutex::new(link),
        })))
    }

    /// What is enforced and what is not.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// Makes the cgroup, writes its limits, and starts an init in it.
    ///
    /// # Errors
    /// [`HostError`]; nothing is left behind.
    pub fn spawn(&self, spec: &SpawnSpec) -> Result<Spawned, HostError> {
        let began = Instant::now();
        let plan = self.plan(spec);
        plan.check()?;
        let leaf = self
            .0
            .tree
            .create(&spec.leaf, &spec.limits, &spec.user_limits)?;
        let cgroup_took = began.elapsed();
        match self.spawn_in(&plan, &spec.opening, &leaf) {
            Ok((process, ends)) => Ok(Spawned {
                process,
                leaf,
                stdin: ends.stdin,
                stdout: ends.stdout,
                stderr: ends.stderr,
                status: ends.status,
                cgroup_took,
                clone_took: began.elapsed().saturating_sub(cgroup_took),
            }),
            Err(error) => {
                // A spawner that died in the act may have put somebody there.
                leaf.kill();
                leaf.remove().ok();
                Err(error)
            }
        }
    }

    fn spawn_in(
        &self,
        plan: &Plan,
        opening: &[u8],
        leaf: &Leaf,
    ) -> Result<(Process, Ends), HostError> {
        let pipe = || io::pipe().map_err(|e| HostError::io("make a pipe", e));
        let (stdin_theirs, mut stdin) = pipe()?;
        open_with(&mut stdin, opening)?;
        let (stdout, stdout_theirs) = pipe()?;
        let (stderr, stderr_theirs) = pipe()?;
        let (status, status_theirs) = pipe()?;
        let (lifeline_theirs, lifeline) = pipe()?;
        let plan = plan.seal().map_err(|e| HostError::io("seal the plan", e))?;
        let entry = leaf.entry()?;
        // The order is the wire's: stdio, plan, status, lifeline, v2 directory, tasks.
        let mut fds = vec![
            stdin_theirs.as_raw_fd(),
            stdout_theirs.as_raw_fd(),
            stderr_theirs.as_raw_fd(),
            plan.as_raw_fd(),
            status_theirs.as_raw_fd(),
            lifeline_theirs.as_raw_fd(),
        ];
        fds.extend(entry.dir.iter().map(AsRawFd::as_raw_fd));
        fds.extend(entry.tasks.iter().map(AsRawFd::as_raw_fd));
        let request = Request {
            ask: Ask::Spawn {
                into_cgroup: entry.dir.is_some(),
            },
            namespaces: self.0.namespaces,
        };
        // Known before the link is free for a `heal` to look for strays.
        let (pid, pidfd, known) = {
            let link = self.link();
            let (pid, pidfd) = link.ask(request, &fds)?;
            (pid, pidfd, Known::new(pid))
        };
        let ends = Ends {
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
            status: status.into(),
        };
        let alone = self.0.namespaces & sys::CLONE_NEWPID == 0;
        Ok((
            Process::new(pid, pidfd, lifeline.into(), known, alone),
            ends,
        ))
    }

    fn plan(&self, spec: &SpawnSpec) -> Plan {
        let mut steps = Vec::new();
        if self.0.namespaces & sys::CLONE_NEWUSER != 0 {
            steps.push(Step::UserMap {
                uid: nix::unistd::geteuid().as_raw(),
                gid: nix::unistd::getegid().as_raw(),
            });
        }
        steps.push(Step::Session);
        if self.0.namespaces & sys::CLONE_NEWPID == 0 {
            steps.push(Step::Subreaper);
        }
        steps.extend([
            Step::OomScore(OOM_SCORE),
            Step::Rlimits(Rlimits {
                open_files: spec.open_files,
                file_bytes: spec.file_bytes,
                locked_bytes: LOCKED_BYTES,
                message_queue_bytes: 0,
            }),
            Step::NoNewPrivs,
            Step::Workdir(spec.workdir.clone()),
        ]);
        Plan {
            steps,
            program: spec.program.clone(),
        }
    }

    /// A pidfd of spawnd, readable once it has ended; `None` if it is known to be gone.
    #[must_use]
    pub fn spawner(&self) -> Option<OwnedFd> {
        self.link().pidfd()
    }

    /// The pid of spawnd; `None` if it is known to be gone.
    #[must_use]
    pub fn spawner_pid(&self) -> Option<i32> {
        self.link().pid()
    }

    /// Starts a new spawnd if the old one is gone.
    ///
    /// # Errors
    /// The executable could not be started.
    pub fn heal(&self) -> Result<(), HostError> {
        let mut link = self.link();
        if !link.is_alive() {
            *link = Link::start(&self.0.config.executable)?;
            process::reap_strays();
        }
        Ok(())
    }

    /// Kills and removes every cgroup of this installation that no run of ours owns; gives their
    /// number. Blocks up to `wait`.
    ///
    /// # Errors
    /// Names what would not die.
    pub fn sweep(&self, wait: Duration) -> Result<usize, HostError> {
        Ok(self.0.tree.sweep(wait)?)
    }

    /// Processes under this installation's cgroups that no run owns.
    #[must_use]
    pub fn unowned(&self) -> usize {
        self.0.tree.unowned()
    }

    /// Removes the group of a user who has no isolates.
    pub fn release_user(&self, user: &str) {
        self.0.tree.release_user(user);
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.0.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The gateway's ends of a run's pipes.
struct Ends {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    status: OwnedFd,
}

/// Puts the first words into a pipe that nobody reads yet.
fn open_with(stdin: &mut io::PipeWriter, opening: &[u8]) -> Result<(), HostError> {
    let written = if opening.len() > OPENING_BYTES_MAX {
        Err(io::Error::from_raw_os_error(libc::E2BIG))
    } else {
        stdin.write_all(opening)
    };
    written.map_err(|e| HostError::io("write the server's first input", e))
}

fn installation(id: &str) -> Result<&str, HostError> {
    id.get(..INSTALLATION_DIGITS)
        .filter(|digits| {
            digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
        .ok_or_else(|| HostError::Installation(id.chars().take(64).collect()))
}

fn summary(tree: &Tree, namespaces: u64) -> String {
    let pid = match (
        namespaces & sys::CLONE_NEWPID != 0,
        namespaces & sys::CLONE_NEWUSER != 0,
    ) {
        (true, true) => "pid and user namespace",
        (true, false) => "pid namespace",
        _ => "no pid namespace",
    };
    format!("cgroup {}, {pid}", tree.kind())
}

/// Which namespaces can be had: a pid namespace as we are, else inside a user namespace. The
/// inner error says why neither.
fn probe_namespaces(link: &Link, config: &HostConfig) -> Result<Result<u64, String>, HostError> {
    if config.without.contains(&Facility::PidNamespace) {
        return Ok(Err("left out by the configuration".to_owned()));
    }
    let mut why = String::new();
    for (namespaces, name) in [
        (sys::CLONE_NEWPID, "clone(CLONE_NEWPID)"),
        (
            sys::CLONE_NEWPID | sys::CLONE_NEWUSER,
            "clone(CLONE_NEWPID|CLONE_NEWUSER)",
        ),
    ] {
        let request = Request {
            ask: Ask::Probe,
            namespaces,
        };
        let refused = match link.ask(request, &[]) {
            Ok((_, pidfd)) => match process::wait_blocking(pidfd.as_fd())? {
                sys::Ended::Code(0) => return Ok(Ok(namespaces)),
                sys::Ended::Code(errno) => io::Error::from_raw_os_error(errno),
                sys::Ended::Signal(signal) => io::Error::other(format!("signal {signal}")),
            },
            Err(HostError::Clone(error)) => error,
            Err(other) => return Err(other),
        };
        if !why.is_empty() {
            why.push_str(", ");
        }
        why.push_str(&format!("{name} failed: {refused}"));
    }
    Ok(Err(why))
}
