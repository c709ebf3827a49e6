//! Every bound of the house in one place (rule 9): what is not configurable is a constant here,
//! what is configurable has its default and its ceiling here. `legation config show` prints them.

mod arguments;
mod audit;
mod bridge;
mod era;
mod gather;
mod mcp;
mod packages;
mod remote;
mod room;
mod table;
mod tasks;

use std::time::Duration;

pub use arguments::*;
pub use audit::*;
pub use bridge::*;
pub use era::*;
pub use gather::*;
pub use mcp::*;
pub use packages::*;
pub use remote::*;
pub use room::*;
pub use table::table;
pub use tasks::*;

/// A duration in whole milliseconds, as configuration and storage count.
#[must_use]
pub const fn millis(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1000);
    whole.saturating_add(duration.subsec_millis() as u64)
}

/// Characters in the name of a user, group or mcp.
pub const NAME_CHARS_MAX: usize = 64;
/// Characters in a tool's own name.
pub const TOOL_NAME_CHARS_MAX: usize = 128;
/// Characters in a tool name as a client sees it.
pub const EXPOSED_NAME_CHARS_MAX: usize = 64;
/// Bytes of one JSON-RPC line from a server; configurable as `calls.line_bytes_max`.
pub const LINE_BYTES_MAX: usize = 16 << 20;
/// Bytes of one request body on the client port; configurable as `client.body_bytes_max`.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// The most that `client.body_bytes_max` can be set to.
pub const BODY_BYTES_CEILING: usize = 64 << 20;
/// Bytes of one answer the standard client accepts (it destroys anything larger).
pub const STANDARD_CLIENT_RESPONSE_BYTES_MAX: usize = 10 << 20;
/// Bytes of request headers on any listener.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// Connections a listener serves at once.
pub const CONNECTIONS_MAX: usize = 4096;
/// How long a TLS handshake may take.
pub const TLS_HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a client may take to send its request's headers.
pub const HEADER_READ_MAX: Duration = Duration::from_secs(15);
/// Bytes of a request or an answer that count against nobody.
pub const LARGE_BYTES_MIN: usize = 256 << 10;
/// Bytes of larger requests and answers of one key under way.
pub const LARGE_BYTES_KEY_MAX: usize = 64 << 20;
/// The same of all keys.
pub const LARGE_BYTES_ALL_MAX: usize = 512 << 20;
/// How long a client may take to send a whole request body.
pub const BODY_READ_MAX: Duration = Duration::from_secs(30);
/// Calls in flight on one isolate or instance.
pub const IN_FLIGHT_MAX: usize = 128;
/// Frames waiting for one writer.
pub const WRITER_QUEUE_MAX: usize = 128;
/// Bytes of stderr kept per run.
pub const STDERR_RING_BYTES: usize = 32 << 10;
/// Bytes of one stderr line kept.
pub const STDERR_LINE_BYTES_MAX: usize = 4 << 10;
/// Bytes of a non-JSON stdout line kept as a log line.
pub const NOISE_LINE_BYTES_MAX: usize = 1 << 10;
/// Runs remembered per slot (`isolate show`).
pub const HISTORY_RUNS_MAX: usize = 16;
/// Transitions remembered per actor (`tree`).
pub const TRANSITIONS_MAX: usize = 10;
/// Changes of the tree kept for those who follow it; who is further behind gets a fresh picture.
pub const CHANGES_KEPT_MAX: usize = 1024;
/// Users' supervisors whose last transitions are remembered.
pub const TREE_USERS_MAX: usize = 4096;
/// Followers of the tree at once.
pub const FOLLOWERS_MAX: usize = 16;
/// Between two lines that show a follower that its connection lives.
pub const FOLLOW_BEAT: Duration = Duration::from_secs(10);
/// How long a follower may leave lines unread before it is let go.
pub const FOLLOW_STALL_MAX: Duration = Duration::from_secs(30);
/// Between two readings of the isolates' counters for a follower.
pub const FOLLOW_USAGE_EVERY: Duration = Duration::from_secs(5);
/// How many of the last verdicts `ps` shows of an isolate.
pub const VERDICTS_SHOWN: usize = 5;
/// Isolates one user may have at once.
pub const ISOLATES_PER_USER_MAX: usize = 20;
/// Tools one mcp may declare.
pub const TOOLS_PER_MCP_MAX: usize = 1000;
/// Bytes of a runtime thread's stack.
pub const THREAD_STACK_BYTES: usize = 1 << 20;
/// How long blocked threads are waited for when the process ends.
pub const RUNTIME_STOP_MAX: Duration = Duration::from_secs(1);
/// Arguments of an mcp's program.
pub const PROGRAM_ARGS_MAX: usize = 256;
/// First of the uids isolates run as: above those of systemd's containers and subordinate ranges.
pub const UID_BASE: u32 = 2_000_000_000;
/// How many there are.
pub const UID_COUNT: u32 = 65_536;
/// Ranges a trial run looks through for a free one.
pub const UID_RANGES_TRIED: u32 = 64;
/// Paths of the host an mcp declares for its isolates.
pub const CONFINEMENT_PATHS_MAX: usize = 32;
/// Bytes of such a path.
pub const CONFINEMENT_PATH_BYTES_MAX: usize = 1024;
/// Hosts an mcp names for its isolates to reach.
pub const EGRESS_RULES_MAX: usize = 64;
/// Different ports among them.
pub const EGRESS_PORTS_MAX: usize = 8;
/// The port of an isolate's own proxy, which no host can have.
pub const EGRESS_PROXY_PORT: u16 = 3128;
/// Bytes of a host's name.
pub const EGRESS_HOST_BYTES_MAX: usize = 253;
/// Connections out of one isolate at once; more wait in the kernel's line.
pub const EGRESS_CONNECTIONS_MAX: usize = 64;
/// Connections out of all isolates of one user at once; more wait in the same line.
pub const EGRESS_CONNECTIONS_USER_MAX: usize = 256;
/// Connections out of all isolates at once.
pub const EGRESS_CONNECTIONS_ALL_MAX: usize = 4096;
/// Bytes of the two buffers of one connection, each.
pub const EGRESS_BUFFER_BYTES: usize = 8 << 10;
/// How long the head of a request, or of a TLS connection, may take.
pub const EGRESS_HEAD_WAIT: Duration = Duration::from_secs(10);
/// How long looking up a host and connecting to it may take.
pub const EGRESS_CONNECT_WAIT: Duration = Duration::from_secs(15);
/// Hosts that are looked up at once for one isolate.
pub const EGRESS_LOOKUPS_MAX: usize = 4;
/// Hosts that are looked up at once for all isolates.
pub const EGRESS_LOOKUPS_ALL_MAX: usize = 16;
/// Addresses of one host that are tried.
pub const EGRESS_ADDRESSES_MAX: usize = 4;
/// A connection nothing goes over ends after this.
pub const EGRESS_IDLE: Duration = Duration::from_secs(15 * 60);
/// Different names one run may look up.
pub const EGRESS_NAMES_MAX: usize = 1024;
/// Denied attempts of one run that are told one by one; the rest is counted.
pub const EGRESS_DENIALS_TOLD: u64 = 20;
/// Name queries, and connections over one port, that the gateway takes from one run in a second.
pub const EGRESS_PER_SECOND: u32 = 500;
/// Of either, at once.
pub const EGRESS_BURST: u32 = 500;
/// Variables an mcp adds to the environment.
pub const PROGRAM_ENV_MAX: usize = 256;
/// Bytes of an mcp's program, its arguments and environment together.
pub const PROGRAM_BYTES_MAX: usize = 64 << 10;
/// Characters of a description or a reason.
pub const DESCRIPTION_CHARS_MAX: usize = 500;
/// Bytes of one request body on the admin socket.
pub const ADMIN_BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of one answer the command line reads from the admin socket.
pub const ADMIN_ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long the command line waits for the admin socket to accept.
pub const ADMIN_CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long the command line waits for an answer.
pub const ADMIN_ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long it waits where a server is started first, beyond that server's own deadline.
pub const ADMIN_START_ANSWER_MAX: Duration = Duration::from_secs(600);
/// Pages of `tools/list` that are followed.
pub const TOOL_PAGES_MAX: usize = 64;
/// Live sessions one key may have.
pub const SESSIONS_PER_KEY_MAX: usize = 256;
/// Live sessions of the whole server.
pub const SESSIONS_MAX: usize = 100_000;
/// Failed registrations remembered (by key prefix).
pub const FAILED_KEYS_MAX: usize = 4096;
/// Failed registrations one key prefix may make in [`FAILED_KEY_WINDOW`].
pub const FAILED_KEY_TRIES_MAX: u32 = 10;
/// The window of [`FAILED_KEY_TRIES_MAX`].
pub const FAILED_KEY_WINDOW: Duration = Duration::from_secs(60);
/// Demand starts waiting for a start permit, host-wide.
pub const START_QUEUE_MAX: usize = 256;
/// Restarts per second, host-wide.
pub const RESTARTS_PER_SECOND: u32 = 10;
/// How long a tool call may take.
pub const CALL_DEADLINE: Duration = Duration::from_secs(300);
/// The longest call deadline an mcp may ask for.
pub const CALL_DEADLINE_MAX: Duration = Duration::from_secs(3600);
/// From spawn to ready.
pub const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long the install of a package may take; from spawn to ready for a launcher that installs as it runs.
pub const INSTALL_DEADLINE: Duration = Duration::from_secs(120);
/// An isolate without calls stops after this.
pub const IDLE_AFTER: Duration = Duration::from_secs(15 * 60);
/// A kill that took longer leaves the slot stuck.
pub const KILL_WAIT: Duration = Duration::from_secs(5);
/// Who was killed and lives on is killed again after this.
pub const KILL_AGAIN: Duration = Duration::from_millis(20);
/// Isolates on one host, where `isolates.max` says nothing.
pub const ISOLATES_MAX: usize = 5_000;
/// Starts that may be at work with files at the same time.
pub const START_WORK_MAX: usize = 64;
/// How long a start waits until another one has done with its files.
pub const START_WORK_WAIT: Duration = Duration::from_secs(10);
/// Dead isolates whose cgroups are removed at the same time.
pub const BURIALS_MAX: usize = 2;
/// How long a cgroup stays after its isolate's end while other isolates still have to die.
pub const BURIAL_PATIENCE: Duration = Duration::from_millis(500);
/// First step of the stop ladder: stdin closed.
pub const STOP_STDIN: Duration = Duration::from_secs(2);
/// Second step of the stop ladder: SIGTERM.
pub const STOP_TERM: Duration = Duration::from_secs(3);
/// Between pings of an isolate that is not otherwise talking.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a ping may take.
pub const PING_DEADLINE: Duration = Duration::from_secs(10);
/// Missed pings in a row that end a run; while calls are under way, only once it was not heard for as long as one may take.
pub const PINGS_MISSED_MAX: u32 = 3;
/// A session without activity expires after this.
pub const SESSION_TTL: Duration = Duration::from_secs(24 * 3600);
/// A token past its age, or signed by a rotated key, still works this long.
pub const TOKEN_GRACE: Duration = Duration::from_secs(60);
/// Last-used times and heartbeats are written in one transaction this often.
pub const COALESCE_EVERY: Duration = Duration::from_secs(5);
/// Records waiting for the audit writer.
pub const AUDIT_QUEUE_MAX: usize = 8192;
/// How long a record waits for a place in that queue before what it records is refused.
pub const AUDIT_ROOM_MAX: Duration = Duration::from_secs(1);
/// How long the whole server may take to stop.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(40);
/// How long listeners wait for requests in flight when the server stops.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);
/// A second signal this soon after the first that stops the server is the same one, sent to its group as well.
pub const SAME_STOP: Duration = Duration::from_millis(500);
/// How long the answers to calls that a stopping server cuts short may take to leave.
pub const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Bytes of memory of one isolate.
pub const ISOLATE_MEMORY_BYTES: u64 = 512 << 20;
/// Processes and threads of one isolate.
pub const ISOLATE_PIDS: u64 = 128;
/// CPU of one isolate, in thousandths of a core.
pub const ISOLATE_CPU_MILLIS: u64 = 1000;
/// Bytes of memory of all isolates of one user.
pub const USER_MEMORY_BYTES: u64 = 2 << 30;
/// Processes and threads of all isolates of one user.
pub const USER_PIDS: u64 = 512;
/// CPU of all isolates of one user, in thousandths of a core.
pub const USER_CPU_MILLIS: u64 = 2000;
/// Open files of one process in an isolate.
pub const ISOLATE_OPEN_FILES: u64 = 1024;
/// Bytes of the largest file a process in an isolate may write.
pub const ISOLATE_FILE_BYTES: u64 = 1 << 30;
/// Bytes of the id of a server's own request.
pub const REQUEST_ID_BYTES_MAX: usize = 1 << 10;
/// Bytes of request lines waiting for one writer, unless a single line is larger.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;
/// A call waits for a restart that is due within this; beyond it the answer is `backing_off`.
pub const BACKOFF_WAIT_MAX: Duration = Duration::from_secs(1);
/// A start holds its permit at most this long, so that one slow server never delays others.
pub const START_PERMIT_HOLD: Duration = Duration::from_secs(2);
/// After a server's death, how long its last lines on stdout may take to arrive.
pub const LAST_WORDS: Duration = Duration::from_millis(5);
/// A server that closed stdout or stdin and lives on is ended after this.
pub const HALF_CLOSED_MAX: Duration = Duration::from_secs(1);
/// Lines of non-JSON stdout kept per run.
pub const NOISE_LINES_KEPT: usize = 32;
/// Restarts of one of our own actors in [`INTENSITY_PERIOD`] before its supervisor gives up on it.
pub const INTENSITY_MAX: usize = 3;
/// The period of [`INTENSITY_MAX`].
pub const INTENSITY_PERIOD: Duration = Duration::from_secs(60);
/// This many different users given up on in [`INTENSITY_PERIOD`] is our bug, not theirs.
pub const USERS_GIVEN_UP_MAX: usize = 10;
/// The stop ladder of one isolate, all steps together.
pub const ISOLATE_STOP_MAX: Duration = Duration::from_secs(8);
/// How long all services may take to start.
pub const BOOT_MAX: Duration = Duration::from_secs(60);
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
/// Bytes of one sealed value before it is sealed.
pub const SEALED_BYTES_MAX: usize = 64 << 10;
/// Wait after a server's first failure; doubled by each further one.
pub const RESTART_FLOOR: Duration = Duration::from_millis(250);
/// The longest wait before a restart.
pub const RESTART_CAP: Duration = Duration::from_secs(60);
/// How long a server that failed too often is left alone.
pub const RESTART_QUARANTINE: Duration = Duration::from_secs(300);
/// Failures that lead to quarantine, unless a ready time forgave them.
pub const RESTART_FAILURES_MAX: u32 = 5;
/// A server that was ready for this long is forgiven its failures.
pub const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// Bytes of one configuration file.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Files read from `conf.d`.
pub const CONFIG_FILES_MAX: usize = 256;
/// A connection that is kept alive without a request closes after this.
pub const KEEP_ALIVE_IDLE_MAX: Duration = Duration::from_secs(75);
/// The same when a listener has few connections left.
pub const CROWDED_IDLE_MAX: Duration = Duration::from_secs(5);
/// How long a connection may take to come through its TLS handshake then.
pub const CROWDED_HANDSHAKE_MAX: Duration = Duration::from_secs(2);
/// How often the admin socket's place is looked at: one that was removed is made again.
pub const SOCKET_LOOK: Duration = Duration::from_secs(1);
/// Bytes of an oversized body that are read and thrown away, so that the client gets to read the
/// refusal instead of a connection reset.
pub const BODY_DISCARD_BYTES_MAX: usize = 16 << 20;
/// How long throwing away an oversized body may take.
pub const BODY_DISCARD_MAX: Duration = Duration::from_secs(2);
/// Bytes of the body of a registration or a heartbeat.
pub const SMALL_BODY_BYTES_MAX: usize = 8 << 10;
/// Characters in what a client calls itself and in the name of its AI tool.
pub const LABEL_CHARS_MAX: usize = 128;
/// Bytes of a preshared key as a client presents it.
pub const PRESENTED_KEY_BYTES_MAX: usize = 256;
/// Bytes of a tool name as a client calls it (`mcp.tool` is the longest form).
pub const CALLED_NAME_BYTES_MAX: usize = 256;
/// Hops of a forwarded address that are looked at.
pub const FORWARDED_HOPS_MAX: usize = 32;
/// Bytes of a certificate or key file.
pub const PEM_BYTES_MAX: u64 = 1 << 20;
/// Between two looks at the certificate files.
pub const TLS_RELOAD_EVERY: Duration = Duration::from_secs(30);
/// How long a self-made certificate is valid (825 days is the most that all clients accept).
pub const SELF_CERT_DAYS: i64 = 824;
/// A self-made certificate is renewed this long before it ends.
pub const SELF_CERT_RENEW_DAYS: i64 = 30;
/// How long an accept loop waits after the system refused it a descriptor.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Characters of a server's output in a verdict or a log line.
pub const SERVER_DETAIL_CHARS_MAX: usize = 300;
/// Bytes of one tool's definition; a tool with a larger one is not offered.
pub const TOOL_DEFINITION_BYTES_MAX: usize = 256 << 10;
/// Bytes of a server's whole tool list, all pages together.
pub const TOOL_LIST_BYTES_MAX: usize = 4 << 20;
/// Tools of one start that are logged as not offered.
pub const TOOLS_REFUSED_LOGGED_MAX: usize = 16;
/// Bytes of stderr kept of a run that has ended.
pub const ENDED_STDERR_BYTES: usize = 8 << 10;
/// Bytes of non-JSON stdout kept of a run that has ended.
pub const ENDED_NOISE_BYTES: usize = 1 << 10;
/// Between two readings of the counters of all running isolates.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// How long an administrator's look waits for counters that are read for it.
pub const SAMPLE_NOW_MAX: Duration = Duration::from_secs(1);
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
/// How long a server may take to end a call that was cancelled, before it is recycled.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// Calls one list shows.
pub const CALLS_LISTED_MAX: usize = 1000;
/// Calls that wait for a server to start, host-wide.
pub const CALLS_WAITING_MAX: usize = 16_384;
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
/// Characters of a credential's name.
pub const CREDENTIAL_NAME_CHARS_MAX: usize = 64;
/// Characters of a variable that a credential is put into.
pub const VARIABLE_CHARS_MAX: usize = 128;
/// Credentials one mcp may declare.
pub const CREDENTIALS_PER_MCP_MAX: usize = 16;
/// Bytes of one credential that is put into a variable.
pub const CREDENTIAL_BYTES_MAX: usize = SEALED_BYTES_MAX;
/// Keys whose calls are counted apart, where `calls.per_key_minute_max` counts them.
pub const RATED_KEYS_MAX: usize = 10_000;
/// Users that `mcp show` names of those who have set a credential; the others it counts.
pub const USERS_NAMED_MAX: usize = 20;
/// Bytes of a credential below which it is not looked for in what servers write.
pub const REDACT_BYTES_MIN: usize = 4;
/// The same for one line of a credential that has several.
pub const REDACT_LINE_BYTES_MIN: usize = 8;
/// Bytes of a line that are searched for credentials; what is longer is cut first.
pub const REDACT_TEXT_BYTES_MAX: usize = STDERR_LINE_BYTES_MAX;
/// Bytes of the master key file.
pub const MASTER_FILE_BYTES_MAX: u64 = 4 << 10;
/// Master keys kept at once: one seals, the others wait until nothing is sealed under them.
pub const MASTER_KEYS_MAX: usize = 8;
/// Credentials that a rotation of the master key seals anew in one transaction.
pub const RESEAL_BATCH_MAX: usize = 64;
/// How long a rotation that the store refused waits before it goes on.
pub const RESEAL_RETRY: Duration = Duration::from_secs(2);
/// Token keys that were rotated out and are in their grace.
pub const TOKEN_KEYS_ROTATED_MAX: usize = 8;
