//! Views: what stands, drawn from the slots, the sessions and the tree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::kill::Kind;
use crate::domain::limits::VERDICTS_SHOWN;
use crate::domain::mcp::Sharing;

use super::super::audit::{Audit, Durability};
use super::super::record::{Facts, RunRecord};
use super::super::slot::{Slot, SlotState};
use super::super::views::{
    AuditView, IsolateDetail, IsolateView, PastVerdict, Phase, RunView, SessionView, Status,
    StoreView,
};
use super::{Control, ControlError};

/// Kill switches and suspensions shown by `status`; `kill-switch list` has them all.
const DENIES_SHOWN: usize = 5;

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn audit(log: &Audit) -> AuditView {
    let why = log.written().borrow().failing.clone();
    let stats = log.stats();
    AuditView {
        durability: match log.durability() {
            Durability::Durable => "durable",
            Durability::Buffered => "buffered",
        }
        .to_owned(),
        queued: stats.queued,
        failing: why.is_some(),
        why,
        lost: stats.dropped.iter().sum(),
        seq: stats.seq,
        index_lag: stats.seq.saturating_sub(stats.indexed_seq),
        chain_ok: stats.chain_ok,
    }
}

impl Control {
    /// The server on one screen.
    #[must_use]
    pub fn status(&self) -> Status {
        let ctx = &self.ctx;
        let slots: Vec<Arc<Slot>> = ctx.slots.pin().values().cloned().collect();
        let elsewhere = slots
            .iter()
            .filter(|slot| slot.mcp.program.is_remote())
            .count() as u64;
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
        let listing = ctx.kill.listing();
        let denies = |kind| listing.active.iter().filter(move |deny| deny.kind == kind);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: ctx.started_at,
            up_ms: u64::try_from(ctx.wall_ms().saturating_sub(ctx.started_at)).unwrap_or(0),
            ready: not_ready.is_empty(),
            not_ready,
            enforcement: ctx.launcher.enforcement().into(),
            isolates,
            elsewhere,
            room: ctx.room.view(),
            sessions: ctx
                .sessions
                .pin()
                .values()
                .filter(|s| !s.is_revoked())
                .count() as u64,
            users_active: users.len() as u64,
            calls_total: ctx.totals.calls.load(Ordering::Relaxed),
            calls_failed_total: ctx.totals.failed.load(Ordering::Relaxed),
            store: self.store_view(),
            suspensions: denies(Kind::Suspension).count() as u64,
            kill_switches: denies(Kind::KillSwitch).count() as u64,
            denies: listing
                .active
                .iter()
                .take(DENIES_SHOWN)
                .map(|deny| format!("{}: {}", deny.title(), deny.reason))
                .collect(),
            denies_not_stored: ctx.kill.unsaved(),
            kill_journal_failing: ctx.kill.is_journal_failing(),
            audit: audit(&ctx.audit),
            client_url: ctx.client_url(),
            ops_url: ctx.ops.url.lock().clone(),
            unowned_processes: ctx.unowned.load(Ordering::Relaxed),
        }
    }

    fn store_view(&self) -> StoreView {
        let store = &self.ctx.store;
        let connections = store.connections();
        StoreView {
            kind: store.kind().to_owned(),
            place: store.place().to_owned(),
            away: self.ctx.store_away.load_full().map(|why| why.to_string()),
            connections: connections.open,
            connections_idle: connections.idle,
            connections_max: connections.max,
        }
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

fn backoff(slot: &Slot) -> Option<u64> {
    match slot.state() {
        SlotState::Backoff { until, .. } | SlotState::Quarantined { until, .. } => {
            Some(ms(until.saturating_duration_since(Instant::now())))
        }
        _ => None,
    }
}

/// How the last runs that have ended, ended; newest first.
fn verdicts(slot: &Slot) -> Vec<PastVerdict> {
    let history = slot.history();
    let ended = history.iter().filter_map(|run| {
        let facts = run.facts();
        let verdict = facts.verdict?;
        let lived = facts.lived.unwrap_or_default();
        Some(PastVerdict {
            epoch: run.epoch,
            ms_ago: ms(run.started.elapsed().saturating_sub(lived)),
            kind: verdict.kind().to_owned(),
            text: verdict.to_string(),
        })
    });
    ended.take(VERDICTS_SHOWN).collect()
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
    let verdicts = verdicts(slot);
    let remote = slot.mcp.program.remote.as_deref();
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
        url: remote.map(|remote| remote.url.url().to_owned()),
        pid: facts.pid,
        since_ms_ago: ms(since),
        in_flight: run.as_ref().map_or(0, |run| run.handle.in_flight() as u64),
        calls_total: slot.calls(),
        restarts: slot.restarts(),
        memory_bytes: usage.memory.map(|memory| memory.bytes),
        memory_limit_bytes: slot.limits().memory_bytes,
        pids: usage.pids,
        cpu_micros: usage.cpu_micros,
        cpu_millis: facts.cpu_millis,
        backoff_ms: backoff(slot),
        last_verdict: verdicts.first().map(|last| last.text.clone()),
        verdicts,
        degraded: facts.degraded,
    }
}

/// One isolate with its past.
pub(super) fn detail(slot: &Slot) -> IsolateDetail {
    let runs = slot.history().iter().map(|record| run(record)).collect();
    let scope = slot.occupant().and_then(|run| run.scope);
    IsolateDetail {
        view: isolate(slot),
        egress: scope.and_then(|scope| scope.egress()),
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
