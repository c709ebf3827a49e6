//! The whole tree from outside: start it, wait for it, stop it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorRef};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use crate::config::server::Durability;
use crate::domain::account::Millis;
use crate::domain::code::Code;
use crate::domain::limits;
use crate::domain::mcp::Limits;
use crate::domain::restart;
use crate::storage::{Postgres, Store, StoreError};
use crate::telemetry::metrics::labels::ActorKind;

use super::audit::{Audit, Entry, OpenError, STARTED, STOPPED, Setup};
use super::clock::{Clock, random};
use super::control::Control;
use super::ctx::{Ctx, Settings};
use super::front::Front;
use super::launcher::Launcher;
use super::listeners::Doors;
use super::lost::{self, Traces};
use super::measured::measured;
use super::probe::probe;
use super::root::{Phase, Root, RootArgs, RootMsg};

/// Why the tree does not stand.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// The store cannot be opened.
    #[error("the store at {place}")]
    Store {
        /// Which.
        place: String,
        /// Why.
        source: StoreError,
    },
    /// It is empty where a server has lived.
    #[error(
        "the store at {place} is new, and {traces} tell of a server that lived here before: its database is lost, or another one is named"
    )]
    Lost {
        /// Which.
        place: String,
        /// What tells.
        traces: Traces,
    },
    /// The audit log cannot be opened.
    #[error("cannot open the audit log in {dir}: {why}")]
    Audit {
        /// Where.
        dir: String,
        /// Why.
        why: String,
    },
    /// The audit log is somebody else's.
    #[error("not started")]
    NotOurs(#[source] OpenError),
    /// A service did not start.
    #[error("cannot start {why}")]
    Service {
        /// The stable code, where the cause has one.
        code: Code,
        /// Which, and why.
        why: String,
    },
    /// It took too long.
    #[error("the services did not start within {} s", limits::BOOT_MAX.as_secs())]
    Late,
}

/// The running tree.
#[derive(Debug)]
pub struct System {
    ctx: Arc<Ctx>,
    root: ActorRef<RootMsg>,
    phase: watch::Receiver<Phase>,
    _probe: AbortOnDropHandle<()>,
}

/// What tells whether the tree lives.
#[derive(Debug, Clone)]
pub struct Life {
    ctx: Arc<Ctx>,
    phase: watch::Receiver<Phase>,
}

impl Life {
    /// Its root was heard lately, or has stopped in order.
    #[must_use]
    pub fn is_there(&self) -> bool {
        *self.phase.borrow() == Phase::Stopped
            || self.ctx.heart.silent_for() < limits::ROOT_SILENCE_MAX
    }
}

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// Where homes are, without symbolic links: an isolate sees its home at that path.
fn homes(data_dir: &Path) -> PathBuf {
    let folder = data_dir.canonicalize();
    folder.unwrap_or_else(|_| data_dir.to_owned()).join("homes")
}

/// The numbers the actors go by, from the configuration.
#[must_use]
pub fn settings(config: &Config) -> Settings {
    let (isolates, restart) = (&config.isolates, &config.restart);
    Settings {
        data_dir: config.server.data_dir.clone(),
        homes: homes(&config.server.data_dir),
        path: isolates.path.clone(),
        line_bytes_max: config.calls.line_bytes_max,
        in_flight_max: config.calls.in_flight_max,
        kill_wait: ms(isolates.kill_wait_ms),
        per_user_max: isolates.per_user_max,
        start_parallel: isolates.starts_at_once(),
        restart: restart::Settings {
            floor: ms(restart.floor_ms),
            cap: ms(restart.cap_ms),
            reset_after: ms(restart.window_ms),
            failures_max: restart.failures_max,
            quarantine: ms(restart.quarantine_ms),
        },
        restarts_per_second: restart.per_second,
        user_limits: Limits {
            memory_bytes: isolates.user_memory_bytes,
            pids: isolates.user_pids,
            cpu_millis: isolates.user_cpu_millis,
            ..Limits::default()
        },
        session_ttl: ms(config.sessions.ttl_ms),
        token_grace: ms(config.sessions.token_grace_ms),
        sessions_per_key_max: config.sessions.per_key_max,
        calls_per_minute: config.calls.per_key_minute_max,
        failed_tries_max: config.sessions.failed_tries_max,
        failed_window: ms(config.sessions.failed_window_ms),
    }
}

/// Opens the store that the configuration names. It takes as long as it takes to come to a database
/// that is slow or silent, within bounds; who gives it up has started nothing.
///
/// # Errors
/// [`SystemError::Store`].
pub async fn open_store(config: &Config) -> Result<Store, SystemError> {
    let storage = &config.storage;
    let Some(dsn) = storage.url.clone() else {
        let path = sqlite_file(config);
        let place = path.display().to_string();
        let failed = |source| SystemError::Store { place, source };
        let store = Store::open(&path).await.map_err(failed)?;
        return Ok(store.with_defaults(config.mcp_defaults()));
    };
    let place = dsn.place();
    let connecting = Store::connect(Postgres {
        dsn,
        password_file: storage.password_file.clone(),
        ca_file: storage.ca_file.clone(),
        pool_max: storage.pool_max,
        wait: ms(storage.acquire_ms),
        application: application(),
        installation: installation(&config.server.data_dir),
    });
    let store = Box::pin(connecting).await;
    let store = store.map_err(|source| SystemError::Store { place, source })?;
    Ok(store.with_defaults(config.mcp_defaults()))
}

/// A database that was lost is not begun anew by itself.
async fn known(
    store: &Store,
    config: &Config,
    setup: &Setup,
    now: Millis,
) -> Result<(), SystemError> {
    let place = || match &config.storage.url {
        Some(dsn) => dsn.place(),
        None => sqlite_file(config).display().to_string(),
    };
    let found = lost::look(store, setup, &config.server.data_dir.join("homes"), now).await;
    let found = found.map_err(|source| SystemError::Store {
        place: place(),
        source,
    })?;
    let Some(traces) = found else { return Ok(()) };
    store.close().await;
    Err(SystemError::Lost {
        place: place(),
        traces,
    })
}

fn sqlite_file(config: &Config) -> PathBuf {
    config.server.data_dir.join("legation.db")
}

/// The installation's id, as whoever serves keeps it in the data directory.
fn installation(data_dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data_dir.join("installation"));
    text.ok().map(|text| text.trim().to_owned())
}

/// How this process is called in the database's list of sessions: no other is called so.
fn application() -> String {
    let host = rustix::system::uname();
    let host: String = host.nodename().to_string_lossy().chars().take(30).collect();
    let tag = u32::from_le_bytes(random());
    format!("legation {host} pid {} {tag:08x}", std::process::id())
}

impl SystemError {
    /// What to do, if there is something better than the code's own advice.
    #[must_use]
    pub fn next(&self) -> Option<String> {
        match self {
            Self::Lost { traces, .. } => Some(traces.next()),
            Self::NotOurs(OpenError::Held { .. }) => {
                Some("stop that server, or set audit.dir to another directory".to_owned())
            }
            Self::NotOurs(OpenError::Foreign { dir, theirs, .. }) => {
                let dir = dir.display();
                Some(format!(
                    "set audit.dir to a directory of this server's own; or, if {theirs} writes it no \
                     more, keep its log elsewhere: mv {dir} {dir}-{theirs}; or, if this server is \
                     {theirs}, restore its data directory"
                ))
            }
            _ => None,
        }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Store { source, .. } => source.code(),
            Self::Lost { .. } => Code::StoreLost,
            Self::Audit { .. } => Code::AuditUnavailable,
            Self::NotOurs(OpenError::Foreign { .. }) => Code::ConfigInvalid,
            Self::NotOurs(_) => Code::LockHeld,
            Self::Service { code, .. } => *code,
            Self::Late => Code::StartFailed,
        }
    }
}

impl System {
    /// Opens the store and the audit log, starts the services in order, and returns when the
    /// listeners accept.
    ///
    /// # Errors
    /// [`SystemError`]; nothing is left running.
    pub async fn start(
        config: Config,
        clock: Arc<dyn Clock>,
        launcher: Arc<dyn Launcher>,
        doors: Arc<dyn Doors>,
    ) -> Result<Self, SystemError> {
        let store = Box::pin(open_store(&config)).await?;
        Box::pin(Self::start_on(store, config, clock, launcher, doors)).await
    }

    /// The same on a store that is open.
    ///
    /// # Errors
    /// [`SystemError`]; nothing is left running.
    pub async fn start_on(
        store: Store,
        config: Config,
        clock: Arc<dyn Clock>,
        launcher: Arc<dyn Launcher>,
        doors: Arc<dyn Doors>,
    ) -> Result<Self, SystemError> {
        let setup = Setup::of(&config, Arc::clone(&clock));
        known(&store, &config, &setup, clock.wall_ms()).await?;
        let dir = setup.dir.clone();
        let failed = |why: String| SystemError::Audit {
            dir: dir.display().to_string(),
            why,
        };
        // It reads the newest segment.
        let opened = tokio::task::spawn_blocking(move || Audit::start(setup)).await;
        let audit =
            opened
                .map_err(|error| failed(error.to_string()))?
                .map_err(|error| match error {
                    OpenError::Io(error) => failed(error.to_string()),
                    theirs => SystemError::NotOurs(theirs),
                })?;
        audit.post(started(&config, &*clock));
        let ctx = Arc::new(Ctx::new(config, clock, store, audit, launcher));
        let known = super::credentials::Known(Arc::downgrade(&ctx));
        // Once: the cell is new.
        let _ = ctx.secrets.set(Arc::new(known));
        let (tell, mut phase) = watch::channel(Phase::Starting);
        let args = RootArgs {
            ctx: Arc::clone(&ctx),
            doors,
            phase: tell,
        };
        let (root, _) = Actor::spawn(None, measured(&ctx.metrics, ActorKind::Root, Root), args)
            .await
            .map_err(|error| SystemError::Service {
                code: Code::Internal,
                why: error.to_string(),
            })?;
        let settled = phase.wait_for(|phase| *phase != Phase::Starting);
        let settled = tokio::time::timeout(limits::BOOT_MAX, settled).await;
        let result = match settled.as_ref().map(|phase| phase.as_deref()) {
            Ok(Ok(Phase::Up)) => Ok(()),
            Ok(Ok(Phase::Failed { code, why })) => Err(SystemError::Service {
                code: *code,
                why: why.clone(),
            }),
            Ok(_) => Err(SystemError::Service {
                code: Code::Internal,
                why: "root: it ended".to_owned(),
            }),
            Err(_) => Err(SystemError::Late),
        };
        drop(settled);
        let _probe = AbortOnDropHandle::new(tokio::spawn(probe(Arc::clone(&ctx))));
        let system = Self {
            ctx,
            root,
            phase,
            _probe,
        };
        match result {
            Ok(()) => Ok(system),
            Err(error) => {
                system.stop().await;
                Err(error)
            }
        }
    }

    /// For the bootstrap of a demo and for tests.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.ctx))
    }

    /// For tests and benches without a socket.
    #[must_use]
    pub fn front(&self) -> Front {
        Front::new(Arc::clone(&self.ctx))
    }

    /// For tests: the services that run now.
    #[cfg(test)]
    pub(super) fn services(&self) -> Vec<ractor::ActorCell> {
        self.root.get_cell().get_children()
    }

    /// Whether the tree lives, for a service manager's watchdog.
    #[must_use]
    pub fn life(&self) -> Life {
        Life {
            ctx: Arc::clone(&self.ctx),
            phase: self.phase.clone(),
        }
    }

    /// Resolves when the tree gave up, with the reason: the process should end with code 70.
    pub async fn gave_up(&self) -> String {
        let mut phase = self.phase.clone();
        let ended = phase
            .wait_for(|phase| matches!(phase, Phase::Failed { .. }))
            .await;
        match ended.as_deref() {
            Ok(Phase::Failed { why, .. }) => why.clone(),
            _ => "the root ended".to_owned(),
        }
    }

    /// Stops everything in reverse order; `true` if all of it stopped in time.
    pub async fn stop(self) -> bool {
        let mut phase = self.phase;
        let told = self.root.cast(RootMsg::Stop).is_ok();
        let stopped = phase.wait_for(|phase| *phase == Phase::Stopped);
        let orderly = told
            && tokio::time::timeout(limits::SHUTDOWN_MAX, stopped)
                .await
                .is_ok();
        if !orderly {
            self.root.kill();
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        while self.ctx.launcher.starts_in_flight() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Whatever is still in a slot dies with its scope; nothing outlives us.
        for slot in self.ctx.slots.pin().values() {
            if let Some(scope) = slot.occupant().and_then(|run| run.scope) {
                scope.kill();
            }
        }
        let now = self.ctx.wall_ms();
        for counted in self.ctx.refusals.sweep(now, true) {
            self.ctx.audit.post(counted);
        }
        let orderly_word = if orderly { "yes" } else { "no" };
        self.ctx
            .audit
            .post(Entry::new(STOPPED, now).field("orderly", orderly_word));
        let written = self.ctx.audit.close(Duration::from_secs(3)).await;
        self.ctx.store.close().await;
        orderly && written
    }
}

/// A life begins: what was asked of the log, where it matters.
fn started(config: &Config, clock: &dyn Clock) -> Entry {
    let durability = match config.audit.durability {
        Durability::Durable => "durable",
        Durability::Buffered => "buffered",
    };
    Entry::new(STARTED, clock.wall_ms())
        .field("version", env!("CARGO_PKG_VERSION"))
        .number("pid", u64::from(std::process::id()))
        .field("durability", durability)
        .field("required", &config.audit.required.join(" "))
        .field("allow_degraded", &config.sandbox.allow_degraded.join(" "))
        .field("dev", if config.server.dev { "yes" } else { "no" })
}
