//! One run: its stages, and the [`Scope`] the slot holds.
//!
//! The invariant: from birth on a [`warden`] task waits for the init's end and reaps it, whoever else
//! has been dropped. A scope that is dropped without [`Scope::reap`] leaves the removal of the
//! cgroup to the warden.

mod warden;

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sandbox::cgroup::{Leaf, OomScope as KernelOom, Usage as KernelUsage};
use sandbox::host::{Door, Process, Spawned};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};

use self::warden::{Pidfd, Warden};
use super::dying::Dying;
use super::egress::Egress;
use super::stage::Stage;
use super::usage::usage;
use super::walls::kernel;
use crate::actors::launcher::{BoxFuture, EgressCount, LaunchError, Remains, Scope, Usage};
use crate::domain::limits::{BURIALS_MAX, KILL_WAIT};
use crate::domain::mcp::Limits;
use crate::domain::verdict::OomScope;

/// First and longest pause between looks at a cgroup that is dying.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));
/// Reading last counters and removing cgroups is as much work for the kernel as the dying itself: where
/// hundreds die at once, whoever still has to die comes first.
static BURIALS: Semaphore = Semaphore::const_new(BURIALS_MAX);

/// What is shared by the scope, the warden and the exit future.
#[derive(Debug)]
struct Run {
    process: Process,
    dying: Dying,
    /// Taken by whoever removes the cgroup.
    leaf: Mutex<Option<Leaf>>,
    stage: watch::Sender<Stage>,
    /// The scope was dropped: the cgroup is the warden's to remove.
    abandoned: AtomicBool,
}

impl Run {
    fn leaf(&self) -> MutexGuard<'_, Option<Leaf>> {
        self.leaf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) {
        if !self.dying.strike() {
            return;
        }
        self.process.hold();
        if let Some(leaf) = self.leaf().as_ref() {
            leaf.kill();
        }
        self.process.kill();
    }

    fn is_gone(&self) -> bool {
        self.stage.borrow().reaped
    }

    fn is_empty(&self) -> bool {
        self.is_gone() && self.leaf().as_ref().is_none_or(Leaf::is_empty)
    }

    /// Kills, and waits until init is reaped and the cgroup is empty; whether it came to that.
    async fn end(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        self.kill();
        let mut stage = self.stage.subscribe();
        let reaped = stage.wait_for(|stage| stage.reaped);
        if timeout_at(until, reaped).await.is_err() {
            return false;
        }
        let (mut pause, longest) = LOOK_AGAIN;
        while !self.is_empty() {
            if Instant::now() >= until {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
            self.kill();
        }
        true
    }

    fn survivors(&self) -> Vec<i32> {
        let mut pids = self.leaf().as_ref().map(Leaf::pids).unwrap_or_default();
        if !self.is_gone() {
            pids.push(self.process.pid());
            pids.extend(self.process.descendants());
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Reads the last counters and removes the cgroup, when it is its turn.
    async fn bury(self: Arc<Self>) -> Remains {
        // Never closed; and without a permit it would only be less polite.
        let _turn = BURIALS.acquire().await;
        self.dying.pass_by().await;
        spawn_blocking(move || self.bury_now())
            .await
            .unwrap_or_default()
    }

    /// Blocks for milliseconds.
    fn bury_now(&self) -> Remains {
        self.process.let_go();
        // Out of its place first: nobody shall wait for this lock while we wait for the kernel.
        let leaf = self.leaf().take();
        let Some(leaf) = leaf else {
            return Remains::default();
        };
        let remains = Remains {
            usage: usage(leaf.usage()),
            oom: leaf.oom().map(oom),
            survivors: Vec::new(),
        };
        if let Err(error) = leaf.remove() {
            // The next sweep finds it, and so does the next run of this isolate.
            tracing::warn!(cgroup = leaf.path(), %error, "an empty cgroup could not be removed");
        }
        remains
    }

    /// The barrier nobody waits for, after the scope was dropped.
    async fn end_abandoned(self: Arc<Self>) {
        if self.end(KILL_WAIT).await {
            self.bury().await;
        } else {
            let survivors = self.survivors();
            tracing::error!(
                ?survivors,
                "an isolate nobody owns any more outlived its kill"
            );
        }
    }
}

/// A run just born.
#[derive(Debug)]
pub(super) struct Born {
    pub(super) pid: i32,
    pub(super) stdin: pipe::Sender,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
    pub(super) door: Option<Door>,
    pub(super) scope: JailScope,
}

/// Takes a spawned init into care. Needs the runtime's context.
pub(super) fn birth(spawned: Spawned) -> Result<Born, LaunchError> {
    let busy = |e: std::io::Error| LaunchError::Busy(format!("cannot watch the new process: {e}"));
    let pid = spawned.process.pid();
    tracing::debug!(
        pid,
        cgroup_us = spawned.cgroup_took.as_micros(),
        spawn_us = spawned.clone_took.as_micros(),
        "an init was cloned"
    );
    let events = spawned.leaf.oom_events();
    let run = Arc::new(Run {
        process: spawned.process,
        dying: Dying::default(),
        leaf: Mutex::new(Some(spawned.leaf)),
        stage: watch::Sender::new(Stage::NEW),
        abandoned: AtomicBool::new(false),
    });
    // From here on a failure drops the scope, and that kills; the warden must be there to reap.
    let scope = JailScope {
        run: Arc::clone(&run),
        remains: Mutex::new(None),
        egress: Mutex::new(None),
    };
    let pidfd = in_reactor(Pidfd(Arc::clone(&run)));
    let status = pipe::Receiver::from_owned_fd(spawned.status);
    let events = match events {
        Ok(events) => events.map(in_reactor).transpose().ok().flatten(),
        Err(error) => {
            tracing::warn!(%error, "children killed for memory will not end their isolate");
            None
        }
    };
    match (pidfd, status) {
        (Ok(pidfd), Ok(status)) => {
            tokio::spawn(Warden::new(run, pidfd, status, events).watch());
        }
        (Err(error), _) | (_, Err(error)) => {
            // No reactor for it: reap here, on this blocking thread.
            run.kill();
            reap_blocking(&run);
            return Err(busy(error));
        }
    }
    Ok(Born {
        pid,
        stdin: pipe::Sender::from_owned_fd(spawned.stdin).map_err(busy)?,
        stdout: pipe::Receiver::from_owned_fd(spawned.stdout).map_err(busy)?,
        stderr: pipe::Receiver::from_owned_fd(spawned.stderr).map_err(busy)?,
        door: spawned.door,
        scope,
    })
}

fn reap_blocking(run: &Run) {
    let until = std::time::Instant::now() + KILL_WAIT;
    while std::time::Instant::now() < until {
        match run.process.try_reap() {
            Ok(None) => std::thread::sleep(LOOK_AGAIN.0),
            Ok(end) => {
                run.dying.over();
                run.stage.send_modify(|stage| stage.reaped(end));
                return;
            }
            Err(_) => return,
        }
    }
}

/// Puts a descriptor into the reactor, to wait until it is readable. Needs the runtime's context.
#[expect(
    deprecated,
    reason = "the form that replaces it is unsafe, which this crate forbids; every caller's value owns its descriptor for as long as it lives"
)]
pub(super) fn in_reactor<T: AsRawFd>(inner: T) -> std::io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(inner, Interest::READABLE)
}

/// The process tree of a run.
#[derive(Debug)]
pub(super) struct JailScope {
    run: Arc<Run>,
    /// What the barrier found, once it was passed.
    remains: Mutex<Option<Remains>>,
    /// Its way out, until it is killed.
    egress: Mutex<Option<Egress>>,
}

impl JailScope {
    pub(super) fn subscribe(&self) -> watch::Receiver<Stage> {
        self.run.stage.subscribe()
    }

    /// Gives it a way out.
    pub(super) fn lead_out(&self, egress: Egress) {
        *self.egress() = Some(egress);
    }

    fn egress(&self) -> MutexGuard<'_, Option<Egress>> {
        self.egress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remains(&self) -> MutexGuard<'_, Option<Remains>> {
        self.remains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, how: impl Fn(&Leaf) -> KernelUsage) -> Usage {
        self.run
            .leaf()
            .as_ref()
            .map(|leaf| usage(how(leaf)))
            .unwrap_or_default()
    }

    async fn pass(&self, wait: Duration) -> Remains {
        if let Some(remains) = self.remains().clone() {
            return remains;
        }
        if !self.run.end(wait).await {
            // Parted: the leaf's lock must be given back before `survivors` takes it again.
            let oom = self.run.leaf().as_ref().and_then(Leaf::oom).map(oom);
            return Remains {
                usage: self.usage(),
                oom,
                survivors: self.run.survivors(),
            };
        }
        let remains = Arc::clone(&self.run).bury().await;
        *self.remains() = Some(remains.clone());
        remains
    }
}

impl Scope for JailScope {
    fn terminate(&self) {
        self.run.process.terminate();
    }

    fn kill(&self) {
        // What is under way on the network ends with the order, not with the last process.
        self.egress().take();
        self.run.kill();
    }

    fn egress(&self) -> Option<EgressCount> {
        Self::egress(self).as_ref().map(Egress::count)
    }

    fn reap(&self, wait: Duration) -> BoxFuture<'_, Remains> {
        Box::pin(self.pass(wait))
    }

    fn oom(&self) -> Option<OomScope> {
        if let Some(remains) = &*self.remains() {
            return remains.oom;
        }
        self.run.leaf().as_ref().and_then(Leaf::oom).map(oom)
    }

    fn relimit(&self, limits: &Limits) -> Result<(), String> {
        let leaf = self.run.leaf();
        // Without one it is over, and there is nothing to limit.
        let relimited = leaf
            .as_ref()
            .map_or(Ok(()), |leaf| leaf.relimit(&kernel(limits)));
        relimited.map_err(|error| error.to_string())
    }

    fn usage(&self) -> Usage {
        self.read(Leaf::usage)
    }

    fn sample(&self, turn: u32) -> Usage {
        self.read(|leaf| leaf.sample(turn))
    }
}

impl Drop for JailScope {
    fn drop(&mut self) {
        if self.remains().is_some() {
            return;
        }
        self.run.kill();
        self.run.abandoned.store(true, Ordering::SeqCst);
        // Already reaped: the warden has gone and will not see that it was abandoned.
        if self.run.is_gone()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(Arc::clone(&self.run).end_abandoned());
        }
    }
}

fn oom(scope: KernelOom) -> OomScope {
    match scope {
        KernelOom::Isolate => OomScope::Isolate,
        KernelOom::User => OomScope::User,
        KernelOom::Host => OomScope::Host,
    }
}
