//! A task of a server of 2026-07-28: it is looked at now and then, until it has ended. What it asks comes with that, and
//! is answered with a request of its own. All of it is one piece of work of the call that made the task.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::domain::ids::CallId;
use crate::domain::limits::{MCP_ROUNDS_MAX, TASK_ASK_WAIT, TASK_POLL, TASK_UPDATE_TRIES};
use crate::domain::mcp::Mcp;
use crate::domain::talk::Question;
use crate::protocol::envelope::{self, ReplyKind};
use crate::protocol::jsonrpc::INVALID_PARAMS;
use crate::protocol::needed::{self, Needed};
use crate::protocol::outbound;
use crate::protocol::tasks::{Seen, Status, newer};

use super::super::super::calls::{News, Tag};
use super::super::super::clock::id_bits;
use super::super::super::ctx::Ctx;
use super::super::super::failure::{self, Reason};
use super::super::super::handle::{Asked, Handle, Reply};
use super::super::super::tasks::Task;
use super::super::{Ask, Errand};
use super::{cut, listener};

/// What the task ended with.
pub(super) async fn outcome(
    ctx: &Arc<Ctx>,
    errand: &Errand<'_>,
    handle: &Arc<Handle>,
    task: &Seen,
    until: Instant,
) -> Result<Reply, Reason> {
    let (session, route) = (errand.session, errand.route);
    let keep = match errand.ask {
        Ask::Task { keep, .. } => keep,
        _ => None,
    };
    let tag = Tag {
        until,
        news: listener(errand, keep),
        task: true,
        ..errand.tag(None)
    };
    let watch = Watch {
        errand,
        handle,
        keep,
        name: &task.id,
        until,
    };
    let allowed = || {
        let denied = ctx.denies_call(session, &route.published.mcp.id, &route.tool);
        denied.is_none()
    };
    let watched = Box::pin(watch.end(task));
    match handle.among_calls(tag, watched, allowed).await {
        Ok(outcome) => outcome,
        Err(error) => Err(cut(ctx, errand, handle, error)),
    }
}

struct Watch<'a> {
    errand: &'a Errand<'a>,
    handle: &'a Arc<Handle>,
    /// What is kept of it; `None` if its caller waits.
    keep: Option<&'a Arc<Task>>,
    /// What its server calls it.
    name: &'a str,
    until: Instant,
}

/// How a task stands.
enum Stands {
    /// It is worked on; when to look again.
    Open(Duration),
    /// It has ended with this.
    Ended(Reply),
}

/// An answer by the server's name of its question, or why there is none.
type Answer = Result<(String, Bytes), (Question, String)>;

/// What was asked for the task, each under a name that is not used again.
#[derive(Default)]
struct Questions {
    known: HashMap<String, AbortHandle>,
    open: JoinSet<Answer>,
}

impl Watch<'_> {
    fn mcp(&self) -> &Mcp {
        &self.errand.route.published.mcp
    }

    async fn end(&self, made: &Seen) -> Result<Reply, Reason> {
        let mut questions = Questions::default();
        let mut next = Instant::now();
        if !made.status.is_last() {
            next += made.poll;
        }
        loop {
            let answered = tokio::select! {
                biased;
                Some(answered) = questions.open.join_next(), if !questions.open.is_empty() => Some(answered),
                () = sleep_until(next.min(self.until)) => None,
                () = wanted(self.keep) => None,
            };
            // One that was taken back has no answer.
            if let Some(Ok(answer)) = answered {
                self.bring(answer).await?;
            }
            if Instant::now() >= self.until {
                let tool = self.errand.route.tool.as_str();
                return Err(failure::task_timed_out(self.mcp(), tool));
            }
            let pause = match self.look().await {
                Some(reply) => match self.read(&reply, &mut questions)? {
                    Stands::Ended(with) => return Ok(with),
                    Stands::Open(pause) => pause,
                },
                None => TASK_POLL,
            };
            next = Instant::now() + pause;
            if let Some(task) = self.keep {
                task.looked();
            }
        }
    }

    /// Asks how it stands. What a server cannot say now it may say later.
    async fn look(&self) -> Option<Reply> {
        let params = newer::params(self.name, self.errand.declared(), b"");
        let soon = Instant::now() + TASK_ASK_WAIT;
        match self.handle.ask("tasks/get", &params, soon).await {
            Ok(reply) if reply.kind == ReplyKind::Result || is_gone(&reply) => Some(reply),
            // Also of a run that has ended: this is cut off then.
            _ => None,
        }
    }

    /// How it stands; what it asks is passed on.
    fn read(&self, reply: &Reply, questions: &mut Questions) -> Result<Stands, Reason> {
        let mcp = self.mcp();
        if reply.kind == ReplyKind::Error {
            return Ok(Stands::Ended(error(reply, reply.body.clone())));
        }
        let wrong = |what: &str| Err(failure::unusable(mcp, what));
        let Some(looked) = newer::looked(body(reply)) else {
            return wrong("what it says of its task is of no known shape");
        };
        match (looked.seen.status, looked.result, looked.error) {
            (Status::Completed, Some(result), _) => {
                let line = outbound::older_result(result.get().as_bytes());
                let line = line.map_err(|why| failure::unusable(mcp, why))?;
                Ok(Stands::Ended(Reply {
                    body: 0..line.len(),
                    kind: ReplyKind::Result,
                    line,
                    modern: false,
                }))
            }
            (Status::Failed, _, Some(said)) => {
                let place = envelope::locate(&reply.line, said);
                Ok(Stands::Ended(error(reply, place.unwrap_or_default())))
            }
            (Status::Completed | Status::Failed, ..) => {
                wrong("it ended a task, and does not say with what")
            }
            (Status::Cancelled, ..) => {
                let why = looked.seen.message.as_deref();
                Err(failure::task_cancelled(mcp, why))
            }
            (Status::Working, ..) => {
                questions.keep(&[]);
                Ok(self.stands(&looked.seen))
            }
            (Status::InputRequired, ..) => {
                let needed = needed::read(body(reply), self.errand.declared());
                let needed = needed.map_err(|why| failure::unusable(mcp, &why))?;
                self.ask(needed, questions)?;
                Ok(self.stands(&looked.seen))
            }
        }
    }

    fn stands(&self, seen: &Seen) -> Stands {
        if let Some(task) = self.keep {
            task.stands(seen);
        }
        Stands::Open(seen.poll)
    }

    /// Asks who can answer what was not asked before.
    fn ask(&self, needed: Needed, questions: &mut Questions) -> Result<(), Reason> {
        let names: Vec<_> = needed.questions.iter().map(|(name, _)| &**name).collect();
        questions.keep(&names);
        let mut new = Vec::new();
        for (name, posed) in needed.questions {
            if questions.known.contains_key(&name) {
                continue;
            }
            if questions.known.len() >= usize::from(MCP_ROUNDS_MAX) {
                let what = "it asks its client without end";
                return Err(failure::unusable(self.mcp(), what));
            }
            let visit = CallId::from_random(id_bits());
            let posed = needed::as_older(posed, visit.as_str());
            let (asked, awaited) = Asked::of_round(posed, self.until);
            let by_name = name.clone();
            let answer = async move {
                let answer = awaited.answer().await;
                answer.map(|answer| (by_name, answer))
            };
            questions.known.insert(name, questions.open.spawn(answer));
            new.push(asked);
        }
        match (self.keep, &self.errand.aside.news) {
            (Some(task), _) => task.asked(new),
            (None, None) => {}
            (None, Some(caller)) => {
                for asked in new {
                    // One who does not read answers nothing.
                    let _ = caller.try_send(News::Asked(Box::new(asked)));
                }
            }
        }
        Ok(())
    }

    /// Brings an answer to the server.
    async fn bring(&self, answer: Answer) -> Result<(), Reason> {
        let (name, answer) =
            answer.map_err(|(question, why)| failure::unanswered(self.mcp(), question, &why))?;
        let brought = needed::brought(&[(name, answer)], None);
        let params = newer::params(self.name, self.errand.declared(), &brought);
        for _ in 0..TASK_UPDATE_TRIES {
            let soon = Instant::now() + TASK_ASK_WAIT;
            let told = self.handle.ask("tasks/update", &params, soon).await;
            // One that does not want it says so by what it says of the task. Twice is as good as once.
            if told.is_ok() {
                break;
            }
        }
        Ok(())
    }
}

impl Questions {
    /// Takes back what is not asked any more.
    fn keep(&self, names: &[&str]) {
        for (name, open) in &self.known {
            if !names.contains(&&**name) {
                open.abort();
            }
        }
    }
}

/// Somebody wants to know how it stands.
async fn wanted(keep: Option<&Arc<Task>>) {
    match keep {
        Some(task) => task.wanted().await,
        None => std::future::pending().await,
    }
}

fn body(reply: &Reply) -> &[u8] {
    reply.line.get(reply.body.clone()).unwrap_or_default()
}

/// Whether the server knows nothing of the task.
fn is_gone(reply: &Reply) -> bool {
    #[derive(serde::Deserialize)]
    struct Error {
        code: i64,
    }
    serde_json::from_slice::<Error>(body(reply)).is_ok_and(|error| error.code == INVALID_PARAMS)
}

/// The error at this place, as a server of an older version would have answered with it.
fn error(reply: &Reply, place: std::ops::Range<usize>) -> Reply {
    let said = reply.line.slice(place);
    let line = outbound::older_error(&said, "tools/call").unwrap_or(said);
    Reply {
        body: 0..line.len(),
        kind: ReplyKind::Error,
        line,
        modern: false,
    }
}
