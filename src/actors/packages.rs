//! Packages: installed once for their mcp, then run by everybody's isolates, read-only and without a network.
//!
//! An install is a run of the installer in an isolate of its own, so it is supervised, limited, audited and
//! killed as every other run is. It belongs to the definition, never to a user: it has no credentials, a
//! home and a uid of its own. When its processes are gone, the gateway takes a copy of what they made (`seal`)
//! and puts it on the `shelf`. One install of an mcp at a time, however many calls wait for it; an install that
//! failed is not tried again by itself before its time.

mod clear;
mod install;
mod job;
mod lock;
mod login;
mod make;
mod remove;
mod run;
mod seal;
mod shelf;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::{SecretSlice, SecretString};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::ctx::Ctx;
use super::jail::packages_beside;
use super::launcher::Extra;
use super::slot::{Slot, SlotKey};
use super::sync::Mutex;
use crate::domain::hex::hex;
use crate::domain::ids::McpId;
use crate::domain::limits::INSTALLS_MAX;
use crate::domain::mcp::Mcp;
use crate::domain::package::Package;
use crate::domain::redact::Redactor;

use job::Job;
use shelf::Record;

pub use view::PackageView;

pub(super) use clear::{home_owner, remove_homes, sweep};
pub(super) use run::Lack;

/// What is installed, and what is being installed.
#[derive(Debug)]
pub struct Packages {
    cells: Mutex<HashMap<McpId, Arc<Cell>>>,
    flights: Mutex<HashMap<McpId, std::sync::Weak<tokio::sync::Mutex<()>>>>,
    jobs: Mutex<HashMap<SlotKey, Arc<Job>>>,
    places: Semaphore,
    /// Our own program, as it was found when we began: an upgrade puts another one in its place.
    executable: Option<PathBuf>,
}

/// One mcp's package.
#[derive(Debug)]
struct Cell {
    key: String,
    state: watch::Sender<State>,
    /// One install of an mcp at a time, whichever definition wants it.
    flight: Arc<tokio::sync::Mutex<()>>,
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

/// What an installer's run has besides its definition.
pub(super) struct OfJob {
    pub(super) extra: Extra,
    /// Files that only it sees.
    pub(super) files: BTreeMap<String, SecretSlice<u8>>,
    /// Variables that are in no definition.
    pub(super) env: BTreeMap<String, SecretString>,
    /// Takes them out of what it writes.
    pub(super) redactor: Option<Arc<Redactor>>,
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
    /// How long it takes already.
    pub(super) fn seconds(&self) -> u64 {
        self.since.elapsed().as_secs()
    }

    /// What it does, in words.
    pub(super) fn text(&self) -> String {
        let last = self.slot.as_ref().and_then(|slot| slot.occupant());
        let last = last.and_then(|run| run.record.stderr.last());
        let seconds = self.since.elapsed().as_secs();
        if self.slot.is_none() {
            return format!(
                "waiting for {seconds} s for others' installs ({INSTALLS_MAX} at once)"
            );
        }
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

impl Default for Packages {
    fn default() -> Self {
        Self {
            cells: Mutex::default(),
            flights: Mutex::default(),
            jobs: Mutex::default(),
            places: Semaphore::new(INSTALLS_MAX),
            executable: std::env::current_exe().ok(),
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
        let (cell, mut begins) = self.cell(ctx, mcp, &package);
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
            tokio::spawn(async move { make::settle(&ctx, &mcp, &package, &cell, failures).await });
        }
        Ok(Some(watch))
    }

    /// The cell of an mcp, and whether it is new: of another install than the last one's.
    fn cell(&self, ctx: &Ctx, mcp: &Mcp, package: &Package) -> (Arc<Cell>, bool) {
        let key = package.key(&mcp.install);
        let mut cells = self.cells.lock();
        let before = cells.get(&mcp.id);
        if let Some(cell) = before.filter(|cell| cell.key == key) {
            return (Arc::clone(cell), false);
        }
        let flight = self.flight(&mcp.id);
        let cell = Arc::new(Cell {
            key,
            state: watch::Sender::new(State::installing()),
            flight,
        });
        if cells.insert(mcp.id.clone(), Arc::clone(&cell)).is_some() {
            clear::stop(ctx, &mcp.id, CHANGED);
        }
        (cell, true)
    }

    /// The one install at a time of an mcp, as long as anybody has to do with it.
    fn flight(&self, mcp: &McpId) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(mcp).and_then(std::sync::Weak::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::default();
        flights.insert(mcp.clone(), Arc::downgrade(&flight));
        flight
    }

    /// A definition is another one now: an install that it does not want any more is given up.
    pub(super) fn changed(&self, ctx: &Ctx, mcp: &Mcp) {
        let key = mcp
            .package()
            .ok()
            .flatten()
            .map(|package| package.key(&mcp.install));
        let mut cells = self.cells.lock();
        let other = cells
            .get(&mcp.id)
            .is_some_and(|cell| Some(&cell.key) != key.as_ref());
        if other {
            // Whoever waits for it is told when it has ended.
            cells.remove(&mcp.id);
            clear::stop(ctx, &mcp.id, CHANGED);
        }
    }

    /// Whether this install is the one that its mcp's definition wants.
    fn is_wanted(&self, mcp: &McpId, key: &str) -> bool {
        let cells = self.cells.lock();
        cells.get(mcp).is_some_and(|cell| cell.key == key)
    }

    /// Looks whether what is installed is still there; if not, it is to be installed again. Blocks.
    pub(super) fn look(&self, ctx: &Ctx, mcp: &McpId) {
        let cell = self.cells.lock().get(mcp).cloned();
        let Some(cell) = cell else { return };
        cell.state.send_if_modified(|state| {
            let State::Installed(record) = state else {
                return false;
            };
            let gone = !shelf::tree(&root(ctx), mcp, record).is_dir();
            if gone {
                let why = "what was installed is gone from the disk".to_owned();
                *state = State::Failed(Failed::new(Kind::Failed, why));
            }
            gone
        });
    }

    /// Installs it now, whatever is there: what runs goes on with what it has until it is replaced.
    pub(super) async fn renew(
        &self,
        ctx: &Arc<Ctx>,
        mcp: &Arc<Mcp>,
        package: &Package,
    ) -> Result<Arc<Record>, Failed> {
        let (cell, _) = self.cell(ctx, mcp, package);
        let unsettled = make::Unsettled(&cell);
        let _flight = cell.flight.lock().await;
        let made = make::make(ctx, mcp, package, &cell, None).await;
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
        drop(unsettled);
        made
    }

    /// Ends the install of an mcp, if there is one, and removes what is installed for it.
    pub(super) async fn forget(&self, ctx: &Arc<Ctx>, mcp: &McpId) -> Result<(), String> {
        let cell = self.cells.lock().remove(mcp);
        clear::stop(ctx, mcp, "the mcp is archived");
        let flight = self.flight(mcp);
        drop(cell);
        let _flight = flight.lock().await;
        let (packages, id) = (root(ctx), mcp.clone());
        let tree = packages.join(mcp.as_str());
        let home = ctx.settings.homes.join(home_owner(mcp));
        let launcher = Arc::clone(&ctx.launcher);
        let removed = tokio::task::spawn_blocking(move || {
            lock::forget(&packages, &id)
                .and_then(|()| clear::remove_home(&*launcher, &home))
                .and_then(|()| shelf::remove(&tree))
        });
        let removed = removed.await.map_err(|error| error.to_string())?;
        removed.map_err(|error| error.to_string())
    }

    /// What an installer's run has besides its definition.
    pub(super) fn of_job(&self, key: &SlotKey) -> Option<OfJob> {
        let jobs = self.jobs.lock();
        let job = jobs.get(key)?;
        Some(OfJob {
            extra: job.extra.clone(),
            files: job.files.clone(),
            env: job.env.clone(),
            redactor: job.redactor.clone(),
        })
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

/// Why an install is given up that nobody wants any more.
const CHANGED: &str = "the definition changed meanwhile";
