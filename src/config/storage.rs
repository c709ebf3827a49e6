//! The section `[storage]`: which database holds the truth.

use std::path::PathBuf;

use super::schema::{any, section, within};
use crate::domain::dsn::Dsn;
use crate::domain::limits;

section! {
    /// The database. Only `url` need be set for PostgreSQL; docs/postgres.md says the rest.
    Storage = "storage" {
        /// `postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full`. Unset: SQLite, `legation.db` in the data directory.
        url: Option<Dsn> = None, any();
        /// Holds the password, mode 0600; read anew for each connection. Unset: the one in `url`, if any.
        password_file: Option<PathBuf> = None, any();
        /// Certificate authorities in PEM, for sslmode verify-ca and verify-full. Unset: the public ones.
        ca_file: Option<PathBuf> = None, any();
        /// Connections to PostgreSQL, one more for the lock not counted.
        pool_max: u32 = limits::STORE_POOL_MAX, within(2, 256);
        /// How long a request waits for a connection to PostgreSQL.
        acquire_ms: u64 = limits::millis(limits::STORE_POOL_WAIT), within(100, 30_000);
    }
}
