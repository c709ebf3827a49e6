//! Views: what stands, drawn from the slots, the sessions and the tree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::mcp::Sharing;
use crate::domain::name::Name;

use super::super::audit::Durability;
use super::super::record::{Facts, RunRecord};
use super::super::root::Service;
use super::super::slot::{self, Slot, SlotState};
use super::super::views::{
    AuditView, IsolateDetail, IsolateView, Phase, RunView, SessionView, Status, Transition,
    TreeNode,
};
use super::{Control, ControlError};

/// Sessions shown in the tree; `session list` has them all.
const SESSIONS_SHOWN: usize = 20;

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Control {
    /// The server on one screen.
    #[must_use]
    pub fn status(&self) -> Status {
        let ctx = &self.ctx;
        let slots: Vec<Arc<Slot>> = ctx.slots.pin().values().cloned().collect();
        let mut isolates = BTreeMap::new();
        let mut users = std::collections::HashSet::new();
        for slot in &slots {
            *isolates.entry(slot.state().word().to_owned()).or_insert(0) += 1;
            if slot.occupant().is_some() {
                users.extend(slot.key.principal.user().cloned());
            }
        }
        let mut not_ready: Vec<String> = ctx
            .gates
            .shut()
            .into_iter()
            .map(ToOwned::to_owned)
            .collect();
        if ctx.is_stopping() {
            not_ready.push("stopping".to_owned());
        }
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: ctx.started_at,
            up_ms: u64::try_from(ctx.wall_ms().saturating_sub(ctx.started_at)).unwrap_or(0),
            ready: not_ready.is_empty(),
            not_ready,
            enforcement: ctx.launcher.enforcement().into(),
            isolates,
            sessions: ctx
                .sessions
                .pin()
                .values()
                .filter(|s| !s.is_revoked())
                .count() as u64,
            users_active: users.len() as u64,
            calls_total: ctx.totals.calls.load(Ordering::Relaxed),
            calls_failed_total: ctx.totals.failed.load(Ordering::Relaxed),
            audit: AuditView {
                durability: match ctx.audit.durability() {
                    Durability::Durable => "durable",
                    Durability::Buffered => "buffered",
                }
                .to_owned(),
                queued: ctx.audit.queued(),
                failing: ctx.audit.written().borrow().failing.is_some(),
            },
            suspensions: ctx.denied.load().len() as u64,
            client_url: ctx.client_url(),
            ops_url: ctx.ops.url.lock().clone(),
            unowned_processes: ctx.launcher.unowned() as u64,
        }
    }

    /// The supervision tree as it stands.
    #[must_use]
    pub fn tree(&self) -> TreeNode {
        let services = Service::ORDER
            .into_iter()
            .map(|service| self.service(service))
            .collect();
        let up = self.ctx.wall_ms().saturating_sub(self.ctx.started_at);
        TreeNode {
            name: "root".to_owned(),
            kind: "root".to_owned(),
            state: if self.ctx.is_stopping() {
                "stopping"
            } else {
                "up"
            }
            .to_owned(),
            since_ms_ago: u64::try_from(up).unwrap_or(0),
            note: "one_for_one, ordered start, reverse stop".to_owned(),
            children: services,
            ..TreeNode::default()
        }
    }

    fn service(&self, service: Service) -> TreeNode {
        let branch = self.ctx.tree.get(service.name());
        let (children, note) = match service {
            Service::Shared => (self.isolate_nodes(None), String::new()),
            Service::Users => (self.user_nodes(), String::new()),
            Service::Sessions => self.session_nodes(),
            Service::Listeners => (Vec::new(), self.ctx.client_url()),
            _ => (Vec::new(), String::new()),
        };
        let mut node = TreeNode {
            name: service.name().to_owned(),
            kind: "service".to_owned(),
            state: "down".to_owned(),
            note,
            children,
            ..TreeNode::default()
        };
        if let Some(branch) = branch {
            node.state = branch.state.to_owned();
            node.since_ms_ago = ms(branch.since.elapsed());
            node.restarts = branch.restarts;
            node.transitions = branch.transitions.iter().rev().map(transition).collect();
        }
        node
    }

    fn user_nodes(&self) -> Vec<TreeNode> {
        let mut users: BTreeMap<Name, Vec<TreeNode>> = BTreeMap::new();
        for slot in self.ctx.slots.pin().values() {
            if let Some(owner) = &slot.owner {
                users
                    .entry(owner.name.clone())
                    .or_default()
                    .push(node(slot));
            }
        }
        users
            .into_iter()
            .map(|(user, mut children)| {
                children.sort_by(|a, b| a.name.cmp(&b.name));
                let busy = children
                    .iter()
                    .any(|child| !matches!(child.state.as_str(), "resting" | "closed"));
                let since_ms_ago = children
                    .iter()
                    .map(|child| child.since_ms_ago)
                    .max()
                    .unwrap_or(0);
                TreeNode {
                    name: user.to_string(),
                    kind: "user".to_owned(),
                    state: if busy { "up" } else { "resting" }.to_owned(),
                    since_ms_ago,
                    children,
                    ..TreeNode::default()
                }
            })
            .collect()
    }

    fn isolate_nodes(&self, user: Option<&crate::domain::ids::UserId>) -> Vec<TreeNode> {
        let mut nodes: Vec<TreeNode> = self
            .ctx
            .slots_of(user)
            .iter()
            .map(|slot| node(slot))
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    fn session_nodes(&self) -> (Vec<TreeNode>, String) {
        let now = self.ctx.wall_ms();
        let sessions = self.ctx.sessions.pin();
        let live: Vec<_> = sessions
            .values()
            .filter(|session| !session.is_revoked())
            .collect();
        let nodes = live
            .iter()
            .take(SESSIONS_SHOWN)
            .map(|session| TreeNode {
                name: session.id().to_string(),
                kind: "session".to_owned(),
                state: "up".to_owned(),
                since_ms_ago: u64::try_from(now - session.row.created_at).unwrap_or(0),
                note: format!("{} on {}", session.user.name, session.row.host_tool),
                ..TreeNode::default()
            })
            .collect();
        (nodes, format!("{} live", live.len()))
    }

    /// All live sessions, newest first.
    ///
    /// # Errors
    /// The store, which knows the keys' labels, is away.
    pub async fn sessions(&self) -> Result<Vec<SessionView>, ControlError> {
        let labels: std::collections::HashMap<_, _> = self
            .ctx
            .store
            .keys(None)
            .await?
            .into_iter()
            .map(|key| (key.id, key.label))
            .collect();
        let now = self.ctx.wall_ms();
        let ago = |at: i64| u64::try_from(now.saturating_sub(at)).unwrap_or(0);
        let sessions = self.ctx.sessions.pin();
        let mut views: Vec<SessionView> = sessions
            .values()
            .filter(|session| !session.is_revoked())
            .map(|session| SessionView {
                id: session.id().to_string(),
                user: session.user.name.to_string(),
                key: session.key.to_string(),
                key_label: labels.get(&session.key).cloned().unwrap_or_default(),
                friendly_name: session.row.friendly_name.clone(),
                host_tool: session.row.host_tool.clone(),
                created_ms_ago: ago(session.row.created_at),
                seen_ms_ago: ago(session.seen_at()),
                expires_in_ms: u64::try_from(session.expires_at().saturating_sub(now)).unwrap_or(0),
            })
            .collect();
        views.sort_by_key(|view| view.created_ms_ago);
        Ok(views)
    }
}

fn transition(step: &slot::Transition) -> Transition {
    Transition {
        ms_ago: ms(step.at.elapsed()),
        to: step.to.to_owned(),
        cause: step.cause.clone(),
    }
}

fn backoff(slot: &Slot) -> Option<u64> {
    match slot.state() {
        SlotState::Backoff { until, .. } | SlotState::Quarantined { until, .. } => {
            Some(ms(until.saturating_duration_since(Instant::now())))
        }
        _ => None,
    }
}

/// How the newest run that has ended, ended.
fn last_verdict(slot: &Slot) -> Option<String> {
    slot.history()
        .iter()
        .find_map(|run| run.facts().verdict)
        .map(|verdict| verdict.to_string())
}

fn node(slot: &Slot) -> TreeNode {
    let view = isolate(slot);
    let children = slot
        .occupant()
        .map(|run| TreeNode {
            name: format!("run {}", run.epoch),
            kind: "run".to_owned(),
            state: view.state.clone(),
            since_ms_ago: ms(run.record.started.elapsed()),
            pid: view.pid,
            note: format!(
                "{} calls, {} in flight",
                run.handle.calls(),
                run.handle.in_flight()
            ),
            ..TreeNode::default()
        })
        .into_iter()
        .collect();
    TreeNode {
        name: format!("{} {}", view.mcp, view.id),
        kind: if slot.owner.is_some() {
            "isolate"
        } else {
            "instance"
        }
        .to_owned(),
        state: view.state,
        since_ms_ago: view.since_ms_ago,
        restarts: view.restarts,
        pid: None,
        backoff_ms: view.backoff_ms,
        last_verdict: view.last_verdict,
        note: String::new(),
        transitions: slot.transitions().iter().rev().map(transition).collect(),
        children,
    }
}

/// One isolate, with its counters as the sweep last read them.
pub(super) fn isolate(slot: &Slot) -> IsolateView {
    let run = slot.occupant();
    let facts = run
        .as_ref()
        .map(|run| run.record.facts())
        .unwrap_or_default();
    let usage = facts.usage;
    let since = slot
        .transitions()
        .last()
        .map_or(Duration::ZERO, |step| step.at.elapsed());
    IsolateView {
        id: slot.id.to_string(),
        mcp: slot.mcp.name.to_string(),
        user: slot.owner.as_ref().map(|owner| owner.name.to_string()),
        sharing: if slot.key.is_probe() {
            Sharing::Shared
        } else {
            slot.sharing()
        },
        key: slot.key.text(),
        state: slot.state().word().to_owned(),
        pid: facts.pid,
        since_ms_ago: ms(since),
        in_flight: run.as_ref().map_or(0, |run| run.handle.in_flight() as u64),
        calls_total: slot.calls(),
        restarts: slot.restarts(),
        memory_bytes: usage.memory.map(|memory| memory.bytes),
        memory_limit_bytes: slot.mcp.limits.memory_bytes,
        pids: usage.pids,
        cpu_micros: usage.cpu_micros,
        cpu_millis: facts.cpu_millis,
        backoff_ms: backoff(slot),
        last_verdict: last_verdict(slot),
        degraded: facts.degraded,
    }
}

/// One isolate with its past.
pub(super) fn detail(slot: &Slot) -> IsolateDetail {
    let runs = slot.history().iter().map(|record| run(record)).collect();
    IsolateDetail {
        view: isolate(slot),
        runs,
    }
}

fn run(record: &RunRecord) -> RunView {
    let facts = record.facts();
    RunView {
        epoch: record.epoch,
        pid: facts.pid,
        started_ms_ago: ms(record.started.elapsed()),
        ready_after_ms: facts.ready_after.map(ms),
        lived_ms: ms(facts.lived.unwrap_or_else(|| record.started.elapsed())),
        verdict: facts.verdict.as_ref().map(ToString::to_string),
        verdict_kind: facts
            .verdict
            .as_ref()
            .map(|verdict| verdict.kind().to_owned()),
        noise_lines: record.noise.seen(),
        stderr_lines: record.stderr.seen(),
        stderr_dropped_bytes: record.stderr.dropped_bytes(),
        memory_peak_bytes: facts.usage.memory_peak_bytes,
        cpu_micros: facts.usage.cpu_micros,
        phases: phases(&facts),
        stderr_tail: record.stderr.lines(),
        noise_tail: record.noise.lines(),
    }
}

/// How the start was spent.
pub(super) fn phases(facts: &Facts) -> Vec<Phase> {
    facts
        .phases
        .iter()
        .map(|(name, took)| Phase {
            name: (*name).to_owned(),
            ms: ms(*took),
        })
        .collect()
}
