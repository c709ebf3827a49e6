//! The lock that makes a database one server's alone: an advisory lock of a session that does
//! nothing else. Its keeper looks at it every second, takes it again when the session is lost,
//! and says what it knows; nothing is lent while the lock is not ours.
//!
//! Between two looks the lock may be lost and another server faster. So every session that may
//! write holds the *door* open with a shared lock; whoever takes the first lock waits until all
//! doors are closed, and raises the epoch in the database before it opens its own. A session of
//! the server before, opened late, finds a later epoch than its own and is not used.
//!
//! Later servers of a cluster will share the first lock and divide the work by leases in the
//! database. All our advisory locks have "LEGA" as their first number, so there is room beside.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};
use tokio::time::{sleep, timeout};

use super::super::error::{Fault, NotLent, fault_of};
use super::connect::backoff;
use super::pool::Shared;
use crate::domain::limits::{STORE_LOCK_LOOK, STORE_TRY_MAX};

// The second number: 1 the server, 2 a writing transaction, 3 the door.
const TRY: &str = "SELECT pg_try_advisory_lock(1279608641, 1)";
const TRY_DOOR: &str = "SELECT pg_try_advisory_lock(1279608641, 3)";
const UNLOCK_DOOR: &str = "SELECT pg_advisory_unlock(1279608641, 3)";
/// Two statements: the epoch is read after the door is held.
const ENTER: &str = "SELECT pg_try_advisory_lock_shared(1279608641, 3); \
    SELECT value::bigint FROM settings WHERE name = 'store_epoch'";
const RAISE: &str = "INSERT INTO settings (name, value) VALUES ('store_epoch', '1') \
    ON CONFLICT (name) DO UPDATE SET value = (settings.value::bigint + 1)::text \
    RETURNING value::bigint";
const HOLDER: &str = "SELECT a.application_name, a.client_addr::text, \
    to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') \
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
    WHERE l.locktype = 'advisory' AND l.classid = 1279608641 AND l.objid IN (1, 3) \
    AND l.granted AND l.pid <> pg_backend_pid() \
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    ORDER BY l.objid LIMIT 1";
/// Sessions of this very process that the server still believes in.
const BURY: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()";
const LOOK: &str = "SELECT pg_backend_pid(), pg_is_in_recovery()";

/// Whose the lock is.
pub(super) enum Taken {
    Ours,
    Theirs(String),
}

/// Takes the lock and closes the door, or says who stands in the way.
pub(super) async fn take(
    session: &mut PgConnection,
    application: &str,
) -> Result<Taken, sqlx::Error> {
    // The name is drawn per process, so this ends nobody else's session.
    sqlx::query(BURY)
        .bind(application)
        .execute(&mut *session)
        .await?;
    let lock: bool = sqlx::query_scalar(TRY).fetch_one(&mut *session).await?;
    if lock
        && sqlx::query_scalar(TRY_DOOR)
            .fetch_one(&mut *session)
            .await?
    {
        return Ok(Taken::Ours);
    }
    let holder: Option<(Option<String>, Option<String>, Option<String>)> =
        sqlx::query_as(HOLDER).fetch_optional(session).await?;
    let text = match holder {
        Some((name, address, since)) => format!(
            "{} from {} since {} UTC",
            name.as_deref().unwrap_or("a session"),
            address.as_deref().unwrap_or("a socket"),
            since.as_deref().unwrap_or("?"),
        ),
        None => "a session that has just ended".to_owned(),
    };
    Ok(Taken::Theirs(text))
}

/// Begins the next epoch, and opens the door that [`take`] closed.
pub(super) async fn begin(session: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let epoch: i64 = sqlx::query_scalar(RAISE).fetch_one(&mut *session).await?;
    sqlx::query(UNLOCK_DOOR).execute(session).await?;
    Ok(epoch.unsigned_abs())
}

/// Holds the door for a session; `false` if its epoch is over.
pub(super) async fn enter(session: &mut PgConnection, epoch: u64) -> Result<bool, sqlx::Error> {
    let rows: Vec<_> = session.fetch(sqlx::raw_sql(ENTER)).try_collect().await?;
    let [door, now] = rows.as_slice() else {
        return Ok(false);
    };
    let now: i64 = now.try_get(0)?;
    Ok(door.try_get(0)? && now.unsigned_abs() == epoch)
}

/// Whether the server takes no writes.
pub(super) async fn is_standby(session: &mut PgConnection) -> Result<bool, sqlx::Error> {
    look(session).await.map(|(_, standby)| standby)
}

async fn look(session: &mut PgConnection) -> Result<(i32, bool), sqlx::Error> {
    timeout(STORE_TRY_MAX, sqlx::query_as(LOOK).fetch_one(session))
        .await
        .unwrap_or_else(|_| Err(NotLent::Silent.into()))
}

/// Keeps the lock until it is told to close.
pub(super) async fn keep(shared: Arc<Shared>, mut session: PgConnection) {
    loop {
        let lost = tokio::select! {
            lost = watch(&shared, &mut session) => lost,
            () = shared.closing() => {
                // Gracefully, so that a successor finds the lock free at once.
                let _ = timeout(STORE_TRY_MAX, session.close()).await;
                return;
            }
        };
        drop(session);
        shared.lost(lost);
        let (taken, epoch) = tokio::select! {
            taken = retake(&shared) => taken,
            () = shared.closing() => return,
        };
        session = taken;
        tracing::info!(store.epoch = epoch, "the store's lock is ours again");
        shared.held(epoch);
    }
}

/// Looks at the session until it is lost, and says why it is.
async fn watch(shared: &Shared, session: &mut PgConnection) -> NotLent {
    let mut me = None;
    loop {
        match look(session).await {
            Ok((_, true)) => return NotLent::ReadOnly,
            // A pooler between us hands out sessions that are not ours to keep.
            Ok((pid, _)) if me.is_some_and(|me| me != pid) => return NotLent::Pooled,
            Ok((pid, _)) => me = Some(pid),
            Err(error) => return NotLent::Away(error.to_string()),
        }
        shared.close_idle();
        tokio::select! {
            () = sleep(STORE_LOCK_LOOK) => {}
            () = shared.doubted() => {}
        }
    }
}

/// Connects and takes the lock again, however long that takes.
async fn retake(shared: &Shared) -> (PgConnection, u64) {
    let mut n = 0;
    loop {
        let (why, pause) = match retake_once(shared).await {
            Ok(taken) => return taken,
            Err(why) => (why, backoff(n)),
        };
        tracing::debug!("the store's lock is not ours yet: {why}");
        shared.lost(why);
        n = n.saturating_add(1);
        sleep(pause.max(Duration::from_millis(50))).await;
    }
}

async fn retake_once(shared: &Shared) -> Result<(PgConnection, u64), NotLent> {
    let away = |error: sqlx::Error| match fault_of(&error) {
        Fault::Refused => NotLent::Refused(error.to_string()),
        Fault::ReadOnly => NotLent::ReadOnly,
        _ => NotLent::Away(error.to_string()),
    };
    let mut session = shared.how.connect().await.map_err(away)?;
    if is_standby(&mut session).await.map_err(away)? {
        return Err(NotLent::ReadOnly);
    }
    let taking = async {
        match take(&mut session, shared.how.application()).await? {
            Taken::Ours => Ok(Ok(begin(&mut session).await?)),
            Taken::Theirs(holder) => Ok(Err(NotLent::Held(holder))),
        }
    };
    let epoch = timeout(STORE_TRY_MAX, taking)
        .await
        .map_err(|_| NotLent::Silent)?
        .map_err(away)??;
    Ok((session, epoch))
}
