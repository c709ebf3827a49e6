//! Bounds of calls and of what servers write.

use std::time::Duration;

limits! {
    /// Bytes of one JSON-RPC line from a server; configurable as `calls.line_bytes_max`.
    pub const LINE_BYTES_MAX: usize = 16 << 20;
    /// Calls in flight on one isolate or instance.
    pub const IN_FLIGHT_MAX: usize = 128;
    /// Frames waiting for one writer.
    pub const WRITER_QUEUE_MAX: usize = 128;
    /// Bytes of stderr kept per run.
    pub const STDERR_RING_BYTES: usize = 32 << 10;
    /// Lines of it, however short they are.
    pub const STDERR_LINES_KEPT: usize = 1000;
    /// Bytes of one stderr line kept.
    pub const STDERR_LINE_BYTES_MAX: usize = 4 << 10;
    /// Bytes of a non-JSON stdout line kept as a log line.
    pub const NOISE_LINE_BYTES_MAX: usize = 1 << 10;
    /// How long a tool call may take.
    pub const CALL_DEADLINE: Duration = Duration::from_secs(300);
    /// The longest call deadline an mcp may ask for.
    pub const CALL_DEADLINE_MAX: Duration = Duration::from_secs(3600);
    /// Between pings of an isolate that is not otherwise talking.
    pub const PING_EVERY: Duration = Duration::from_secs(30);
    /// How long a ping may take.
    pub const PING_DEADLINE: Duration = Duration::from_secs(10);
    /// Missed pings in a row that end a run; while calls are under way, only once it was not heard for as long as one may take.
    pub const PINGS_MISSED_MAX: u32 = 3;
    /// Bytes of the id of a server's own request.
    pub const REQUEST_ID_BYTES_MAX: usize = 1 << 10;
    /// Bytes of request lines waiting for one writer, unless a single line is larger.
    pub const QUEUE_BYTES_MAX: usize = 16 << 20;
    /// A call waits for a restart that is due within this; beyond it the answer is `backing_off`.
    pub const BACKOFF_WAIT_MAX: Duration = Duration::from_secs(1);
    /// After a server's death, how long its last lines on stdout may take to arrive.
    pub const LAST_WORDS: Duration = Duration::from_millis(5);
    /// A server that closed stdout or stdin and lives on is ended after this.
    pub const HALF_CLOSED_MAX: Duration = Duration::from_secs(1);
    /// Lines of non-JSON stdout kept per run.
    pub const NOISE_LINES_KEPT: usize = 32;
    /// Bytes of a tool name as a client calls it (`mcp.tool` is the longest form).
    pub const CALLED_NAME_BYTES_MAX: usize = 256;
    /// Bytes of stderr kept of a run that has ended.
    pub const ENDED_STDERR_BYTES: usize = 8 << 10;
    /// Bytes of non-JSON stdout kept of a run that has ended.
    pub const ENDED_NOISE_BYTES: usize = 1 << 10;
    /// How long a server may take to end a call that was cancelled, before it is recycled.
    pub const CANCEL_GRACE: Duration = Duration::from_secs(5);
    /// Calls one list shows.
    pub const CALLS_LISTED_MAX: usize = 1000;
    /// Calls that wait for a server to start, host-wide.
    pub const CALLS_WAITING_MAX: usize = 16_384;
    /// Keys whose calls are counted apart, where `calls.per_key_minute_max` counts them.
    pub const RATED_KEYS_MAX: usize = 10_000;
}
