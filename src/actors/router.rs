//! From a resolved tool to an answer: finds the slot, waits for it if it must, carries the call.
//!
//! It reads snapshots and waits on the slot's watch; it never goes up the tree. A call is carried
//! to at most one run, unless it provably never reached the first one's stdin.

use std::sync::Arc;

use tokio::time::Instant;

use crate::domain::code::Code;
use crate::domain::limits::{BACKOFF_WAIT_MAX, START_QUEUE_MAX};
use crate::domain::mcp::{Mcp, Sharing};

use super::catalog::{Published, Route};
use super::ctx::Ctx;
use super::failure::{self, Reason};
use super::handle::{CallError, Reply};
use super::session::SessionHandle;
use super::slot::{Principal, Slot, SlotState};

/// Carries one call and its answer.
pub(super) async fn carry(
    ctx: &Arc<Ctx>,
    session: &SessionHandle,
    route: &Route,
    arguments: &[u8],
    admitted: Instant,
) -> Result<Reply, Reason> {
    let mcp = &route.published.mcp;
    let deadline = admitted + mcp.call_deadline();
    let mut slot = current(ctx, session, mcp)?;
    loop {
        still_allowed(ctx, session, mcp)?;
        if let Some(handle) = slot.ready() {
            let sent = Instant::now();
            let carried = handle
                .call_tool(route.tool.as_str(), arguments, deadline)
                .await;
            if !matches!(carried, Err(CallError::NotSent)) {
                let meter = &route.published.meter;
                meter.carried(sent - admitted, sent.elapsed());
            }
            match carried {
                Ok(reply) => return Ok(reply),
                Err(CallError::NotSent) => {}
                Err(CallError::Busy { in_flight }) => return Err(failure::busy(mcp, in_flight)),
                Err(CallError::TimedOut) => {
                    return Err(failure::timed_out(mcp, route.tool.as_str()));
                }
                Err(CallError::Ended(end)) => return Err(failure::run_ended(mcp, &end)),
            }
        }
        match wait(ctx, &slot, admitted, deadline).await? {
            Waited::Changed => {}
            Waited::Closed => {
                // The definition changed while we waited: its successor takes the call.
                let _ = ctx
                    .slots
                    .pin()
                    .remove_if(&slot.key, |_, known| Arc::ptr_eq(known, &slot));
                slot = current(ctx, session, mcp)?;
            }
        }
    }
}

/// What was allowed when the call was admitted may have been taken away while it waited.
fn still_allowed(ctx: &Ctx, session: &SessionHandle, mcp: &Mcp) -> Result<(), Reason> {
    let denied = ctx.denied.load();
    if let Some(suspension) = denied.mcp(&mcp.id) {
        return Err(failure::mcp_disabled(mcp, &suspension.reason));
    }
    if let Some(suspension) = denied.user(&session.user.id) {
        let text = format!("your account is suspended: {}", suspension.reason);
        return Err(Reason::new(Code::UserDisabled, text));
    }
    if session.is_revoked() {
        let text = "this session or its key was revoked; ask your operator";
        return Err(Reason::new(Code::SessionSuspended, text));
    }
    Ok(())
}

enum Waited {
    Changed,
    Closed,
}

/// Waits until the slot may be worth another look, or says why not.
async fn wait(
    ctx: &Arc<Ctx>,
    slot: &Arc<Slot>,
    admitted: Instant,
    deadline: Instant,
) -> Result<Waited, Reason> {
    let mcp = &slot.mcp;
    let mut watch = slot.watch();
    let state = watch.borrow_and_update().clone();
    match state {
        SlotState::Ready(handle) if handle.takes_calls() => return Ok(Waited::Changed),
        SlotState::Ready(_) | SlotState::Starting { .. } | SlotState::Stopping => {}
        SlotState::Resting => demand(ctx, slot)?,
        SlotState::Backoff { until, end, .. } => {
            if until.saturating_duration_since(Instant::now()) > BACKOFF_WAIT_MAX {
                return Err(failure::backing_off(mcp, until, &end));
            }
        }
        SlotState::Quarantined { until, end } => {
            if until > Instant::now() {
                return Err(failure::quarantined(mcp, until, &end));
            }
            // Its time is over: this call is the half-open try.
            ctx.demand(slot);
        }
        SlotState::Stuck { survivors } => {
            let text = format!(
                "mcp `{}` cannot be started: {} processes of its last run do not die. Ask your \
                 operator (legation isolate show {}).",
                mcp.name,
                survivors.len(),
                slot.id
            );
            return Err(Reason::new(Code::Stuck, text));
        }
        SlotState::Closed => return Ok(Waited::Closed),
    }
    let mut stopping = ctx.stopping.subscribe();
    tokio::select! {
        biased;
        changed = tokio::time::timeout_at(deadline, watch.changed()) => match changed {
            Ok(Ok(())) => Ok(Waited::Changed),
            Ok(Err(_)) => Ok(Waited::Closed),
            Err(_) => Err(failure::starting(mcp, admitted.elapsed())),
        },
        _ = stopping.wait_for(|stopping| *stopping) => Err(failure::shutting_down()),
    }
}

/// Asks for a run, within the bounds.
fn demand(ctx: &Arc<Ctx>, slot: &Arc<Slot>) -> Result<(), Reason> {
    if slot.is_wanted() {
        return Ok(());
    }
    if ctx.is_stopping() {
        return Err(failure::shutting_down());
    }
    if ctx.starts.waiting() >= START_QUEUE_MAX {
        let text = format!(
            "{START_QUEUE_MAX} servers are waiting to be started on this host; `{}` did not get a \
             place. Try again in a few seconds.",
            slot.mcp.name
        );
        return Err(Reason::new(Code::Starting, text).retry(std::time::Duration::from_secs(5)));
    }
    if let Some(user) = slot.key.principal.user() {
        let most = ctx.settings.per_user_max;
        let slots = ctx.slots.pin();
        let running = slots
            .values()
            .filter(|other| other.key.principal.user() == Some(user))
            .filter(|other| other.occupant().is_some() || other.is_wanted())
            .count();
        if running >= most {
            let text = format!(
                "you already run {running} servers, which is the most. `{}` starts when one of \
                 them has been idle long enough to stop.",
                slot.mcp.name
            );
            return Err(Reason::new(Code::IsolatesMax, text));
        }
    }
    ctx.demand(slot);
    Ok(())
}

/// The slot of what is published *now*: the definition may have changed since the call was admitted.
fn current(ctx: &Ctx, session: &SessionHandle, mcp: &Mcp) -> Result<Arc<Slot>, Reason> {
    match ctx.routes.load().published(&mcp.id) {
        Some(published) => Ok(find(ctx, session, published)),
        None => {
            let text = format!("mcp `{}` is no longer published", mcp.name);
            Err(Reason::new(Code::McpDisabled, text))
        }
    }
}

/// The slot this session's calls of an mcp go to.
fn find(ctx: &Ctx, session: &SessionHandle, published: &Published) -> Arc<Slot> {
    let user = &session.user;
    let principal = match published.mcp.sharing {
        Sharing::PerUser => Principal::User(user.id.clone()),
        Sharing::PerSession => Principal::Session(user.id.clone(), session.id().clone()),
        Sharing::Shared => Principal::Shared,
    };
    ctx.slot(principal, &published.mcp, &published.config, Some(user))
}
