//! A call that its server makes a task of: it goes on with the question what the task ended with, on the same run, until
//! that is answered. So whatever is true of a call in flight (it is listed and cancelled, keeps its run from being
//! idle, is ended with it, and by kill switches) is true of a task. Servers of 2026-07-28 are asked again and again
//! instead ([`newer`]).

mod newer;

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::domain::code::Code;
use crate::domain::limits::{TASK_ASK_WAIT, TASK_POLL};
use crate::protocol::envelope::{self, ReplyKind};
use crate::protocol::tasks::{self, Seen, Status};

use super::super::calls::{News, Tag, Why};
use super::super::ctx::Ctx;
use super::super::failure::{self, Reason};
use super::super::handle::{CallError, Handle, Reply, TaskEar};
use super::super::sync::Mutex;
use super::super::tasks::Task;
use super::{Ask, Errand, ended, still_allowed};

/// Hears what is said of a task from the moment on in which it can be made.
#[derive(Debug, Default)]
pub(super) struct Expected(Mutex<Option<TaskEar>>);

impl Expected {
    /// The call is on its way under this id.
    pub(super) fn begin(&self, errand: &Errand<'_>, handle: &Arc<Handle>, id: u64) {
        if let Ask::Task { keep, .. } = errand.ask {
            let ear = handle.hear_task(id, listener(errand, keep), errand.aside.level);
            *self.0.lock() = Some(ear);
        }
    }
}

/// Who hears of it: whoever keeps the task, or the caller who waits.
fn listener(errand: &Errand<'_>, keep: Option<&Arc<Task>>) -> Option<mpsc::Sender<News>> {
    match keep {
        Some(task) => Some(task.listener()),
        None => errand.aside.news.clone(),
    }
}

/// Tells the server to stop, unless it has ended by itself.
struct Stop {
    handle: Arc<Handle>,
    name: Box<str>,
    is_needed: bool,
}

impl Drop for Stop {
    fn drop(&mut self) {
        if !self.is_needed || self.handle.ended().is_some() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (handle, name) = (Arc::clone(&self.handle), std::mem::take(&mut self.name));
            runtime.spawn(async move {
                let deadline = Instant::now() + TASK_ASK_WAIT;
                handle.cancel_task(&name, deadline).await;
            });
        }
    }
}

fn stop(handle: &Arc<Handle>, seen: &Seen, is_needed: bool) -> Stop {
    Stop {
        handle: Arc::clone(handle),
        name: seen.id.clone(),
        is_needed,
    }
}

/// Its server has made it: from now on it can be found.
fn begins(
    ctx: &Ctx,
    keep: Option<&Arc<Task>>,
    handle: &Arc<Handle>,
    seen: &Seen,
    meta: Option<&RawValue>,
) {
    if let Some(task) = keep {
        ctx.tasks.make_room(task);
        task.begins(handle, seen, meta);
    }
}

/// Goes on with a call that was answered. One that is no task has its answer.
pub(super) async fn go_on(
    ctx: &Arc<Ctx>,
    errand: &Errand<'_>,
    handle: &Arc<Handle>,
    expected: Expected,
    reply: Reply,
    deadline: Instant,
) -> Result<Reply, Reason> {
    let Ask::Task { keep, .. } = errand.ask else {
        return Ok(reply);
    };
    let body = reply.line.get(reply.body.clone()).unwrap_or_default();
    if reply.modern {
        let made = tasks::newer::created(body).filter(|_| reply.kind == ReplyKind::Result);
        return match made {
            Some((seen, meta)) => {
                let mut stop = stop(handle, &seen, true);
                begins(ctx, keep, handle, &seen, meta.as_deref());
                let until = keep.map_or(deadline, |task| task.until(&seen));
                let outcome = newer::outcome(ctx, errand, handle, &seen, until).await;
                stop.is_needed = outcome.is_err();
                outcome
            }
            None => Ok(reply),
        };
    }
    let made = tasks::created(body).filter(|_| reply.kind == ReplyKind::Result);
    let Some((seen, meta)) = made else {
        return Ok(reply);
    };
    let mcp = &errand.route.published.mcp;
    let until = keep.map_or(deadline, |task| task.until(&seen));
    let ear = expected.0.lock().take();
    let shown = keep.map(|task| task.id.as_str());
    if !ear
        .as_ref()
        .is_some_and(|ear| ear.know(&seen.id, shown, until))
    {
        let text = format!(
            "mcp `{}` gives two tasks one name, so neither could be told from the other",
            mcp.name
        );
        return Err(Reason::new(Code::ServerError, text));
    }
    let able = ctx.abilities.of(&errand.route.published);
    let mut stop = stop(handle, &seen, able.is_none_or(|able| able.tasks_cancel));
    begins(ctx, keep, handle, &seen, meta);
    let outcome = outcome(ctx, errand, handle, &seen, until).await;
    stop.is_needed &= outcome.is_err();
    let reply = outcome?;
    // A result of an odd shape is not passed on by whoever looks at it next.
    let body = reply.line.get(reply.body.clone()).unwrap_or_default();
    match (reply.kind, tasks::relate(body, shown)) {
        (ReplyKind::Result, Some(line)) => Ok(Reply {
            body: 0..line.len(),
            kind: reply.kind,
            line,
            modern: reply.modern,
        }),
        _ => Ok(reply),
    }
}

/// What the task ended with. Servers answer when it has ended; those that do so at once are asked again.
async fn outcome(
    ctx: &Arc<Ctx>,
    errand: &Errand<'_>,
    handle: &Arc<Handle>,
    task: &Seen,
    until: Instant,
) -> Result<Reply, Reason> {
    let (session, route) = (errand.session, errand.route);
    let mcp = &route.published.mcp;
    let Ask::Task { keep, .. } = errand.ask else {
        return Err(failure::task_timed_out(mcp, route.tool.as_str()));
    };
    let named = tasks::named(&task.id);
    let mut had_ended = false;
    loop {
        let tag = || Tag {
            until,
            news: listener(errand, keep),
            task: true,
            ..errand.tag(None)
        };
        let line = |id| envelope::request(id, "tasks/result", &named);
        let allowed = || ctx.denies_call(session, &mcp.id, &route.tool).is_none();
        let poll = match handle.call(tag(), line, until, allowed).await {
            Ok(reply) if reply.kind == ReplyKind::Result => return Ok(reply),
            Ok(reply) => {
                let looked = handle.look_at_task(&task.id, Instant::now() + TASK_ASK_WAIT);
                let looked = handle.among_calls(tag(), looked, allowed).await;
                match looked.map_err(|error| cut(ctx, errand, handle, error))? {
                    Some(seen) if !seen.status.is_last() => seen.poll,
                    Some(seen) if seen.status == Status::Cancelled => {
                        return Err(failure::task_cancelled(mcp, seen.message.as_deref()));
                    }
                    // It ended in between: what it was asked before says nothing of how.
                    Some(_) if !had_ended => {
                        had_ended = true;
                        continue;
                    }
                    _ => return Ok(reply),
                }
            }
            Err(CallError::Busy { .. }) => TASK_POLL,
            Err(error) => return Err(cut(ctx, errand, handle, error)),
        };
        let next = Instant::now() + poll;
        let pause = sleep_until(next.min(until));
        let paused = handle.among_calls(tag(), pause, allowed).await;
        paused.map_err(|error| cut(ctx, errand, handle, error))?;
        if next >= until {
            return Err(failure::task_timed_out(mcp, route.tool.as_str()));
        }
    }
}

/// Why a task that is waited for is waited for no longer.
fn cut(ctx: &Ctx, errand: &Errand<'_>, handle: &Handle, error: CallError) -> Reason {
    let (session, route) = (errand.session, errand.route);
    let mcp = &route.published.mcp;
    match error {
        CallError::NotSent | CallError::Refused | CallError::Busy { .. } => {
            if let Err(taken_away) = still_allowed(ctx, session, route) {
                return taken_away;
            }
            match handle.ended() {
                Some(end) => ended(ctx, session, route, &end),
                None => failure::task_lost(mcp),
            }
        }
        CallError::Ended(end) => ended(ctx, session, route, &end),
        CallError::Cancelled(Why::Denied(deny)) => failure::denied(&deny),
        CallError::Cancelled(Why::Asked(why)) => failure::cancelled(mcp, &why),
        CallError::Cancelled(Why::Revoked) => failure::revoked(),
        CallError::TimedOut => failure::task_timed_out(mcp, route.tool.as_str()),
    }
}
