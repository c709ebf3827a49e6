//! Calls whose client does not wait for them: made like any other call, kept by the gateway, found by the key that
//! made them.

mod keeper;
mod withdrawn;

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::domain::code::Code;
use crate::domain::era::Era;
use crate::domain::ids::{CallId, TaskId};
use crate::domain::limits::{TASK_ASK_WAIT, TASK_FRESH, TASKS_LIVING_MAX, TASKS_MAX, TASKS_PAGE};
use crate::protocol::tasks::{Support, newer};
use crate::telemetry::metrics::mcp::CallMeter;

use super::super::calls::News;
use super::super::catalog::{Published, Route};
use super::super::clock::id_bits;
use super::super::failure::{self, Reason};
use super::super::router::Ask;
use super::super::session::SessionHandle;
use super::super::tasks::{End, Full, Maker, Task};
use super::{Aside, Called, Failure, Front, Outcome};
pub(super) use keeper::while_open;
pub(in crate::actors) use withdrawn::end_withdrawn;

/// What became of a call that was to be a task.
#[derive(Debug)]
pub enum Begun {
    /// It is one.
    Task(Arc<Task>),
    /// It is none.
    Ended(Outcome),
}

/// What of a task can be read.
#[derive(Debug)]
pub enum Read {
    /// It has not ended.
    Open,
    /// What it ended with.
    Ended(End),
}

/// One page of tasks, and where the next begins.
pub type Page = (Vec<Arc<Task>>, Option<u64>);

impl Front {
    /// Whether any tool that a session sees at an address works as a task, for its clients of this kind.
    #[must_use]
    pub fn offers_tasks(
        &self,
        session: &SessionHandle,
        view: Option<&str>,
        stateless: bool,
    ) -> bool {
        let routes = self.ctx.routes.load();
        let mut own = routes
            .view(&session.key)
            .into_iter()
            .flat_map(|view| view.routes());
        own.any(|route| {
            let is_here = view.is_none_or(|mcp| route.published.mcp.name.as_str() == mcp);
            is_here && self.support(route, stateless) != Support::Forbidden
        })
    }

    /// Whether the servers of an mcp can be told to stop working on a task.
    #[must_use]
    pub fn cancels_tasks(&self, session: &SessionHandle, view: Option<&str>) -> bool {
        let published = view.and_then(|mcp| self.published(session, mcp));
        // Where there are all, the gateway itself lets go of those whose servers cannot.
        published.is_none_or(|published| {
            let able = self.ctx.abilities.of(&published);
            able.is_none_or(|able| able.tasks_cancel)
        })
    }

    /// Whether its server, as far as it is known, makes tasks that its client asks for.
    fn may_task(&self, route: &Route) -> bool {
        let able = self.ctx.abilities.of(&route.published);
        !is_modern(&route.published) && able.is_none_or(|able| able.tasks)
    }

    /// Whether its server makes tasks as it likes, for clients that take them.
    fn decides(&self, route: &Route) -> bool {
        let able = self.ctx.abilities.of(&route.published);
        is_modern(&route.published) && able.is_some_and(|able| able.tasks)
    }

    /// Whether a tool works as a task. Of which calls a server makes one by itself is told to clients of its own era
    /// alone: others are not used to be given what they did not ask for.
    fn support(&self, route: &Route, stateless: bool) -> Support {
        match () {
            () if self.may_task(route) => route.tasks(),
            () if stateless && self.decides(route) => Support::Optional,
            () => Support::Forbidden,
        }
    }

    /// How a tool is called: one that works only as a task is, and its caller waits.
    pub(super) fn ask_of<'a>(
        &self,
        route: &Route,
        arguments: &'a [u8],
        aside: &'a Aside<'_>,
    ) -> Ask<'a> {
        let stateless = aside.task.as_ref().is_some_and(|task| task.is_stateless());
        match (&aside.task, self.support(route, stateless)) {
            (Some(task), Support::Optional | Support::Required) => Ask::Task {
                arguments,
                keep: Some(task),
            },
            (None, Support::Required) => Ask::Task {
                arguments,
                keep: None,
            },
            _ => Ask::Tool { arguments },
        }
    }

    /// Makes a call that is a task. What was asked must be one, if `must` says so; else one that cannot be is
    /// a call like any other. Dropping the future cancels it, until it is one.
    pub async fn begin_task(
        &self,
        session: &Arc<SessionHandle>,
        called: Called<'_>,
        arguments: &RawValue,
        aside: &Aside<'_>,
        (maker, must): (Maker, bool),
    ) -> Begun {
        let routes = self.ctx.routes.load_full();
        let Some(route) = called.in_view(&routes, session) else {
            return Begun::Ended(self.call(session, called, arguments, aside).await);
        };
        match self.support(route, maker.stateless) {
            Support::Optional | Support::Required => {}
            Support::Forbidden if must && self.may_task(route) => {
                let reason = failure::no_task(route.tool.as_str());
                return Begun::Ended(self.not_begun(session, route, reason).await);
            }
            // A server that makes no tasks takes no note of the wish.
            Support::Forbidden => {
                return Begun::Ended(self.call(session, called, arguments, aside).await);
            }
        }
        let ctx = &self.ctx;
        let what = (route.published.mcp.id.clone(), route.tool.clone());
        let id = TaskId::from_random(id_bits());
        let own = (id, Arc::clone(&ctx.clock), Arc::clone(&ctx.ears));
        let (task, news) = Task::new(session, what, maker, own);
        if let Err(full) = ctx.tasks.enter(&task) {
            let reason = match full {
                Full::User => failure::too_many_tasks(TASKS_LIVING_MAX, false),
                Full::All => failure::too_many_tasks(TASKS_MAX, true),
            };
            // Whether it would be a task at all is its server's to say: it is told that there is room for none.
            if self.decides(route) {
                let outcome = self.call(session, called, arguments, aside).await;
                if !wants_tasks(&outcome) {
                    return Begun::Ended(outcome);
                }
            }
            return Begun::Ended(self.not_begun(session, route, reason).await);
        }
        let (tell, told) = oneshot::channel();
        let keeper = self.keeper(session, called, arguments, aside, &task, news, tell);
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper));
        tokio::select! {
            biased;
            () = task.begun() => {}
            outcome = told => {
                // Nobody tells: it is a task, and has ended.
                if let Ok(outcome) = outcome {
                    return Begun::Ended(outcome);
                }
            }
        }
        if !task.has_begun() {
            let reason = Reason::new(Code::Internal, "the gateway could not begin this task");
            return Begun::Ended(self.not_begun(session, route, reason).await);
        }
        keeper.detach();
        Begun::Task(task)
    }

    async fn not_begun(&self, session: &SessionHandle, route: &Route, reason: Reason) -> Outcome {
        let call = CallId::from_random(id_bits());
        let meter = CallMeter::refused(Arc::clone(&route.published.meter));
        let what = (Some(&route.published), &*route.exposed);
        self.refused(session, &call, what, &reason).await;
        let mcp = route.published.mcp.name.clone();
        self.failed(call, Some(mcp), reason, Instant::now(), &meter)
    }

    /// The task of this id, if the session's key made it, and its tool is at this address still.
    #[must_use]
    pub fn task(&self, session: &SessionHandle, view: Option<&str>, id: &str) -> Option<Arc<Task>> {
        let id = TaskId::parse(id).ok()?;
        let task = self.ctx.tasks.find(&id)?;
        self.is_visible(session, view, &task).then_some(task)
    }

    fn is_visible(&self, session: &SessionHandle, view: Option<&str>, task: &Task) -> bool {
        let routes = self.ctx.routes.load();
        let own = routes
            .view(&session.key)
            .into_iter()
            .flat_map(|view| view.routes());
        let mut own = own.filter(|route| {
            let published = &route.published.mcp;
            published.id == task.mcp && view.is_none_or(|mcp| published.name.as_str() == mcp)
        });
        let is_own = task.key == session.key && task.has_begun();
        is_own && !task.is_over(Instant::now()) && own.any(|route| route.tool == task.tool)
    }

    /// The tasks of a session's key at an address, from this number on.
    #[must_use]
    pub fn tasks(&self, session: &SessionHandle, view: Option<&str>, from: u64) -> Page {
        let all = self.ctx.tasks.of(&session.user.id, from).into_iter();
        let mut own = all.filter(|(_, task)| self.is_visible(session, view, task));
        let page: Vec<_> = own.by_ref().take(TASKS_PAGE).collect();
        let next = own.next().map(|(number, _)| number);
        (page.into_iter().map(|(_, task)| task).collect(), next)
    }

    /// Has its server say how a task stands, if it did not lately.
    pub async fn look_at_task(&self, task: &Task) {
        let Some((handle, name)) = task.stale() else {
            return;
        };
        if handle.is_modern() {
            return task.look_soon(TASK_ASK_WAIT).await;
        }
        let seen = handle
            .look_at_task(&name, Instant::now() + TASK_ASK_WAIT)
            .await;
        if let Some(seen) = seen {
            task.stands(&seen);
            if seen.status.is_last() {
                // What it ended with is on its way.
                task.ends_within(TASK_FRESH).await;
            }
        }
    }

    /// What a task ended with. Who may not call its tool now does not read what it said.
    ///
    /// # Errors
    /// Why not.
    pub fn read_task(&self, session: &SessionHandle, task: &Task) -> Result<Read, Box<Failure>> {
        if let Some(deny) = self.ctx.denies_call(session, &task.mcp, &task.tool) {
            let reason = failure::denied(&deny);
            return Err(Box::new(Failure {
                deny: reason.deny,
                ..lost(reason.code, reason.text)
            }));
        }
        Ok(match task.look() {
            (_, Some(end)) => Read::Ended(end),
            (_, None) => Read::Open,
        })
    }

    /// Waits for the end of a task, and tells what happens meanwhile; as long as a call of its mcp may take.
    pub async fn attend_task(&self, task: &Task, tell: Option<&mpsc::Sender<News>>) -> bool {
        let routes = self.ctx.routes.load_full();
        let wait = routes
            .published(&task.mcp)
            .map_or(TASK_ASK_WAIT, |published| published.mcp.call_deadline());
        task.attend(tell, Instant::now() + wait).await
    }

    /// Ends a task that its client does not want any more; `false` if it has ended already.
    pub fn cancel_task(&self, task: &Task) -> bool {
        let text = "this task was cancelled by its client".to_owned();
        task.end(End::Failed(lost(Code::Cancelled, text)))
    }
}

/// Whether its servers are known to be of the era without sessions.
fn is_modern(published: &Published) -> bool {
    published.era == Some(Era::Modern)
}

/// Whether a server refused a call whose client takes no tasks.
fn wants_tasks(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Answered(_) => false,
        Outcome::Failed(failure) => {
            let error = failure.error.as_ref().filter(|_| failure.modern);
            error.is_some_and(|error| newer::is_required(error))
        }
    }
}

/// A failure that no call's end says.
fn lost(code: Code, text: String) -> Failure {
    Failure {
        call: CallId::from_random(id_bits()),
        code,
        text,
        mcp: None,
        retry_after: None,
        verdict: None,
        deny: None,
        error: None,
        modern: false,
        took: std::time::Duration::ZERO,
    }
}
