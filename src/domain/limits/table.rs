//! All bounds as a table, for `legation config show` and `docs/config.md`. The descriptions are
//! the doc comments of the constants themselves.

use std::time::Duration;

use super::*;

const SOURCE: &str = concat!(
    include_str!("../limits.rs"),
    include_str!("bridge.rs"),
    include_str!("mcp.rs"),
    include_str!("packages.rs"),
    include_str!("room.rs")
);

trait Shown {
    fn shown(&self) -> String;
}

impl Shown for Duration {
    fn shown(&self) -> String {
        format!("{} ms", self.as_millis())
    }
}

macro_rules! shown {
    ($($type:ty),+) => {
        $(impl Shown for $type { fn shown(&self) -> String { self.to_string() } })+
    };
}
shown!(u16, u32, u64, usize, i64);

macro_rules! table {
    ($($name:ident),+ $(,)?) => {
        /// Every constant of this module: name, value, description.
        #[must_use]
        pub fn table() -> Vec<(&'static str, String, &'static str)> {
            vec![$((stringify!($name), $name.shown(), doc(stringify!($name))),)+]
        }
    };
}

table! {
    NAME_CHARS_MAX,
    TOOL_NAME_CHARS_MAX,
    EXPOSED_NAME_CHARS_MAX,
    LINE_BYTES_MAX,
    BODY_BYTES_MAX,
    STANDARD_CLIENT_RESPONSE_BYTES_MAX,
    HEADER_BYTES_MAX,
    CONNECTIONS_MAX,
    TLS_HANDSHAKE_MAX,
    HEADER_READ_MAX,
    LARGE_BYTES_MIN,
    LARGE_BYTES_KEY_MAX,
    LARGE_BYTES_ALL_MAX,
    BODY_READ_MAX,
    IN_FLIGHT_MAX,
    WRITER_QUEUE_MAX,
    STDERR_RING_BYTES,
    STDERR_LINE_BYTES_MAX,
    NOISE_LINE_BYTES_MAX,
    HISTORY_RUNS_MAX,
    TRANSITIONS_MAX,
    CHANGES_KEPT_MAX,
    TREE_USERS_MAX,
    FOLLOWERS_MAX,
    FOLLOW_BEAT,
    FOLLOW_STALL_MAX,
    FOLLOW_USAGE_EVERY,
    VERDICTS_SHOWN,
    ISOLATES_PER_USER_MAX,
    TOOLS_PER_MCP_MAX,
    THREAD_STACK_BYTES,
    RUNTIME_STOP_MAX,
    PROGRAM_ARGS_MAX,
    UID_BASE,
    UID_COUNT,
    UID_RANGES_TRIED,
    CONFINEMENT_PATHS_MAX,
    CONFINEMENT_PATH_BYTES_MAX,
    EGRESS_RULES_MAX,
    EGRESS_PORTS_MAX,
    EGRESS_PROXY_PORT,
    EGRESS_HOST_BYTES_MAX,
    EGRESS_CONNECTIONS_MAX,
    EGRESS_CONNECTIONS_USER_MAX,
    EGRESS_CONNECTIONS_ALL_MAX,
    EGRESS_BUFFER_BYTES,
    EGRESS_HEAD_WAIT,
    EGRESS_CONNECT_WAIT,
    EGRESS_LOOKUPS_MAX,
    EGRESS_LOOKUPS_ALL_MAX,
    EGRESS_ADDRESSES_MAX,
    EGRESS_IDLE,
    EGRESS_NAMES_MAX,
    EGRESS_DENIALS_TOLD,
    PROGRAM_ENV_MAX,
    PROGRAM_BYTES_MAX,
    DESCRIPTION_CHARS_MAX,
    ISOLATE_MEMORY_BYTES_MIN,
    ISOLATE_CPU_MILLIS_MIN,
    ADMIN_BODY_BYTES_MAX,
    ADMIN_ANSWER_BYTES_MAX,
    ADMIN_CONNECT_MAX,
    ADMIN_ANSWER_MAX,
    ADMIN_START_ANSWER_MAX,
    TOOL_PAGES_MAX,
    SESSIONS_PER_KEY_MAX,
    SESSIONS_MAX,
    FAILED_KEYS_MAX,
    FAILED_KEY_TRIES_MAX,
    FAILED_KEY_WINDOW,
    START_QUEUE_MAX,
    RESTARTS_PER_SECOND,
    CALL_DEADLINE,
    CALL_DEADLINE_MAX,
    START_DEADLINE,
    INSTALL_DEADLINE,
    IDLE_AFTER,
    KILL_WAIT,
    KILL_AGAIN,
    ISOLATES_MAX,
    START_WORK_MAX,
    START_WORK_WAIT,
    BURIALS_MAX,
    BURIAL_PATIENCE,
    STOP_STDIN,
    STOP_TERM,
    PING_EVERY,
    PING_DEADLINE,
    PINGS_MISSED_MAX,
    SESSION_TTL,
    TOKEN_GRACE,
    COALESCE_EVERY,
    AUDIT_QUEUE_MAX,
    AUDIT_ROOM_MAX,
    SHUTDOWN_MAX,
    DRAIN_MAX,
    LAST_ANSWERS,
    ISOLATE_MEMORY_BYTES,
    ISOLATE_PIDS,
    ISOLATE_CPU_MILLIS,
    USER_MEMORY_BYTES,
    USER_PIDS,
    USER_CPU_MILLIS,
    ISOLATE_OPEN_FILES,
    ISOLATE_FILE_BYTES,
    REQUEST_ID_BYTES_MAX,
    QUEUE_BYTES_MAX,
    BACKOFF_WAIT_MAX,
    START_PERMIT_HOLD,
    LAST_WORDS,
    HALF_CLOSED_MAX,
    NOISE_LINES_KEPT,
    INTENSITY_MAX,
    INTENSITY_PERIOD,
    USERS_GIVEN_UP_MAX,
    ISOLATE_STOP_MAX,
    BOOT_MAX,
    STORE_READERS_MAX,
    STORE_BUSY_MAX,
    STORE_ACQUIRE_MAX,
    STORE_POOL_MAX,
    STORE_POOL_WAIT,
    STORE_CONNECT_MAX,
    STORE_STATEMENT_MAX,
    STORE_ANSWER_MAX,
    STORE_TRY_AFTER,
    STORE_TRY_MAX,
    STORE_IDLE_MAX,
    STORE_LOCK_LOOK,
    STORE_RETRY_CAP,
    STORE_BOOT_TRIES,
    STORE_HELD_WAIT,
    STORE_MIGRATE_MAX,
    STORE_WRITE_TRIES,
    STORE_LAST_WORDS,
    ROUTES_RETRY,
    PASSWORD_BYTES_MAX,
    SEALED_BYTES_MAX,
    RESTART_FLOOR,
    RESTART_CAP,
    RESTART_QUARANTINE,
    RESTART_FAILURES_MAX,
    RESTART_WINDOW,
    CONFIG_BYTES_MAX,
    CONFIG_FILES_MAX,
    KEEP_ALIVE_IDLE_MAX,
    CROWDED_IDLE_MAX,
    BODY_DISCARD_BYTES_MAX,
    BODY_DISCARD_MAX,
    SMALL_BODY_BYTES_MAX,
    LABEL_CHARS_MAX,
    PRESENTED_KEY_BYTES_MAX,
    CALLED_NAME_BYTES_MAX,
    FORWARDED_HOPS_MAX,
    PEM_BYTES_MAX,
    TLS_RELOAD_EVERY,
    SELF_CERT_DAYS,
    SELF_CERT_RENEW_DAYS,
    ACCEPT_RETRY,
    SERVER_DETAIL_CHARS_MAX,
    TOOL_DEFINITION_BYTES_MAX,
    TOOL_LIST_BYTES_MAX,
    TOOLS_REFUSED_LOGGED_MAX,
    ENDED_STDERR_BYTES,
    ENDED_NOISE_BYTES,
    SAMPLE_EVERY,
    SAMPLE_NOW_MAX,
    KILL_ACTIVE_MAX,
    KILL_JOURNAL_BYTES_MAX,
    KILL_JOURNAL_COMPACT_BYTES,
    KILL_JOURNAL_LINE_BYTES_MAX,
    KILL_JOURNAL_RESERVE_BYTES,
    KILL_HISTORY_MAX,
    KILL_LISTED_MAX,
    KILL_SWEEP_EVERY,
    KILL_SAVE_RETRY,
    KILL_SAVE_MAX,
    KILL_SAVE_WAIT,
    KILL_SAVE_BATCH,
    KILL_LOOKUP_MAX,
    KILL_TIMES_KEPT,
    CANCEL_GRACE,
    CALLS_LISTED_MAX,
    CALLS_WAITING_MAX,
    AUDIT_QUEUE_BYTES_MAX,
    AUDIT_SEGMENT_BYTES_MAX,
    AUDIT_SEGMENT_AGE,
    AUDIT_RETENTION,
    AUDIT_CHECKPOINT_EVERY,
    AUDIT_CHECKPOINT_RECORDS,
    AUDIT_ARGUMENTS_BYTES_MAX,
    AUDIT_DIGEST_BYTES,
    AUDIT_LINE_BYTES_MAX,
    AUDIT_RECOVER_BYTES_MAX,
    AUDIT_UNFINISHED_NAMED_MAX,
    AUDIT_REFUSALS_MAX,
    AUDIT_REFUSALS_WINDOW,
    AUDIT_SESSIONS_NAMED_MAX,
    AUDIT_INDEX_BATCH,
    AUDIT_INDEX_WAIT,
    AUDIT_PAGE_MAX,
    AUDIT_OPEN_CALLS_MAX,
    AUDIT_STREAM_BYTES,
    AUDIT_STREAM_CHUNKS,
    AUDIT_STREAMS_MAX,
    METRIC_MCPS_MAX,
    ISOLATE_SERIES_MAX,
    ISOLATES_TOP,
    ISOLATES_TOP_STAY,
    METRIC_CERTIFICATES_MAX,
    METRICS_UPKEEP,
    SCHEDULER_PROBE,
    OPS_CONNECTIONS_MAX,
    OPS_HEADER_READ_MAX,
    OPS_IDLE_MAX,
    SCRAPE_WAIT_MAX,
    ROOT_BEAT,
    ROOT_SILENCE_MAX,
    TOKEN_FILE_BYTES_MAX,
    TOKEN_CHARS_MIN,
    TOKEN_RELOAD_EVERY,
    CREDENTIAL_NAME_CHARS_MAX,
    VARIABLE_CHARS_MAX,
    CREDENTIALS_PER_MCP_MAX,
    CREDENTIAL_BYTES_MAX,
    REDACT_BYTES_MIN,
    REDACT_LINE_BYTES_MIN,
    REDACT_TEXT_BYTES_MAX,
    MASTER_FILE_BYTES_MAX,
    MASTER_KEYS_MAX,
    RESEAL_BATCH_MAX,
    RESEAL_RETRY,
    TOKEN_KEYS_ROTATED_MAX,
    BRIDGE_REQUESTS_MAX,
    BRIDGE_NOTICES_MAX,
    BRIDGE_LINES_MAX,
    BRIDGE_LINE_BYTES_MAX,
    BRIDGE_ANSWER_BYTES_MAX,
    BRIDGE_REFUSAL_BYTES_MAX,
    BRIDGE_CONNECT_MAX,
    BRIDGE_BEGIN_WAIT,
    BRIDGE_ANSWER_WAIT,
    BRIDGE_SILENCE_MAX,
    BRIDGE_AWAY_WAIT,
    BRIDGE_RETRY_FLOOR,
    BRIDGE_RETRY_CAP,
    BRIDGE_GRACE,
    BRIDGE_LEAVE_MAX,
    BRIDGE_CANCEL_WAIT,
    BRIDGE_CACHE_BYTES_MAX,
    BRIDGE_LOG_BYTES_MAX,
    BRIDGE_LOG_FILES_MAX,
    BRIDGE_ROOTS_BYTES_MAX,
    BRIDGE_FILE_BYTES_MAX,
    CONNECT_FILE_BYTES_MAX,
    MCP_DISCOVERED_MS,
    MCP_TOOLS_KEPT_MS,
    MCP_LISTENS_MAX,
    SESSION_STALE,
    BEARERS_MAX,
    ABILITIES_WAIT,
    MCP_CALLS_MAX,
    MCP_NEWS_MAX,
    MCP_KEEP_ALIVE,
    LIST_SETTLE,
    MCP_UNREAD_MAX,
    MCP_BEGIN_BYTES_MAX,
    META_MEMBERS_MAX,
    RPC_ID_BYTES_MAX,
    RPC_METHOD_BYTES_MAX,
    QUESTIONS_OPEN_MAX,
    QUESTION_BYTES_MAX,
    ROOTS_BYTES_MAX,
    ROOTS_WAIT,
    MCP_LATE_ANSWER,
    TURN_GRACE,
    ASKERS_MAX,
    LOG_LEVEL_WAIT,
    MCP_QUESTIONS_MAX,
    QUESTIONS_GATHER,
    MCP_HELD_KEY_MAX,
    MCP_HELD_MAX,
    MCP_ROUNDS_MAX,
    INSTALLS_MAX,
    INSTALL_RETRY,
    INSTALL_RETRY_MAX,
    INSTALL_MEMORY_BYTES,
    PACKAGE_BYTES_MAX,
    PACKAGE_ENTRIES_MAX,
    PACKAGE_DEPTH_MAX,
    PACKAGE_LOCK_BYTES_MAX,
    PACKAGE_SPECS_MAX,
    PACKAGE_SPEC_BYTES_MAX,
    BUDGET_PERCENT,
    BUDGET_USABLE_PERCENT,
    HOST_FREE_PERCENT,
    HOST_FREE_BYTES_MIN,
    PRESSURE_FREE_PERCENT,
    PRESSURE_MEMORY_FULL_PERCENT,
    PRESSURE_MEMORY_SOME_PERCENT,
    DISK_FREE_PERCENT,
    DISK_FREE_BYTES_MAX,
    DISK_GROWTH_BYTES_MIN,
    HOME_ENTRIES_MAX,
    HOST_FULL_RETRY,
    ROOM_IDLE,
    ROOM_RETRY,
}

/// The doc comment above a constant.
fn doc(name: &str) -> &'static str {
    let mut above = "";
    for line in SOURCE.lines() {
        let declared = line
            .strip_prefix("pub const ")
            .and_then(|rest| rest.split_once(':'));
        if declared.is_some_and(|(declared, _)| declared == name) {
            return above.strip_prefix("/// ").unwrap_or_default();
        }
        above = line;
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_in_the_table_and_described_in_one_line() {
        let declared: Vec<&str> = SOURCE
            .lines()
            .filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'))
            .map(|(name, _)| name)
            .filter(|name| !name.starts_with("fn "))
            .collect();
        let table = table();
        let listed: Vec<&str> = table.iter().map(|(name, ..)| *name).collect();
        assert_eq!(
            listed, declared,
            "src/domain/limits/table.rs lists them in order"
        );
        for (name, value, doc) in table {
            assert!(!value.is_empty() && doc.ends_with('.'), "{name}: {doc}");
        }
    }
}
