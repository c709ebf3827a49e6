//! The index's keeper: reads the log behind whoever writes it and tells the index where things are.
//!
//! Never on a call's path: it reads what is written, in batches, and rests between them, the longer
//! the busier the log is. What it has not read yet a search reads itself. An index that is lost,
//! damaged or of another log is made anew from the segments.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::audit::chain::Tip;
use crate::domain::audit::filter::Columns;
use crate::domain::limits::AUDIT_INDEX_BATCH;
use crate::storage::{AuditIndex, Fresh, IndexError};

use super::super::ctx::Ctx;
use super::follow::Follow;
use super::{Audit, Entry, files};

/// The index's file, beside the segments.
pub const INDEX_NAME: &str = "index.db";
/// Records gather this long before they are indexed.
const GATHER: Duration = Duration::from_millis(50);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);
/// It rests this many times as long as it worked while the log is busy: a twentieth of a core.
const REST_BUSY: u32 = 19;
/// And this many times while it only catches up.
const REST: u32 = 1;
/// A log that grows by this many records while a batch is read is busy.
const BUSY: u64 = 200;
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(2);

/// The index, for those who search, and a way to wake its keeper.
#[derive(Debug)]
pub struct Index {
    pub(super) db: AuditIndex,
    pub(super) hurry: Notify,
    /// It says that a record is where it is not.
    pub(super) wrong: Notify,
}

impl Index {
    /// Up to which record it goes.
    pub(in crate::actors) async fn high(&self) -> Option<Tip> {
        self.db.high().await.ok().flatten()
    }
}

/// Keeps the index for as long as this is polled.
pub(super) async fn keep(ctx: Arc<Ctx>) {
    let path = ctx.audit.setup().dir.join(INDEX_NAME);
    loop {
        let failed = match begin(&ctx, &path).await {
            Ok(index) => {
                ctx.audit_index.store(Some(Arc::clone(&index)));
                let failed = go_on(&ctx, &index).await;
                ctx.audit_index.store(None);
                index.db.close().await;
                failed
            }
            Err(error) => Err(error),
        };
        match failed {
            Ok(()) => return,
            Err(IndexError::Damaged(why)) => {
                tracing::warn!("the audit index is made anew: {why}");
                remove(&path).await;
            }
            Err(error) => tracing::warn!("the audit index lags: {error}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn remove(path: &Path) {
    for end in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(end);
        // What is not there need not go.
        let _ = tokio::fs::remove_file(file).await;
    }
}

/// Opens the index, anew if it is damaged, and forgets what is not of this log.
async fn begin(ctx: &Ctx, path: &Path) -> Result<Arc<Index>, IndexError> {
    let db = match AuditIndex::open(path).await {
        Err(IndexError::Damaged(why)) => {
            tracing::warn!("the audit index is made anew: {why}");
            remove(path).await;
            AuditIndex::open(path).await?
        }
        opened => opened?,
    };
    if let Some(high) = db.high().await?
        && let Some(why) = contradiction(&ctx.audit, high).await?
    {
        tracing::error!("the audit index knows better than the log, and is made anew: {why}");
        ctx.audit.checked(false);
        let entry = Entry::new("system.damaged", ctx.wall_ms());
        ctx.audit
            .post(entry.field("segment", "all").field("what", &why));
        db.clear().await?;
    }
    if db.renew().await? {
        tracing::info!("the audit index is of an older version and is filled anew");
    }
    Ok(Arc::new(Index {
        db,
        hurry: Notify::new(),
        wrong: Notify::new(),
    }))
}

/// What the log has where the index ends, if that is not what the index knows.
async fn contradiction(audit: &Audit, high: Tip) -> Result<Option<String>, IndexError> {
    let tip = audit.written().borrow().tip;
    if high.seq > tip.seq {
        let what = format!("it has record {}, the log ends with {}", high.seq, tip.seq);
        return Ok(Some(what));
    }
    let dir = audit.setup().dir.clone();
    let found = blocking(move || {
        let oldest = files::segments(&dir)?.first().map_or(0, |one| one.first);
        if high.seq < oldest {
            // Removed by retention meanwhile.
            return Ok(Some(high));
        }
        let record = Follow::from(dir, high.seq).next(high.seq)?;
        Ok(record.map(|record| record.tip))
    });
    let same = found.await? == Some(high);
    Ok((!same).then(|| format!("record {} is another one", high.seq)))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, IndexError> {
    let away = |why: String| IndexError::Away(why);
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| away(error.to_string()))?
        .map_err(|error| away(error.to_string()))
}

/// Follows the log until it is closed.
async fn go_on(ctx: &Ctx, index: &Index) -> Result<(), IndexError> {
    let dir = ctx.audit.setup().dir.clone();
    let counters = &ctx.audit.0.counters;
    let high = index.db.high().await?.map_or(0, |tip| tip.seq);
    counters.indexed.store(high, Ordering::Relaxed);
    let mut follow = Follow::from(dir.clone(), high + 1);
    let mut written = ctx.audit.written();
    let mut removed = u64::MAX;
    loop {
        let tip = written.borrow_and_update().tip;
        if follow.next_seq() > tip.seq {
            tokio::select! {
                changed = written.changed() => if changed.is_err() {
                    return Ok(());
                },
                () = index.wrong.notified() => return Err(wrong()),
            }
            tokio::time::sleep(GATHER).await;
            continue;
        }
        let since = Instant::now();
        let read = blocking(move || batch(follow, tip.seq)).await?;
        follow = read.follow;
        if let Some(last) = read.last {
            index.db.add(&read.records, last).await?;
            counters.indexed.store(last.seq, Ordering::Relaxed);
        } else {
            // Written and not to be found: it was taken away from under us, and comes back.
            tokio::time::sleep(RETRY).await;
        }
        let gone = counters.removed.load(Ordering::Relaxed);
        if gone != removed {
            removed = gone;
            let dir = dir.clone();
            let segments = blocking(move || files::segments(&dir)).await?;
            if let Some(oldest) = segments.first() {
                index.db.prune(oldest.first).await?;
            }
        }
        let grown = ctx.audit.written().borrow().tip.seq - tip.seq;
        let times = if grown > BUSY { REST_BUSY } else { REST };
        let rest = (since.elapsed() * times).min(REST_MAX);
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = index.hurry.notified() => {}
            () = index.wrong.notified() => return Err(wrong()),
        }
    }
}

fn wrong() -> IndexError {
    IndexError::Damaged("it says that a record is where another one is".to_owned())
}

struct Read {
    follow: Follow,
    records: Vec<Fresh>,
    last: Option<Tip>,
}

fn batch(mut follow: Follow, upto: u64) -> std::io::Result<Read> {
    let (mut records, mut last) = (Vec::new(), None);
    while records.len() < AUDIT_INDEX_BATCH
        && let Some(record) = follow.next(upto)?
    {
        last = Some(record.tip);
        records.extend(Columns::of(&record.line).map(|columns| Fresh {
            columns,
            segment: record.segment,
            place: record.place,
        }));
    }
    Ok(Read {
        follow,
        records,
        last,
    })
}
