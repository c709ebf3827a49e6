//! The audit log: hash-chained records in segment files, group-committed with fdatasync.
//!
//! Callers append to one bounded buffer; a single thread numbers, hashes, writes and syncs whatever
//! has gathered, so a hundred waiting calls share one sync. What [`Audit::commit`] acknowledged in
//! durable mode is on the disk. When the disk refuses, records are kept and written again, `commit`
//! says no, and the gate `audit` shuts; it also shuts when a record was lost to a full queue, until
//! the queue is written. Only classes of records that are *required* are refused then; of the
//! others what is lost is counted, and the count is a record.
//!
//! The form of records, and how they are checked, is [`crate::domain::audit`]; `docs/audit.md` is
//! for auditors.

mod entry;
mod files;
mod follow;
mod index;
mod keeper;
mod log;
mod refusals;
mod resume;
mod retention;
mod search;
mod segment;
mod selection;
mod setup;
mod sole;
mod stats;
mod verify;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::audit::Category;
use crate::domain::audit::chain::Tip;
use crate::domain::limits::AUDIT_ROOM_MAX;

pub(super) use entry::ADMIN_DENIED;
pub use entry::Entry;
pub use follow::{Follow, Record};
pub use index::{INDEX_NAME, Index};
pub(super) use keeper::AuditKeeper;
pub(super) use refusals::CALL;
pub use refusals::Refusals;
pub use resume::{STARTED, STOPPED};
pub use search::Page;
pub(super) use search::search;
pub use selection::Selection;
pub use setup::{PUBLIC_KEY_NAME, Setup, Sync};
pub use sole::OpenError;
pub use stats::{AuditStats, SYNC_BOUNDS_US, SyncTimes};
pub use verify::{Verify, VerifyError};
use writer::Shared;

/// Why a record is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The disk refuses. What it says is in our log and in [`Written`]: this goes to clients.
    #[error("the audit log cannot be written")]
    Failing,
    /// More records wait than the queue holds.
    #[error("the audit log's queue is full")]
    Full,
}

/// How far the log is written.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// How many of the records appended in this life are on the disk (durable mode) or handed to
    /// the kernel.
    pub appended: u64,
    /// Where the chain is.
    pub tip: Tip,
    /// What the disk says, if it refuses.
    pub failing: Option<String>,
    /// A record was lost to a full queue, which is not written yet.
    pub overflowing: bool,
}

impl Written {
    /// Whether what must be recorded may be done.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failing.is_none() && !self.overflowing
    }
}

/// Whether calls wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// `commit` returns when the record is on the disk.
    Durable,
    /// `commit` returns when the record is in the buffer; it is written within milliseconds.
    Buffered,
}

/// A record has its place in the queue: it will be written, unless the process ends first.
#[derive(Debug)]
#[must_use]
pub(super) enum Appended {
    /// By its place among the records of this life.
    At(u64),
    /// There was no place, and its category is not required: counted as lost.
    Lost,
}

/// Whether a log has records that may be this installation's. Reads files.
pub(super) fn has_records(setup: &Setup) -> bool {
    sole::look(&setup.dir, setup.installation.as_deref()).is_ok()
        && files::segments(&setup.dir).is_ok_and(|all| all.iter().any(|one| one.bytes > 0))
}

/// The log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit(Arc<Shared>);

impl Audit {
    /// Opens the log in this directory with the usual settings and its keys beside it.
    ///
    /// # Errors
    /// As [`Audit::start`].
    pub fn open(dir: &Path, durability: Durability) -> Result<Self, OpenError> {
        Self::start(Setup::new(dir, durability))
    }

    /// Opens a log and starts its writer thread. Reads the newest segment: not for a runtime's
    /// worker.
    ///
    /// # Errors
    /// [`OpenError`]: another server writes it, it is another installation's, or what the file
    /// system says.
    pub fn start(setup: Setup) -> Result<Self, OpenError> {
        writer::open(setup).map(Self)
    }

    /// Appends a record that nobody waits for. If the queue is full it is counted as lost, and the
    /// gate shuts if its category is required.
    pub fn post(&self, entry: Entry) {
        if self.0.append(&entry).is_err() {
            // Counted and shown; there is nobody to tell here.
            self.0.lose(entry.category());
        }
    }

    /// Appends a record and waits until it may be relied on. A record of a category that is not
    /// required is appended if it can be, and never an error.
    ///
    /// # Errors
    /// [`AuditError`]: the record may or may not reach the disk later.
    pub async fn commit(&self, entry: Entry) -> Result<(), AuditError> {
        let appended = self.append(&entry).await?;
        self.wait(appended, entry.category()).await
    }

    /// Waits until an appended record may be relied on.
    ///
    /// # Errors
    /// [`AuditError::Failing`]: the record may or may not reach the disk later.
    pub(super) async fn wait(
        &self,
        appended: Appended,
        category: Category,
    ) -> Result<(), AuditError> {
        let Appended::At(place) = appended else {
            return Ok(());
        };
        if self.0.durability() == Durability::Buffered {
            return Ok(());
        }
        let mut written = self.0.written.subscribe();
        let done = written
            .wait_for(|written| written.appended >= place || written.failing.is_some())
            .await;
        match done.as_deref() {
            Ok(Written { appended: at, .. }) if *at >= place => Ok(()),
            _ if !self.requires(category) => Ok(()),
            _ => Err(AuditError::Failing),
        }
    }

    /// Finds a place in the queue: a moment's burst waits, a disk that refuses does not. Dropped
    /// before it resolved, nothing was appended.
    ///
    /// # Errors
    /// [`AuditError`]: nothing was appended, and the category is required.
    pub(super) async fn append(&self, entry: &Entry) -> Result<Appended, AuditError> {
        if let Ok(place) = self.0.append(entry) {
            return Ok(Appended::At(place));
        }
        let mut written = self.0.written.subscribe();
        let room = async {
            loop {
                if written.borrow_and_update().failing.is_some() {
                    return Err(AuditError::Failing);
                }
                if let Ok(place) = self.0.append(entry) {
                    return Ok(Appended::At(place));
                }
                if written.changed().await.is_err() {
                    return Err(AuditError::Full);
                }
            }
        };
        let found = tokio::time::timeout(AUDIT_ROOM_MAX, room).await;
        let found = found.unwrap_or(Err(AuditError::Full));
        if found.is_err() {
            self.0.lose(entry.category());
            if !self.requires(entry.category()) {
                return Ok(Appended::Lost);
            }
        }
        found
    }

    /// Whether the work of this category is refused while its record cannot be written.
    #[must_use]
    pub fn requires(&self, category: Category) -> bool {
        self.0.required().has(category)
    }

    /// Whether it can be written now, as far as is known.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.0.written.borrow().is_good()
    }

    /// How far it is written, to watch.
    #[must_use]
    pub fn written(&self) -> watch::Receiver<Written> {
        self.0.written.subscribe()
    }

    /// Records appended and not yet written.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.0.queued()
    }

    /// Records lost to a full queue.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.stats().dropped.iter().sum()
    }

    /// The log in numbers.
    #[must_use]
    pub fn stats(&self) -> AuditStats {
        self.0.stats()
    }

    /// Whether calls wait for the disk.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.0.durability()
    }

    /// Somebody checked the chain, or came upon damage.
    pub(super) fn checked(&self, whole: bool) {
        self.0.counters.checked(whole);
    }

    /// What it was made from.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.0.setup
    }

    /// Writes and syncs what is left, and ends the thread; waits at most this long. `false` if
    /// records were lost, or may be.
    pub async fn close(&self, within: Duration) -> bool {
        self.0.close();
        let mut written = self.0.written.subscribe();
        let shared = Arc::clone(&self.0);
        let done = written.wait_for(move |_| shared.is_closed());
        tokio::time::timeout(within, done).await.is_ok() && self.0.is_complete()
    }
}

#[cfg(test)]
pub(crate) mod reading;
#[cfg(test)]
mod tests;
