//! The table: every family there is. A new metric begins here; `docs/metrics.md` and the tests
//! that scrape a running server read it.

use sandbox::facility::Facility;

use super::family::{Family, Kind, Label, Shown, Values};
use super::http::ROUTES;
use super::labels::{
    ActorEnd, ActorKind, ArgumentCheck, Auth, AuthMethod, CATEGORY, Class, Connection, Controller,
    DENY_KIND, Direction, GaveUp, InstallResult, Listener, MemoryEvent, Outcome, Phase, Resource,
    RpcMethod, RpcOutcome, SCOPE, SessionEnd, SessionKind, SlotWord, StartCause,
};
use crate::domain::limits::{ISOLATE_SERIES_MAX, METRIC_CERTIFICATES_MAX};
use crate::domain::verdict::Verdict;

const MCP: Label = Label {
    name: "mcp",
    values: Values::Mcp,
};
const ROUTE: Label = Label {
    name: "route",
    values: Values::Of(ROUTES),
};
const EXIT: Label = Label {
    name: "reason",
    values: Values::Of(&Verdict::KINDS),
};
const DROPPED: Label = Label {
    name: "family",
    values: Values::Of(&["mcp", "isolate"]),
};
const WAITED: Label = Label {
    name: "kind",
    values: Values::Of(&["some", "full"]),
};
const DENY_ACTION: Label = Label {
    name: "action",
    values: Values::Of(&["on", "off", "expired"]),
};
const DB_OP: Label = Label {
    name: "op",
    values: Values::Of(&["read", "write", "tx"]),
};
/// What the kernel does for isolates, by the names in `sandbox.allow_degraded`.
pub const FACILITIES: [&str; Facility::ALL.len()] = {
    let mut names = [""; Facility::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = Facility::ALL[at].name();
        at += 1;
    }
    names
};
const FACILITY: Label = Label {
    name: "facility",
    values: Values::Of(&FACILITIES),
};
const ISOLATE: Label = Label {
    name: "isolate",
    values: Values::Few(ISOLATE_SERIES_MAX, "the isolate's id, which is random"),
};

const fn few(name: &'static str, most: usize, what: &'static str) -> Label {
    Label {
        name,
        values: Values::Few(most, what),
    }
}

/// From a cached answer to the deadline.
const CALL: Kind = Kind::Histogram(&[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0,
]);
/// A token needs microseconds, a key the store and the audit log.
const AUTH: Kind = Kind::Histogram(&[
    0.000_005, 0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0,
]);
/// Mostly nothing, or a start.
const QUEUE: Kind = Kind::Histogram(&[
    0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
]);
const INSTALL: Kind = Kind::Histogram(&[
    0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
]);
const START: Kind = Kind::Histogram(&[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
]);
const PHASE: Kind = Kind::Histogram(&[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
]);
/// A handler awaits nothing: over 5 ms is slow.
const HANDLER: Kind =
    Kind::Histogram(&[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]);
const LAG: Kind = Kind::Histogram(&[0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0]);
const HTTP: Kind = Kind::Histogram(&[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0,
]);
/// A kill is to be over within 100 ms; what is not dead after `kill_wait` is counted elsewhere.
const PROPAGATION: Kind = Kind::Histogram(&[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
]);
/// Those of the audit log's own cells.
const AUDIT_SYNCS: Kind = Kind::Histogram(&[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5,
]);
/// Those of the store's own cells.
const QUERIES: Kind = Kind::Histogram(&[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
]);
const SWEEP: Kind = Kind::Histogram(&[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0]);

use Kind::{Counter, Gauge};
use Shown::{Exporter, Isolates, Page};

macro_rules! families {
    ($($const:ident $name:literal $kind:ident $shown:ident [$($label:expr),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub static $const: Family = Family {
                name: concat!("legation_", $name),
                kind: $kind,
                help: $help,
                labels: &[$($label),*],
                shown: $shown,
            };
        )+

        /// Every family, in the order of the reference.
        pub static ALL: &[&Family] = &[$(&$const),+];
    };
}

families! {
    BUILD_INFO "build_info" Gauge Exporter
        [few("version", 1, "the version of the gateway"), few("revision", 1, "the commit it was built from"), few("rustc", 1, "the compiler it was built with")]
        "Always 1; what runs is in the labels.";
    READY "ready" Gauge Exporter []
        "1 while /readyz says 200.";
    GATE "gate_open" Gauge Exporter
        [Label { name: "gate", values: Values::Of(&["spawn", "store", "audit", "kill", "vault", "catalog", "listeners"]) }]
        "1 while what calls depend on is up.";
    STARTED "start_time_seconds" Gauge Exporter []
        "When the gateway started, in Unix time.";
    CONFIG_OK "config_last_reload_successful" Gauge Exporter []
        "Always 1: the configuration is read at the start, and a wrong one does not start.";
    CONFIG_AT "config_last_reload_success_timestamp_seconds" Gauge Exporter []
        "When the configuration in force was read, in Unix time.";
    LIMITS_ENFORCED "limits_enforced" Gauge Exporter [Controller::LABEL]
        "1 if the kernel enforces this limit for isolates on this host.";
    FACILITY_MISSING "facility_missing" Gauge Exporter [FACILITY]
        "1 if this host does not do this for isolates, which start without it.";

    ACTORS "actors" Gauge Exporter [ActorKind::LABEL]
        "Actors that live now.";
    ACTOR_EXITS "actor_exits_total" Counter Exporter [ActorKind::LABEL, ActorEnd::LABEL]
        "Actors that ended. An error or a panic is a bug of ours, whatever servers did.";
    GIVEN_UP "supervisor_intensity_exceeded_total" Counter Exporter [ActorKind::LABEL]
        "Actors that failed too often in a minute, so that their supervisor gave up on them.";
    ACTOR_HANDLER "actor_handler_seconds" HANDLER Exporter [ActorKind::LABEL]
        "Time in the handlers of messages. They await nothing, so over 5 ms is slow.";

    ISOLATES "isolates" Gauge Exporter [MCP, SlotWord::LABEL]
        "Isolates and shared instances by state.";
    ISOLATES_LIMIT "isolates_per_user_limit" Gauge Exporter []
        "Isolates one user may have at once.";
    STARTS_WAITING "isolate_starts_waiting" Gauge Exporter []
        "Starts that wait for a permit.";
    ISOLATE_STARTS "isolate_starts_total" Counter Exporter [MCP, StartCause::LABEL]
        "Runs begun.";
    ISOLATE_EXITS "isolate_exits_total" Counter Exporter [MCP, EXIT]
        "Runs ended, by the kind of their verdict.";
    DEGRADED_STARTS "isolate_starts_degraded_total" Counter Exporter [FACILITY]
        "Starts of isolates without what this host lacks, as sandbox.allow_degraded lets them.";
    ISOLATE_RESTARTS "isolate_restarts_total" Counter Exporter [MCP]
        "Runs begun because the one before failed.";
    ISOLATE_QUARANTINES "isolate_quarantines_total" Counter Exporter [MCP, GaveUp::LABEL]
        "Slots that failed too often, failed the one try after a quarantine, or cannot heal by themselves.";
    ISOLATE_BACKOFF "isolate_backoff_max_seconds" Gauge Exporter [MCP]
        "The longest wait until a next start that is left now.";
    ISOLATE_READY "isolate_ready_duration_seconds" START Exporter [MCP]
        "From the decision to start to ready.";
    ISOLATE_PHASE "isolate_spawn_phase_seconds" PHASE Exporter [Phase::LABEL]
        "Steps of starts that became ready.";
    INSTALLS "package_installs_total" Counter Exporter [InstallResult::LABEL]
        "Installs of packages, by how they ended.";
    INSTALL_DURATION "package_install_duration_seconds" INSTALL Exporter []
        "How long installs took, however they ended.";
    STDOUT_NOISE "stdout_noise_lines_total" Counter Exporter [MCP]
        "Lines on stdout that were no JSON-RPC, counted when a run ends.";
    ORPHANS_REAPED "orphans_reaped_total" Counter Exporter []
        "Cgroups of an earlier life of the gateway that were cleared away.";
    UNOWNED "unowned_processes" Gauge Exporter []
        "Processes under the gateway's cgroups that no slot owns; 0 when all is well.";
    SURVIVORS "stuck_processes" Gauge Exporter []
        "Processes that outlived a kill; their slots are shut.";

    CGROUP_CPU "cgroup_cpu_seconds_total" Counter Page [MCP]
        "CPU time of isolates, those that ended included.";
    CGROUP_CPU_THROTTLED "cgroup_cpu_throttled_seconds_total" Counter Page [MCP]
        "Time isolates were held back at their CPU limit.";
    CGROUP_PERIODS "cgroup_cpu_periods_total" Counter Exporter [MCP]
        "Periods of the CPU limit in which isolates wanted to run.";
    CGROUP_THROTTLED_PERIODS "cgroup_cpu_throttled_periods_total" Counter Exporter [MCP]
        "Periods in which they were held back.";
    CGROUP_MEMORY "cgroup_memory_working_set_bytes" Gauge Exporter [MCP]
        "Memory of running isolates without the page cache that could be given back at once.";
    CGROUP_MEMORY_LIMIT "cgroup_memory_limit_bytes" Gauge Exporter [MCP]
        "The memory limits of running isolates, added up.";
    CGROUP_PROCESSES "cgroup_processes" Gauge Exporter [MCP]
        "Processes and threads of running isolates.";
    CGROUP_MEMORY_EVENTS "cgroup_memory_events_total" Counter Exporter [MCP, MemoryEvent::LABEL]
        "Events at the memory limit. On cgroup v1, high and oom are not told by the kernel.";
    CGROUP_PIDS_REFUSED "cgroup_pids_limit_hits_total" Counter Exporter [MCP]
        "Forks refused at the process limit.";
    CGROUP_WAITING "cgroup_pressure_waiting_seconds_total" Counter Page [MCP, Resource::LABEL]
        "Time in which some task of an isolate waited (PSI some); cgroup v2 or hybrid.";
    CGROUP_STALLED "cgroup_pressure_stalled_seconds_total" Counter Page [MCP, Resource::LABEL]
        "Time in which all tasks of an isolate waited (PSI full); cgroup v2 or hybrid.";
    SWEEP_DURATION "isolate_sweep_seconds" SWEEP Exporter []
        "Reading the counters of all running isolates once.";

    CALLS "calls_total" Counter Exporter [MCP, Outcome::LABEL]
        "Tool calls that ended. Denied, cancelled and rate_limited ones are the caller's, and spend no error budget.";
    CALL_DURATION "call_duration_seconds" CALL Page [MCP]
        "From admission to the answer, however it ended.";
    CALL_QUEUE "call_queue_seconds" QUEUE Page [MCP]
        "From admission to the run: records, waiting for a start.";
    CALL_SERVER "call_server_seconds" CALL Page [MCP]
        "From the run's queue to its answer.";
    CALLS_IN_FLIGHT "calls_in_flight" Gauge Exporter [MCP]
        "Calls admitted and not answered.";
    CALL_BYTES "call_bytes_total" Counter Exporter [MCP, Direction::LABEL]
        "Bytes of arguments and of results.";

    CALL_ARGUMENTS "call_arguments_total" Counter Exporter [MCP, ArgumentCheck::LABEL]
        "Calls whose arguments were held against the schema of their tool, by what became of it.";

    CALLS_OVER_RATE "calls_over_rate_total" Counter Exporter []
        "Calls refused because their key made more than calls.per_key_minute_max.";

    AUTH_ATTEMPTS "auth_attempts_total" Counter Exporter [AuthMethod::LABEL, Auth::LABEL]
        "Decisions who somebody is.";
    AUTH_DURATION "auth_duration_seconds" AUTH Page [AuthMethod::LABEL]
        "How long such a decision took; for a key with the store and the record of it.";
    RPC_REQUESTS "rpc_requests_total" Counter Exporter [RpcMethod::LABEL, RpcOutcome::LABEL]
        "Messages of MCP clients that were answered, by method.";
    SESSIONS "sessions" Gauge Exporter [SessionKind::LABEL]
        "Live sessions.";
    SESSION_ENDS "session_ends_total" Counter Exporter [SessionEnd::LABEL]
        "Sessions that ended.";
    KILL_SWITCHES "kill_switches_active" Gauge Exporter [DENY_KIND, SCOPE]
        "Kill switches and suspensions in force.";
    KILL_DENIED "kill_switch_denied_total" Counter Exporter [SCOPE]
        "Calls refused because a kill switch or suspension was in force.";
    KILL_CHANGES "kill_switch_changes_total" Counter Exporter [SCOPE, DENY_ACTION]
        "Kill switches and suspensions that were switched on, lifted, or expired.";
    KILL_CANCELLED "kill_switch_cancelled_calls_total" Counter Exporter [SCOPE]
        "Calls under way that one cut off.";
    KILL_PROPAGATION "kill_switch_propagation_seconds" PROPAGATION Exporter []
        "From the request to switch on to the end of the last process, or of the wait for it.";
    KILL_UNKILLABLE "kill_switch_unkillable_total" Counter Exporter []
        "Process trees that were still there when the wait was over.";
    KILL_UNSAVED "kill_switches_unsaved" Gauge Exporter []
        "Changes that are in force and in the journal, and not in the database yet.";
    KILL_JOURNAL_FAILING "kill_switch_journal_failing" Gauge Exporter []
        "1 if the journal could not be written when it was last tried: nothing can be switched.";

    AUDIT_EVENTS "audit_events_total" Counter Exporter [CATEGORY]
        "Audit records taken.";
    AUDIT_DROPPED "audit_dropped_total" Counter Exporter [CATEGORY]
        "Audit records lost to a full queue; what they record was refused where it could be.";
    AUDIT_WRITE_ERRORS "audit_write_errors_total" Counter Exporter []
        "Tries to write the audit log that failed; they are repeated.";
    AUDIT_FAILING "audit_failing" Gauge Exporter []
        "1 while the audit log cannot be written and calls are refused.";
    AUDIT_QUEUE "audit_queue_events" Gauge Exporter []
        "Audit records that wait for the disk.";
    AUDIT_LAG "audit_lag_seconds" Gauge Exporter []
        "Age of the oldest of them.";
    AUDIT_SYNC "audit_sync_seconds" AUDIT_SYNCS Page []
        "How long the disk took to make records durable.";
    AUDIT_WRITTEN "audit_written_total" Counter Exporter []
        "The number of the last audit record that is written; it goes on over restarts.";
    AUDIT_INDEX_LAG "audit_index_lag_events" Gauge Exporter []
        "Audit records that searches do not find by the index yet.";
    AUDIT_CHAIN_OK "audit_chain_ok" Gauge Exporter []
        "What legation audit verify found last: 1 whole, 0 broken, NaN if it was not asked since the start.";
    AUDIT_CHECKPOINT "audit_checkpoint_timestamp_seconds" Gauge Exporter []
        "When the newest signed checkpoint was made, in Unix time; NaN before the first since the start.";
    AUDIT_BYTES "audit_bytes" Gauge Exporter []
        "Bytes of all segments of the audit log.";
    AUDIT_SEGMENTS "audit_segments" Gauge Exporter []
        "Segments of the audit log.";
    AUDIT_REMOVED "audit_segments_removed_total" Counter Exporter []
        "Segments that retention removed.";

    VAULT_CREDENTIALS "vault_credentials" Gauge Exporter []
        "Credentials that are set.";
    VAULT_ROTATIONS "vault_key_rotations_total" Counter Exporter []
        "Master keys made since the start.";
    VAULT_RESEALED "vault_resealed_total" Counter Exporter []
        "Values sealed anew with a newer master key.";
    VAULT_REMAINING "vault_reseal_remaining" Gauge Exporter []
        "Values that are still sealed with an older one.";
    VAULT_DAMAGED "vault_damaged_credentials" Gauge Exporter []
        "Of these, those that do not open; their isolates do not start until they are set again.";

    ROOM_ISOLATES "isolates_limit" Gauge Exporter []
        "Isolates that may run at once on this host.";
    ROOM_USED "isolates_memory_bytes" Gauge Exporter []
        "Memory of all isolates together.";
    ROOM_BUDGET "isolates_memory_budget_bytes" Gauge Exporter []
        "What they may have together; from nine tenths of it none is started.";
    ROOM_FREE "host_memory_available_bytes" Gauge Exporter []
        "Memory the host has left; NaN if it does not say.";
    ROOM_DISK_FREE "homes_disk_free_bytes" Gauge Exporter []
        "What the disk of the homes has left; no isolate is started below homes_disk_free_min_bytes.";
    ROOM_DISK_MIN "homes_disk_free_min_bytes" Gauge Exporter []
        "What the disk of the homes must have left; below it no isolate is started.";
    ROOM_DISK_ENDED "isolates_ended_for_disk_total" Counter Exporter []
        "Isolates that were ended because they filled the disk of the homes.";
    HOST_PRESSURE "host_pressure_ratio" Gauge Exporter [Resource::LABEL, WAITED]
        "Share of the last ten seconds in which something (some) or everything with work (full) on the host waited; NaN if the kernel does not say.";
    HOST_PRESSED "isolate_starts_held" Gauge Exporter []
        "1 while no isolate is started because of the host's pressure.";
    ROOM_REFUSED "isolate_starts_refused_total" Counter Exporter []
        "Starts that were not made because the host had no room, and could not make any.";

    STORE_UP "store_up" Gauge Exporter []
        "1 while the database answers.";
    DB_QUERY "db_query_duration_seconds" QUERIES Page [DB_OP]
        "Operations of the database: reads, single writes, and transactions with their wait for a connection.";
    DB_ERRORS "db_query_errors_total" Counter Exporter [DB_OP]
        "Operations that failed; a broken constraint counts too.";
    DB_RETRIES "db_query_retries_total" Counter Exporter [DB_OP]
        "Tries that were not the first: the connection was gone, or somebody else was faster.";
    DB_CONNECTIONS "db_connections" Gauge Exporter [Connection::LABEL]
        "Open connections to the database.";
    DB_CONNECTIONS_MAX "db_connections_max" Gauge Exporter []
        "Connections there may be.";
    DB_SIZE "db_size_bytes" Gauge Exporter []
        "Bytes of the embedded database with its log; 0 with PostgreSQL, which tells its own.";

    HTTP_REQUESTS "http_requests_total" Counter Exporter [Listener::LABEL, ROUTE, Class::LABEL]
        "Requests answered.";
    HTTP_REQUEST_DURATION "http_request_duration_seconds" HTTP Page [Listener::LABEL, ROUTE]
        "From a request's headers to its answer.";
    HTTP_CONNECTIONS "http_connections" Gauge Exporter [Listener::LABEL]
        "Open connections.";
    TLS_EXPIRY "tls_certificate_expiry_timestamp_seconds" Gauge Exporter
        [Label { name: "listener", values: Values::Few(METRIC_CERTIFICATES_MAX, "client and ops, where they have a certificate") }]
        "When the certificate in use ends, in Unix time.";

    TOKIO_WORKERS "tokio_workers" Gauge Exporter []
        "Worker threads of the runtime.";
    TOKIO_TASKS "tokio_tasks" Gauge Exporter []
        "Tasks that live.";
    TOKIO_QUEUE "tokio_global_queue_depth" Gauge Exporter []
        "Tasks that wait in the queue all workers share.";
    TOKIO_BUSY "tokio_busy_seconds_total" Counter Page []
        "Time the workers were busy, added up.";
    SCHEDULER_LAG "scheduler_lag_seconds" LAG Exporter []
        "How late a timer of 100 ms came: what a call waits for a worker.";

    PROCESS_CPU "process_cpu_seconds_total" Counter Page []
        "CPU time of the gateway's own process.";
    PROCESS_RESIDENT "process_resident_memory_bytes" Gauge Exporter []
        "Resident memory of the gateway's own process.";
    PROCESS_VIRTUAL "process_virtual_memory_bytes" Gauge Exporter []
        "Address space of the gateway's own process.";
    PROCESS_THREADS "process_threads" Gauge Exporter []
        "Threads of the gateway's own process.";
    PROCESS_FDS "process_open_fds" Gauge Exporter []
        "Open files of the gateway's own process.";
    PROCESS_FDS_MAX "process_max_fds" Gauge Exporter []
        "Files it may have open.";

    SERIES_DROPPED "metrics_series_dropped_total" Counter Exporter [DROPPED]
        "Names beyond the bound: mcps that are counted as other, isolates left off their page.";
    RENDER_DURATION "metrics_render_duration_seconds" Gauge Exporter []
        "How long writing the page before this one took.";
    SERIES "metrics_series" Gauge Page []
        "Series on this page, this one included.";

    I_INFO "isolate_info" Gauge Isolates
        [ISOLATE, MCP, few("user_ref", ISOLATE_SERIES_MAX, "a keyed hash of the user's id; empty for shared instances"), few("generation", ISOLATE_SERIES_MAX, "the number of the run")]
        "Always 1; joins an isolate's series with what it is.";
    I_READY "isolate_ready" Gauge Isolates [ISOLATE]
        "1 while it serves.";
    I_MEMORY "isolate_memory_working_set_bytes" Gauge Isolates [ISOLATE]
        "Memory without the page cache that could be given back at once.";
    I_MEMORY_LIMIT "isolate_memory_limit_bytes" Gauge Isolates [ISOLATE]
        "Its memory limit.";
    I_PROCESSES "isolate_processes" Gauge Isolates [ISOLATE]
        "Its processes and threads.";
    I_CPU "isolate_cpu_seconds_total" Counter Isolates [ISOLATE]
        "CPU time of this run.";
    I_RUNS "isolate_runs_restarted_total" Counter Isolates [ISOLATE]
        "Restarts after failures.";
    I_OOM "isolate_oom_kills_total" Counter Isolates [ISOLATE]
        "Processes of this run the kernel killed for memory.";
    I_START "isolate_start_time_seconds" Gauge Isolates [ISOLATE]
        "When this run began, in Unix time.";
    I_CALLS "isolate_calls_total" Counter Isolates [ISOLATE]
        "Calls carried by all its runs.";
    I_SERIES "metrics_isolates_series" Gauge Isolates []
        "Series on this page, this one included.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_and_bounds_rise() {
        let mut seen = HashSet::new();
        for family in ALL {
            assert!(seen.insert(family.name), "{} is there twice", family.name);
            let name = family.name;
            let counter = family.kind == Counter;
            assert_eq!(counter, name.ends_with("_total"), "{name}");
            assert!(family.help.ends_with('.'), "{name}: {}", family.help);
            assert!(!family.help.contains(['\n', '\\']), "{name}");
            if let Kind::Histogram(bounds) = family.kind {
                assert!(!bounds.is_empty() && bounds.is_sorted(), "{name}");
                assert!(name.ends_with("_seconds"), "{name}");
            }
            let labels: HashSet<_> = family.labels.iter().map(|label| label.name).collect();
            assert_eq!(labels.len(), family.labels.len(), "{name}");
        }
    }
}
