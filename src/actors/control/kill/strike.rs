//! The first half of a kill: from the request to the signals.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::ids::CallId;
use crate::domain::kill::{Deny, Kind, Target};
use crate::domain::limits::KILL_LISTED_MAX;
use crate::domain::name::Name;
use crate::domain::verdict::Verdict;

use super::super::super::calls::{Seated, Tag, Why};
use super::super::super::ctx::Ctx;
use super::super::super::cut_off::revoke_sessions;
use super::super::super::isolate::IsolateMsg;
use super::super::super::slot::{Principal, Slot};
use super::super::super::views::{CallView, DenyReport, Hit};
use super::super::{Control, ControlError, calls};
use super::{micros, refusal, view};

/// When what was done, since the request.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// It was on the disk, and published.
    pub(super) journal: Duration,
    /// All callers were told.
    pub(super) told: Duration,
    /// All kills were sent.
    pub(super) killed: Duration,
}

/// What a deny hit.
#[derive(Debug)]
pub(super) struct Struck {
    pub(super) deny: Arc<Deny>,
    pub(super) seq: u64,
    /// The slots whose runs end, and which runs.
    pub(super) runs: Vec<(Arc<Slot>, u64)>,
    pub(super) hits: Vec<Hit>,
    /// Calls that end without their isolate, and where they are; of very many, the first.
    pub(super) alone: Vec<Alone>,
    pub(super) calls: u64,
    pub(super) sessions: u64,
    pub(super) times: Times,
}

/// A call that ends without its isolate.
#[derive(Debug)]
pub(super) struct Alone {
    tag: Tag,
    mcp: Name,
    /// Unless it still waits for one.
    slot: Option<Arc<Slot>>,
}

impl Control {
    /// Journal, table, callers, kills, actors: in this order. Blocks.
    pub(super) fn strike(&self, deny: Deny, since: Instant) -> Result<Struck, ControlError> {
        let ctx = &self.ctx;
        // One whose time is over makes room for its successor.
        let now = deny.created_at;
        // Counted before: those who wait leave as soon as the table is published.
        let waiting = waiting(ctx, &deny.target).len() as u64;
        let (deny, seq) = ctx
            .kill
            .change(|ledger| {
                if ledger
                    .find(deny.kind, &deny.target)
                    .is_some_and(|first| first.is_expired(now))
                {
                    ledger.expire(now)?;
                }
                ledger.on(deny)
            })
            .map_err(refusal)?;
        let journal = since.elapsed();
        let mut struck = self.survey(Arc::clone(&deny));
        (struck.seq, struck.times.journal) = (seq, journal);
        if deny.kind == Kind::Suspension {
            struck.sessions = revoke_sessions(&self.ctx, |session| match &deny.target {
                Target::User(user) => session.user.id == *user,
                Target::Client(key) => session.key == *key,
                _ => false,
            });
        }
        let verdict = Verdict::Killed {
            reason: deny.reason.clone(),
        };
        let why = Why::Denied(Arc::clone(&deny));
        let (whole, partly): (Vec<_>, Vec<_>) = slots(ctx)
            .into_iter()
            .partition(|slot| stops(ctx, &deny.target, slot));
        let runs: Vec<_> = whole
            .iter()
            .filter_map(|slot| Some((slot, slot.occupant()?)))
            .collect();
        let mut calls = waiting;
        for (_, run) in &runs {
            calls += run.shut(verdict.clone()) as u64;
        }
        for slot in partly {
            if let Some(run) = slot.occupant() {
                let meant = |tag: &Tag| tag.is_hit(&deny.target, &slot.key.mcp);
                calls += run.handle.cancel_where(meant, &why) as u64;
            }
        }
        struck.times.told = since.elapsed();
        for (slot, run) in &runs {
            // Its tree may have come since we looked.
            let scope = slot.occupant().filter(|now| now.epoch == run.epoch);
            if let Some(scope) = scope.and_then(|run| run.scope) {
                scope.kill();
            }
        }
        struck.times.killed = since.elapsed();
        struck.runs = runs
            .iter()
            .map(|(slot, run)| (Arc::clone(slot), run.epoch))
            .collect();
        struck.calls = calls;
        // Also what only waits for its next try: it must not come back by itself.
        for slot in &whole {
            if let Some(isolate) = slot.actor() {
                let _ = isolate.cast(IsolateMsg::Leave(verdict.clone()));
            }
        }
        Ok(struck)
    }

    /// What a deny would hit now.
    pub(super) fn survey(&self, deny: Arc<Deny>) -> Struck {
        let ctx = &self.ctx;
        let mut struck = Struck {
            seq: 0,
            runs: Vec::new(),
            hits: Vec::new(),
            alone: Vec::new(),
            calls: 0,
            sessions: 0,
            times: Times::default(),
            deny,
        };
        let target = &struck.deny.target;
        for slot in slots(ctx) {
            let Some(run) = slot.occupant() else { continue };
            if stops(ctx, target, &slot) {
                let calls = run.handle.count(|_| true) as u64;
                struck.calls += calls;
                struck.hits.push(hit(&slot, calls));
                struck.runs.push((slot, run.epoch));
            } else {
                let meant = |tag: &Tag| tag.is_hit(target, &slot.key.mcp);
                let count = run.handle.count(meant);
                struck.calls += count as u64;
                let room = KILL_LISTED_MAX.saturating_sub(struck.alone.len());
                if count.min(room) > 0 {
                    let tags = run.handle.tags().into_iter().filter(meant).take(room);
                    struck.alone.extend(tags.map(|tag| Alone {
                        tag,
                        mcp: slot.mcp.name.clone(),
                        slot: Some(Arc::clone(&slot)),
                    }));
                }
            }
        }
        let waiting = waiting(ctx, &struck.deny.target);
        struck.calls += waiting.len() as u64;
        let room = KILL_LISTED_MAX.saturating_sub(struck.alone.len());
        struck
            .alone
            .extend(waiting.into_iter().take(room).map(|one| Alone {
                tag: one.tag,
                mcp: one.name,
                slot: None,
            }));
        if struck.deny.kind == Kind::Suspension {
            let sessions = ctx.sessions.pin();
            let meant = sessions
                .values()
                .filter(|session| match &struck.deny.target {
                    Target::User(user) => session.user.id == *user,
                    Target::Client(key) => session.key == *key,
                    _ => false,
                });
            struck.sessions = meant.filter(|session| !session.is_revoked()).count() as u64;
        }
        struck
            .hits
            .sort_by(|a, b| (&a.mcp, &a.user, &a.isolate).cmp(&(&b.mcp, &b.user, &b.isolate)));
        struck
    }
}

impl Struck {
    /// For the administrator.
    pub(super) fn report(&self, dry_run: bool) -> DenyReport {
        DenyReport {
            deny: view(&self.deny, false),
            dry_run,
            stopped: self.hits.iter().take(KILL_LISTED_MAX).cloned().collect(),
            isolates_stopped: self.runs.len() as u64,
            calls: self.alone.iter().map(Alone::view).collect(),
            calls_cancelled: self.calls,
            sessions_ended: self.sessions,
            took_ms: 0,
            journal_us: micros(self.times.journal),
            told_us: micros(self.times.told),
            killed_us: micros(self.times.killed),
            gone_us: 0,
            survivors: Vec::new(),
            left: Vec::new(),
            not_stored: None,
            not_recorded: None,
        }
    }
}

impl Alone {
    fn view(&self) -> CallView {
        let isolate = self.slot.as_ref().map(|slot| slot.id.to_string());
        let state = if isolate.is_some() {
            "in_flight"
        } else {
            "waiting"
        };
        calls::view(&self.tag, self.mcp.as_str(), state, isolate)
    }
}

/// Calls that wait for a server: publishing the table tells them.
fn waiting(ctx: &Ctx, target: &Target) -> Vec<Seated> {
    let mut seated = ctx.waiting.all();
    if seated.is_empty() {
        return seated;
    }
    // A call keeps its seat when it goes on: those in flight are counted there.
    let flying: HashSet<CallId> = slots(ctx)
        .iter()
        .filter_map(|slot| slot.occupant())
        .flat_map(|run| run.handle.tags())
        .map(|tag| tag.call)
        .collect();
    seated.retain(|one| !flying.contains(&one.tag.call) && one.tag.is_hit(target, &one.mcp));
    seated
}

fn slots(ctx: &Ctx) -> Vec<Arc<Slot>> {
    ctx.slots.pin().values().cloned().collect()
}

fn hit(slot: &Slot, calls: u64) -> Hit {
    Hit {
        isolate: slot.id.to_string(),
        mcp: slot.mcp.name.to_string(),
        user: slot.owner.as_ref().map(|owner| owner.name.to_string()),
        calls,
    }
}

/// Whether a deny ends a slot's whole process, not only calls of it.
fn stops(ctx: &Ctx, target: &Target, slot: &Slot) -> bool {
    match target {
        Target::All => true,
        Target::Mcp(mcp) => slot.key.mcp == *mcp,
        Target::User(user) => slot.key.principal.user() == Some(user),
        // Only a process that serves this client alone; others of its user may use the rest.
        Target::Client(key) => match &slot.key.principal {
            Principal::Session(_, session) => ctx.key_of(session).as_ref() == Some(key),
            Principal::User(_) | Principal::Shared => false,
        },
        Target::Tool(..) => false,
    }
}
