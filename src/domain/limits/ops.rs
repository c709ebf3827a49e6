//! Bounds of metrics, probes and samples.

use std::time::Duration;

limits! {
    /// Between two readings of the counters of all running isolates.
    pub const SAMPLE_EVERY: Duration = Duration::from_secs(5);
    /// How long an administrator's look waits for counters that are read for it.
    pub const SAMPLE_NOW_MAX: Duration = Duration::from_secs(1);
    /// Names of mcps that have metrics of their own; those beyond it are counted together.
    pub const METRIC_MCPS_MAX: usize = 100;
    /// Isolates with series of their own on `/metrics/isolates`, however many there are.
    pub const ISOLATE_SERIES_MAX: usize = 2000;
    /// Isolates on that page by default, the largest first; those that are not ready come on top.
    pub const ISOLATES_TOP: usize = 50;
    /// An isolate that was on that page stays for this long, so that series do not flap.
    pub const ISOLATES_TOP_STAY: Duration = Duration::from_secs(300);
    /// Certificates whose end is a metric.
    pub const METRIC_CERTIFICATES_MAX: usize = 2;
    /// Between two clean-ups of what the metrics collected.
    pub const METRICS_UPKEEP: Duration = Duration::from_secs(1);
    /// The timer whose lateness is the scheduler's lag.
    pub const SCHEDULER_PROBE: Duration = Duration::from_millis(100);
    /// Connections the ops listener serves at once.
    pub const OPS_CONNECTIONS_MAX: usize = 64;
    /// How long a probe may take to send its headers; whoever holds all places must not look like death.
    pub const OPS_HEADER_READ_MAX: Duration = Duration::from_secs(3);
    /// A connection of the ops listener closes after this without a request.
    pub const OPS_IDLE_MAX: Duration = Duration::from_secs(6);
    /// How long a scrape waits for the one before it.
    pub const SCRAPE_WAIT_MAX: Duration = Duration::from_secs(5);
    /// Between two signs of life of the root supervisor.
    pub const ROOT_BEAT: Duration = Duration::from_secs(1);
    /// Without a sign of life of the root for this long, the server is not ready, and its service manager is not told that it lives.
    pub const ROOT_SILENCE_MAX: Duration = Duration::from_secs(10);
    /// Bytes of a file with a bearer token.
    pub const TOKEN_FILE_BYTES_MAX: u64 = 4 << 10;
    /// Characters a bearer token must have.
    pub const TOKEN_CHARS_MIN: usize = 16;
    /// Between two looks at the token file.
    pub const TOKEN_RELOAD_EVERY: Duration = Duration::from_secs(5);
}
