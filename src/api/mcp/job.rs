//! What one request asks of servers, without the request itself: one that is lost does not end it.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::answer::{self, Era};
use super::everywhere;
use super::flights::Flight;
use super::rounds::Rounds;
use super::tasks::{self, Awaited};
use super::{methods, rpc_method};
use crate::actors::front::{Aside, Begun, Called, Front, Maker, Method, News, Outcome, Task};
use crate::actors::session::SessionHandle;
use crate::domain::talk::{Level, Questions};
use crate::protocol::extensions::Extensions;
use crate::protocol::jsonrpc;
use crate::protocol::modern::Kept;
use crate::telemetry::metrics::labels::{RpcMethod, RpcOutcome};

/// What is asked of a server.
#[derive(Debug)]
pub(super) enum What {
    /// To run a tool.
    Tool {
        name: String,
        /// The mcp whose address it came to.
        of: Option<String>,
        /// Members of `_meta`.
        meta: Vec<u8>,
        /// Whether the client wants to hear of progress.
        progress: bool,
        /// The task that it is to be, and whether it must.
        task: Option<(Maker, bool)>,
    },
    /// To wait for the end of a task.
    TaskEnd(Arc<Task>),
    /// Another method, of this mcp, or of all.
    Method(Method, Option<String>),
}

/// What a client says of itself with its request.
#[derive(Debug, Clone, Default)]
pub(super) struct Says {
    /// What it can answer.
    pub(super) questions: Questions,
    /// Whether it can also answer when its request is over.
    pub(super) late: bool,
    /// From which level on it hears what servers log.
    pub(super) level: Option<Level>,
    /// Whether it said that level itself.
    pub(super) level_said: bool,
    /// The extensions that it and the server at its address have in common.
    pub(super) extensions: Extensions,
}

/// Work that does not need its request any more.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) front: Front,
    pub(super) session: Arc<SessionHandle>,
    pub(super) what: What,
    /// Arguments or parameters; an object.
    pub(super) given: Bytes,
    pub(super) says: Says,
    /// Whether its client knows of no sessions.
    pub(super) modern: bool,
    /// What its client answers, for a server that knows of none either.
    pub(super) brought: Bytes,
    /// Who hears what the server says meanwhile.
    pub(super) news: Option<mpsc::Sender<News>>,
    pub(super) outcome: RpcOutcome,
    /// Tells that it has ended.
    pub(super) _done: DropGuard,
    pub(super) _flight: Flight,
}

/// Counted when it goes, however it goes.
impl Drop for Job {
    fn drop(&mut self) {
        let other = matches!(&self.what, What::Method(method, _) if method.is_extensions());
        if other && !self.modern {
            // It was counted where its message was read.
            return;
        }
        let method = match &self.what {
            What::Tool { .. } => RpcMethod::ToolsCall,
            What::Method(method, _) => rpc_method(method.name()),
            What::TaskEnd(_) => RpcMethod::TasksResult,
        };
        self.front.answered(method, self.outcome);
    }
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Ended {
    /// A tool was called.
    Tool(Outcome),
    /// One was to be called as a task, and was not.
    NoTask(Outcome),
    /// It is a task.
    Task(Arc<Task>),
    /// What a task ended with, if it has.
    TaskEnd(Box<Awaited>),
    /// Another method was passed on.
    Method(Method, Outcome),
    /// What all servers list.
    Listed(Method, Bytes),
    /// What is asked for is no server's.
    Wrong(everywhere::Wrong),
    /// Its client sees nothing at this address.
    Nowhere(String),
    /// What was read as JSON before is none.
    NoJson,
}

impl Job {
    pub(super) async fn done(mut self) -> Ended {
        let ended = self.work().await;
        self.outcome = match &ended {
            Ended::Tool(outcome) | Ended::NoTask(outcome) | Ended::Method(_, outcome) => {
                answer::counts_as(outcome)
            }
            Ended::Task(_) | Ended::Listed(..) => RpcOutcome::Ok,
            Ended::TaskEnd(end) => end.counts_as(),
            Ended::Wrong(_) | Ended::Nowhere(_) | Ended::NoJson => RpcOutcome::Error,
        };
        ended
    }

    async fn work(&mut self) -> Ended {
        let Ok(given) = serde_json::from_slice::<&RawValue>(&self.given) else {
            return Ended::NoJson;
        };
        let mut aside = Aside {
            news: self.news.take(),
            questions: self.says.questions,
            extensions: self.says.extensions.clone(),
            level: self.says.level,
            level_said: self.says.level_said,
            late: self.says.late,
            modern: self.modern,
            brought: &self.brought,
            ..Aside::default()
        };
        match &self.what {
            What::Tool {
                name,
                of,
                meta,
                progress,
                task,
            } => {
                let called = match of {
                    Some(mcp) => Called::Of { mcp, tool: name },
                    None => Called::Exposed(name),
                };
                aside.meta = meta;
                aside.progress = *progress;
                let front = &self.front;
                let (begun, must) = match task {
                    None => {
                        let outcome = front.call(&self.session, called, given, &aside).await;
                        (Begun::Ended(outcome), false)
                    }
                    Some((maker, must)) => {
                        let made = (maker.clone(), *must);
                        let begun = front.begin_task(&self.session, called, given, &aside, made);
                        (Box::pin(begun).await, *must)
                    }
                };
                let outcome = match (begun, of) {
                    (Begun::Task(task), _) => return Ended::Task(task),
                    (Begun::Ended(Outcome::Answered(answer)), None) => answer.seen_everywhere(),
                    (Begun::Ended(outcome), _) => outcome,
                };
                match must {
                    true => Ended::NoTask(outcome),
                    false => Ended::Tool(outcome),
                }
            }
            What::TaskEnd(task) => {
                let front = &self.front;
                Ended::TaskEnd(Box::new(
                    tasks::result(front, &self.session, task, aside.news).await,
                ))
            }
            What::Method(method, None) => {
                everywhere::ask(&self.front, &self.session, method, given, &aside).await
            }
            What::Method(method, Some(mcp)) => {
                let asked = self.front.ask(&self.session, mcp, method, given, &aside);
                match asked.await {
                    Some(outcome) => Ended::Method(method.clone(), outcome),
                    None => Ended::Nowhere(mcp.clone()),
                }
            }
        }
    }
}

impl Ended {
    /// The answer to the request with this id; to a client without sessions, with what was asked on the way.
    /// Asked once: what is large is taken out.
    pub(super) fn body(&mut self, id: &str, rounds: Option<&Rounds>) -> Bytes {
        if let Self::Tool(Outcome::Answered(answer)) | Self::Method(_, Outcome::Answered(answer)) =
            self
            && rounds.is_none()
            && let Some(body) = answer::in_place(id, answer)
        {
            return body;
        }
        let era = |kept| match rounds {
            Some(rounds) => Era::Stateless {
                server: &rounds.server,
                kept,
                rounds: Some(rounds),
            },
            None => Era::Sessions,
        };
        match self {
            Self::Tool(outcome) => answer::of_tool(id, outcome, era(Kept::Unsaid)),
            // A result in the shape of a call's would be none of a task's.
            Self::NoTask(outcome) => answer::of_method(id, outcome, era(Kept::Unsaid)),
            Self::Task(task) => tasks::created(id, task, rounds.map(|rounds| &*rounds.server)),
            Self::TaskEnd(end) => end.body(id),
            Self::Method(method, outcome) => {
                answer::of_method(id, outcome, era(Kept::of(method.name())))
            }
            Self::Listed(method, result) => era(Kept::of(method.name())).result(id, result),
            Self::Wrong(wrong) => wrong.body(id, era(Kept::Unsaid)),
            Self::Nowhere(mcp) => {
                let why = methods::no_view(mcp).to_string();
                answer::body_of_error(id, jsonrpc::INVALID_REQUEST, &why, None)
            }
            Self::NoJson => {
                let why = "the parameters are no JSON";
                answer::body_of_error(id, jsonrpc::INVALID_PARAMS, why, None)
            }
        }
    }

    /// The status of an answer to a client without sessions.
    pub(super) fn status(&self, rounds: &Rounds) -> StatusCode {
        match self {
            Self::Tool(outcome) | Self::Method(_, outcome)
                if answer::is_incapable(outcome, rounds) =>
            {
                StatusCode::BAD_REQUEST
            }
            _ => StatusCode::OK,
        }
    }

    /// Whether the server says that it failed.
    pub(super) fn is_failure(&self) -> bool {
        match self {
            Self::Tool(outcome) | Self::NoTask(outcome) | Self::Method(_, outcome) => {
                answer::is_failure(outcome)
            }
            Self::Task(_)
            | Self::TaskEnd(_)
            | Self::Listed(..)
            | Self::Wrong(_)
            | Self::Nowhere(_)
            | Self::NoJson => false,
        }
    }
}
