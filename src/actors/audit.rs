//! The audit log: appended JSON lines, group-committed with fdatasync.
//!
//! Callers append to one bounded buffer; a single thread writes and syncs whatever has gathered,
//! so a hundred waiting calls share one sync. What [`Audit::commit`] acknowledged in durable mode
//! is on the disk. When the disk refuses, records are kept and written again, `commit` says no, and
//! the gate `audit` shuts; it also shuts when a record was lost to a full queue, until the queue is
//! written. The hash chain, segments and the index come with the audit issue.

mod entry;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::domain::limits::AUDIT_ROOM_MAX;

use super::ctx::Ctx;

pub use entry::Entry;
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
    /// The last record that is on the disk (durable mode) or handed to the kernel.
    pub seq: u64,
    /// What the disk says, if it refuses.
    pub failing: Option<String>,
    /// A record was lost to a full queue, which is not written yet.
    pub overflowing: bool,
}

impl Written {
    /// Whether calls may be made.
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
pub(super) struct Appended(u64);

/// The log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit(Arc<Shared>);

impl Audit {
    /// Opens `<dir>/audit.jsonl` for appending and starts its writer thread.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(dir: &Path, durability: Durability) -> std::io::Result<Self> {
        writer::open(dir, durability).map(Self)
    }

    /// Appends a record that nobody waits for. If the queue is full it is counted as lost, and the
    /// gate shuts.
    pub fn post(&self, entry: Entry) {
        if self.0.append(&entry).is_err() {
            // Counted and shown; there is nobody to tell here.
            self.0.lose();
        }
    }

    /// Appends a record and waits until it may be relied on.
    ///
    /// # Errors
    /// [`AuditError`]: the record may or may not reach the disk later.
    pub async fn commit(&self, entry: Entry) -> Result<(), AuditError> {
        let appended = self.append(&entry).await?;
        self.wait(appended).await
    }

    /// Waits until an appended record may be relied on.
    ///
    /// # Errors
    /// [`AuditError::Failing`]: the record may or may not reach the disk later.
    pub(super) async fn wait(&self, Appended(seq): Appended) -> Result<(), AuditError> {
        if self.0.durability == Durability::Buffered {
            return Ok(());
        }
        let mut written = self.0.written.subscribe();
        let done = written
            .wait_for(|written| written.seq >= seq || written.failing.is_some())
            .await;
        match done.as_deref() {
            Ok(Written { seq: at, .. }) if *at >= seq => Ok(()),
            _ => Err(AuditError::Failing),
        }
    }

    /// Finds a place in the queue: a moment's burst waits, a disk that refuses does not. Dropped
    /// before it resolved, nothing was appended.
    ///
    /// # Errors
    /// [`AuditError`]: nothing was appended.
    pub(super) async fn append(&self, entry: &Entry) -> Result<Appended, AuditError> {
        if let Ok(seq) = self.0.append(entry) {
            return Ok(Appended(seq));
        }
        let mut written = self.0.written.subscribe();
        let room = async {
            loop {
                if written.borrow_and_update().failing.is_some() {
                    return Err(AuditError::Failing);
                }
                if let Ok(seq) = self.0.append(entry) {
                    return Ok(Appended(seq));
                }
                if written.changed().await.is_err() {
                    return Err(AuditError::Full);
                }
            }
        };
        let found = tokio::time::timeout(AUDIT_ROOM_MAX, room).await;
        found
            .unwrap_or(Err(AuditError::Full))
            .inspect_err(|_| self.0.lose())
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
        self.0.lost()
    }

    /// Whether calls wait for the disk.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.0.durability
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

/// The service: it watches the log and keeps the gate.
pub(super) struct AuditKeeper;

/// What it hears.
#[derive(Debug)]
pub(super) enum AuditMsg {
    /// The log's state changed.
    Changed,
}

impl Actor for AuditKeeper {
    type Msg = AuditMsg;
    type State = (Arc<Ctx>, tokio_util::task::AbortOnDropHandle<()>);
    type Arguments = Arc<Ctx>;

    async fn pre_start(
        &self,
        myself: ActorRef<AuditMsg>,
        ctx: Arc<Ctx>,
    ) -> Result<Self::State, ActorProcessingErr> {
        let mut written = ctx.audit.written();
        let watcher = tokio::spawn(async move {
            let mut before = (None, false);
            while written.changed().await.is_ok() {
                let now = {
                    let written = written.borrow_and_update();
                    (written.failing.clone(), written.overflowing)
                };
                if now != before {
                    before = now;
                    if myself.cast(AuditMsg::Changed).is_err() {
                        return;
                    }
                }
            }
        });
        Ok((ctx, tokio_util::task::AbortOnDropHandle::new(watcher)))
    }

    async fn post_start(
        &self,
        _myself: ActorRef<AuditMsg>,
        (ctx, _): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        ctx.gates.audit.set(ctx.audit.written().borrow().is_good());
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<AuditMsg>,
        AuditMsg::Changed: AuditMsg,
        (ctx, _): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let written = ctx.audit.written().borrow().clone();
        match &written.failing {
            Some(why) => {
                tracing::error!("the audit log cannot be written, calls are refused: {why}");
            }
            None if written.overflowing => tracing::error!(
                records.lost = ctx.audit.lost(),
                "the audit log's queue is full, calls are refused until it is written"
            ),
            None => tracing::info!("the audit log is written again"),
        }
        ctx.gates.audit.set(written.is_good());
        Ok(())
    }
}
