//! The slot: what outlives one run of an isolate or instance.
//!
//! Its handle cell (a watch that callers wait on), its restart policy, its history, and the scope
//! of the run that is in it. The isolate actor is the only one that moves it from state to state;
//! callers read it, and may ask for it to be filled.

mod key;
mod occupant;
mod state;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::account::User;
use crate::domain::ids::IsolateId;
use crate::domain::limits::{HISTORY_RUNS_MAX, TRANSITIONS_MAX};
use crate::domain::mcp::{Limits, Mcp, Sharing, Tool};
use crate::domain::restart::{Restart, Settings};
use crate::domain::verdict::OomScope;

pub use key::{Principal, SlotKey};
pub use occupant::{Occupant, Order};
pub use state::{SlotState, Transition};

use super::changes::{Changes, Who};
use super::ears::Watched;
use super::eras::Manners;
use super::handle::{Askers, Handle};
use super::isolate::IsolateMsg;
use super::launcher::Scope;
use super::record::RunRecord;
use super::sync::Mutex;

/// One slot.
#[derive(Debug)]
pub struct Slot {
    /// Its id; names its cgroup.
    pub id: IsolateId,
    /// What it is for.
    pub key: SlotKey,
    /// What runs in it.
    pub mcp: Arc<Mcp>,
    /// Whose it is, unless shared.
    pub owner: Option<User>,
    /// The limits of all isolates of that user.
    pub user_limits: Limits,
    /// Which of its tools ask their callers.
    pub askers: Arc<Askers>,
    /// Resources that are subscribed to.
    pub watched: Arc<Watched>,
    /// What its server's manners are, before its era is known.
    pub manners: Manners,
    state: watch::Sender<SlotState>,
    changes: Arc<Changes>,
    wanted: AtomicBool,
    born: Instant,
    limits: Mutex<Limits>,
    /// What is installed for its mcp, as its last run was started with it.
    tree: Mutex<Option<PathBuf>>,
    /// Of which other tools than the known ones it was told, in short.
    told_of: Mutex<Option<u64>>,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    restart: Restart,
    epoch: u64,
    restarts: u32,
    calls_past: u64,
    occupant: Option<Occupant>,
    actor: Option<ActorRef<IsolateMsg>>,
    history: VecDeque<Arc<RunRecord>>,
    transitions: VecDeque<Transition>,
    tools: Option<Vec<Tool>>,
}

impl Slot {
    /// An empty slot.
    #[must_use]
    pub fn new(
        id: IsolateId,
        key: SlotKey,
        mcp: Arc<Mcp>,
        owner: Option<User>,
        user_limits: Limits,
        restart: Settings,
        changes: Arc<Changes>,
    ) -> Self {
        Self {
            limits: Mutex::new(mcp.limits),
            tree: Mutex::default(),
            id,
            key,
            mcp,
            owner,
            user_limits,
            askers: Arc::default(),
            watched: Arc::default(),
            manners: Manners::default(),
            state: watch::Sender::new(SlotState::Resting),
            changes,
            wanted: AtomicBool::new(false),
            born: Instant::now(),
            told_of: Mutex::default(),
            kept: Mutex::new(Kept {
                restart: Restart::new(restart),
                epoch: 0,
                restarts: 0,
                calls_past: 0,
                occupant: None,
                actor: None,
                history: VecDeque::new(),
                transitions: VecDeque::new(),
                tools: None,
            }),
        }
    }

    /// Who shares its processes.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        self.mcp.sharing
    }

    /// The kernel limits of its runs, now: a definition's may change while it runs.
    #[must_use]
    pub fn limits(&self) -> Limits {
        *self.limits.lock()
    }

    /// The installed package that its last run was started with.
    pub(super) fn tree(&self) -> Option<PathBuf> {
        self.tree.lock().clone()
    }

    pub(super) fn set_tree(&self, tree: Option<PathBuf>) {
        *self.tree.lock() = tree;
    }

    /// Its server lists these other tools now (none: those that are known); whether that is news.
    pub(super) fn told_of(&self, tools: Option<u64>) -> bool {
        std::mem::replace(&mut *self.told_of.lock(), tools) != tools
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        *self.limits.lock() = limits;
    }

    /// The memory limit that an OOM kill of this scope enforced, where it is ours.
    #[must_use]
    pub fn limit_of(&self, scope: OomScope) -> Option<u64> {
        match scope {
            OomScope::Isolate => Some(self.limits().memory_bytes),
            OomScope::User => Some(self.user_limits.memory_bytes),
            OomScope::Host => None,
        }
    }

    /// Where it is now.
    #[must_use]
    pub fn state(&self) -> SlotState {
        self.state.borrow().clone()
    }

    /// The handle, if a run serves: the first thing a call looks at.
    #[must_use]
    pub fn ready(&self) -> Option<Arc<Handle>> {
        match &*self.state.borrow() {
            SlotState::Ready(handle) => Some(Arc::clone(handle)),
            _ => None,
        }
    }

    /// To wait for changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<SlotState> {
        self.state.subscribe()
    }

    /// Marks the slot as wanted; `true` if it was not, so that one of many callers asks for it.
    pub fn want(&self) -> bool {
        !self.wanted.swap(true, Ordering::AcqRel)
    }

    /// Whether somebody wants a run that nobody has begun to make.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// The demand was seen to.
    pub(super) fn served(&self) {
        self.wanted.store(false, Ordering::Release);
    }

    /// Moves to a state, for a cause; the last few moves are remembered.
    pub(super) fn enter(&self, state: SlotState, cause: impl Into<String>) {
        let (to, cause) = (state.word(), cause.into());
        {
            let mut kept = self.kept.lock();
            if kept.transitions.len() == TRANSITIONS_MAX {
                kept.transitions.pop_front();
            }
            let step = Transition {
                at: Instant::now(),
                to,
                cause: cause.clone(),
            };
            kept.transitions.push_back(step);
        }
        self.state.send_replace(state);
        self.changes.note(to, &cause, || {
            Who::Isolate(self.key.clone(), self.id.clone())
        });
    }

    /// The remembered moves, oldest first.
    #[must_use]
    pub fn transitions(&self) -> Vec<Transition> {
        self.kept.lock().transitions.iter().cloned().collect()
    }

    /// The remembered runs, newest first.
    #[must_use]
    pub fn history(&self) -> Vec<Arc<RunRecord>> {
        self.kept.lock().history.iter().rev().cloned().collect()
    }

    /// Restarts after failures, ever.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.kept.lock().restarts
    }

    /// Calls carried by all runs.
    #[must_use]
    pub fn calls(&self) -> u64 {
        let kept = self.kept.lock();
        kept.calls_past
            + kept
                .occupant
                .as_ref()
                .map_or(0, |occupant| occupant.handle.calls())
    }

    /// The run that is in it.
    #[must_use]
    pub fn occupant(&self) -> Option<Occupant> {
        self.kept.lock().occupant.clone()
    }

    /// The actor that moves it.
    #[must_use]
    pub fn actor(&self) -> Option<ActorRef<IsolateMsg>> {
        self.kept.lock().actor.clone()
    }

    pub(super) fn set_actor(&self, actor: Option<ActorRef<IsolateMsg>>) {
        self.kept.lock().actor = actor;
    }

    /// Uses the restart policy with the time since this slot was made.
    pub(super) fn policy<T>(&self, with: impl FnOnce(&mut Restart, Duration) -> T) -> T {
        let now = self.born.elapsed();
        with(&mut self.kept.lock().restart, now)
    }

    /// The policy's time as an instant.
    pub(super) fn instant(&self, policy_time: Duration) -> Instant {
        self.born + policy_time
    }

    /// A new run moves in; its process tree follows by [`Slot::scope_of`].
    pub(super) fn occupy(&self, make: impl FnOnce(u64) -> Occupant) -> Occupant {
        let mut kept = self.kept.lock();
        kept.epoch += 1;
        let occupant = make(kept.epoch);
        if kept.history.len() == HISTORY_RUNS_MAX {
            kept.history.pop_front();
        }
        kept.history.push_back(Arc::clone(&occupant.record));
        kept.occupant = Some(occupant.clone());
        occupant
    }

    /// The run got its process tree. If it was killed meanwhile, so is the tree.
    pub(super) fn scope_of(&self, epoch: u64, scope: &Arc<dyn Scope>) {
        let killed = {
            let mut kept = self.kept.lock();
            let occupant = kept
                .occupant
                .as_mut()
                .filter(|occupant| occupant.epoch == epoch);
            occupant.is_none_or(|occupant| {
                occupant.scope = Some(Arc::clone(scope));
                matches!(*occupant.orders.borrow(), Order::Kill(_))
            })
        };
        if killed {
            scope.kill();
        }
    }

    /// The run is over and its tree is gone.
    pub(super) fn vacate(&self) -> Option<Occupant> {
        let mut kept = self.kept.lock();
        let gone = kept.occupant.take();
        kept.calls_past += gone.as_ref().map_or(0, |occupant| occupant.handle.calls());
        gone
    }

    /// A probe listed its tools. Other runs' lists are not kept: the catalog's is what counts.
    pub(super) fn tools_seen(&self, tools: Vec<Tool>) {
        if self.key.is_probe() {
            self.kept.lock().tools = Some(tools);
        }
    }

    /// What a probe listed.
    pub(super) fn take_tools(&self) -> Option<Vec<Tool>> {
        self.kept.lock().tools.take()
    }

    /// Whether a run is in it, or on its way.
    pub(super) fn is_running(&self) -> bool {
        self.is_wanted() || self.kept.lock().occupant.is_some()
    }

    pub(super) fn count_restart(&self) {
        self.kept.lock().restarts += 1;
    }
}
