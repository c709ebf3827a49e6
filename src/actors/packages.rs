//! Packages: installed once for their mcp, then run by everybody's isolates, read-only and without a network.
//!
//! An install is a run of the installer in an isolate of its own, so it is supervised, limited, audited and
//! killed as every other run is. It belongs to the definition, never to a user: it has no credentials, a
//! home and a uid of its own. When its processes are gone, the gateway takes a copy of what they made (`seal`)
//! and puts it on the `shelf`. One install of an mcp at a time, however many calls wait for it; an install that
//! failed is not tried again by itself before its time.

mod install;
mod job;
mod seal;
mod shelf;
mod view;

use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretSlice;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::audit::Entry;
use super::ctx::Ctx;
use super::jail::packages_beside;
use super::launcher::Extra;
use super::plan::find_program;
use super::slot::{Slot, SlotKey};
use super::sync::Mutex;
use crate::domain::ids::McpId;
use crate::domain::limits::{INSTALL_RETRY, INSTALL_RETRY_MAX, INSTALLS_MAX};
use crate::domain::mcp::Mcp;
use crate::domain::package::{Package, VENV};
use crate::telemetry::metrics::labels::InstallResult;

use job::Job;
use shelf::{Record, Runner};

pub use view::PackageView;

/// What is installed, and what is being installed.
#[derive(Debug)]
pub struct Packages {
    cells: Mutex<HashMap<McpId, Arc<Cell>>>,
    jobs: Mutex<HashMap<SlotKey, Arc<Job>>>,
    places: Semaphore,
}

/// One mcp's package.
#[derive(Debug)]
struct Cell {
    key: String,
    state: watch::Sender<State>,
    /// One install at a time.
    flight: tokio::sync::Mutex<()>,
}

/// Where an mcp's package is.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// On its way.
    Installing(Progress),
    /// There.
    Installed(Arc<Record>),
    /// Not there, and not tried again by itself before its time.
    Failed(Failed),
}

/// An install that is under way.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    since: Instant,
    /// Where, once it has its place.
    slot: Option<Arc<Slot>>,
}

/// Why there is no package.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    kind: Kind,
    why: String,
    failures: u32,
    until: Instant,
}

/// How an install failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It cannot be made, or not now.
    Failed,
    /// It took too long.
    Slow,
    /// Somebody stopped it.
    Stopped,
}

/// How an installed package is run.
pub(super) struct Installed {
    pub(super) program: PathBuf,
    /// Before the definition's own arguments.
    pub(super) args: Vec<String>,
    pub(super) extra: Extra,
}

impl Failed {
    fn new(kind: Kind, why: String) -> Self {
        Self {
            kind,
            why,
            failures: 0,
            until: Instant::now(),
        }
    }

    /// Whether it took too long.
    pub(super) fn is_slow(&self) -> bool {
        self.kind == Kind::Slow
    }

    /// In words.
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// When it is tried again.
    pub(super) const fn until(&self) -> Instant {
        self.until
    }
}

impl Progress {
    /// What it does, in words.
    pub(super) fn text(&self) -> String {
        let last = self.slot.as_ref().and_then(|slot| slot.occupant());
        let last = last.and_then(|run| run.record.stderr.last());
        let seconds = self.since.elapsed().as_secs();
        match last {
            Some(line) => format!("installing for {seconds} s, last: {line}"),
            None => format!("installing for {seconds} s"),
        }
    }
}

/// Where packages are.
fn root(ctx: &Ctx) -> PathBuf {
    packages_beside(&ctx.settings.homes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A String takes all.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Default for Packages {
    fn default() -> Self {
        Self {
            cells: Mutex::default(),
            jobs: Mutex::default(),
            places: Semaphore::new(INSTALLS_MAX),
        }
    }
}

impl Packages {
    /// What a definition's install is at; it is begun if it is not there. `None`: the program runs as it is
    /// written.
    ///
    /// # Errors
    /// The program is a launcher of packages and not understood: in words.
    pub(super) fn ensure(
        &self,
        ctx: &Arc<Ctx>,
        mcp: &Arc<Mcp>,
    ) -> Result<Option<watch::Receiver<State>>, String> {
        let Some(package) = mcp.package().map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let (cell, mut begins) = self.cell(mcp, &package);
        let watch = cell.state.subscribe();
        let failed = match &*watch.borrow() {
            State::Failed(failed) if failed.until <= Instant::now() => Some(failed.clone()),
            _ => None,
        };
        if let Some(failed) = &failed {
            let mine = |state: &mut State| {
                let due = matches!(state, State::Failed(one) if one.until == failed.until);
                if due {
                    *state = State::installing();
                }
                due
            };
            begins = cell.state.send_if_modified(mine);
        }
        if begins {
            let (ctx, mcp) = (Arc::clone(ctx), Arc::clone(mcp));
            let failures = failed.map_or(0, |failed| failed.failures);
            tokio::spawn(async move { run(&ctx, &mcp, &package, &cell, failures).await });
        }
        Ok(Some(watch))
    }

    /// The cell of an mcp, and whether it is new: of another install than the last one's.
    fn cell(&self, mcp: &Mcp, package: &Package) -> (Arc<Cell>, bool) {
        let key = package.key(&mcp.install);
        let mut cells = self.cells.lock();
        match cells.get(&mcp.id) {
            Some(cell) if cell.key == key => (Arc::clone(cell), false),
            _ => {
                let cell = Arc::new(Cell {
                    key,
                    state: watch::Sender::new(State::installing()),
                    flight: tokio::sync::Mutex::default(),
                });
                cells.insert(mcp.id.clone(), Arc::clone(&cell));
                (cell, true)
            }
        }
    }

    /// Installs it now, whatever is there: what runs goes on with what it has until it is replaced.
    pub(super) async fn renew(
        &self,
        ctx: &Arc<Ctx>,
        mcp: &Arc<Mcp>,
        package: &Package,
    ) -> Result<Arc<Record>, Failed> {
        let (cell, _) = self.cell(mcp, package);
        let _flight = cell.flight.lock().await;
        let made = make(ctx, mcp, package, &cell).await;
        match &made {
            Ok(record) => drop(
                cell.state
                    .send_replace(State::Installed(Arc::clone(record))),
            ),
            // What was there stays.
            Err(failed) => drop(cell.state.send_if_modified(|state| {
                let installed = matches!(state, State::Installed(_));
                if !installed {
                    *state = State::Failed(failed.clone());
                }
                !installed
            })),
        }
        made
    }

    /// How the installed package of a definition is run; `None` if its program runs as it is written.
    /// Blocks.
    ///
    /// # Errors
    /// It is not installed, or cannot be run: in words.
    pub(super) fn installed(&self, ctx: &Ctx, mcp: &Mcp) -> Result<Option<Installed>, String> {
        let Some(package) = mcp.package().map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let again = format!("legation mcp install {}", mcp.name);
        let (cell, new) = self.cell(mcp, &package);
        let mut record = match &*cell.state.borrow() {
            State::Installed(record) => Some(Arc::clone(record)),
            _ => None,
        };
        if record.is_none() {
            let found = shelf::load(&root(ctx), &mcp.id).map_err(|error| error.to_string())?;
            record = found.filter(|record| record.key == cell.key).map(Arc::new);
        }
        if new {
            // Nobody is on the way for it.
            let state = match &record {
                Some(record) => State::Installed(Arc::clone(record)),
                None => State::Failed(Failed::new(Kind::Failed, "nobody installed it".to_owned())),
            };
            cell.state.send_replace(state);
        }
        let record = record.ok_or_else(|| format!("`{package}` is not installed; {again}"))?;
        let tree = shelf::tree(&root(ctx), &mcp.id, &record);
        let entry = tree.join(&record.done.entry);
        let shown = entry.display().to_string();
        let find =
            |name: &str| find_program(name, &ctx.settings.path).map_err(|error| error.to_string());
        let mut programs = Vec::new();
        let (program, args) = match &record.runner {
            Runner::Itself => (entry, Vec::new()),
            Runner::Interpreter { name, args } => {
                let args = args.iter().cloned().chain([shown]).collect();
                (find(name)?, args)
            }
            Runner::Environment { python } => {
                if !python.is_file() {
                    let python = python.display();
                    return Err(format!(
                        "it was installed for {python}, which is gone; {again} --again"
                    ));
                }
                programs.push(python.clone());
                (tree.join(VENV).join("bin/python"), vec![shown])
            }
        };
        let extra = Extra {
            programs,
            tree: Some(tree),
            ..Extra::default()
        };
        Ok(Some(Installed {
            program,
            args,
            extra,
        }))
    }

    /// Removes what is installed for an mcp. Blocks.
    pub(super) fn forget(&self, ctx: &Ctx, mcp: &McpId) -> std::io::Result<()> {
        self.cells.lock().remove(mcp);
        shelf::remove(&root(ctx).join(mcp.as_str()))
    }

    /// What an installer's run has besides its definition.
    pub(super) fn of_job(
        &self,
        key: &SlotKey,
    ) -> Option<(Extra, std::collections::BTreeMap<String, SecretSlice<u8>>)> {
        let jobs = self.jobs.lock();
        let job = jobs.get(key)?;
        Some((job.extra.clone(), job.files.clone()))
    }

    /// An installer was not let go somewhere: package managers hide what our proxy tells them.
    pub(super) fn denied(&self, key: &SlotKey, target: &str, why: &str) {
        if let Some(job) = self.jobs.lock().get(key) {
            let mut denied = job.denied.lock();
            if denied.is_none() {
                *denied = Some(format!("{target} was not reached: {why}"));
            }
        }
    }

    fn begin(&self, key: &SlotKey, job: Job) {
        self.jobs.lock().insert(key.clone(), Arc::new(job));
    }

    /// The job is over; gives where it was not let go, if it was not.
    fn end(&self, key: &SlotKey) -> Option<String> {
        let job = self.jobs.lock().remove(key)?;
        job.denied.lock().take()
    }
}

impl State {
    fn installing() -> Self {
        Self::Installing(Progress {
            since: Instant::now(),
            slot: None,
        })
    }
}

/// Looks on the shelf, and installs what is not there. Whatever happens, the state is settled at the end.
async fn run(ctx: &Arc<Ctx>, mcp: &Arc<Mcp>, package: &Package, cell: &Arc<Cell>, failures: u32) {
    let unsettled = Unsettled(cell);
    let _flight = cell.flight.lock().await;
    let (dir, id) = (root(ctx), mcp.id.clone());
    let found = tokio::task::spawn_blocking(move || shelf::load(&dir, &id)).await;
    let found = match found {
        Ok(Ok(found)) => found.filter(|record| record.key == cell.key),
        Ok(Err(error)) => {
            tracing::warn!(mcp.name = %mcp.name, "what is installed is not known, so it is installed anew: {error}");
            None
        }
        Err(_) => None,
    };
    let state = match found {
        Some(record) => State::Installed(Arc::new(record)),
        None => match make(ctx, mcp, package, cell).await {
            Ok(record) => State::Installed(record),
            Err(mut failed) => {
                if failed.kind != Kind::Stopped {
                    failed.failures = failures.saturating_add(1);
                    let wait = INSTALL_RETRY * 2u32.saturating_pow(failures.min(16));
                    failed.until = Instant::now() + wait.min(INSTALL_RETRY_MAX);
                }
                State::Failed(failed)
            }
        },
    };
    cell.state.send_replace(state);
    drop(unsettled);
}

/// An install that broke off must not be waited for.
struct Unsettled<'a>(&'a Cell);

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        self.0.state.send_if_modified(|state| {
            let unsettled = matches!(state, State::Installing(_));
            if unsettled {
                let why = "the install broke off".to_owned();
                *state = State::Failed(Failed::new(Kind::Failed, why));
            }
            unsettled
        });
    }
}

/// Installs, within the bounds, and records how that went.
async fn make(
    ctx: &Arc<Ctx>,
    mcp: &Arc<Mcp>,
    package: &Package,
    cell: &Cell,
) -> Result<Arc<Record>, Failed> {
    let since = Instant::now();
    // Never closed.
    let _place = ctx.packages.places.acquire().await;
    let made = match refused(ctx) {
        Some(why) => Err(Failed::new(Kind::Failed, why)),
        None => {
            install::install(ctx, mcp, package, |slot| {
                cell.state.send_if_modified(|state| match state {
                    State::Installing(progress) => {
                        progress.slot = Some(Arc::clone(slot));
                        true
                    }
                    _ => false,
                });
            })
            .await
        }
    };
    told(ctx, mcp, package, &made, since.elapsed());
    made.map(Arc::new)
}

/// Why no install is begun now.
fn refused(ctx: &Ctx) -> Option<String> {
    if ctx.is_stopping() {
        return Some("the gateway is stopping".to_owned());
    }
    if !ctx.may_start() {
        return Some("no server is started while the audit log cannot be written".to_owned());
    }
    let slots = ctx.slots.pin();
    let running = slots.values().filter(|one| one.is_running()).count();
    ctx.room.refuses(running)
}

fn told(ctx: &Ctx, mcp: &Mcp, package: &Package, made: &Result<Record, Failed>, took: Duration) {
    let entry = |event| {
        Entry::new(event, ctx.wall_ms())
            .field("mcp", mcp.id.as_str())
            .field("package", &package.to_string())
            .number(
                "took_ms",
                u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            )
    };
    let result = match made {
        Ok(record) => {
            let done = &record.done;
            tracing::info!(mcp.name = %mcp.name, "installed {} {}", done.name, done.version);
            ctx.audit.post(
                entry("isolate.installed")
                    .field("version", &done.version)
                    .field("integrity", &done.integrity)
                    .field("lock_sha256", &record.lock_sha256)
                    .field("tree_sha256", &record.tree_sha256),
            );
            InstallResult::Installed
        }
        Err(failed) => {
            tracing::warn!(mcp.name = %mcp.name, "`{package}` was not installed: {}", failed.why);
            ctx.audit
                .post(entry("isolate.install_failed").field("detail", &failed.why));
            match failed.kind {
                Kind::Failed => InstallResult::Failed,
                Kind::Slow => InstallResult::Slow,
                Kind::Stopped => InstallResult::Stopped,
            }
        }
    };
    ctx.metrics.installed(result, took);
}
