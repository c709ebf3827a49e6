//! Kill switches, suspensions and calls, as administrators see them.

use serde::{Deserialize, Serialize};

use crate::domain::kill::Deny;

/// A kill switch or suspension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenyView {
    /// What it is.
    #[serde(flatten)]
    pub deny: Deny,
    /// `on`, or how it ended: `lifted`, `expired`, `superseded`.
    pub state: String,
    /// Whether the store has it; the journal has it in any case.
    pub stored: bool,
    /// Why the store does not have it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_stored: Option<String>,
}

/// An isolate that a kill switch stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// Its id.
    pub isolate: String,
    /// The name of its mcp.
    pub mcp: String,
    /// The name of its user; `None` for a shared instance.
    pub user: Option<String>,
    /// Calls it was answering.
    pub calls: u64,
}

/// An isolate whose processes outlived the wait. Its slot stays shut until they are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Its id.
    pub isolate: String,
    /// The name of its mcp.
    pub mcp: String,
    /// The name of its user; `None` for a shared instance.
    pub user: Option<String>,
    /// The processes.
    pub pids: Vec<i32>,
}

/// What a kill switch or suspension did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenyReport {
    /// The deny.
    pub deny: DenyView,
    /// Nothing was done: this is what would have been.
    pub dry_run: bool,
    /// The isolates that were killed; of very many, the first.
    pub stopped: Vec<Hit>,
    /// How many that are.
    pub isolates_stopped: u64,
    /// Calls that were answered with the reason.
    pub calls_cancelled: u64,
    /// Those of them whose isolate goes on, or that had none yet; of very many, the first.
    #[serde(default)]
    pub calls: Vec<CallView>,
    /// Sessions that were ended.
    pub sessions_ended: u64,
    /// How long it took until all was gone, in milliseconds.
    pub took_ms: u64,
    /// Until it was on the disk and in force, in microseconds.
    pub journal_us: u64,
    /// Until every caller was told.
    pub told_us: u64,
    /// Until every kill was sent.
    pub killed_us: u64,
    /// Until all was gone, or the wait was over.
    pub gone_us: u64,
    /// Processes that are left; empty when all are dead.
    pub survivors: Vec<i32>,
    /// The same by isolate.
    pub left: Vec<Left>,
    /// Why the store does not have it yet; the journal has it.
    pub not_stored: Option<String>,
    /// Why the audit log does not have it, if it does not.
    pub not_recorded: Option<String>,
}

/// A call under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallView {
    /// Its id.
    pub id: String,
    /// The name of its user.
    pub user: String,
    /// The name of its mcp.
    pub mcp: String,
    /// The tool, by its own name.
    pub tool: String,
    /// What the client calls itself.
    pub client: String,
    /// The AI tool it runs in.
    pub host_tool: String,
    /// The key that registered its session.
    pub key: String,
    /// Its session.
    pub session: String,
    /// The isolate that works on it, once one does.
    pub isolate: Option<String>,
    /// Since it was admitted, in milliseconds.
    pub age_ms: u64,
    /// `waiting` for a server to start, or `in_flight`.
    pub state: String,
}

/// The calls under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallList {
    /// The calls, newest last; of too many, the oldest.
    pub calls: Vec<CallView>,
    /// How many there are.
    pub total: u64,
}

/// What cancelling a call did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CancelReport {
    /// The call.
    pub call: String,
    /// What its caller was told.
    pub reason: String,
    /// Where it was: `waiting` or `in_flight`.
    pub state: String,
    /// The isolate that worked on it.
    pub isolate: Option<String>,
    /// What its server did within the grace: `answered`, `silent`, `ended`, or `never_sent` if it
    /// had not seen the call yet.
    pub server: String,
    /// How long that took, in milliseconds.
    pub waited_ms: u64,
    /// Whether the isolate was ended, to start afresh.
    pub recycled: bool,
    /// Other calls that were told why.
    pub others_told: u64,
    /// Processes that outlived that.
    pub left: Vec<Left>,
}
