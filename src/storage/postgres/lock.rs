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

use super::super::error::{Fault, NotLent, fault_of, is_no_table};
use super::beat::{self, Beat, Found};
use super::connect::backoff;
use super::pool::Shared;
use crate::domain::limits::{STORE_LOCK_LOOK, STORE_TRY_MAX};

// The second number: 1 the server, 2 a writing transaction, 3 the door.
const TRY: &str = "SELECT pg_try_advisory_lock(1279608641, 1)";
const TRY_DOOR: &str = "SELECT pg_try_advisory_lock(1279608641, 3)";
const UNLOCK_DOOR: &str = "SELECT pg_advisory_unlock(1279608641, 3)";
/// Two statements: the epoch is read after the door is held.
const ENTER: &str = "SELECT pg_try_advisory_lock_shared(1279608641, 3); \
    SELECT value::bigint, pg_backend_pid() FROM settings WHERE name = 'store_epoch'";
/// Together with who begins it.
const RAISE: &str = "WITH holder AS (INSERT INTO settings (name, value) \
    VALUES ('store_holder', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value) \
    INSERT INTO settings (name, value) VALUES ('store_epoch', '1') \
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
/// The same for those that were left in the middle of a statement; gives which are still there.
const CLEAR: &str = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE pid = ANY($1) AND application_name = $2 AND datname = current_database()";
/// Whose the database is.
const MARKS: &str = "SELECT name, value FROM settings \
    WHERE name IN ('installation', 'store_holder', 'store_epoch')";
/// Which database of which server, and how often the server was put in another's place.
const SPOT: &str = "SELECT (SELECT system_identifier FROM pg_control_system()), \
    (SELECT oid::bigint FROM pg_database WHERE datname = current_database()), \
    substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
/// Written once.
const ADOPT: &str = "INSERT INTO settings (name, value) VALUES ('installation', $1) \
    ON CONFLICT (name) DO UPDATE SET value = settings.value RETURNING value";
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

/// What is known of the last time that the lock was ours.
pub(super) struct Last {
    pub(super) epoch: u64,
    pub(super) beat: Beat,
    pub(super) spot: Option<Spot>,
}

/// Begins the next epoch, and opens the door that [`take`] closed.
pub(super) async fn begin(
    session: &mut PgConnection,
    application: &str,
) -> Result<u64, sqlx::Error> {
    let epoch: i64 = sqlx::query_scalar(RAISE)
        .bind(application)
        .fetch_one(&mut *session)
        .await?;
    sqlx::query(UNLOCK_DOOR).execute(session).await?;
    Ok(epoch.unsigned_abs())
}

/// Holds the door for a session; gives its backend's pid, or `None` if its epoch is over.
pub(super) async fn enter(
    session: &mut PgConnection,
    epoch: u64,
) -> Result<Option<i32>, sqlx::Error> {
    let rows: Vec<_> = session.fetch(sqlx::raw_sql(ENTER)).try_collect().await?;
    let [door, now] = rows.as_slice() else {
        return Ok(None);
    };
    let (at, pid): (i64, i32) = (now.try_get(0)?, now.try_get(1)?);
    let entered = door.try_get(0)? && at.unsigned_abs() == epoch;
    Ok(entered.then_some(pid))
}

/// What a database says of whose it is.
#[derive(Debug, Default)]
struct Marks {
    installation: Option<String>,
    holder: Option<String>,
    epoch: u64,
}

async fn marks(session: &mut PgConnection) -> Result<Marks, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(MARKS).fetch_all(session).await?;
    let mut marks = Marks::default();
    for (name, value) in rows {
        match name.as_str() {
            "installation" => marks.installation = Some(value),
            "store_holder" => marks.holder = Some(value),
            // What is no number was not written by us.
            _ => marks.epoch = value.parse().unwrap_or_default(),
        }
    }
    Ok(marks)
}

/// Which copy of a database it is: not only whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    server: i64,
    database: i64,
    timeline: String,
}

/// Which copy of the database a session is at; `None` where the server does not let us know.
pub(super) async fn spot(session: &mut PgConnection) -> Result<Option<Spot>, sqlx::Error> {
    match sqlx::query_as(SPOT).fetch_one(session).await {
        Ok((server, database, timeline)) => Ok(Some(Spot {
            server,
            database,
            timeline,
        })),
        Err(error) if error.as_database_error().is_some() => {
            tracing::debug!("which copy of the database it is, is not known: {error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether it is another copy than before, so that what was written last may not be in it.
fn is_another(now: Option<&Spot>, before: Option<&Spot>) -> bool {
    let (Some(now), Some(before)) = (now, before) else {
        return false;
    };
    if now.timeline != before.timeline {
        tracing::warn!(
            "a standby took the database's place: if it was no synchronous one, the last changes may be \
             missing, so look whether what was revoked lately still is"
        );
    }
    (now.server, now.database) != (before.server, before.database)
}

/// What is said of another installation's database.
fn of_another(theirs: &str, ours: &str) -> String {
    format!(
        "it is the database of installation {theirs}, and this data directory is of {ours}; check \
         storage.url and what answers there"
    )
}

/// Why a database that has our tables is not ours, if it is not.
pub(super) async fn stranger(
    session: &mut PgConnection,
    installation: Option<&str>,
) -> Result<Option<String>, sqlx::Error> {
    let theirs = marks(session).await?.installation;
    Ok(match (theirs, installation) {
        (Some(theirs), Some(ours)) if theirs != ours => Some(of_another(&theirs, ours)),
        _ => None,
    })
}

/// Makes a database this installation's, if it is nobody's yet; why it is not, if it is another's.
pub(super) async fn adopt(
    session: &mut PgConnection,
    installation: &str,
) -> Result<Option<String>, sqlx::Error> {
    let held: String = sqlx::query_scalar(ADOPT)
        .bind(installation)
        .fetch_one(session)
        .await?;
    Ok((held != installation).then(|| of_another(&held, installation)))
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
pub(super) async fn keep(shared: Arc<Shared>, (mut session, mut last): (PgConnection, Last)) {
    loop {
        let lost = tokio::select! {
            lost = watch(&shared, &mut session, &mut last.beat) => lost,
            () = shared.closing() => {
                // Gracefully, so that a successor finds the lock free at once.
                let _ = timeout(STORE_TRY_MAX, session.close()).await;
                return;
            }
        };
        drop(session);
        shared.lost(lost);
        (session, last) = tokio::select! {
            taken = retake(&shared, &last) => taken,
            () = shared.closing() => return,
        };
        tracing::info!(store.epoch = last.epoch, "the store's lock is ours again");
        shared.held(last.epoch);
    }
}

/// Looks at the session until it is lost, and says why it is.
async fn watch(shared: &Shared, session: &mut PgConnection, beat: &mut Beat) -> NotLent {
    if let Err(error) = beat.begin(session).await {
        return NotLent::Away(error.to_string());
    }
    let mut me = None;
    loop {
        match look(session).await {
            Ok((_, true)) => return NotLent::ReadOnly,
            // A pooler between us hands out sessions that are not ours to keep.
            Ok((pid, _)) if me.is_some_and(|me| me != pid) => return NotLent::Pooled,
            Ok((pid, _)) => me = Some(pid),
            Err(error) => return NotLent::Away(error.to_string()),
        }
        match beat.look(shared, session).await {
            Ok(Found::Well) => {}
            // Whether it is put back, or is being so, is seen when the lock is taken again.
            Ok(Found::Earlier) => {
                return NotLent::Unfit("what was written last is not in the database".to_owned());
            }
            Err(error) => return NotLent::Away(error.to_string()),
        }
        shared.close_idle();
        if let Err(error) = clear(shared, session).await {
            return NotLent::Away(error.to_string());
        }
        tokio::select! {
            () = sleep(STORE_LOCK_LOOK) => {}
            () = shared.doubted() => {}
        }
    }
}

/// Ends the sessions that were left in the middle of a statement: what they do is done or undone
/// now, and they hold neither locks nor places.
async fn clear(shared: &Shared, session: &mut PgConnection) -> Result<(), sqlx::Error> {
    let left = shared.left();
    if left.is_empty() {
        return Ok(());
    }
    let ending = sqlx::query_as::<_, (i32, bool)>(CLEAR)
        .bind(&left)
        .bind(shared.how.application())
        .fetch_all(session);
    let there = timeout(STORE_TRY_MAX, ending)
        .await
        .unwrap_or_else(|_| Err(NotLent::Silent.into()))?;
    let gone = |pid: &i32| !there.iter().any(|(still, _)| still == pid);
    shared.gone(&left.into_iter().filter(gone).collect::<Vec<_>>());
    Ok(())
}

/// Connects and takes the lock again, however long that takes.
async fn retake(shared: &Shared, last: &Last) -> (PgConnection, Last) {
    let mut n = 0;
    loop {
        if shared.superseded().is_some() {
            // The process ends; nothing of it must write any more.
            std::future::pending::<()>().await;
        }
        let (why, pause) = match retake_once(shared, last).await {
            Ok(taken) => return taken,
            Err(why) => (why, backoff(n)),
        };
        tracing::debug!("the store's lock is not ours yet: {why}");
        shared.lost(why);
        n = n.saturating_add(1);
        sleep(pause.max(Duration::from_millis(50))).await;
    }
}

async fn retake_once(shared: &Shared, last: &Last) -> Result<(PgConnection, Last), NotLent> {
    let away = |error: sqlx::Error| match fault_of(&error) {
        Fault::Refused => NotLent::Refused(error.to_string()),
        Fault::ReadOnly => NotLent::ReadOnly,
        _ if is_no_table(&error) => NotLent::Unfit(
            "the database has none of this server's tables; check what answers there".to_owned(),
        ),
        _ => NotLent::Away(error.to_string()),
    };
    let mut session = shared.how.connect().await.map_err(away)?;
    if is_standby(&mut session).await.map_err(away)? {
        return Err(NotLent::ReadOnly);
    }
    let application = shared.how.application();
    let taking = async {
        if let Some(why) = stranger(&mut session, shared.how.installation()).await? {
            return Ok(Err(NotLent::Unfit(why)));
        }
        if let Taken::Theirs(holder) = take(&mut session, application).await? {
            return Ok(Err(NotLent::Held(holder)));
        }
        let marks = marks(&mut session).await?;
        if marks.epoch == 0 {
            // In the middle of a restore, there are tables and nothing is in them yet.
            let why = "the database holds nothing of this server; is it being restored?";
            return Ok(Err(NotLent::Unfit(why.to_owned())));
        }
        let found = beat::of(&mut session).await?;
        let spot = spot(&mut session).await?;
        let is_earlier = marks.epoch < last.epoch || last.beat.is_earlier(found);
        let others = marks
            .holder
            .as_deref()
            .filter(|holder| *holder != application);
        let what = match others {
            Some(holder) => Some(format!("the database was served by {holder}")),
            None if is_another(spot.as_ref(), last.spot.as_ref()) || is_earlier => {
                Some("the database was put back to an earlier state, or is another copy".to_owned())
            }
            None => None,
        };
        if let Some(what) = what {
            let why = format!("while it was away {what}, so what this process knows is old");
            return Ok(Err(NotLent::Unfit(shared.supersede(&why))));
        }
        let epoch = begin(&mut session, application).await?;
        let beat = last.beat.again(found);
        Ok(Ok(Last { epoch, beat, spot }))
    };
    let last = timeout(STORE_TRY_MAX, taking)
        .await
        .map_err(|_| NotLent::Silent)?
        .map_err(away)??;
    Ok((session, last))
}
