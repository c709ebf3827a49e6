//! The lock that makes a database one server's alone: an advisory lock of a session that does
//! nothing else. Its keeper looks at it every second, takes it again when the session is lost,
//! and says what it knows; nothing is lent while the lock is not ours.
//!
//! Later servers of a cluster will share this lock and divide the work by leases in the database;
//! both advisory locks are the first number's, so there is room beside them.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::time::{sleep, timeout};

use super::super::error::{Fault, NotLent, fault_of};
use super::connect::backoff;
use super::pool::Shared;
use crate::domain::limits::{STORE_LOCK_LOOK, STORE_TRY_MAX};

/// "LEGA" is the first number, 1 the second; writing transactions take 2.
const TRY: &str = "SELECT pg_try_advisory_lock(1279608641, 1)";
const HOLDER: &str = "SELECT a.application_name, a.client_addr::text, \
    to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') \
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
    WHERE l.locktype = 'advisory' AND l.classid = 1279608641 AND l.objid = 1 AND l.granted \
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";
/// A session of this very process that the server still believes in.
const BURY: &str = "SELECT count(pg_terminate_backend(l.pid)) \
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
    WHERE l.locktype = 'advisory' AND l.classid = 1279608641 AND l.objid = 1 AND l.granted \
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    AND a.application_name = $1 AND a.pid <> pg_backend_pid()";
const LOOK: &str = "SELECT pg_backend_pid(), pg_is_in_recovery()";

/// Whose the lock is.
pub(super) enum Taken {
    Ours,
    Theirs(String),
}

/// Takes the lock, or says who has it.
pub(super) async fn take(
    session: &mut PgConnection,
    application: &str,
) -> Result<Taken, sqlx::Error> {
    // The name is drawn per process, so this ends nobody else's session.
    sqlx::query(BURY)
        .bind(application)
        .execute(&mut *session)
        .await?;
    if sqlx::query_scalar(TRY).fetch_one(&mut *session).await? {
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
        shared.lost(lost.into());
        session = tokio::select! {
            session = retake(&shared) => session,
            () = shared.closing() => return,
        };
        tracing::info!("the store's lock is ours again");
        shared.held();
    }
}

/// Looks at the session until it is lost, and says why it is.
async fn watch(shared: &Shared, session: &mut PgConnection) -> NotLent {
    let mut me = None;
    loop {
        match look(session).await {
            Ok((_, true)) => return NotLent::Standby,
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
async fn retake(shared: &Shared) -> PgConnection {
    let mut n = 0;
    loop {
        let (why, pause) = match retake_once(shared).await {
            Ok(session) => return session,
            Err(why) => (why, backoff(n)),
        };
        tracing::debug!("the store's lock is not ours yet: {why}");
        shared.lost(why);
        n = n.saturating_add(1);
        sleep(pause.max(Duration::from_millis(50))).await;
    }
}

async fn retake_once(shared: &Shared) -> Result<PgConnection, NotLent> {
    let away = |error: sqlx::Error| match fault_of(&error) {
        Fault::Refused => NotLent::Refused(error.to_string()),
        _ => NotLent::Away(error.to_string()),
    };
    let mut session = shared.how.connect().await.map_err(away)?;
    if is_standby(&mut session).await.map_err(away)? {
        return Err(NotLent::Standby);
    }
    let taking = take(&mut session, shared.how.application());
    match timeout(STORE_TRY_MAX, taking).await {
        Ok(Ok(Taken::Ours)) => Ok(session),
        Ok(Ok(Taken::Theirs(holder))) => Err(NotLent::Held(holder)),
        Ok(Err(error)) => Err(away(error)),
        Err(_) => Err(NotLent::Silent),
    }
}
