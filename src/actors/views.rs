//! What the control plane shows: plain values that the admin API serves as they are and the
//! command line reads back. They decide nothing and hold no secret.
//!
//! Times are relative (`…_ms_ago`, `…_in_ms`), so a reader needs no clock of its own. Most views
//! have a `Default`, so a new field does not break who builds them.

mod denies;
mod users;
mod vault;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::launcher::{EgressCount, Enforcement};
use super::room::RoomView;

pub use denies::{CallList, CallView, CancelReport, DenyReport, DenyView, Hit, Left};
pub use users::{HomeView, UserRemoved};
pub use vault::VaultView;

use crate::domain::mcp::{Sharing, Tool};

/// A named part of something that took time, in the order it happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// What was done: `spawn`, `initialize`, `list_tools`.
    pub name: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// A change of state of one node of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// How long ago, in milliseconds.
    pub ms_ago: u64,
    /// The state it entered.
    pub to: String,
    /// Why.
    pub cause: String,
}

/// One node of the supervision tree with all below it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TreeNode {
    /// What it is called everywhere: `root`, `service/audit`, `user/usr_…`, `isolate/iso_…`,
    /// `run/iso_…/3`, `session/ses_…`.
    pub id: String,
    /// Its name among its siblings.
    pub name: String,
    /// What kind of actor it is: `root`, `service`, `user`, `isolate`, `run`, `session`.
    pub kind: String,
    /// Its state in one word.
    pub state: String,
    /// How long it has been in that state, in milliseconds.
    pub since_ms_ago: u64,
    /// How often its supervisor restarted it.
    pub restarts: u32,
    /// The process, where there is one.
    pub pid: Option<i32>,
    /// Milliseconds until the next try, while it backs off.
    pub backoff_ms: Option<u64>,
    /// How its last run ended.
    pub last_verdict: Option<String>,
    /// Anything else worth a word: what it serves, how full it is.
    pub note: String,
    /// Its last transitions, newest first.
    pub transitions: Vec<Transition>,
    /// An isolate's own figures: what `ps` shows.
    pub isolate: Option<Box<IsolateView>>,
    /// What it supervises, in start order.
    pub children: Vec<TreeNode>,
}

impl TreeNode {
    /// Shows this node and all below it, from the top.
    pub fn walk<'a>(&'a self, see: &mut impl FnMut(&'a Self)) {
        see(self);
        for child in &self.children {
            child.walk(see);
        }
    }

    /// The node of this id.
    #[must_use]
    pub fn find_mut(&mut self, id: &str) -> Option<&mut Self> {
        if self.id == id {
            return Some(self);
        }
        self.children
            .iter_mut()
            .find_map(|child| child.find_mut(id))
    }
}

/// What the host enforces for isolates, as [`Enforcement`], readable back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnforcementView {
    /// How processes are confined, in one line.
    pub summary: String,
    /// Facilities in force.
    pub enforced: Vec<String>,
    /// Facilities that are missing, each with why and how to get it.
    pub missing: Vec<String>,
}

impl From<Enforcement> for EnforcementView {
    fn from(from: Enforcement) -> Self {
        Self {
            summary: from.summary,
            enforced: from.enforced,
            missing: from.missing,
        }
    }
}

/// How the audit log does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditView {
    /// `durable` or `buffered`.
    pub durability: String,
    /// Records waiting for the disk.
    pub queued: u64,
    /// Whether the last write failed.
    pub failing: bool,
    /// What the disk said then.
    #[serde(default)]
    pub why: Option<String>,
    /// Records lost to a full queue in this life.
    #[serde(default)]
    pub lost: u64,
    /// The last record.
    #[serde(default)]
    pub seq: u64,
    /// Records that are not in the index yet.
    #[serde(default)]
    pub index_lag: u64,
    /// What the last check in this life found; none before the first.
    #[serde(default)]
    pub chain_ok: Option<bool>,
}

/// The database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreView {
    /// `sqlite` or `postgresql`.
    pub kind: String,
    /// Its file, or its server and name.
    pub place: String,
    /// Why it does not answer, while it does not.
    pub away: Option<String>,
    /// Connections open.
    pub connections: u32,
    /// How many of them do nothing.
    pub connections_idle: u32,
    /// How many there may be.
    pub connections_max: u32,
}

/// The server on one screen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The server's version.
    pub version: String,
    /// The server's pid.
    pub pid: u32,
    /// When it started, milliseconds since the epoch.
    pub started_at: i64,
    /// For how long it has run, in milliseconds.
    pub up_ms: u64,
    /// Whether it takes calls.
    pub ready: bool,
    /// What it waits for while it is not ready.
    pub not_ready: Vec<String>,
    /// What confines the isolates.
    pub enforcement: EnforcementView,
    /// Isolates and instances by state.
    pub isolates: BTreeMap<String, u64>,
    /// Those of them whose server runs elsewhere, without cgroup and walls of this host.
    pub elsewhere: u64,
    /// Room for isolates.
    pub room: RoomView,
    /// Registered sessions.
    pub sessions: u64,
    /// Users with at least one isolate.
    pub users_active: u64,
    /// Calls since the start.
    pub calls_total: u64,
    /// Calls since the start that did not end in a result.
    pub calls_failed_total: u64,
    /// The database.
    pub store: StoreView,
    /// The audit log.
    pub audit: AuditView,
    /// Users and keys suspended now.
    pub suspensions: u64,
    /// Kill switches that are on.
    pub kill_switches: u64,
    /// The first of both, in words.
    pub denies: Vec<String>,
    /// Changes of both that the store does not have yet.
    pub denies_not_stored: u64,
    /// The journal of kill switches could not be written when it was tried last.
    pub kill_journal_failing: bool,
    /// What clients connect to.
    pub client_url: String,
    /// Where health and metrics are; empty if that is switched off.
    pub ops_url: String,
    /// Processes under our cgroups that no slot owns; 0 when all is well.
    pub unowned_processes: u64,
}

impl Status {
    /// Why this server is not wholly healthy; empty when it is. A quarantined isolate is its
    /// own trouble, not the server's, and is not among them.
    #[must_use]
    pub fn degraded(&self) -> Vec<String> {
        let mut why: Vec<String> = Vec::new();
        if !self.ready {
            why.push(match self.not_ready.as_slice() {
                [] => "not ready".to_owned(),
                waits => format!("not ready: {}", waits.join(", ")),
            });
        }
        if let Some(cause) = &self.store.away {
            why.push(format!("the store is away: {cause}"));
        }
        if self.audit.failing {
            why.push(match &self.audit.why {
                Some(disk) => format!("the audit log cannot be written: {disk}"),
                None => "the audit log cannot be written".to_owned(),
            });
        }
        if self.audit.chain_ok == Some(false) {
            why.push("the audit log is not whole: legation audit verify".to_owned());
        }
        if self.kill_journal_failing {
            why.push("the journal of kill switches cannot be written".to_owned());
        }
        if self.denies_not_stored > 0 {
            let changes = self.denies_not_stored;
            why.push(format!(
                "{changes} changes of kill switches are in the journal and not in the store yet"
            ));
        }
        if let Some(lack) = &self.room.lacks {
            why.push(format!("servers are not started: {lack}"));
        }
        if self.room.pressure.unknown {
            why.push("the host's pressure is not known: legation doctor".to_owned());
        }
        if self.unowned_processes > 0 {
            why.push(format!("{} unowned processes", self.unowned_processes));
        }
        if let Some(stuck) = self.isolates.get("stuck").filter(|count| **count > 0) {
            why.push(format!(
                "{stuck} isolates are stuck: their processes do not die"
            ));
        }
        let missing = self.enforcement.missing.iter();
        why.extend(missing.map(|facility| format!("not enforced: {facility}")));
        why
    }
}

/// One isolate or shared instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IsolateView {
    /// Its id.
    pub id: String,
    /// The name of its mcp.
    pub mcp: String,
    /// The name of its user; `None` for a shared instance.
    pub user: Option<String>,
    /// Who shares it.
    pub sharing: Sharing,
    /// What makes it this one: principal, mcp, config hash.
    pub key: String,
    /// Its state in one word.
    pub state: String,
    /// Where its server is, if that runs elsewhere: then it has no pid, no cgroup and no walls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its init, while it runs.
    pub pid: Option<i32>,
    /// How long it has been in that state, in milliseconds.
    pub since_ms_ago: u64,
    /// Calls it is answering now.
    pub in_flight: u64,
    /// Calls it was given.
    pub calls_total: u64,
    /// How often it was started again after a failure.
    pub restarts: u32,
    /// Bytes of memory now.
    pub memory_bytes: Option<u64>,
    /// Bytes of memory it may have.
    pub memory_limit_bytes: u64,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// CPU time of this run, microseconds.
    pub cpu_micros: Option<u64>,
    /// Thousandths of a core it used between the last two readings.
    pub cpu_millis: Option<u32>,
    /// Milliseconds until the next try, while it backs off.
    pub backoff_ms: Option<u64>,
    /// How its last run ended.
    pub last_verdict: Option<String>,
    /// How its last runs ended, newest first.
    pub verdicts: Vec<PastVerdict>,
    /// Facilities it runs without.
    pub degraded: Vec<String>,
}

/// How one run of an isolate ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PastVerdict {
    /// Which run.
    pub epoch: u64,
    /// When it ended, milliseconds ago.
    pub ms_ago: u64,
    /// The verdict in one word.
    pub kind: String,
    /// The whole verdict.
    pub text: String,
}

/// One run of an isolate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunView {
    /// Counts the runs of one slot.
    pub epoch: u64,
    /// Its init.
    pub pid: Option<i32>,
    /// When it was started, milliseconds ago.
    pub started_ms_ago: u64,
    /// From start to ready, in milliseconds; `None` if it never was.
    pub ready_after_ms: Option<u64>,
    /// For how long it has lived, in milliseconds.
    pub lived_ms: u64,
    /// How it ended; `None` while it lives.
    pub verdict: Option<String>,
    /// The same in one word.
    pub verdict_kind: Option<String>,
    /// Lines on stdout that were not JSON-RPC.
    pub noise_lines: u64,
    /// Lines on stderr since its start, those no longer kept included; the last one kept in
    /// `stderr_tail` has this number, counted from one.
    pub stderr_lines: u64,
    /// Bytes of stderr no longer kept.
    pub stderr_dropped_bytes: u64,
    /// Bytes of memory at most.
    pub memory_peak_bytes: Option<u64>,
    /// CPU time, microseconds.
    pub cpu_micros: Option<u64>,
    /// How its start was spent.
    pub phases: Vec<Phase>,
    /// The last lines of stderr, oldest first.
    pub stderr_tail: Vec<String>,
    /// The last stdout lines that were not JSON-RPC, oldest first.
    pub noise_tail: Vec<String>,
}

/// One isolate with its past.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IsolateDetail {
    /// The isolate now.
    pub view: IsolateView,
    /// What went over its way out, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressCount>,
    /// Its runs, newest first.
    pub runs: Vec<RunView>,
}

/// What killing an isolate did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillReport {
    /// The isolate's id.
    pub isolate: String,
    /// Calls that were answered with the reason.
    pub cancelled_calls: u64,
    /// How long it took until the tree was gone, in milliseconds.
    pub took_ms: u64,
    /// Processes that are left; empty when all are dead.
    pub survivors: Vec<i32>,
}

/// What a discovery found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Discovery {
    /// The tools, in the server's order.
    pub tools: Vec<Tool>,
    /// What the server calls itself.
    pub server_name: String,
    /// Its version, as it says.
    pub server_version: String,
    /// The MCP version agreed on.
    pub protocol_version: String,
    /// How the time was spent.
    pub phases: Vec<Phase>,
    /// The last lines of stderr, oldest first.
    pub stderr_tail: Vec<String>,
    /// Whether the stored tools changed.
    pub changed: bool,
    /// Tools whose schemas cannot be used, if arguments are to be held against them.
    pub unfit: Vec<UnfitSchema>,
    /// Tools that the server lists and nobody is offered, with the reason.
    pub left_out: Vec<String>,
}

/// A tool whose calls go on unchecked, because its schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfitSchema {
    /// Its own name.
    pub tool: String,
    /// Why.
    pub why: String,
}

/// One registered session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionView {
    /// Its id.
    pub id: String,
    /// The name of its user.
    pub user: String,
    /// The id of the key that registered it.
    pub key: String,
    /// What the key's owner calls it.
    pub key_label: String,
    /// What the client calls itself.
    pub friendly_name: String,
    /// The AI tool it runs in.
    pub host_tool: String,
    /// When it registered, milliseconds ago.
    pub created_ms_ago: u64,
    /// When it was last active, milliseconds ago.
    pub seen_ms_ago: u64,
    /// When it ends without activity, in milliseconds.
    pub expires_in_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degraded_names_every_reason() {
        let healthy = Status {
            ready: true,
            ..Status::default()
        };
        assert!(healthy.degraded().is_empty());
        let mut full = healthy.clone();
        full.room.lacks = Some("the disk of the homes has 1 MiB left".to_owned());
        assert_eq!(
            full.degraded(),
            ["servers are not started: the disk of the homes has 1 MiB left"]
        );
        let mut isolates = BTreeMap::from([("quarantined".to_owned(), 3)]);
        let sick_isolate = Status {
            isolates: isolates.clone(),
            ..healthy.clone()
        };
        assert!(
            sick_isolate.degraded().is_empty(),
            "not the server's trouble"
        );
        isolates.insert("stuck".to_owned(), 1);
        let bad = Status {
            ready: false,
            not_ready: vec!["store".into(), "audit".into()],
            isolates,
            unowned_processes: 2,
            enforcement: EnforcementView {
                missing: vec!["pids limit".into()],
                ..EnforcementView::default()
            },
            ..healthy
        };
        let why = bad.degraded();
        assert_eq!(why.len(), 4, "{why:?}");
        assert_eq!(
            why.first().map(String::as_str),
            Some("not ready: store, audit")
        );
    }
}
