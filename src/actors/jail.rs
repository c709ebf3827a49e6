//! The [`Launcher`] of real processes: the `sandbox` crate behind the tree's border.
//!
//! What blocks (cgroup files, the round trip to the spawner) runs on the blocking pool; what waits
//! (the end of a run) is a descriptor in the reactor, never a thread. Each run has one task, its
//! warden, which reaps the init whatever becomes of everything else: no zombies, ever.

mod crowd;
mod dying;
mod egress;
mod examine;
mod run;
mod stage;
mod usage;
mod walls;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox::cgroup::CgroupError;
use sandbox::homes::Homes;
use sandbox::host::Door;
use sandbox::uids::Claim;
use sandbox::{Host, HostConfig, HostError, Missing};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

pub use examine::{Finding, Verdict, examine};
pub use sandbox::Facility;
pub use walls::Walls;

pub(super) use walls::packages_beside;

use self::crowd::Crowd;
use self::egress::{Egress, Leave, Users};
use self::run::Born;
use self::stage::{Phase, Stage};
use super::launcher::{
    BoxFuture, Enforcement, Exit, Forbidden, Launch, LaunchError, Launched, Launcher, OnDenied,
    Scope,
};
use super::start_work::start_work;
use crate::domain::confinement::{Confinement, Network, Profile};
use crate::domain::egress::Rule;
use crate::domain::egress::site::Site;
use crate::domain::ids::UserId;
use crate::domain::limits::KILL_WAIT;
use crate::domain::login::Login;

/// From the clone to the server's first instruction; a program on a dead network disk takes longer.
const EXEC_WAIT: Duration = Duration::from_secs(10);

/// What may be missing on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Degrade {
    /// These facilities, named by the operator.
    Named(Vec<Facility>),
    /// Whatever the probe finds missing (`serve --dev`).
    Anything,
}

/// How to set up a [`Jail`].
#[derive(Debug, Clone)]
pub struct JailConfig {
    /// The product binary, whose `main` calls `sandbox::role` first; this very process's if `None`.
    pub executable: Option<PathBuf>,
    /// The installation's id: twelve lower-case hex digits or more.
    pub installation_id: String,
    /// What may be missing.
    pub degrade: Degrade,
    /// A path inside every cgroup hierarchy under which to build; our own group if `None`.
    pub cgroup_root: Option<PathBuf>,
    /// Where homes are: `<homes>/<owner>/<mcp>`.
    pub homes: PathBuf,
    /// What the operator says about walls.
    pub walls: Walls,
    /// Bytes of memory that all isolates may have together.
    pub memory_budget: Option<u64>,
}

/// Starts runs in isolates of this host.
#[derive(Debug)]
pub struct Jail {
    host: Host,
    homes: Arc<Homes>,
    walls: Arc<Walls>,
    /// Where profile `none`, which has the host's root, mounts secret files: an empty directory.
    secrets: PathBuf,
    /// Whose connections go out.
    users: Arc<Users>,
    /// Cloned by every start while it is on the blocking pool.
    starting: Arc<()>,
}

impl Jail {
    /// Starts the spawner and finds out what the host offers. Blocks for some milliseconds; call
    /// it before the runtime, so that the spawner is forked from a small process.
    ///
    /// # Errors
    /// [`LaunchError::Refused`] if a facility is missing that may not be; names cause and fix.
    pub fn start(config: JailConfig) -> Result<Self, LaunchError> {
        let claim = config.walls.claim()?;
        let is_root = claim.is_some();
        let given = if is_root {
            Err(String::new())
        } else {
            config.walls.subordinate()
        };
        let mut host = HostConfig::new(&config.installation_id);
        if let Some(executable) = config.executable {
            host.executable = executable;
        }
        host.allow_degraded = match config.degrade {
            Degrade::Named(facilities) => facilities,
            Degrade::Anything => Facility::ALL.to_vec(),
        };
        host.cgroup_root = config.cgroup_root;
        host.memory_budget = config.memory_budget;
        host.io = config.walls.io;
        host.profile = walls::profile(config.walls.profile);
        host.probe_identity = claim.as_ref().map(|claim| claim.range().probe());
        host.subordinate = given.as_ref().map(Claim::range).map_err(String::clone);
        let host = Host::start(host).map_err(|e| refusal(&e))?;
        let claim = claim.or_else(|| given.ok().filter(|_| host.gives_ids()));
        let hands = (!is_root).then(|| host.clone());
        let homes =
            Homes::open(&config.homes, claim, hands).map_err(|error| LaunchError::Refused {
                step: "homes".to_owned(),
                detail: format!("cannot open {}: {error}", config.homes.display()),
            })?;
        Ok(Self {
            host,
            secrets: walls::secrets_beside(homes.root())?,
            homes: Arc::new(homes),
            walls: Arc::new(config.walls),
            users: Arc::default(),
            starting: Arc::new(()),
        })
    }

    /// The spawner's pid, for `status`; `None` while there is none.
    #[must_use]
    pub fn spawner_pid(&self) -> Option<i32> {
        self.host.spawner_pid()
    }

    /// Starts that are being made right now, those whose caller has gone included. A server that
    /// stops waits for 0 before it drops the runtime: a run born after that has no warden.
    #[must_use]
    pub fn starts_in_flight(&self) -> usize {
        Arc::strong_count(&self.starting).saturating_sub(1)
    }

    async fn start_run(&self, launch: Launch) -> Result<Launched, LaunchError> {
        let began = Instant::now();
        let host = self.host.clone();
        let (homes, walls) = (Arc::clone(&self.homes), Arc::clone(&self.walls));
        let secrets = self.secrets(&launch.confinement).to_owned();
        // Born inside the closure: if we are dropped meanwhile, so is the scope, and that kills.
        let starting = Arc::clone(&self.starting);
        let way_out = Out::of(&launch, &self.users);
        let crowd = Crowd::of(&launch);
        let born = start_work(move || {
            let _starting = starting;
            let spec = walls.spec(&homes, &secrets, launch)?;
            let spawned = host.spawn(&spec).map_err(|e| refusal(&e))?;
            let degraded: Vec<String> = spawned.degraded.iter().map(ToString::to_string).collect();
            run::birth(spawned).map(|born| (born, degraded))
        })
        .await
        .map_err(|e| LaunchError::Busy(format!("the start was cut short: {e}")))?
        .map_err(|e| crowd.named(e, &self.host))?;
        let (born, degraded) = born;
        let Born {
            scope,
            stdin,
            stdout,
            stderr,
            pid,
            door,
        } = born;

        let mut stage = scope.subscribe();
        if let Some(problem) = problem_of(&mut stage).await {
            // Before it is reaped: its processes count.
            let problem = crowd.named(problem, &self.host);
            let remains = scope.reap(KILL_WAIT).await;
            return Err(match remains.oom {
                Some(_) => LaunchError::Refused {
                    step: "memory".to_owned(),
                    detail: "the memory limit is too small even to start; raise it".to_owned(),
                },
                None => problem,
            });
        }
        if let (Some(door), Some(way_out)) = (door, way_out) {
            scope.lead_out(way_out.open(door)?);
        }
        Ok(Launched {
            pid: Some(pid),
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            exit: Box::pin(async move {
                match stage.wait_for(|stage| stage.exit().is_some()).await {
                    Ok(stage) => stage.exit(),
                    // The warden always tells an end; without one the runtime is going down.
                    Err(_) => None,
                }
                .unwrap_or(Exit::Signal(KILLED))
            }),
            scope: Box::new(scope),
            took: began.elapsed(),
            degraded,
        })
    }
}

/// What is needed to serve a run's way out, kept from its launch.
struct Out {
    ports: Vec<u16>,
    rules: Vec<Rule>,
    proxy: Option<Site>,
    proxy_login: Option<Arc<Login>>,
    on_denied: OnDenied,
    user: Option<UserId>,
    users: Arc<Users>,
}

impl Out {
    fn of(launch: &Launch, users: &Arc<Users>) -> Option<Self> {
        let walls = &launch.confinement;
        (walls.network == Network::Allowlist).then(|| Self {
            ports: walls.ports(),
            rules: walls.hosts.clone(),
            proxy: launch.extra.proxy.clone(),
            proxy_login: launch.extra.proxy_login.clone(),
            on_denied: launch
                .on_denied
                .clone()
                .unwrap_or_else(|| Arc::new(|_, _| {})),
            user: launch.user.clone(),
            users: Arc::clone(users),
        })
    }

    fn open(self, door: Door) -> Result<Egress, LaunchError> {
        let leave = Leave {
            rules: self.rules,
            proxy: self.proxy,
            proxy_login: self.proxy_login,
        };
        let doors = door.take();
        let of = (&*self.users, self.user.as_ref());
        let opened =
            doors.and_then(|doors| Egress::start(doors, &self.ports, leave, of, self.on_denied));
        opened.map_err(|error| {
            LaunchError::Busy(format!(
                "the way out of the isolate was not opened: {error}"
            ))
        })
    }
}

/// What a run that was killed from outside ends with.
const KILLED: i32 = 9;

impl Launcher for Jail {
    fn launch(&self, launch: Launch) -> BoxFuture<'_, Result<Launched, LaunchError>> {
        Box::pin(self.start_run(launch))
    }

    fn sweep(&self) -> BoxFuture<'_, Result<usize, LaunchError>> {
        let host = self.host.clone();
        Box::pin(blocking(move || host.sweep(KILL_WAIT)))
    }

    fn unowned(&self) -> usize {
        self.host.unowned()
    }

    fn starts_in_flight(&self) -> usize {
        Self::starts_in_flight(self)
    }

    fn enforcement(&self) -> Enforcement {
        let capabilities = self.host.capabilities();
        // Where no mcp may have the host's network, nothing is without its guard.
        let counts = |lack: &&Missing| {
            self.walls.allow_network_host || lack.facility != Facility::NetworkGuard
        };
        let missing = || capabilities.missing.iter().filter(counts);
        Enforcement {
            summary: capabilities.summary.clone(),
            enforced: capabilities
                .enforced
                .iter()
                .map(|facility| facility.name().to_owned())
                .collect(),
            missing: missing().map(ToString::to_string).collect(),
            lacks: missing().map(|lack| lack.facility.name()).collect(),
        }
    }

    fn secrets(&self, walls: &Confinement) -> &Path {
        match walls.profile.unwrap_or(self.walls.profile) {
            Profile::None => &self.secrets,
            Profile::Standard | Profile::Strict => Path::new(sandbox::plan::view::SECRETS),
        }
    }

    fn allows_private(&self) -> bool {
        self.walls.allow_network_private
    }

    fn refuses(&self, walls: &Confinement) -> Option<Forbidden> {
        self.walls
            .withheld(walls)
            .or_else(|| self.walls.outside(walls))
    }

    fn weigh(&self, home: &Path, entries: u32) -> u64 {
        self.host.weigh(home, entries)
    }

    fn reclaim(&self, home: &Path) -> std::io::Result<()> {
        self.host.reclaim(home)
    }

    fn heal(&self) -> BoxFuture<'_, Result<(), LaunchError>> {
        let host = self.host.clone();
        Box::pin(blocking(move || host.heal()))
    }

    fn lost(&self) -> BoxFuture<'static, ()> {
        let spawner = self.host.spawner();
        Box::pin(async move {
            if let Some(pidfd) = spawner
                && let Ok(pidfd) = run::in_reactor(pidfd)
            {
                // Ready or broken: either way there is no spawner behind it that we could watch.
                let _ = pidfd.readable().await;
            }
        })
    }

    fn release_user(&self, user: &UserId) {
        self.host.release_user(user.short());
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
) -> Result<T, LaunchError> {
    spawn_blocking(work)
        .await
        .map_err(|e| LaunchError::Busy(format!("the work was cut short: {e}")))?
        .map_err(|e| refusal(&e))
}

/// Waits until the server is executed; why it was not, if it was not.
async fn problem_of(stage: &mut watch::Receiver<Stage>) -> Option<LaunchError> {
    let past = stage.wait_for(|stage| !matches!(stage.phase, Phase::Starting));
    match tokio::time::timeout(EXEC_WAIT, past).await {
        Ok(Ok(stage)) => not_started(&stage),
        Ok(Err(_)) => Some(LaunchError::Busy("the run was lost".to_owned())),
        Err(_) => Some(LaunchError::Busy(format!(
            "the server was not executed within {EXEC_WAIT:?}; is its disk reachable?"
        ))),
    }
}

/// Why the run in this stage has not started, if it has not.
fn not_started(stage: &Stage) -> Option<LaunchError> {
    match &stage.phase {
        Phase::Failed(failure) if failure.step == FORK && failure.errno == EAGAIN => {
            Some(LaunchError::NoProcess)
        }
        Phase::Failed(failure) if is_passing(failure.errno) => {
            Some(LaunchError::Busy(failure.text.clone()))
        }
        Phase::Failed(failure) => Some(LaunchError::Refused {
            step: failure.step.clone(),
            detail: failure.advice(),
        }),
        Phase::Ended(Exit::NotStarted { step, detail }) => Some(LaunchError::Busy(format!(
            "the isolate ended before its server began, at {step}: {detail}"
        ))),
        Phase::Starting | Phase::Started | Phase::Ended(_) => None,
    }
}

/// The step that makes the server's process, by its name in [`sandbox::plan::Place`].
const FORK: &str = "fork";
/// What the kernel says where no process is left.
const EAGAIN: i32 = 11;

/// Errors of the kernel that pass: out of something now, or a program being written.
fn is_passing(errno: i32) -> bool {
    const ENOMEM: i32 = 12;
    const EBUSY: i32 = 16;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ETXTBSY: i32 = 26;
    const ENOSPC: i32 = 28;
    matches!(
        errno,
        EAGAIN | ENOMEM | EBUSY | ENFILE | EMFILE | ETXTBSY | ENOSPC
    )
}

/// Sorts the host's errors into those that pass and those that do not.
fn refusal(error: &HostError) -> LaunchError {
    let (step, errno) = match error {
        HostError::SpawnerLost(_)
        | HostError::Ids(_)
        | HostError::Cgroup(CgroupError::Occupied { .. }) => {
            return LaunchError::Busy(error.to_string());
        }
        HostError::Unavailable(refused) => (refused.facility().name(), None),
        HostError::Installation(_) => ("installation", None),
        HostError::Plan(_) => ("plan", None),
        HostError::Clone(source) => ("clone", source.raw_os_error()),
        HostError::Cgroup(source) => ("cgroup", source.errno()),
        HostError::Io { source, .. } => ("spawn", source.raw_os_error()),
    };
    match errno {
        Some(EAGAIN) if matches!(error, HostError::Clone(_)) => LaunchError::NoProcess,
        Some(errno) if is_passing(errno) => LaunchError::Busy(error.to_string()),
        _ => LaunchError::Refused {
            step: step.to_owned(),
            detail: error.to_string(),
        },
    }
}

/// The border wants the launcher shared.
impl From<Jail> for Arc<dyn Launcher> {
    fn from(jail: Jail) -> Self {
        Arc::new(jail)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_passes_is_busy_and_what_does_not_is_refused() {
        let clone = |errno| HostError::Clone(io::Error::from_raw_os_error(errno));
        assert!(matches!(refusal(&clone(11)), LaunchError::NoProcess));
        assert!(matches!(refusal(&clone(12)), LaunchError::Busy(_)));
        match refusal(&clone(1)) {
            LaunchError::Refused { step, detail } => {
                assert_eq!(step, "clone");
                assert!(detail.contains("the kernel refused a new process"));
            }
            other => panic!("{other:?}"),
        }
        let lost = HostError::SpawnerLost("it has ended".to_owned());
        assert!(matches!(refusal(&lost), LaunchError::Busy(_)));
        let occupied = HostError::Cgroup(CgroupError::Occupied {
            path: "isolates/u-a/i-b".into(),
            pids: vec![7],
        });
        assert!(matches!(refusal(&occupied), LaunchError::Busy(text) if text.contains('7')));
    }
}
