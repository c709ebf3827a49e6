//! One store: who, what, and what ties them together, on the disk before it is acknowledged.
//!
//! A [`Store`] is an enum of pools behind one macro, `on!`, that expands a body for every driver;
//! the SQL is one text in the dialect the databases share (`$1` placeholders, `ON CONFLICT`,
//! `RETURNING`, text ids, 64-bit milliseconds). What differs between databases lives in `sqlite`,
//! `postgres` and the migrations; every statement takes the same `lane`. One file per aggregate.
//!
//! Storage is the truth and nothing more: it never calls an actor, never reads a clock and never
//! draws an id; times and ids are passed in.

#[macro_use]
mod pools;
mod abilities;
mod again;
mod audit_index;
mod credentials;
mod denies;
mod error;
mod groups;
mod keys;
mod lane;
mod mcps;
mod postgres;
mod prompts;
mod rows;
mod sessions;
mod settings;
mod spoken;
mod sqlite;
pub mod stats;
mod subscriptions;
#[cfg(test)]
pub(crate) mod suite;
mod tools;
mod users;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use abilities::Known;
pub use audit_index::{AuditIndex, Found, Fresh, IndexError, Spot};
pub use error::{Fault, StoreError};
pub use groups::GroupView;
pub use postgres::Postgres;
pub use sessions::SessionSeen;
pub use subscriptions::Views;

use crate::domain::limits::{STORE_POOL_KEPT, STORE_ROOM_BYTES};
use crate::domain::mcp::Defaults;
use again::again;
use error::doing;
use pools::Pools;
use stats::{PoolNumbers, StoreStats};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Touches a table, so that a lost file or an unreadable page shows.
const PING: &str = "SELECT COUNT(*) FROM settings WHERE name = ''";
/// Changes nothing, and is refused like any change.
const PING_WRITE: &str = "UPDATE settings SET value = value WHERE name = ''";
/// Takes room on the disk, which a change that fits into a page does not, and gives it back.
const TAKE: &str = "INSERT INTO settings (name, value) VALUES ('room', $1) \
    ON CONFLICT (name) DO UPDATE SET value = excluded.value";
const GIVE_BACK: &str = "DELETE FROM settings WHERE name = 'room'";

/// The store: a cheap handle, cloned to whoever needs it.
#[derive(Clone)]
pub struct Store {
    pools: Arc<Pools>,
    stats: Arc<StoreStats>,
    place: Arc<str>,
    defaults: Defaults,
    /// What clients ask goes through here, so that however many of them wait for a lock, connections
    /// are left for administrators and the look at the store.
    crowd: Option<(Arc<Semaphore>, Duration)>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the SQLite file, makes it (mode 0600) if there is none, and brings its schema up to
    /// this build's.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the file cannot be opened or written,
    /// [`StoreError::Incompatible`] if a newer build wrote it, [`StoreError::Corrupt`] if it is
    /// no database.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let stats = Arc::new(StoreStats::default());
        let pair = sqlite::open(path, &stats).await?;
        Ok(Self {
            pools: Arc::new(Pools::Sqlite(pair)),
            stats,
            place: path.display().to_string().into(),
            defaults: Defaults::default(),
            crowd: None,
        })
    }

    /// Connects to a PostgreSQL database, makes it this server's alone, and brings its schema up
    /// to this build's. A server that is not there is tried a bounded number of times.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is not there or refuses us, [`StoreError::Held`] if
    /// another server uses the database, [`StoreError::Unfit`] if it is none we can stand on,
    /// [`StoreError::Incompatible`] if a newer build wrote it.
    pub async fn connect(postgres: Postgres) -> Result<Self, StoreError> {
        let stats = Arc::new(StoreStats::default());
        let place = postgres.dsn.place().into();
        let most = postgres.pool_max as usize;
        let places = most - STORE_POOL_KEPT.min(most / 2);
        let crowd = (Arc::new(Semaphore::new(places)), postgres.wait);
        let pair = postgres::open(postgres, &stats).await?;
        Ok(Self {
            pools: Arc::new(Pools::Postgres(pair)),
            stats,
            place,
            defaults: Defaults::default(),
            crowd: Some(crowd),
        })
    }

    /// The same store, with what mcps have that do not say otherwise: they are read with it.
    #[must_use]
    pub fn with_defaults(self, defaults: Defaults) -> Self {
        Self { defaults, ..self }
    }

    /// What mcps have that do not say otherwise.
    #[must_use]
    pub const fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// What kind of database it stands on.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &*self.pools {
            Pools::Sqlite(_) => "sqlite",
            Pools::Postgres(_) => "postgresql",
        }
    }

    /// Whether it is another program, which goes and comes by itself.
    #[must_use]
    pub fn is_server(&self) -> bool {
        matches!(&*self.pools, Pools::Postgres(_))
    }

    /// Where that is, without any secret.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> &StoreStats {
        &self.stats
    }

    /// How often what it holds may have changed without our knowing: while it was away, or by a
    /// change whose answer did not come.
    #[must_use]
    pub fn turns(&self) -> u64 {
        on!(self, |db| db.turns())
    }

    /// Why this process must not go on with it, if another served it meanwhile.
    #[must_use]
    pub fn superseded(&self) -> Option<&str> {
        on!(self, |db| db.superseded())
    }

    /// Its connections now.
    #[must_use]
    pub fn connections(&self) -> PoolNumbers {
        on!(self, |db| db.numbers())
    }

    /// Closes every connection; waits for what is under way. Later calls fail with
    /// [`Fault::Closed`].
    pub async fn close(&self) {
        on!(self, |db| db.close().await);
    }

    /// A place among what clients ask, for as long as one statement of theirs.
    async fn place_for_many(
        &self,
        what: &'static str,
    ) -> Result<Option<SemaphorePermit<'_>>, StoreError> {
        let Some((places, wait)) = &self.crowd else {
            return Ok(None);
        };
        let place = timeout(*wait, places.acquire()).await;
        let place = place.map_err(|_| sqlx::Error::PoolTimedOut);
        let place = place.and_then(|place| place.map_err(|_| sqlx::Error::PoolClosed));
        place.map(Some).map_err(doing(what))
    }

    /// Whether the store could be written now: takes the write lock, reads, gives it back. After its
    /// disk was full, it is written.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        const DOING: &str = "check the store";
        if self.stats.is_full() {
            self.take_room().await?;
            self.stats.note_full(false);
        }
        on!(self, |db| {
            let mut tx = db.begin().await.map_err(doing(DOING))?;
            sqlx::query(PING)
                .fetch_one(&mut *tx)
                .await
                .map_err(doing(DOING))?;
            sqlx::query(PING_WRITE)
                .execute(&mut *tx)
                .await
                .map_err(doing(DOING))?;
            tx.rollback().await.map_err(doing(DOING))
        })
    }

    /// Writes as much as any change does, and takes it away again.
    async fn take_room(&self) -> Result<(), StoreError> {
        const DOING: &str = "write to a disk that was full";
        let mut filler = String::with_capacity(STORE_ROOM_BYTES);
        while filler.len() < STORE_ROOM_BYTES {
            // What repeats would be packed into nothing.
            filler.push_str(&format!("{:016x}", rand::random::<u64>()));
        }
        on!(self, |db| {
            let mut tx = db.begin().await.map_err(doing(DOING))?;
            sqlx::query(TAKE)
                .bind(filler.as_str())
                .execute(&mut *tx)
                .await
                .map_err(doing(DOING))?;
            sqlx::query(GIVE_BACK)
                .execute(&mut *tx)
                .await
                .map_err(doing(DOING))?;
            tx.commit().await.map_err(doing(DOING))
        })
    }
}
