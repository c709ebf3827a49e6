//! What the listeners may ask of the tree, and all they may ask: register, authenticate, list,
//! call, heartbeat, leave. A request never goes further up the tree than this file.

mod admit;
mod arguments;
mod ask;
mod bearer;
mod declined;
mod gather;
mod lists;
mod owner;
mod prompts;
mod record;
mod register;
mod rounds;
mod tasks;
mod watch;

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::domain::account::Millis;
use crate::domain::audit::Category;
use crate::domain::code::Code;
use crate::domain::ids::{CallId, ConnectionId, SessionId};
use crate::domain::kill::Deny;
use crate::domain::limits::EXPOSED_NAME_CHARS_MAX;
use crate::domain::name::Name;
use crate::domain::talk::Questions;
use crate::protocol::envelope::ReplyKind;
use crate::protocol::forged;
use crate::telemetry::metrics::mcp::CallMeter;

use super::audit::{AuditError, Entry};
use super::catalog::{Published, Route, Routes};
use super::clock::id_bits;
use super::ctx::Ctx;
use super::failure::Reason;
use super::router::{Ask, Errand};
pub use ask::Method;
pub use bearer::{Bearer, Bearers};
pub use gather::{Gathered, Gathering, Listing, Missing};
pub use lists::{ListChange, Lists};
pub use owner::{Listed, Owner};
pub use prompts::PromptNames;
pub(in crate::actors) use tasks::end_withdrawn;
pub use tasks::{Begun, Page, Read};

pub use super::calls::{News, Progress};
pub use super::ears::{Subscriber, Told};
pub use super::handle::Asked;
pub use super::router::Aside;
use super::session::SessionHandle;
pub use super::tasks::{End, Maker, Task, TaskQuestion};
use admit::{admit, server_error};
use record::Ending;

/// Why a request was refused before it became a call: the HTTP layer turns it into a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What happened and what to do, for people.
    pub message: String,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
}

/// What a client says when it registers.
#[derive(Debug)]
pub struct Registration {
    /// The preshared key, unchecked.
    pub preshared_key: SecretString,
    /// What the client calls itself.
    pub friendly_name: String,
    /// The AI tool it runs in.
    pub host_tool: String,
    /// What it can answer when a server asks.
    pub questions: Questions,
    /// Where it is, for the record.
    pub from: Option<IpAddr>,
}

/// What a client gets when it registers.
#[derive(Debug)]
pub struct Registered {
    /// Its session.
    pub session: SessionId,
    /// Its token, shown only here.
    pub token: SecretString,
    /// Its connection.
    pub connection: ConnectionId,
    /// When the session ends without activity.
    pub expires_at: Millis,
    /// The user's name.
    pub user: Name,
}

/// One tool as a client sees it.
#[derive(Debug, Clone)]
pub struct ToolView {
    /// The exposed name.
    pub name: String,
    /// Its mcp's name.
    pub mcp: Name,
    /// The tool's definition as its server declared it: `description`, `inputSchema`, … stay raw.
    pub definition: Arc<RawValue>,
}

/// Which tool is called.
#[derive(Debug, Clone, Copy)]
pub enum Called<'a> {
    /// By its exposed name, or in the dotted form `mcp.tool`.
    Exposed(&'a str),
    /// By its own name, at the address of its mcp.
    Of {
        /// The mcp.
        mcp: &'a str,
        /// The tool.
        tool: &'a str,
    },
}

impl<'a> Called<'a> {
    fn in_view<'r>(self, routes: &'r Routes, session: &SessionHandle) -> Option<&'r Route> {
        let view = routes.view(&session.key)?;
        match self {
            Self::Exposed(name) => view.find(name),
            Self::Of { mcp, tool } => view.find_of(mcp, tool),
        }
    }

    fn shown(self) -> Cow<'a, str> {
        match self {
            Self::Exposed(name) => name.into(),
            Self::Of { mcp, tool } => format!("{mcp}/{tool}").into(),
        }
    }
}

/// How a call ended. Both are `200` for the standard client.
#[derive(Debug)]
pub enum Outcome {
    /// The server answered.
    Answered(Answer),
    /// It did not, and this is what the user can do about it.
    Failed(Failure),
}

/// A server's answer, untouched.
#[derive(Debug)]
pub struct Answer {
    /// The call.
    pub call: CallId,
    /// The mcp that answered.
    pub mcp: Name,
    /// The whole JSON-RPC line as the server wrote it.
    pub line: Bytes,
    /// Where the `result` is in it.
    pub result: Range<usize>,
    /// Whether its server is of the era without sessions, and its result as such servers write it.
    pub modern: bool,
    /// From admission to answer.
    pub took: Duration,
    /// Counts the call when the answer is on its way, with what the answer turned out to be.
    pub meter: CallMeter,
}

/// Why a call has no answer from its server.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The call.
    pub call: CallId,
    /// The stable code.
    pub code: Code,
    /// What happened and what to do, as a text for the AI tool's user.
    pub text: String,
    /// The mcp, once the tool's name was resolved.
    pub mcp: Option<Name>,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
    /// The verdict's word, if a run's end is the reason.
    pub verdict: Option<String>,
    /// The kill switch or suspension, if one is the reason.
    pub deny: Option<Arc<Deny>>,
    /// The error as its server wrote it, if that is the reason.
    pub error: Option<Bytes>,
    /// Whether that server is of the era without sessions.
    pub modern: bool,
    /// From admission to failure.
    pub took: Duration,
}

/// The tree, as the listeners see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Front {
    ctx: Arc<Ctx>,
}

impl Front {
    pub(super) fn new(ctx: Arc<Ctx>) -> Self {
        Self { ctx }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn wall_ms(&self) -> Millis {
        self.ctx.wall_ms()
    }

    /// Registers a client: checks its key and answers at once; isolates start with its first call.
    ///
    /// # Errors
    /// [`Refusal`]: the key is not good, its user is suspended, or the store is away.
    pub async fn register(&self, registration: Registration) -> Result<Registered, Refusal> {
        register::register(&self.ctx, registration).await
    }

    /// Whose token this is, which came from there. No lock, no actor, no database.
    ///
    /// # Errors
    /// [`Refusal`] with `unauthorized`, `session_expired` or `session_suspended`.
    pub fn authenticate(
        &self,
        token: Option<&str>,
        from: Option<IpAddr>,
    ) -> Result<Arc<SessionHandle>, Refusal> {
        register::authenticate(&self.ctx, token, from)
    }

    /// The session was heard of; gives its new end.
    pub fn heartbeat(&self, session: &SessionHandle) -> Millis {
        session.expires_at()
    }

    /// A connection of the session's client ended. The session lives on until it ages or its key
    /// needs room: another process may use it, and a client that comes back registers anew.
    pub fn disconnect(&self, session: &SessionHandle, connection: &str) {
        let is_known = connection == session.row.connection.as_str();
        tracing::debug!(session.id = %session.id(), connection.known = is_known, "a client disconnected");
        if is_known {
            session.leave();
        }
    }

    /// What the session sees, in the order to show.
    #[must_use]
    pub fn tools(&self, session: &SessionHandle) -> Vec<ToolView> {
        let routes = self.ctx.routes.load();
        let Some(view) = routes.view(&session.key) else {
            return Vec::new();
        };
        view.routes()
            .iter()
            .filter(|route| {
                let mcp = &route.published.mcp.id;
                self.ctx.denies_call(session, mcp, &route.tool).is_none()
            })
            .map(|route| ToolView {
                name: route.exposed.to_string(),
                mcp: route.published.mcp.name.clone(),
                definition: Arc::clone(&route.definition),
            })
            .collect()
    }

    /// The definition of a tool in the session's view.
    #[must_use]
    pub fn definition(&self, session: &SessionHandle, called: Called<'_>) -> Option<Arc<RawValue>> {
        let routes = self.ctx.routes.load();
        let route = called.in_view(&routes, session)?;
        Some(Arc::clone(&route.definition))
    }

    /// Carries a tool call to its server and the answer back. Dropping the future cancels it.
    pub async fn call(
        &self,
        session: &Arc<SessionHandle>,
        called: Called<'_>,
        arguments: &RawValue,
        aside: &Aside<'_>,
    ) -> Outcome {
        let admitted = Instant::now();
        let ctx = &self.ctx;
        let call = CallId::from_random(id_bits());
        ctx.totals.calls.fetch_add(1, Ordering::Relaxed);
        let routes = ctx.routes.load_full();
        let route = match admit(ctx, &routes, session, called) {
            Ok(route) => route,
            Err(reason) => {
                let tool = called.shown();
                let known = called.in_view(&routes, session);
                let meter = known.map_or(ctx.metrics.no_mcp(), |route| &route.published.meter);
                let meter = CallMeter::refused(Arc::clone(meter));
                let what = (known.map(|route| &route.published), &*tool);
                self.refused(session, &call, what, &reason).await;
                return self.failed(call, None, reason, admitted, &meter);
            }
        };
        if let Err(reason) = arguments::check(ctx, route, arguments).await {
            let meter = CallMeter::refused(Arc::clone(&route.published.meter));
            let what = (Some(&route.published), &*called.shown());
            self.refused(session, &call, what, &reason).await;
            let mcp = route.published.mcp.name.clone();
            return self.failed(call, Some(mcp), reason, admitted, &meter);
        }
        let ask = self.ask_of(route, arguments.get().as_bytes(), aside);
        self.carried(session, route, arguments, (ask, aside), call, admitted)
            .await
    }

    /// Carries what was admitted; `asked` is what the log has of it.
    async fn carried(
        &self,
        session: &Arc<SessionHandle>,
        route: &Route,
        asked: &RawValue,
        (ask, aside): (Ask<'_>, &Aside<'_>),
        call: CallId,
        admitted: Instant,
    ) -> Outcome {
        let ctx = &self.ctx;
        let mcp = &route.published.mcp;
        let meter = CallMeter::begin(Arc::clone(&route.published.meter), asked.get().len());
        let start = record::start(ctx, session, route, &call, asked).await;
        let start = match &aside.task {
            Some(task) => start.field("task", task.id.as_str()),
            None => start,
        };
        let not_made = |error: AuditError| {
            let text = format!("the call was not made: {error}. Tell your operator.");
            Reason::new(Code::AuditUnavailable, text)
        };
        let appended = match ctx.audit.append(&start).await {
            Ok(appended) => appended,
            Err(error) => {
                let reason = not_made(error);
                return self.failed(call, Some(mcp.name.clone()), reason, admitted, &meter);
            }
        };
        // From here on the log has an end for every start, also if the caller leaves, and if the
        // disk takes the start only when it is no longer waited for.
        let mut ending = Ending {
            ctx,
            call: call.clone(),
            outcome: "caller_left",
            told: false,
            admitted,
        };
        if let Err(error) = ctx.audit.wait(appended, Category::Call).await {
            ending.outcome = Code::AuditUnavailable.as_str();
            let reason = not_made(error);
            return self.failed(call, Some(mcp.name.clone()), reason, admitted, &meter);
        }
        let errand = Errand {
            call: &call,
            session,
            route,
            ask,
            aside,
            admitted,
        };
        let carried = tasks::while_open(rounds::carry(ctx, errand), aside.task.as_deref()).await;
        let carried = carried.and_then(|reply| match reply.kind {
            ReplyKind::Result => Ok(reply),
            ReplyKind::Error => Err(server_error(mcp, &reply)),
        });
        let (outcome, bytes) = match &carried {
            Ok(reply) => ("answered", reply.line.len()),
            Err(reason) => (reason.code.as_str(), 0),
        };
        if let Err(error) = ending.commit(outcome, bytes).await {
            let text = format!("the answer is withheld: {error}. Tell your operator.");
            let reason = Reason::new(Code::AuditUnavailable, text);
            return self.failed(call, Some(mcp.name.clone()), reason, admitted, &meter);
        }
        match carried {
            Ok(reply) => {
                meter.answered(reply.line.len());
                let written = reply.line.get(reply.body.clone()).unwrap_or_default();
                let (result, line) = match forged::without(written) {
                    None => (reply.body, reply.line),
                    Some(own) => (0..own.len(), own.into()),
                };
                Outcome::Answered(Answer {
                    call,
                    mcp: mcp.name.clone(),
                    line,
                    result,
                    modern: reply.modern,
                    took: admitted.elapsed(),
                    meter,
                })
            }
            Err(reason) => self.failed(call, Some(mcp.name.clone()), reason, admitted, &meter),
        }
    }

    /// Waits for the disk like any other record: a client that floods us with refusals slows itself
    /// down. While the disk refuses nobody waits; then such refusals are counted (see `admit`), and
    /// the queue keeps its last places for others.
    async fn refused(
        &self,
        session: &SessionHandle,
        call: &CallId,
        (published, tool): (Option<&Published>, &str),
        reason: &Reason,
    ) {
        // One under way that a deny cuts off is counted by whoever set it.
        if let Some(deny) = &reason.deny {
            self.ctx.kill.stats.count_denied(deny.target.scope());
        }
        if reason.counted {
            return;
        }
        let name: String = tool.chars().take(EXPOSED_NAME_CHARS_MAX * 2).collect();
        let entry = Entry::new("call.refused", self.ctx.wall_ms())
            .field("call", call.as_str())
            .field("session", session.id().as_str())
            .field("user", session.user.id.as_str())
            .field("key", session.key.as_str());
        let entry = match published {
            Some(published) => entry.field("mcp", published.mcp.id.as_str()),
            None => entry,
        };
        let entry = entry
            .field("tool", &name)
            .field("code", reason.code.as_str());
        let entry = match &reason.rule {
            Some(rule) => entry.field("rule", rule),
            None => entry,
        };
        let entry = match &reason.deny {
            Some(deny) => entry.field("deny", deny.id.as_str()),
            None => entry,
        };
        // Refused is refused, on record or not; the log's keeper tells of its own trouble.
        let _ = self.ctx.audit.commit(entry).await;
    }

    fn failed(
        &self,
        call: CallId,
        mcp: Option<Name>,
        reason: Reason,
        admitted: Instant,
        meter: &CallMeter,
    ) -> Outcome {
        meter.failed(reason.code);
        self.ctx.totals.failed.fetch_add(1, Ordering::Relaxed);
        Outcome::Failed(Failure {
            call,
            code: reason.code,
            text: reason.text,
            mcp,
            retry_after: reason.retry_after,
            verdict: reason.verdict.map(ToOwned::to_owned),
            deny: reason.deny,
            error: reason.error,
            modern: reason.modern,
            took: admitted.elapsed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::audit::{Audit, Durability, Setup, Sync, reading};
    use super::super::calls::Tag;
    use super::super::clock::SetClock;
    use super::super::scripted::Scripted;
    use super::*;
    use crate::config::Config;
    use crate::domain::ids::ID_BYTES;
    use crate::domain::limits::AUDIT_QUEUE_MAX;
    use crate::storage::Store;

    async fn ctx(dir: &std::path::Path) -> Arc<Ctx> {
        ctx_on(dir, Sync::default()).await
    }

    async fn ctx_on(dir: &std::path::Path, sync: Sync) -> Arc<Ctx> {
        let mut config = Config::default();
        config.server.data_dir = dir.to_owned();
        let store = Store::open(&dir.join("db")).await.unwrap();
        let setup = Setup::new(&dir.join("audit"), Durability::Durable);
        let audit = Audit::start(Setup { sync, ..setup }).unwrap();
        let clock = Arc::new(SetClock::at(1));
        Arc::new(Ctx::new(
            config,
            clock,
            store,
            audit,
            Arc::new(Scripted::default()),
        ))
    }

    fn ending(ctx: &Ctx) -> Ending<'_> {
        Ending {
            ctx,
            call: CallId::from_random(id_bits()),
            outcome: "caller_left",
            told: false,
            admitted: Instant::now(),
        }
    }

    #[tokio::test]
    async fn a_caller_who_leaves_has_an_end_in_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = ctx(dir.path()).await;
        drop(ending(&ctx));
        ending(&ctx).commit("answered", 1).await.unwrap();
        let ends = reading::records(&dir.path().join("audit"));
        assert_eq!(ends.len(), 2, "{ends:?}");
        assert_eq!(ends[0]["outcome"], "caller_left");
        assert_eq!(ends[1]["outcome"], "answered");
    }

    #[tokio::test]
    async fn an_end_is_told_when_it_is_in_the_queue_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let full = Sync::with(|_| Err(std::io::ErrorKind::StorageFull.into()));
        let ctx = ctx_on(dir.path(), full).await;
        let mut queued = ending(&ctx);
        assert!(queued.commit("answered", 1).await.is_err());
        assert!(queued.told, "it is written when the disk takes it");
        for _ in 0..AUDIT_QUEUE_MAX {
            ctx.audit.post(Entry::new("test", 1));
        }
        let mut full = ending(&ctx);
        assert!(full.commit("answered", 1).await.is_err());
        assert!(!full.told, "there was no room for it");
        assert_eq!(full.outcome, "audit_unavailable");
    }

    #[tokio::test]
    async fn calls_refused_for_want_of_a_log_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = ctx(dir.path()).await;
        let front = Front::new(Arc::clone(&ctx));
        let session = Tag::for_tests([1; ID_BYTES]).session;
        let routes = ctx.routes.load_full();
        // The gate is as the disk that refuses leaves it: shut.
        for _ in 0..1000 {
            let refused = admit(&ctx, &routes, &session, Called::Exposed("demo.echo"));
            let reason = refused.unwrap_err();
            assert_eq!(reason.code, Code::AuditUnavailable);
            let call = CallId::from_random(id_bits());
            front
                .refused(&session, &call, (None, "demo.echo"), &reason)
                .await;
        }
        let refused = reading::records(&dir.path().join("audit"));
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0]["event"], "call.refused");
        for entry in ctx.refusals.sweep(1, true) {
            ctx.audit.commit(entry).await.unwrap();
        }
        let more = &reading::records(&dir.path().join("audit"))[1];
        assert_eq!(
            (&more["event"], &more["count"]),
            (&"call.refused_more".into(), &999.into())
        );
    }

    #[tokio::test]
    async fn nobody_registers_while_the_log_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = ctx(dir.path()).await;
        let front = Front::new(Arc::clone(&ctx));
        let try_it = || Registration {
            preshared_key: SecretString::from("no key"),
            friendly_name: "x".to_owned(),
            host_tool: "y".to_owned(),
            questions: Questions::NONE,
            from: None,
        };
        let refusal = front.register(try_it()).await.unwrap_err();
        assert_eq!(refusal.code, Code::AuditUnavailable);
        assert_eq!(
            ctx.audit.queued() + ctx.audit.written().borrow().appended,
            0
        );
        ctx.gates.audit.set(true);
        let refusal = front.register(try_it()).await.unwrap_err();
        assert_eq!(refusal.code, Code::KeyUnknown);
    }
}
