//! From a resolved tool to an answer: finds the slot, waits for it if it must, carries the call.
//!
//! It reads snapshots and waits on the slot's watch; it never goes up the tree. A call is carried
//! to at most one run, unless it provably never reached the first one's stdin.

mod errand;
mod line;
mod task;
mod turn;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::code::Code;
use crate::domain::era::Era;
use crate::domain::limits::{
    BACKOFF_WAIT_MAX, HOST_FULL_RETRY, ROOM_IDLE, ROOM_RETRY, START_QUEUE_MAX, millis,
};
use crate::domain::mcp::{Mcp, Sharing};
use crate::domain::talk::Questions;
use crate::domain::verdict::Verdict;

use super::calls::{Seat, Why};
use super::catalog::{Published, Route};
use super::ctx::Ctx;
use super::failure::{self, Reason};
use super::handle::{CallError, InTurn, Reply, RunEnd};
use super::isolate::IsolateMsg;
use super::packages::{Failed, State as Package};
use super::room::{Lack, Mends};
use super::session::SessionHandle;
use super::slot::{Principal, Slot, SlotState};
pub use errand::Aside;
pub(super) use errand::{Ask, Errand};

/// Carries one call and its answer.
pub(super) async fn carry(ctx: &Arc<Ctx>, errand: Errand<'_>) -> Result<Reply, Reason> {
    let (session, route) = (errand.session, errand.route);
    let mcp = &route.published.mcp;
    let deadline = errand.admitted + mcp.call_deadline();
    let mut slot = current(ctx, &errand)?;
    let mut seat: Option<Seat<'_>> = None;
    let mut refused = false;
    loop {
        still_allowed(ctx, session, route)?;
        if let Some(why) = seat.as_ref().and_then(Seat::cancelled) {
            // Of a later round, the server has seen the ones before.
            return Err(match errand.aside.brought.is_empty() {
                true => failure::cancelled_unsent(mcp, &why),
                false => failure::cancelled(mcp, &why),
            });
        }
        if let Some(handle) = slot.ready() {
            if errand.aside.level_said
                && let Some(level) = errand.aside.level
            {
                handle.heed(level).await;
            }
            // One without sessions asks in its answer, so that it is clear for which call.
            let turn = match handle.is_modern() {
                true => None,
                false => turn::turn(ctx, &slot, &errand, &mut seat, deadline).await?,
            };
            let allowed = || {
                ctx.denies_call(session, &mcp.id, &route.tool).is_none()
                    && !session.is_revoked()
                    && seat.as_ref().is_none_or(|seat| seat.cancelled().is_none())
            };
            let (sent, noise) = (Instant::now(), handle.noise_lines());
            let expected = task::Expected::default();
            let modern = handle.is_modern();
            let line = |id| {
                if !modern {
                    expected.begin(&errand, &handle, id);
                }
                errand.line(id, modern)
            };
            let tag = errand.tag(turn.as_ref().map(InTurn::turn));
            let called = handle.call(tag, line, deadline, allowed).await;
            if turn.is_some() && called.is_ok() {
                slot.askers.ended(errand.what());
            }
            if !matches!(called, Err(CallError::NotSent | CallError::Refused)) {
                let meter = &route.published.meter;
                meter.carried(sent - errand.admitted, sent.elapsed());
            }
            match called {
                Ok(reply) => {
                    drop(turn);
                    if !matches!(errand.ask, Ask::Task { .. }) {
                        return Ok(reply);
                    }
                    return Box::pin(task::go_on(
                        ctx, &errand, &handle, expected, reply, deadline,
                    ))
                    .await;
                }
                // Also if it was denied after it was registered: then the next round says so.
                Err(CallError::NotSent) => {}
                // Who refuses it in a session just begun as well may have taken it both times.
                Err(CallError::Refused) if refused => return Err(failure::refused_again(mcp)),
                Err(CallError::Refused) => refused = true,
                Err(CallError::Busy { in_flight }) => return Err(failure::busy(mcp, in_flight)),
                Err(CallError::TimedOut) => {
                    let shared = mcp.sharing == Sharing::Shared;
                    let noise = handle.noise_since(noise, shared);
                    return Err(failure::timed_out(mcp, route.tool.as_str(), noise));
                }
                Err(CallError::Ended(end)) => return Err(ended(ctx, session, route, &end)),
                Err(CallError::Cancelled(why)) => {
                    return Err(match &why {
                        Why::Denied(deny) => failure::denied(deny),
                        Why::Asked(reason) => failure::cancelled(mcp, reason),
                        Why::Revoked => failure::revoked(),
                    });
                }
            }
        }
        let seat = seated(ctx, &errand, &mut seat)?;
        match wait(ctx, &slot, &errand, seat, deadline).await? {
            Waited::Changed => {}
            Waited::Closed => {
                // The definition changed while we waited: its successor takes the call.
                let _ = ctx
                    .slots
                    .pin()
                    .remove_if(&slot.key, |_, known| Arc::ptr_eq(known, &slot));
                slot = current(ctx, &errand)?;
            }
        }
    }
}

/// The call's place among those that wait, where it can be seen and cancelled.
pub(super) fn seated<'s, 'c>(
    ctx: &'c Ctx,
    errand: &Errand<'_>,
    seat: &'s mut Option<Seat<'c>>,
) -> Result<&'s mut Seat<'c>, Reason> {
    match seat {
        Some(seat) => Ok(seat),
        none => {
            let mcp = &errand.route.published.mcp;
            let seat = ctx
                .waiting
                .sit(errand.tag(None), mcp.id.clone(), mcp.name.clone());
            Ok(none.insert(seat.map_err(|_| failure::no_seat(mcp))?))
        }
    }
}

/// Why a call ended with its run: whoever killed it for a deny gave the reason.
fn ended(ctx: &Ctx, session: &SessionHandle, route: &Route, end: &RunEnd) -> Reason {
    let mcp = &route.published.mcp;
    let killed = matches!(end.verdict, Verdict::Killed { .. });
    match ctx
        .denies_call(session, &mcp.id, &route.tool)
        .filter(|_| killed)
    {
        Some(deny) => failure::denied(&deny).because(end),
        None => failure::run_ended(mcp, end),
    }
}

/// What was allowed when the call was admitted may have been taken away while it waited.
pub(super) fn still_allowed(
    ctx: &Ctx,
    session: &SessionHandle,
    route: &Route,
) -> Result<(), Reason> {
    if let Some(deny) = ctx.denies_call(session, &route.published.mcp.id, &route.tool) {
        return Err(failure::denied(&deny));
    }
    if session.is_revoked() || session.is_key_expired(ctx.wall_ms()) {
        return Err(failure::revoked());
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
    errand: &Errand<'_>,
    seat: &mut Seat<'_>,
    deadline: Instant,
) -> Result<Waited, Reason> {
    let mcp = &slot.mcp;
    let mut denies = ctx.kill.changes();
    // What was switched before we watched; what comes later is heard below.
    still_allowed(ctx, errand.session, errand.route)?;
    let mut watch = slot.watch();
    let state = watch.borrow_and_update().clone();
    let mut package = None;
    match state {
        SlotState::Ready(handle) if handle.takes_calls() => return Ok(Waited::Changed),
        SlotState::Ready(_) | SlotState::Starting { .. } | SlotState::Stopping => {}
        SlotState::Resting => {
            package = installing(ctx, mcp)?;
            if package.is_none() {
                demand(ctx, slot)?;
            }
        }
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
            package = installing(ctx, mcp)?;
            if package.is_none() {
                ctx.demand(slot);
            }
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
            Err(_) => Err(match &package {
                Some(package) => match &*package.borrow() {
                    Package::Installing(progress) => failure::installing(mcp, progress),
                    _ => failure::starting(mcp, errand.admitted.elapsed()),
                },
                None => failure::starting(mcp, errand.admitted.elapsed()),
            }),
        },
        failed = installed(&mut package) => match failed {
            Some(failed) => Err(failure::not_installed(mcp, &failed)),
            None => Ok(Waited::Changed),
        },
        _ = stopping.wait_for(|stopping| *stopping) => Err(failure::shutting_down()),
        _ = denies.changed() => Ok(Waited::Changed),
        () = seat.hear() => Ok(Waited::Changed),
    }
}

/// The package of an mcp while it is on its way; `None` once it is there, or if there is none.
fn installing(ctx: &Arc<Ctx>, mcp: &Arc<Mcp>) -> Result<Option<watch::Receiver<Package>>, Reason> {
    let ensured = ctx.packages.ensure(ctx, mcp);
    let watch = match ensured {
        Ok(Some(watch)) => watch,
        Ok(None) => return Ok(None),
        Err(why) => return Err(Reason::new(Code::InstallFailed, why)),
    };
    let state = watch.borrow().clone();
    match state {
        Package::Installed(_) => Ok(None),
        Package::Installing(_) => Ok(Some(watch)),
        Package::Failed(failed) => Err(failure::not_installed(mcp, &failed)),
    }
}

/// Waits until a package is not on its way any more; gives why it is not there, if it is not.
async fn installed(package: &mut Option<watch::Receiver<Package>>) -> Option<Failed> {
    let Some(watch) = package else {
        return std::future::pending().await;
    };
    let settled = watch.wait_for(|state| !matches!(state, Package::Installing(_)));
    match settled.await.ok().as_deref() {
        Some(Package::Failed(failed)) => Some(failed.clone()),
        _ => None,
    }
}

/// Stops the isolate that has been idle for the longest, if one was for a while: what only waits must not keep
/// others out.
pub(super) fn make_room(ctx: &Ctx, remote: bool) -> bool {
    let slots = ctx.slots.pin();
    let alike = slots
        .values()
        .filter(|slot| slot.mcp.program.is_remote() == remote);
    let idle = alike.filter_map(|slot| {
        let handle = slot.ready()?;
        let unused = handle.unused_ms();
        (handle.in_flight() == 0 && unused >= millis(ROOM_IDLE)).then_some((unused, slot))
    });
    let longest = idle.max_by_key(|(unused, _)| *unused);
    longest.is_some_and(|(_, slot)| {
        let stop = IsolateMsg::Leave(Verdict::Idle);
        slot.actor()
            .is_some_and(|isolate| isolate.cast(stop).is_ok())
    })
}

/// Asks for a run, within the bounds.
fn demand(ctx: &Arc<Ctx>, slot: &Arc<Slot>) -> Result<(), Reason> {
    if slot.is_wanted() {
        return Ok(());
    }
    if ctx.is_stopping() {
        return Err(failure::shutting_down());
    }
    if !ctx.may_start() {
        let text =
            "no server is started while the audit log cannot be written. Tell your operator.";
        return Err(Reason::new(Code::AuditUnavailable, text));
    }
    if ctx.starts.waiting() >= START_QUEUE_MAX {
        let text = format!(
            "{START_QUEUE_MAX} servers are waiting to be started on this host; `{}` did not get a \
             place. Try again in a few seconds.",
            slot.mcp.name
        );
        return Err(Reason::new(Code::Starting, text).retry(std::time::Duration::from_secs(5)));
    }
    let remote = slot.mcp.program.is_remote();
    let running = ctx
        .slots
        .pin()
        .values()
        .filter(|one| one.is_running() && one.mcp.program.is_remote() == remote)
        .count();
    let refused = match remote {
        true => ctx.room.refuses_remote(running),
        false => ctx.room.refuses(running),
    };
    if let Some(Lack { why, mends }) = refused {
        let (next, retry) = if mends == Mends::Stopping && make_room(ctx, remote) {
            let next = "One that nobody uses is being stopped for it; try again";
            (next, ROOM_RETRY)
        } else {
            ctx.room.refused(slot.mcp.name.as_str(), &why);
            (mends.words(), HOST_FULL_RETRY)
        };
        let text = format!("`{}` is not started now: {why}. {next}.", slot.mcp.name);
        return Err(Reason::new(Code::HostFull, text).retry(retry));
    }
    if let Some(user) = slot.key.principal.user() {
        let most = ctx.settings.per_user_max;
        let slots = ctx.slots.pin();
        let running = slots
            .values()
            .filter(|other| other.key.principal.user() == Some(user))
            .filter(|other| other.is_running())
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
fn current(ctx: &Ctx, errand: &Errand<'_>) -> Result<Arc<Slot>, Reason> {
    let mcp = &errand.route.published.mcp;
    match ctx.routes.load().published(&mcp.id) {
        Some(published) => Ok(find(ctx, errand.session, published, errand.aside.questions)),
        None => {
            let text = format!("mcp `{}` is no longer published", mcp.name);
            Err(Reason::new(Code::McpDisabled, text))
        }
    }
}

/// The slot this session's calls of an mcp go to.
pub(super) fn find(
    ctx: &Ctx,
    session: &SessionHandle,
    published: &Published,
    asked: Questions,
) -> Arc<Slot> {
    let user = &session.user;
    let principal = match published.mcp.sharing {
        Sharing::PerUser => Principal::User(user.id.clone()),
        Sharing::PerSession => Principal::Session(user.id.clone(), session.id().clone()),
        Sharing::Shared => Principal::Shared,
    };
    // Who is asked on behalf of many cannot be told; and one without sessions is told with each request.
    let modern = published.era == Some(Era::Modern);
    let questions = match principal {
        Principal::Shared => Questions::NONE,
        _ if modern => Questions::NONE,
        _ => asked.both(published.mcp.talk.questions),
    };
    ctx.slot(
        principal,
        &published.mcp,
        &published.config,
        questions,
        Some(user),
    )
}
