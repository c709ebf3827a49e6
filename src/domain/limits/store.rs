//! Bounds of the store.

use std::time::Duration;

limits! {
    /// Last-used times and heartbeats are written in one transaction this often.
    pub const COALESCE_EVERY: Duration = Duration::from_secs(5);
    /// Connections that read the store at once; opened on demand.
    pub const STORE_READERS_MAX: u32 = 4;
    /// How long a write waits for another process's lock on the store.
    pub const STORE_BUSY_MAX: Duration = Duration::from_secs(5);
    /// How long a store function waits for a connection.
    pub const STORE_ACQUIRE_MAX: Duration = Duration::from_secs(10);
    /// Connections to PostgreSQL; configurable as `storage.pool_max`.
    pub const STORE_POOL_MAX: u32 = 8;
    /// How long a request waits for a PostgreSQL connection; configurable as `storage.acquire_ms`.
    pub const STORE_POOL_WAIT: Duration = Duration::from_secs(3);
    /// How long a connection to PostgreSQL may take to open, its TLS and its password included.
    pub const STORE_CONNECT_MAX: Duration = Duration::from_secs(5);
    /// PostgreSQL ends a statement that runs or waits for a lock longer than this.
    pub const STORE_STATEMENT_MAX: Duration = Duration::from_secs(8);
    /// How long PostgreSQL's answer is waited for before its connection is given up.
    pub const STORE_ANSWER_MAX: Duration = Duration::from_secs(10);
    /// An idle connection to PostgreSQL is tried before it is used again after this.
    pub const STORE_TRY_AFTER: Duration = Duration::from_secs(5);
    /// How long such a try, or a look at the lock, may take.
    pub const STORE_TRY_MAX: Duration = Duration::from_secs(2);
    /// An idle connection to PostgreSQL is closed after this.
    pub const STORE_IDLE_MAX: Duration = Duration::from_secs(60);
    /// Between two looks at the lock that makes a PostgreSQL database one server's alone.
    pub const STORE_LOCK_LOOK: Duration = Duration::from_secs(1);
    /// How long a mark of what was written last must be in a PostgreSQL database with synchronous standbys before one
    /// without it is known as put back to an earlier state.
    pub const STORE_BEAT_COUNTS: Duration = Duration::from_secs(2);
    /// The longest pause between two tries to reach a PostgreSQL server that is away.
    pub const STORE_RETRY_CAP: Duration = Duration::from_secs(5);
    /// Tries to reach PostgreSQL before a starting server gives up.
    pub const STORE_BOOT_TRIES: u32 = 6;
    /// How long a starting server waits for another server's lock, which may be its own last life's.
    pub const STORE_HELD_WAIT: Duration = Duration::from_secs(3);
    /// How long migrating a PostgreSQL database may take.
    pub const STORE_MIGRATE_MAX: Duration = Duration::from_secs(600);
    /// Connections to a database's server that clients' requests leave to administrators, if there are so many twice.
    pub const STORE_POOL_KEPT: usize = 2;
    /// Rows that one statement changes where many are saved at once.
    pub const STORE_BATCH_MAX: usize = 1000;
    /// How long a migration waits for a lock that somebody else holds.
    pub const STORE_MIGRATE_LOCK_MAX: Duration = Duration::from_secs(10);
    /// How often a start says that it still waits for the database.
    pub const STORE_START_SAY: Duration = Duration::from_secs(5);
    /// Tries of a write that the database gave up for another's sake (deadlock, serialization).
    pub const STORE_WRITE_TRIES: u32 = 4;
    /// Bytes that are written and taken away to see whether a disk that was full has room again.
    pub const STORE_ROOM_BYTES: usize = 256 << 10;
    /// How long a stopping server waits to save the last session times.
    pub const STORE_LAST_WORDS: Duration = Duration::from_secs(2);
    /// After a failed build of the routes, when the next is tried.
    pub const ROUTES_RETRY: Duration = Duration::from_secs(5);
    /// Bytes of a password file.
    pub const PASSWORD_BYTES_MAX: u64 = 4 << 10;
}
