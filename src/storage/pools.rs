//! The databases a store can stand on. What differs between them is in `sqlite` and `postgres`,
//! and in the migrations.

use std::sync::Arc;

use super::lane::{Lane, Source, Tx};
use super::postgres::Pool;
use super::sqlite;
use super::stats::{Class, StoreStats};

/// Expands the body once for each database the store can stand on; `$db` is a [`Pair`].
macro_rules! on {
    ($store:expr, |$db:ident| $body:expr) => {
        match &*$store.pools {
            $crate::storage::pools::Pools::Sqlite($db) => $body,
            $crate::storage::pools::Pools::Postgres($db) => $body,
        }
    };
}

/// The databases a store can stand on.
pub(super) enum Pools {
    /// The embedded default: one writer, some readers.
    Sqlite(Pair<sqlite::Connections>),
    /// A server: one pool for both.
    Postgres(Pair<Pool>),
}

/// Where what changes something goes, and where what does not.
pub(super) struct Pair<S> {
    /// For everything that changes something.
    pub(super) writer: Lane<S>,
    /// For everything that does not.
    pub(super) reader: Lane<S>,
}

impl<S: Source> Pair<S> {
    pub(super) fn new(writer: S, reader: S, stats: &Arc<StoreStats>) -> Self {
        Self {
            writer: Lane::new(writer, Class::Write, stats),
            reader: Lane::new(reader, Class::Read, stats),
        }
    }

    /// Begins a writing transaction.
    pub(super) async fn begin(&self) -> Result<Tx<S>, sqlx::Error> {
        self.writer.begin().await
    }
}
