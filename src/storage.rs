//! One store: who, what, and what ties them together, on the disk before it is acknowledged.
//!
//! A [`Store`] is an enum of pools behind one macro, `on!`, that expands a body for every driver;
//! the SQL is one text in the dialect the databases share (`$1` placeholders, `ON CONFLICT`,
//! `RETURNING`, text ids, 64-bit milliseconds). What differs between databases lives in `pools`
//! and in the migrations. One file per aggregate.
//!
//! Storage is the truth and nothing more: it never calls an actor, never reads a clock and never
//! draws an id; times and ids are passed in.

#[macro_use]
mod pools;
mod audit_index;
mod error;
mod groups;
mod keys;
mod mcps;
mod rows;
mod sessions;
mod settings;
mod subscriptions;
#[cfg(test)]
mod suite;
mod suspensions;
mod tools;
mod users;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use audit_index::{AuditIndex, Found, Fresh, IndexError, Spot};
pub use error::{Fault, StoreError};
pub use groups::GroupView;
pub use sessions::SessionSeen;
pub use subscriptions::Views;

use error::doing;
use pools::Pools;

/// Touches a table, so that a lost file or an unreadable page shows.
const PING: &str = "SELECT COUNT(*) FROM settings WHERE name = ''";

/// The store: a cheap handle, cloned to whoever needs it.
#[derive(Clone)]
pub struct Store {
    pools: Arc<Pools>,
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
        let pools = Pools::sqlite(path).await?;
        Ok(Self {
            pools: Arc::new(pools),
        })
    }

    /// Closes every connection; waits for what is under way. Later calls fail with
    /// [`Fault::Closed`].
    pub async fn close(&self) {
        on!(self, |db| db.close().await);
    }

    /// Whether the store could be written now: takes the write lock, reads, gives it back.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        const DOING: &str = "check the store";
        on!(self, |db| {
            let mut tx = db.begin().await.map_err(doing(DOING))?;
            sqlx::query(PING)
                .fetch_one(&mut *tx)
                .await
                .map_err(doing(DOING))?;
            tx.rollback().await.map_err(doing(DOING))
        })
    }
}
