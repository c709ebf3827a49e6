//! The pools behind the store, and everything that differs between databases but is not schema.
//!
//! SQLite: write-ahead log, `synchronous = FULL` (an acknowledged write survives a power cut), one
//! writer connection, and a small pool of readers that is filled on demand and emptied when idle.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolOptions;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Database, Pool, Transaction};

use super::error::{Fault, StoreError, doing};
use crate::domain::limits;

/// Expands the body once for each database the store can stand on; `$db` is a [`Pair`].
macro_rules! on {
    ($store:expr, |$db:ident| $body:expr) => {
        match &*$store.pools {
            $crate::storage::pools::Pools::Sqlite($db) => $body,
        }
    };
}

/// Idle readers are closed after this, so that a quiet server keeps one connection.
const READER_IDLE: Duration = Duration::from_secs(60);

/// Page cache of one connection in KiB (negative is SQLite's way to say KiB).
const CACHE_SIZE: &str = "-1024";

/// The write-ahead log is cut back to this after a checkpoint.
const JOURNAL_BYTES_MAX: &str = "16777216";

/// The databases a store can stand on.
pub(super) enum Pools {
    /// The embedded default.
    Sqlite(Pair<Sqlite>),
}

/// One writer pool and one reader pool of the same database.
pub(super) struct Pair<DB: Database> {
    /// For everything that changes something.
    pub(super) writer: Pool<DB>,
    /// For everything that does not.
    pub(super) reader: Pool<DB>,
    /// How a writing transaction begins: SQLite must take the write lock at once, since a
    /// transaction that reads first and writes later fails with "busy" beside another process.
    begin: &'static str,
}

impl<DB: Database> Pair<DB> {
    /// Begins a writing transaction.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, DB>, sqlx::Error> {
        self.writer.begin_with(self.begin).await
    }

    /// Readers first: the last connection to close checkpoints the log.
    pub(super) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

impl Pools {
    /// Opens or makes the file and migrates it.
    pub(super) async fn sqlite(path: &Path) -> Result<Self, StoreError> {
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
        let writer = on_its_file(bounded(SqlitePoolOptions::new()), path)
            .min_connections(1)
            .max_connections(1)
            .idle_timeout(None)
            .connect_with(options.clone())
            .await
            .map_err(|error| match doing("open the store")(error) {
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
        let reader = on_its_file(bounded(SqlitePoolOptions::new()), path)
            .min_connections(0)
            .max_connections(limits::STORE_READERS_MAX)
            .idle_timeout(READER_IDLE)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self::Sqlite(Pair {
            writer,
            reader,
            begin: "BEGIN IMMEDIATE",
        }))
    }
}

/// What all pools share: a bounded wait, no ageing of connections, no ping before use (the
/// database is a file).
fn bounded<DB: Database>(options: PoolOptions<DB>) -> PoolOptions<DB> {
    options
        .acquire_timeout(limits::STORE_ACQUIRE_MAX)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Which file a pool's connections are to.
#[derive(Debug, Default)]
struct OnDisk {
    inode: Option<u64>,
    /// When another file took its place.
    replaced: Option<Instant>,
}

/// Closes connections to a file that is no longer the one at `path`. SQLite goes on in a file that
/// was removed or replaced, so what it acknowledges would be gone with the process. A new
/// connection finds the new file, or says that there is none.
fn on_its_file(options: PoolOptions<Sqlite>, path: &Path) -> PoolOptions<Sqlite> {
    let known = Arc::new(Mutex::new(OnDisk::default()));
    let path: Arc<Path> = path.into();
    let (opened, at) = (Arc::clone(&known), Arc::clone(&path));
    options
        .after_connect(move |_, _| {
            let inode = inode(&at);
            let mut known = opened.lock().unwrap_or_else(PoisonError::into_inner);
            if known.inode.is_some() && known.inode != inode {
                known.replaced = Some(Instant::now());
            }
            known.inode = inode;
            Box::pin(async { Ok(()) })
        })
        .before_acquire(move |_, connection| {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let younger = |replaced: Instant| connection.age < replaced.elapsed();
            let fits = known.inode == inode(&path) && known.replaced.is_none_or(younger);
            Box::pin(async move { Ok(fits) })
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
