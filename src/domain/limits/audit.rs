//! Bounds of the audit log.

use std::time::Duration;

limits! {
    /// Records waiting for the audit writer.
    pub const AUDIT_QUEUE_MAX: usize = 8192;
    /// How long a record waits for a place in that queue before what it records is refused.
    pub const AUDIT_ROOM_MAX: Duration = Duration::from_secs(1);
    /// Bytes of records waiting for the audit writer.
    pub const AUDIT_QUEUE_BYTES_MAX: usize = 16 << 20;
    /// Places of the audit writer's queue that what callers cause never takes; classes that are not required leave twice as many.
    pub const AUDIT_QUEUE_KEPT: usize = 1024;
    /// Bytes of that queue that what callers cause never takes, in the same way.
    pub const AUDIT_QUEUE_KEPT_BYTES: usize = 2 << 20;
    /// Bytes of an audit segment before the next begins; configurable as `audit.segment_bytes_max`.
    pub const AUDIT_SEGMENT_BYTES_MAX: u64 = 64 << 20;
    /// Age of an audit segment before the next begins; configurable as `audit.segment_age_ms`.
    pub const AUDIT_SEGMENT_AGE: Duration = Duration::from_secs(24 * 3600);
    /// Audit segments older than this are removed; configurable as `audit.retention_ms`.
    pub const AUDIT_RETENTION: Duration = Duration::from_secs(90 * 24 * 3600);
    /// Between two signed checkpoints of an audit log that grows; configurable as `audit.checkpoint_ms`.
    pub const AUDIT_CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
    /// Records between two signed checkpoints; configurable as `audit.checkpoint_records`.
    pub const AUDIT_CHECKPOINT_RECORDS: u64 = 10_000;
    /// Bytes of a call's arguments that are recorded where an mcp asks for them in full.
    pub const AUDIT_ARGUMENTS_BYTES_MAX: usize = 16 << 10;
    /// Bytes of a call's arguments that are hashed before others get a turn.
    pub const AUDIT_DIGEST_BYTES: usize = 64 << 10;
    /// Bytes of one line that a reader of the audit log takes for a record.
    pub const AUDIT_LINE_BYTES_MAX: usize = 1 << 20;
    /// Bytes of the audit log's end that a start looks through for calls a crash left unfinished.
    pub const AUDIT_RECOVER_BYTES_MAX: u64 = 256 << 20;
    /// Unfinished calls that a start names; the others it counts.
    pub const AUDIT_UNFINISHED_NAMED_MAX: usize = 16;
    /// Kinds of refused authentication that are recorded in full in one window; others are counted.
    pub const AUDIT_REFUSALS_MAX: usize = 64;
    /// The window of [`AUDIT_REFUSALS_MAX`].
    pub const AUDIT_REFUSALS_WINDOW: Duration = Duration::from_secs(60);
    /// Sessions that ended at once and are recorded one by one; others are counted.
    pub const AUDIT_SESSIONS_NAMED_MAX: usize = 64;
    /// Records the audit index takes in one transaction.
    pub const AUDIT_INDEX_BATCH: usize = 2_000;
    /// How long a search waits for the audit index to catch up before it reads the rest itself.
    pub const AUDIT_INDEX_WAIT: Duration = Duration::from_millis(500);
    /// Things found that one answer of a search holds.
    pub const AUDIT_PAGE_MAX: usize = 1_000;
    /// Calls without an end that an export with filters keeps in mind.
    pub const AUDIT_OPEN_CALLS_MAX: usize = 100_000;
    /// Bytes of one chunk of an audit stream, but for its last line.
    pub const AUDIT_STREAM_BYTES: usize = 64 << 10;
    /// Chunks waiting for the reader of one audit stream.
    pub const AUDIT_STREAM_CHUNKS: usize = 4;
    /// Readers of the audit log at once.
    pub const AUDIT_STREAMS_MAX: usize = 16;
}
