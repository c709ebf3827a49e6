//! The gateway's half: what the host offers, and one call per spawn.
//!
//! All calls here are short and blocking: a few file writes and one round trip to spawnd, which is
//! bounded. An async caller runs [`Host::spawn`], [`Host::heal`] and [`Host::sweep`] where blocking
//! is allowed.

mod errand;
mod link;
mod probe;
mod process;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use process::{End, Process};

use crate::cgroup::{CgroupError, IoLimit, Leaf, LeafName, Limits, Tree};
use crate::facility::{Capabilities, Facility, Missing};
use crate::plan::build::{Built, Ground, Order, Own, Refused};
use crate::plan::secret::{Secret, SecretFiles};
use crate::plan::{Identity, PlanError, Program};
use crate::profile::{Network, Profile};
use crate::reach::{self, Declared};
use crate::sys;
use crate::uids::Range;
pub use link::{Door, Doors};
use link::{Ends, Link};

/// Hex digits of the installation's id in the name of its cgroup.
const INSTALLATION_DIGITS: usize = 12;
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
    /// The profile that must be had here, or nothing starts.
    pub profile: Profile,
    /// Whom the probe becomes, under root: the first of the range of isolates.
    pub probe_identity: Option<Identity>,
    /// Where we are not root: ids that the host lets us give, or why there are none.
    pub subordinate: Result<Range, String>,
    /// Facilities that may be missing.
    pub allow_degraded: Vec<Facility>,
    /// A path inside every cgroup hierarchy under which to build; our own group if not given.
    pub cgroup_root: Option<PathBuf>,
    /// Bytes of memory that all isolates may have together; no limit but the host's if not given.
    pub memory_budget: Option<u64>,
    /// What each isolate may have of the disk of the homes; no limit if not given.
    pub io: Option<IoLimit>,
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
            profile: Profile::None,
            probe_identity: None,
            subordinate: Err("no range of ids was asked for".to_owned()),
            allow_degraded: Vec::new(),
            cgroup_root: None,
            memory_budget: None,
            io: None,
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
    #[error(transparent)]
    Unavailable(#[from] Refused),
    /// spawnd is not there.
    #[error("the spawner is away ({0}); it is started again by itself")]
    SpawnerLost(String),
    /// The spawner has no ids to give.
    #[error("isolates have no ids of their own: {0}")]
    Ids(String),
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
    /// Its home and working directory, the one place of the host it may write to.
    pub workdir: PathBuf,
    /// How thick its walls are.
    pub profile: Profile,
    /// What it may reach.
    pub network: Network,
    /// Ports of the hosts it may reach ([`Network::Allowlist`]); at most [`crate::plan::PORTS_MAX`].
    pub ports: Vec<u16>,
    /// Whom it runs as; under root it must be given.
    pub identity: Option<Identity>,
    /// What its definition declares beyond the program.
    pub declared: Declared,
    /// The kernel's limits of the isolate.
    pub limits: Limits,
    /// The kernel's limits of all isolates of the user.
    pub user_limits: Limits,
    /// Open files of one process.
    pub open_files: u64,
    /// Bytes of the largest file a process may write.
    pub file_bytes: u64,
    /// Files that only it sees; brings own mounts in every profile.
    pub secrets: Option<SecretFiles>,
    /// Values that its server finds in open descriptors of these numbers, from 3 on: pipes that end behind
    /// them. At most [`DESCRIPTOR_BYTES_MAX`](crate::plan::secret::DESCRIPTOR_BYTES_MAX) each.
    pub descriptors: BTreeMap<i32, Secret>,
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
    /// Through which its listeners come ([`Network::Allowlist`]).
    pub door: Option<Door>,
    /// What its profile asks for and it runs without.
    pub degraded: Vec<Facility>,
    /// Time for the plan and to make the cgroup.
    pub cgroup_took: Duration,
    /// Time for everything else: pipes, the clone, and meanwhile the limits.
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
    ground: Ground,
    /// Whose ids the spawner has in a user namespace of its own.
    range: Option<Range>,
    link: Mutex<Link>,
}

impl Host {
    /// Starts spawnd and finds out, by doing, what this host offers.
    ///
    /// # Errors
    /// [`HostError::Unavailable`] if a facility is missing that is not in `allow_degraded`.
    pub fn start(mut config: HostConfig) -> Result<Self, HostError> {
        let installation = installation(&config.installation_id)?.to_owned();
        sys::wait_for_children();
        // First, because it may move this process aside, and the spawner is to come along.
        let (tree, mut missing) = Tree::open(
            &installation,
            config.cgroup_root.as_deref(),
            &config.without,
            config.io,
        );
        if let Some(bytes) = config.memory_budget {
            tree.hold(bytes)?;
        }
        tree.go_first();
        let (link, range) = start_link(&mut config)?;
        let user_namespace = probe::namespaces(&link, &config, &mut missing)?;
        let mut ground = Ground {
            own: Own {
                uid: nix::unistd::geteuid().as_raw(),
                gid: nix::unistd::getegid().as_raw(),
            },
            user_namespace,
            missing,
            allowed: config.allow_degraded.clone(),
            limits_io: config.io.is_some(),
        };
        let lacks = probe::walls(&link, &config, &ground, range)?;
        let ungiven = |lack: &&Missing| lack.facility == Facility::UserRange;
        if range.is_some()
            && let Some(lack) = lacks.iter().find(ungiven)
        {
            // Whoever is born with ids that cannot be given would keep the rights to give them.
            config.subordinate = Err(lack.why.clone());
            // And the tree, which takes its groups away when it goes.
            drop((link, tree));
            return Self::start(config);
        }
        ground.missing.extend(lacks);
        let unguarded = probe::guard(&tree, &config, &ground.missing);
        ground.missing.extend(unguarded);
        ground.check(config.profile)?;
        let enforced = Facility::ALL
            .into_iter()
            .filter(|facility| ground.missing.iter().all(|lack| lack.facility != *facility))
            .filter(|facility| *facility != Facility::CgroupIo || config.io.is_some())
            .collect();
        let capabilities = Capabilities {
            summary: summary(&tree, &ground),
            enforced,
            missing: ground.missing.clone(),
        };
        Ok(Self(Arc::new(Inner {
            config,
            tree: Arc::new(tree),
            capabilities,
            ground,
            range,
            link: Mutex::new(link),
        })))
    }

    /// What is enforced and what is not.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// Makes the cgroup and starts an init in it; writes the limits while init builds its walls, and
    /// lets it start the server when they are written.
    ///
    /// # Errors
    /// [`HostError`]; nothing is left behind.
    pub fn spawn(&self, spec: &SpawnSpec) -> Result<Spawned, HostError> {
        let began = Instant::now();
        let built = self.order(spec)?;
        built.plan.check()?;
        let tree = &self.0.tree;
        let mut leaf = tree.create(&spec.leaf, &spec.limits, &spec.user_limits)?;
        let cgroup_took = began.elapsed();
        match self.spawn_in(&built, spec, &mut leaf) {
            Ok((process, ends)) => Ok(Spawned {
                process,
                leaf,
                stdin: ends.stdin,
                stdout: ends.stdout,
                stderr: ends.stderr,
                status: ends.status,
                door: ends.door,
                degraded: built.degraded,
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
        built: &Built,
        spec: &SpawnSpec,
        leaf: &mut Leaf,
    ) -> Result<(Process, Ends), HostError> {
        let entry = leaf.entry()?;
        let mut entries: Vec<RawFd> = entry.dir.iter().map(AsRawFd::as_raw_fd).collect();
        entries.extend(entry.tasks.iter().map(AsRawFd::as_raw_fd));
        let link = self.link();
        let into_cgroup = entry.dir.is_some();
        link::spawn(&link, built, &spec.opening, into_cgroup, &entries, || {
            Ok(leaf.limit(&spec.limits)?)
        })
    }

    fn order(&self, spec: &SpawnSpec) -> Result<Built, HostError> {
        let needs = reach::needs(&spec.program, &spec.workdir, &spec.declared);
        let order = Order {
            profile: spec.profile,
            network: spec.network,
            ports: &spec.ports,
            identity: spec.identity,
            home: &spec.workdir,
            needs: &needs,
            open_files: spec.open_files,
            file_bytes: spec.file_bytes,
            secrets: spec.secrets.as_ref(),
            descriptors: &spec.descriptors,
            program: &spec.program,
        };
        Ok(order.build(&self.0.ground)?)
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
            *link = Link::start(&self.0.config.executable, self.0.range)?;
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

    /// Processes and threads of all isolates of a user; `None` where this host does not count.
    #[must_use]
    pub fn processes_of(&self, user: &str) -> Option<u64> {
        self.0.tree.processes_of(user)
    }

    /// Removes the group of a user who has no isolates.
    pub fn release_user(&self, user: &str) {
        self.0.tree.release_user(user);
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.0.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A spawner with ids of its own to give, where we are not root and the host lets us; else a plain one.
fn start_link(config: &mut HostConfig) -> Result<(Link, Option<Range>), HostError> {
    let is_root = nix::unistd::geteuid().is_root();
    if let Ok(range) = config.subordinate
        && !is_root
        && !config.without.contains(&Facility::UserRange)
    {
        match Link::start(&config.executable, Some(range)) {
            Ok(link) => return Ok((link, Some(range))),
            Err(HostError::Ids(why)) => config.subordinate = Err(why),
            Err(error) => return Err(error),
        }
    }
    Ok((Link::start(&config.executable, None)?, None))
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

fn summary(tree: &Tree, ground: &Ground) -> String {
    let has = |facility| ground.missing.iter().all(|lack| lack.facility != facility);
    let pid = match (has(Facility::PidNamespace), ground.user_namespace) {
        (true, true) => "pid and user namespace",
        (true, false) => "pid namespace",
        _ => "no pid namespace",
    };
    let strict = Profile::Strict.required().iter();
    let walls = strict.filter(|facility| has(**facility)).count();
    let of = Profile::Strict.required().len();
    format!("cgroup {}, {pid}, {walls} of {of} walls", tree.kind())
}
