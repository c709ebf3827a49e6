//! PostgreSQL: a server that goes away and comes back.
//!
//! One session holds an advisory lock for as long as this server lives ([`lock`]): two servers
//! never serve one database, and whether that session stands is what the [`pool`] goes by, so
//! while the database is away requests are refused at once and one connection, not each request,
//! looks for it. Writing transactions follow one another under a second advisory lock, as
//! SQLite's single writer makes them.

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

use connect::How;
use lock::Taken;

pub(super) use pool::Pool;

/// The oldest version we know.
const VERSION_MIN: u32 = 14_00_00;
const UTF8: &str = "SELECT pg_encoding_to_char(encoding) FROM pg_database \
    WHERE datname = current_database()";
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
    /// Who we are, for others who want the database and for its administrator.
    pub application: String,
}

/// Connects, takes the lock, migrates.
pub(super) async fn open(
    postgres: Postgres,
    stats: &Arc<StoreStats>,
) -> Result<Pair<Pool>, StoreError> {
    let (most, wait) = (postgres.pool_max, postgres.wait);
    let place = postgres.dsn.place();
    let mut how = How::new(postgres);
    let mut first = reached(&how, &place).await?;
    how.durable = fit(&mut first, &place).await?;
    if !how.durable {
        // What it was asked at connecting does not change any more.
        drop(first);
        first = how.connect().await.map_err(doing("connect to the store"))?;
    }
    let first = held(first, &how, &place).await?;
    let mut first = migrated(first).await?;
    let epoch = lock::begin(&mut first)
        .await
        .map_err(doing("lock the store"))?;
    let pool = Pool::new(how, (most, wait), (first, epoch));
    Ok(Pair::new(pool.clone(), pool, stats))
}

/// How long a transaction that was given up for another's sake waits before its try `n + 1`.
pub(super) fn victims_pause(n: u32) -> Duration {
    connect::backoff(n) / 8
}

impl Pair<Pool> {
    pub(super) async fn close(&self) {
        self.writer.source().close().await;
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
/// deadline that other statements have.
async fn migrated(mut first: PgConnection) -> Result<PgConnection, StoreError> {
    let failed = doing("migrate the store");
    let set = async |first: &mut PgConnection, sql: &'static str| {
        sqlx::raw_sql(sql).execute(first).await.map(drop)
    };
    set(&mut first, "SET statement_timeout = 0")
        .await
        .map_err(failed)?;
    let migrations = sqlx::migrate!("src/storage/migrations/postgres");
    let running = migrations.run_direct(None, &mut first, false);
    timeout(limits::STORE_MIGRATE_MAX, running)
        .await
        .map_err(|_| failed(NotLent::Silent.into()))?
        .map_err(StoreError::migrating)?;
    set(&mut first, "RESET statement_timeout")
        .await
        .map_err(failed)?;
    first.ping().await.map_err(failed)?;
    Ok(first)
}
