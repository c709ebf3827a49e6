//! Bounds of kill switches and suspensions.

use std::time::Duration;

limits! {
    /// Kill switches and suspensions in force at once.
    pub const KILL_ACTIVE_MAX: usize = 10_000;
    /// Bytes of `kill.journal`; when it is full, nothing more is switched until the store has it all.
    pub const KILL_JOURNAL_BYTES_MAX: u64 = 64 << 20;
    /// Bytes of `kill.journal` beyond which it is written anew, with what is in force alone.
    pub const KILL_JOURNAL_COMPACT_BYTES: u64 = 1 << 20;
    /// Bytes of one line of `kill.journal`.
    pub const KILL_JOURNAL_LINE_BYTES_MAX: usize = 16 << 10;
    /// Bytes of disk taken in advance for `kill.journal`, so that a full disk stops no kill switch.
    pub const KILL_JOURNAL_RESERVE_BYTES: u64 = 256 << 10;
    /// Past kill switches and suspensions kept in the store.
    pub const KILL_HISTORY_MAX: u32 = 10_000;
    /// Kill switches and suspensions one list shows.
    pub const KILL_LISTED_MAX: usize = 1000;
    /// Between two looks for kill switches whose time is over.
    pub const KILL_SWEEP_EVERY: Duration = Duration::from_secs(1);
    /// Between tries to write kill switches into a store that is away.
    pub const KILL_SAVE_RETRY: Duration = Duration::from_secs(5);
    /// How long one try to write kill switches into the store may take.
    pub const KILL_SAVE_MAX: Duration = Duration::from_secs(10);
    /// How long the answer to an administrator waits for the store to have a kill switch.
    pub const KILL_SAVE_WAIT: Duration = Duration::from_secs(2);
    /// Kill switches written into the store in one transaction.
    pub const KILL_SAVE_BATCH: usize = 256;
    /// How long the store is asked what a name means before the snapshots are.
    pub const KILL_LOOKUP_MAX: Duration = Duration::from_secs(1);
    /// Kills whose times are kept for whoever measures them.
    pub const KILL_TIMES_KEPT: usize = 256;
}
