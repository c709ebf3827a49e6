//! The switchboard: the cells in `Ctx` through which switches take effect.
//!
//! Calls read the table, which is replaced whole and is not there at all while nothing is denied.
//! Whoever waits watches `changed`. Whoever switches goes through [`Switchboard::change`], one at a
//! time: journal first, then the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering, fence};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use ractor::ActorRef;
use tokio::sync::watch;

use crate::domain::account::Millis;
use crate::domain::ids::DenyId;
use crate::domain::kill::{Deny, Table};

use super::super::sync::Mutex;
use super::KillMsg;
use super::ledger::{Ledger, SwitchError};
use super::stats::KillStats;

/// How far the store has heard of what was switched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    /// All up to this number is in the store.
    pub(crate) seq: u64,
    /// The last try went up to this number.
    pub(crate) tried: u64,
    /// Why that try failed, if it did.
    pub(crate) failing: Option<String>,
}

/// What administrators look at; replaced whole.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// What is in force, oldest first.
    pub(crate) active: Vec<Arc<Deny>>,
    /// What the store does not have yet.
    pub(crate) unsaved: Vec<Arc<Deny>>,
}

impl Listing {
    /// Whether a deny is in force or on its way into the store.
    pub(crate) fn knows(&self, id: &DenyId) -> bool {
        let mut all = self.active.iter().chain(&self.unsaved);
        all.any(|deny| deny.id == *id)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Switchboard {
    table: ArcSwapOption<Table>,
    listing: ArcSwap<Listing>,
    changed: watch::Sender<u64>,
    stored: watch::Sender<Stored>,
    next_expiry: AtomicI64,
    unsaved: AtomicU64,
    failing: AtomicBool,
    ledger: Mutex<Ledger>,
    actor: Mutex<Option<ActorRef<KillMsg>>>,
    /// What the metrics read.
    pub stats: KillStats,
}

impl Default for Switchboard {
    fn default() -> Self {
        Self {
            table: ArcSwapOption::empty(),
            listing: ArcSwap::default(),
            changed: watch::Sender::new(0),
            stored: watch::Sender::default(),
            next_expiry: AtomicI64::new(Millis::MAX),
            unsaved: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            ledger: Mutex::new(Ledger::default()),
            actor: Mutex::new(None),
            stats: KillStats::default(),
        }
    }
}

impl Switchboard {
    /// What is denied now; `None` if nothing is.
    #[must_use]
    pub fn table(&self) -> Guard<Option<Arc<Table>>> {
        self.table.load()
    }

    /// What administrators look at.
    pub(crate) fn listing(&self) -> Arc<Listing> {
        self.listing.load_full()
    }

    /// Resolves when something was switched; subscribe first, then look at the table.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How far the store has heard, to watch.
    pub(crate) fn stored(&self) -> watch::Receiver<Stored> {
        self.stored.subscribe()
    }

    /// How many changes the store does not have yet.
    #[must_use]
    pub fn unsaved(&self) -> u64 {
        self.unsaved.load(Ordering::Relaxed)
    }

    /// Whether the last write of the journal failed.
    #[must_use]
    pub fn is_journal_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Whether a switch's time is over. Reads one number.
    pub(super) fn has_expired(&self, now: Millis) -> bool {
        self.next_expiry.load(Ordering::Relaxed) <= now
    }

    /// Changes the ledger and publishes what comes of it. Blocks for the disk: never on a worker
    /// of the runtime.
    pub(crate) fn change<T>(
        &self,
        with: impl FnOnce(&mut Ledger) -> Result<T, SwitchError>,
    ) -> Result<T, SwitchError> {
        let mut ledger = self.ledger.lock();
        let result = with(&mut ledger);
        let failed = matches!(&result, Err(SwitchError::Journal(_)));
        if failed || result.is_ok() {
            self.failing.store(failed, Ordering::Relaxed);
        }
        if result.is_ok() {
            self.publish(&ledger);
        }
        result
    }

    /// Publishes a ledger, under its lock, so that the newest is what stays.
    fn publish(&self, ledger: &Ledger) {
        let mut active: Vec<Arc<Deny>> = ledger.active().cloned().collect();
        active.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        let table = Table::new(&active);
        let table = (!table.is_empty()).then(|| Arc::new(table));
        self.table.store(table);
        // Whoever starts a run looks at the table after he has put it in its slot; we look at the
        // slots after this. One of the two sees the other (see `Isolate::start`).
        fence(Ordering::SeqCst);
        let next = active.iter().filter_map(|deny| deny.expires_at).min();
        self.next_expiry
            .store(next.unwrap_or(Millis::MAX), Ordering::Relaxed);
        let unsaved: Vec<Arc<Deny>> = ledger.all_unsaved().cloned().collect();
        self.unsaved.store(unsaved.len() as u64, Ordering::Relaxed);
        self.listing.store(Arc::new(Listing { active, unsaved }));
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// The store has heard of these, or could not.
    pub(super) fn heard(&self, tried: u64, result: Result<(), String>) {
        self.stored.send_modify(|stored| {
            stored.tried = tried;
            match result {
                Ok(()) => {
                    stored.seq = stored.seq.max(tried);
                    stored.failing = None;
                }
                Err(why) => stored.failing = Some(why),
            }
        });
    }

    /// Has what the store lacks written; comes at once if the service is up, else when it is.
    pub(crate) fn save(&self) {
        if let Some(actor) = &*self.actor.lock() {
            let _ = actor.cast(KillMsg::Save);
        }
    }

    pub(super) fn set_actor(&self, actor: &ActorRef<KillMsg>) {
        *self.actor.lock() = Some(actor.clone());
    }

    /// For tests without the service.
    #[cfg(test)]
    pub(crate) fn open_for_tests(&self, dir: &std::path::Path) {
        self.change(|ledger| Ok(ledger.open(dir, Vec::new(), Vec::new())?))
            .unwrap();
    }

    /// For tests that need no journal.
    #[cfg(test)]
    pub(crate) fn deny_for_tests(&self, denies: &[Arc<Deny>]) {
        self.table.store(Some(Arc::new(Table::new(denies))));
        fence(Ordering::SeqCst);
        self.changed.send_modify(|changes| *changes += 1);
    }
}
