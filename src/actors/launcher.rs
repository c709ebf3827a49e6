//! The border between the tree and the operating system: what it takes to start one run.
//!
//! The tree knows processes only through these traits. [`super::jail`] implements them with the
//! `sandbox` crate; tests implement them with in-memory pipes and a script.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretSlice;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use crate::domain::confinement::Confinement;
use crate::domain::egress::site::Site;
use crate::domain::ids::{IsolateId, UserId};
use crate::domain::login::Login;
use crate::domain::mcp::Limits;
use crate::domain::verdict::{OomScope, Verdict};

pub use super::remote::Dial;
pub use crate::domain::usage::Usage;

/// A boxed future, for the few calls that cross this border.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Told of an attempt to reach something that is not allowed: what, and why not.
pub type OnDenied = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What went out of an isolate and came back, by way of the gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressCount {
    /// Connections open now.
    pub open: u64,
    /// Connections there were.
    pub connections: u64,
    /// Bytes out.
    pub sent_bytes: u64,
    /// Bytes in.
    pub received_bytes: u64,
    /// Attempts that were not let go.
    pub denied: u64,
}

/// Everything needed to start one run.
#[derive(Clone)]
pub struct Launch {
    /// The slot; names the cgroup leaf.
    pub isolate: IsolateId,
    /// Whose sum it counts against; `None` for a shared instance.
    pub user: Option<UserId>,
    /// Program, already looked up: an absolute path.
    pub program: PathBuf,
    /// Arguments after the program's name, templates filled in.
    pub args: Vec<String>,
    /// The whole environment of the server, templates filled in; values are wiped when they are
    /// dropped.
    pub env: BTreeMap<String, Zeroizing<String>>,
    /// What only this isolate sees.
    pub secrets: Secrets,
    /// Working directory and `HOME`: `<homes>/<owner>/<mcp>`; the launcher makes it, mode 0700.
    pub home: PathBuf,
    /// The walls its definition asks for.
    pub confinement: Confinement,
    /// Told of what it tried and may not; `None` if nobody is to know.
    pub on_denied: Option<OnDenied>,
    /// Kernel limits of this isolate.
    pub limits: Limits,
    /// Kernel limits of all isolates of the user.
    pub user_limits: Limits,
    /// What waits in its stdin when it begins, so that the first question costs no round through
    /// the gateway; a launch that fails throws it away. Short: see
    /// [`sandbox::host::OPENING_BYTES_MAX`].
    pub opening: Bytes,
    /// What it has to do with a package, if anything.
    pub extra: Extra,
}

/// Values that only one isolate sees.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// Files beneath [`Launcher::secrets`], by name.
    pub files: BTreeMap<String, SecretSlice<u8>>,
    /// Pipes that its server finds open, by number.
    pub descriptors: BTreeMap<i32, SecretSlice<u8>>,
}

/// What a run has besides what its definition says: of its package, or because it installs one.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// Programs of the host that it runs, shown as its own one is.
    pub programs: Vec<PathBuf>,
    /// What was installed for its mcp: shown read-only.
    pub tree: Option<PathBuf>,
    /// Its hosts are the operator's own, so private ones need no setting.
    pub trusted: bool,
    /// The proxy that its way out leads over.
    pub proxy: Option<Site>,
    /// What that asks for.
    pub proxy_login: Option<Arc<Login>>,
    /// The server that is spoken to; then nothing is started here.
    pub remote: Option<Dial>,
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("isolate", &self.isolate)
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// A started run: its pipes, its end and its scope.
pub struct Launched {
    /// The init's pid as the gateway sees it; none of a server behind HTTP.
    pub pid: Option<i32>,
    /// The server's stdin.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// The server's stdout.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// The server's stderr.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// Resolves once, when the server process itself has ended (its descendants may live on).
    pub exit: BoxFuture<'static, Exit>,
    /// The process tree.
    pub scope: Box<dyn Scope>,
    /// How long making the cgroup and starting the process took.
    pub took: Duration,
    /// Facilities the operator allowed to be missing and that are missing.
    pub degraded: Vec<String>,
}

impl fmt::Debug for Launched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launched")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

/// How the server process ended, as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// `exit(code)`.
    Code(i32),
    /// Ended by a signal.
    Signal(i32),
    /// The server was never executed; the failing step and why.
    NotStarted {
        /// The step of the plan that failed.
        step: String,
        /// Why, with what, and what to do.
        detail: String,
    },
    /// A server behind HTTP: why the connection is over.
    Over(Verdict),
}

/// What the barrier found when the tree was gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// Last reading of the counters.
    pub usage: Usage,
    /// Whether, and for whose limit, the kernel killed for memory.
    pub oom: Option<OomScope>,
    /// Processes that outlived `kill_wait`; empty when the tree is gone and its cgroup removed.
    pub survivors: Vec<i32>,
}

/// A run's process tree, for the slot. Dropping it kills the tree without waiting.
pub trait Scope: Send + Sync {
    /// Asks the server to end (SIGTERM to it, by its init). Never blocks.
    fn terminate(&self);
    /// Kills every process of the tree. Never blocks for longer than a file write.
    fn kill(&self);
    /// The reaping barrier: kills what is left, waits until the cgroup is empty, reads the final
    /// counters and removes the cgroup; gives up after `wait` and names the survivors.
    fn reap(&self, wait: Duration) -> BoxFuture<'_, Remains>;
    /// Whether, and for whose limit, the kernel killed for memory so far. A few file reads.
    fn oom(&self) -> Option<OomScope>;
    /// What went over its way out, if it has one.
    fn egress(&self) -> Option<EgressCount> {
        None
    }
    /// Changes the kernel limits of what runs. Writes files: not for a runtime's worker.
    ///
    /// # Errors
    /// It needs more than that already, or the kernel refuses: in words.
    fn relimit(&self, limits: &Limits) -> Result<(), String>;
    /// Resource use now. Reads files: not for a runtime's worker.
    fn usage(&self) -> Usage;
    /// The cheap reading of the sweep: without the peak, and of the rare counters only those whose
    /// turn it is.
    fn sample(&self, turn: u32) -> Usage {
        let _ = turn;
        self.usage()
    }
}

/// Why a run could not be started.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LaunchError {
    /// Trying again cannot help: sandbox refused, bad plan, program not found.
    #[error("{step}: {detail}")]
    Refused {
        /// The facility or step.
        step: String,
        /// Why, with what, and what to do.
        detail: String,
    },
    /// The host could not do it now: out of pids, the spawner is away.
    #[error("the host could not start a process now: {0}")]
    Busy(String),
    /// No process is left under somebody's limit; [`LaunchError::Over`] says whose.
    #[error("no process is left")]
    NoProcess,
    /// It is over before it began: why.
    #[error("{0}")]
    Over(Verdict),
}

/// Starts runs.
pub trait Launcher: Send + Sync {
    /// Makes the cgroup, starts the process and hands over its pipes.
    fn launch(&self, launch: Launch) -> BoxFuture<'_, Result<Launched, LaunchError>>;
    /// Kills and removes what an earlier life of this installation left; gives the number of
    /// cgroups removed.
    fn sweep(&self) -> BoxFuture<'_, Result<usize, LaunchError>>;
    /// Processes under this installation's cgroups that no slot owns; 0 when all is well.
    fn unowned(&self) -> usize;
    /// Starts under way. A runtime must not end before this is 0: a process born after it would
    /// have nobody to reap it.
    fn starts_in_flight(&self) -> usize;
    /// What is enforced and what is not, one line each, for the banner and `status`.
    fn enforcement(&self) -> Enforcement;
    /// Where an isolate with these walls sees its secret files.
    fn secrets(&self, walls: &Confinement) -> &Path;
    /// Whether the operator lets definitions name private addresses.
    fn allows_private(&self) -> bool {
        false
    }
    /// Bytes on the disk beneath a home, as far as so many entries tell. Blocks.
    fn weigh(&self, home: &Path, entries: u32) -> u64 {
        sandbox::homes::weigh(home, entries)
    }
    /// Makes what was an isolate's, whose processes are gone, the gateway's own where it is not root. Blocks.
    ///
    /// # Errors
    /// The disk, or a tree that is too deep.
    fn reclaim(&self, home: &Path) -> std::io::Result<()> {
        let _ = home;
        Ok(())
    }
    /// Why the network or paths of these walls are refused, whatever will be there when they are used. Reads
    /// links: blocks.
    fn refuses(&self, walls: &Confinement) -> Option<Forbidden> {
        let _ = walls;
        None
    }
    /// Restarts the link to the spawner if it is gone.
    fn heal(&self) -> BoxFuture<'_, Result<(), LaunchError>>;
    /// Resolves when the link to the spawner is gone.
    fn lost(&self) -> BoxFuture<'static, ()>;
    /// Drops the cgroup of a user that has no isolates left.
    fn release_user(&self, user: &UserId);
}

/// What the operator's configuration gives no definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forbidden {
    /// What was asked for.
    pub why: String,
    /// What to do.
    pub next: String,
}

/// What the host enforces.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Enforcement {
    /// How processes are confined, e.g. `cgroup hybrid, pid namespace`.
    pub summary: String,
    /// Facilities in force.
    pub enforced: Vec<String>,
    /// Facilities that are missing, each with why and how to get it.
    pub missing: Vec<String>,
    /// Their names.
    pub lacks: Vec<&'static str>,
}
