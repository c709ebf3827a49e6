//! SQLite: write-ahead log, `synchronous = FULL` (an acknowledged write survives a power cut), one
//! writer connection, and a small pool of readers that is filled on demand and emptied when idle.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use sqlx::Executor as _;
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::sqlite::{
    Sqlite, SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Database, Pool, SqliteConnection};

use super::error::{Fault, StoreError, doing};
use super::lane::{Lent, Source, Statement, Steps};
use super::pools::Pair;
use super::stats::{Class, PoolNumbers, StoreStats};
use crate::domain::limits;

/// Idle readers are closed after this, so that a quiet server keeps one connection.
const READER_IDLE: Duration = Duration::from_secs(60);

/// Page cache of one connection in KiB (negative is SQLite's way to say KiB).
const CACHE_SIZE: &str = "-1024";

/// The write-ahead log is cut back to this after a checkpoint.
const JOURNAL_BYTES_MAX: &str = "16777216";

/// Connections to the file.
#[derive(Clone)]
pub(super) struct Connections(Pool<Sqlite>);

impl Source for Connections {
    type DB = Sqlite;
    type Lent = PoolConnection<Sqlite>;
    /// Its own busy timeout is the bound, and the disk has none.
    const ANSWER_MAX: Option<Duration> = None;
    /// It must take the write lock at once: a transaction that reads first and writes later fails
    /// with "busy" beside another process.
    const BEGIN_WRITE: &'static str = "BEGIN IMMEDIATE";
    const BEGIN_READ: &'static str = "BEGIN";

    async fn lend(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        self.0.acquire().await
    }

    fn copy(_: &SqliteArguments) -> Option<SqliteArguments> {
        None
    }

    fn again(_: Class, _: &sqlx::Error, _: u32) -> Option<Duration> {
        None
    }
}

impl Lent<Sqlite> for PoolConnection<Sqlite> {
    async fn run(&mut self, statement: Statement<Sqlite>) -> Result<Steps<Sqlite>, sqlx::Error> {
        (**self).fetch_many(statement).try_collect().await
    }

    fn is_lost(_: &sqlx::Error) -> bool {
        false
    }

    /// Its thread brings what was begun to its end.
    fn spoil(&mut self, _: Class) -> bool {
        false
    }
}

impl Pair<Connections> {
    /// Readers first: the last connection to close checkpoints the log.
    pub(super) async fn close(&self) {
        self.reader.source().0.close().await;
        self.writer.source().0.close().await;
    }

    /// Nobody else writes it.
    pub(super) fn turns(&self) -> u64 {
        0
    }

    pub(super) fn superseded(&self) -> Option<&str> {
        None
    }

    pub(super) fn numbers(&self) -> PoolNumbers {
        let pools = [&self.writer.source().0, &self.reader.source().0];
        let idle = pools.iter().map(|pool| pool.num_idle()).sum::<usize>();
        PoolNumbers {
            max: pools
                .iter()
                .map(|pool| pool.options().get_max_connections())
                .sum(),
            open: pools.iter().map(|pool| pool.size()).sum(),
            idle: u32::try_from(idle).unwrap_or(u32::MAX),
        }
    }
}

/// Opens or makes the file and migrates it.
pub(super) async fn open(
    path: &Path,
    stats: &Arc<StoreStats>,
) -> Result<Pair<Connections>, StoreError> {
    create_private(path).map_err(|source| StoreError::Open {
        path: path.to_owned(),
        source,
    })?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(limits::STORE_BUSY_MAX)
        .pragma("cache_size", CACHE_SIZE)
        .pragma("journal_size_limit", JOURNAL_BYTES_MAX);
    let known = Arc::default();
    let writer = on_its_files(
        bounded(SqlitePoolOptions::new()),
        path,
        &known,
        Role::Writer,
    )
    .min_connections(1)
    .max_connections(1)
    .idle_timeout(None)
    .connect_with(options.clone())
    .await
    .map_err(|error| match doing("open the store")(error) {
        // A full disk has many names for SQLite: it cannot make its shared memory, for one.
        StoreError::Unavailable {
            fault: Fault::Io,
            doing,
            source,
        } if is_full(path) => StoreError::Unavailable {
            fault: Fault::Full,
            doing,
            source,
        },
        // SQLite does not say which file.
        StoreError::Unavailable {
            fault: Fault::CannotOpen,
            source,
            ..
        } => StoreError::Open {
            path: path.to_owned(),
            source: std::io::Error::other(source),
        },
        other => other,
    })?;
    sqlx::migrate!("src/storage/migrations/sqlite")
        .run(&writer)
        .await
        .map_err(StoreError::migrating)?;
    let reader = on_its_files(
        bounded(SqlitePoolOptions::new()),
        path,
        &known,
        Role::Reader,
    )
    .min_connections(0)
    .max_connections(limits::STORE_READERS_MAX)
    .idle_timeout(READER_IDLE)
    .connect_lazy_with(options.pragma("query_only", "ON"));
    Ok(Pair::new(Connections(writer), Connections(reader), stats))
}

/// What all pools share: a bounded wait, no ageing of connections, no ping before use (the
/// database is a file).
fn bounded<DB: Database>(options: PoolOptions<DB>) -> PoolOptions<DB> {
    options
        .acquire_timeout(limits::STORE_ACQUIRE_MAX)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Which files the connections are to.
#[derive(Debug, Default)]
struct OnDisk {
    inode: Option<u64>,
    /// The write-ahead log's.
    log: Option<u64>,
    /// When other files took their place.
    replaced: Option<Instant>,
}

/// Which pool a connection is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Writer,
    Reader,
}

/// What becomes of a connection before it is lent.
enum Look {
    Fits,
    Closes,
    /// Its log is no longer the one beside the file, and what it holds is nowhere else.
    LogGone,
}

/// Closes connections to files that are no longer those at `path`. SQLite goes on in a file that
/// was removed or replaced, so what it acknowledges would be gone with the process. A new
/// connection finds the new file, or says that there is none. What is only in a log that was
/// removed is written into the database before.
fn on_its_files(
    options: PoolOptions<Sqlite>,
    path: &Path,
    known: &Arc<Mutex<OnDisk>>,
    role: Role,
) -> PoolOptions<Sqlite> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let files: Arc<(PathBuf, PathBuf)> = Arc::new((path.to_owned(), log.into()));
    let known = Arc::clone(known);
    let (opened, at) = (Arc::clone(&known), Arc::clone(&files));
    options
        .after_connect(move |_, _| {
            let (file, log) = (inode(&at.0), inode(&at.1));
            let mut known = opened.lock().unwrap_or_else(PoisonError::into_inner);
            if known.inode.is_some() && known.inode != file {
                known.replaced = Some(Instant::now());
            }
            known.inode = file;
            if role == Role::Writer {
                known.log = log;
            }
            Box::pin(async { Ok(()) })
        })
        .before_acquire(move |connection, of| {
            let (file, log) = (inode(&files.0), inode(&files.1));
            let look = {
                let mut now = known.lock().unwrap_or_else(PoisonError::into_inner);
                now.log = now.log.or(log);
                let younger = |replaced: Instant| of.age < replaced.elapsed();
                if now.inode != file || !now.replaced.is_none_or(younger) {
                    Look::Closes
                } else if role == Role::Writer && now.log != log {
                    Look::LogGone
                } else {
                    Look::Fits
                }
            };
            let known = Arc::clone(&known);
            Box::pin(async move {
                match look {
                    Look::Fits => Ok(true),
                    Look::Closes => Ok(false),
                    Look::LogGone if saved(connection).await => {
                        let mut now = known.lock().unwrap_or_else(PoisonError::into_inner);
                        // The readers' log is the same that is gone.
                        (now.log, now.replaced) = (None, Some(Instant::now()));
                        Ok(false)
                    }
                    // It is the only one that still has it.
                    Look::LogGone => Ok(true),
                }
            })
        })
}

/// Writes what is in the connection's log into the database; whether all of it is there.
async fn saved(connection: &mut SqliteConnection) -> bool {
    let done: Result<(i64, i64, i64), _> = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(connection)
        .await;
    match done {
        Ok((0, ..)) => {
            tracing::error!(
                "the database's write-ahead log (legation.db-wal) was removed while it was in use; \
                 what it held was saved, and another one is begun: nothing may remove or replace it \
                 while the server runs"
            );
            true
        }
        other => {
            tracing::error!(
                "the database's write-ahead log (legation.db-wal) was removed while it was in use, and \
                 what it holds is not saved yet: {other:?}"
            );
            false
        }
    }
}

/// The shared memory beside a write-ahead log is made in pieces of this size.
const SHM_BYTES: u64 = 32 << 10;

/// Whether the disk of a file has no room for what SQLite makes beside it.
fn is_full(path: &Path) -> bool {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    rustix::fs::statvfs(folder.unwrap_or(Path::new("."))).is_ok_and(|stat| {
        let left = stat.f_bavail.saturating_mul(stat.f_frsize);
        // A file system without a fixed number of files says that it has none.
        left < 2 * SHM_BYTES || (stat.f_files > 0 && stat.f_favail == 0)
    })
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|file| file.ino())
}

/// Makes the file readable for its owner only, before SQLite would make it by the umask; the log
/// beside it takes the same mode.
pub(super) fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    match std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
