//! PostgreSQL: a server that goes away and comes back.
//!
//! One session holds an advisory lock for as long as this server lives ([`lock`]): two servers
//! never serve one database, and whether that session stands is what the [`pool`] goes by, so
//! while the database is away requests are refused at once and one connection, not each request,
//! looks for it. Writing transactions follow one another under a second advisory lock, as
//! SQLite's single writer makes them.

mod beat;
mod connect;
mod lock;
mod pool;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, timeout};

use super::error::{NotLent, StoreError, doing};
use super::pools::Pair;
use super::stats::{PoolNumbers, StoreStats};
use crate::domain::dsn::Dsn;
use crate::domain::limits;

use beat::Beat;
use connect::How;
use lock::Taken;

pub(super) use pool::Pool;

/// The oldest version we know.
const VERSION_MIN: u32 = 14_00_00;
const UTF8: &str = "SELECT pg_encoding_to_char(encoding) FROM pg_database \
    WHERE datname = current_database()";
/// What is there that no extension made.
const TABLES: &str = "SELECT c.relname::text FROM pg_class c WHERE c.relkind IN ('r', 'p', 'f') \
    AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) \
    AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass \
    AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1";
/// By these our database is known, whichever version made it.
const OURS: [&str; 4] = ["settings", "client_keys", "mcps", "exposed_tools"];
/// The driver's own, which is made first.
const MIGRATIONS: &str = "_sqlx_migrations";
const FSYNC: &str = "SELECT setting FROM pg_settings WHERE name = 'fsync'";

/// Which database, and how to use it.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// Where it is.
    pub dsn: Dsn,
    /// Holds the password, if the place does not.
    pub password_file: Option<PathBuf>,
    /// Authorities of the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// Connections beside the lock's.
    pub pool_max: u32,
    /// How long a request waits for one.
    pub wait: Duration,
    /// Who we are, for others who want the database and for its administrator. No other process
    /// is called so.
    pub application: String,
    /// The installation's id: a database that another one adopted is not used.
    pub installation: Option<String>,
}

/// Connects, takes the lock, migrates.
pub(super) async fn open(
    postgres: Postgres,
    stats: &Arc<StoreStats>,
) -> Result<Pair<Pool>, StoreError> {
    let (most, wait) = (postgres.pool_max, postgres.wait);
    let place = postgres.dsn.place();
    let mut how = How::new(postgres);
    let tries = limits::STORE_BOOT_TRIES;
    let all = (limits::STORE_CONNECT_MAX + limits::STORE_RETRY_CAP) * tries;
    let mut first = step("connect to the store", all, reached(&how, &place)).await?;
    let looking = look_at(&mut first, &place);
    let known;
    (how.durable, known) = step(
        "look at the store's server",
        limits::STORE_ANSWER_MAX,
        looking,
    )
    .await?;
    if !how.durable {
        // What it was asked at connecting does not change any more.
        drop(first);
        first = how.connect().await.map_err(doing("connect to the store"))?;
    }
    let all = limits::STORE_HELD_WAIT + limits::STORE_ANSWER_MAX;
    let locking = async {
        let mut first = held(first, &how, &place).await?;
        // Only then is it nobody else's who could tell more; and nothing was written yet.
        let stranger = match known {
            true => lock::stranger(&mut first, how.installation()).await,
            false => Ok(None),
        };
        match stranger.map_err(doing("look whose the store is"))? {
            Some(detail) => Err(StoreError::Unfit {
                place: place.clone(),
                detail,
            }),
            None => Ok(first),
        }
    };
    let first = step("lock the store", all, locking).await?;
    let all = limits::STORE_MIGRATE_MAX + limits::STORE_ANSWER_MAX;
    let mut first = step("migrate the store", all, migrated(first)).await?;
    let beginning = begun(&mut first, &how, &place);
    let last = step("begin with the store", limits::STORE_ANSWER_MAX, beginning).await?;
    let pool = Pool::new(how, (most, wait), (first, last));
    Ok(Pair::new(pool.clone(), pool, stats))
}

/// A step of the start: within a bound, and what is waited for is said.
async fn step<T>(
    what: &'static str,
    most: Duration,
    doing_it: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let mut bounded = std::pin::pin!(timeout(most, doing_it));
    let since = Instant::now();
    loop {
        match timeout(limits::STORE_START_SAY, &mut bounded).await {
            Ok(Ok(done)) => return done,
            Ok(Err(_)) => return Err(doing(what)(NotLent::Silent.into())),
            Err(_) => tracing::warn!(
                waited.s = since.elapsed().as_secs(),
                "the start still waits for the database: {what}"
            ),
        }
    }
}

/// Whether we can stand on the server, and whether the database is one of ours or empty. Gives
/// whether its commits wait for its disk, and whether our tables are there.
async fn look_at(first: &mut PgConnection, place: &str) -> Result<(bool, bool), StoreError> {
    let durable = fit(first, place).await?;
    let failed = doing("look at the store's server");
    let tables: Vec<String> = sqlx::query_scalar(TABLES)
        .fetch_all(&mut *first)
        .await
        .map_err(failed)?;
    let there = |ours: &&str| tables.iter().any(|table| table == ours);
    if OURS.iter().all(there) {
        return Ok((durable, true));
    }
    let mut others = tables.iter().filter(|table| *table != MIGRATIONS);
    let Some(other) = others.next() else {
        return Ok((durable, false));
    };
    let more = match others.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(StoreError::Unfit {
        place: place.to_owned(),
        detail: format!(
            "it holds something else's tables (`{other}`{more}) and not Legation's; give it a \
             database of its own, or check storage.url; nothing was written"
        ),
    })
}

/// Makes the database this installation's, and begins an epoch.
async fn begun(first: &mut PgConnection, how: &How, place: &str) -> Result<lock::Last, StoreError> {
    let failed = doing("begin with the store");
    if let Some(ours) = how.installation()
        && let Some(detail) = lock::adopt(first, ours).await.map_err(failed)?
    {
        return Err(StoreError::Unfit {
            place: place.to_owned(),
            detail,
        });
    }
    let spot = lock::spot(first).await.map_err(failed)?;
    let epoch = lock::begin(first, how.application()).await;
    let epoch = epoch.map_err(failed)?;
    let beat = Beat::default();
    Ok(lock::Last { epoch, beat, spot })
}

/// How long a transaction that was given up for another's sake waits before its try `n + 1`.
pub(super) fn victims_pause(n: u32) -> Duration {
    connect::backoff(n) / 8
}

impl Pair<Pool> {
    pub(super) async fn close(&self) {
        self.writer.source().close().await;
    }

    pub(super) fn turns(&self) -> u64 {
        self.writer.source().turns()
    }

    pub(super) fn superseded(&self) -> Option<&str> {
        self.writer.source().superseded()
    }

    pub(super) fn numbers(&self) -> PoolNumbers {
        self.writer.source().numbers()
    }
}

/// A first connection. A server that refuses us is not asked again, one that is not there is.
async fn reached(how: &How, place: &str) -> Result<PgConnection, StoreError> {
    let mut n = 1;
    loop {
        let error = match how.connect().await {
            Ok(first) => return Ok(first),
            Err(error) => doing("connect to the store")(error),
        };
        let away = matches!(&error, StoreError::Unavailable { fault, .. } if fault.may_pass());
        if !away || n >= limits::STORE_BOOT_TRIES {
            return Err(error);
        }
        let pause = connect::backoff(n);
        tracing::warn!(
            store.place = place,
            tries.left = limits::STORE_BOOT_TRIES - n,
            "the store is not there yet: {error}"
        );
        tokio::time::sleep(pause).await;
        n += 1;
    }
}

/// Whether the server is one we can stand on; gives whether its commits wait for its disk.
async fn fit(first: &mut PgConnection, place: &str) -> Result<bool, StoreError> {
    let failed = doing("look at the store's server");
    let unfit = |detail: String| StoreError::Unfit {
        place: place.to_owned(),
        detail,
    };
    let version = first.server_version_num().unwrap_or(0);
    if version < VERSION_MIN {
        let detail = format!("it is PostgreSQL {}, 14 is the oldest", version / 10_000);
        return Err(unfit(detail));
    }
    if lock::is_standby(first).await.map_err(failed)? {
        return Err(unfit("it is a standby, which takes no writes".to_owned()));
    }
    let encoding: String = sqlx::query_scalar(UTF8)
        .fetch_one(&mut *first)
        .await
        .map_err(failed)?;
    if encoding != "UTF8" {
        let detail = format!("its encoding is {encoding}; make it with ENCODING 'UTF8'");
        return Err(unfit(detail));
    }
    let fsync: String = sqlx::query_scalar(FSYNC)
        .fetch_one(&mut *first)
        .await
        .map_err(failed)?;
    if fsync == "off" {
        tracing::warn!(
            store.place = place,
            "the database runs with fsync = off: what it acknowledges may be gone after a crash"
        );
    }
    let commit: String = sqlx::query_scalar("SHOW synchronous_commit")
        .fetch_one(&mut *first)
        .await
        .map_err(failed)?;
    if commit == "off" {
        tracing::warn!(
            store.place = place,
            "the database says synchronous_commit = off; this server's sessions set it on"
        );
    }
    Ok(commit != "off")
}

/// The session with the lock that makes the database ours.
async fn held(mut first: PgConnection, how: &How, place: &str) -> Result<PgConnection, StoreError> {
    let until = Instant::now() + limits::STORE_HELD_WAIT;
    loop {
        match lock::take(&mut first, how.application()).await {
            Ok(Taken::Ours) => return Ok(first),
            // Its own last life may not be buried yet.
            Ok(Taken::Theirs(_)) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(Taken::Theirs(holder)) => {
                return Err(StoreError::Held {
                    place: place.to_owned(),
                    holder,
                });
            }
            Err(error) => return Err(doing("lock the store")(error)),
        }
    }
}

/// Brings the schema up to this build's, under the driver's own lock and ours, without the
/// deadline that other statements have; locks that others hold are waited for within a bound.
async fn migrated(mut first: PgConnection) -> Result<PgConnection, StoreError> {
    let failed = doing("migrate the store");
    let set = async |first: &mut PgConnection, sql: &'static str| {
        sqlx::raw_sql(sql).execute(first).await.map(drop)
    };
    set(&mut first, "SET statement_timeout = 0")
        .await
        .map_err(failed)?;
    sqlx::query("SELECT set_config('lock_timeout', $1, false)")
        .bind(limits::millis(limits::STORE_MIGRATE_LOCK_MAX).to_string())
        .execute(&mut first)
        .await
        .map_err(failed)?;
    let migrations = sqlx::migrate!("src/storage/migrations/postgres");
    let running = migrations.run_direct(None, &mut first, false);
    timeout(limits::STORE_MIGRATE_MAX, running)
        .await
        .map_err(|_| failed(NotLent::Silent.into()))?
        .map_err(StoreError::migrating)?;
    set(&mut first, "RESET statement_timeout; RESET lock_timeout")
        .await
        .map_err(failed)?;
    first.ping().await.map_err(failed)?;
    Ok(first)
}
