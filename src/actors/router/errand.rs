//! One call on its way: whose it is, where it goes, what is asked, and what its client says beside that.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::domain::ids::CallId;
use crate::domain::talk::{Level, Questions};
use crate::protocol::envelope::Meta;
use crate::protocol::extensions::Extensions;

use super::super::calls::{News, Tag};
use super::super::catalog::Route;
use super::super::handle::{Turn, asker};
use super::super::session::SessionHandle;
use super::super::tasks::Task;

/// One call, on its way.
#[derive(Debug, Clone, Copy)]
pub(in crate::actors) struct Errand<'a> {
    /// The call.
    pub(in crate::actors) call: &'a CallId,
    /// Whose it is.
    pub(in crate::actors) session: &'a Arc<SessionHandle>,
    /// Where it goes.
    pub(in crate::actors) route: &'a Route,
    /// What is asked.
    pub(in crate::actors) ask: Ask<'a>,
    /// And what the client says beside that.
    pub(in crate::actors) aside: &'a Aside<'a>,
    /// Since when.
    pub(in crate::actors) admitted: Instant,
}

/// What is asked of a server.
#[derive(Debug, Clone, Copy)]
pub(in crate::actors) enum Ask<'a> {
    /// To call the route's tool.
    Tool {
        /// With what.
        arguments: &'a [u8],
    },
    /// To call it as a task.
    Task {
        /// With what.
        arguments: &'a [u8],
        /// What is kept of it; `None` if its caller waits.
        keep: Option<&'a Arc<Task>>,
    },
    /// Another method of the protocol.
    Method {
        /// Its name.
        name: &'a str,
        /// Its parameters.
        params: &'a [u8],
    },
}

/// What a client says beside a call's arguments.
#[derive(Debug, Clone, Default)]
pub struct Aside<'a> {
    /// Members of `_meta`, raw and without braces, but for the token of progress.
    pub meta: &'a [u8],
    /// Whether it wants to hear of progress.
    pub progress: bool,
    /// Where goes what the server says meanwhile.
    pub news: Option<mpsc::Sender<News>>,
    /// What the client can answer when the server asks.
    pub questions: Questions,
    /// The extensions that it and the server have in common.
    pub extensions: Extensions,
    /// Whether it can also answer when the call is over.
    pub late: bool,
    /// From which level on it hears what the server logs.
    pub level: Option<Level>,
    /// Whether it said so itself, so that the server is told as well.
    pub level_said: bool,
    /// The task that its call is to be.
    pub task: Option<Arc<Task>>,
    /// Whether it takes results of 2026-07-28 as they are.
    pub modern: bool,
    /// Members of its request's parameters that answer what a server of that version asked before; raw.
    pub brought: &'a [u8],
}

impl Aside<'_> {
    /// Without what is raw of its request.
    pub(in crate::actors) fn owned(&self) -> Aside<'static> {
        Aside {
            meta: &[],
            progress: self.progress,
            news: self.news.clone(),
            questions: self.questions,
            extensions: self.extensions.clone(),
            late: self.late,
            level: self.level,
            level_said: self.level_said,
            task: self.task.clone(),
            modern: self.modern,
            brought: &[],
        }
    }

    pub(super) fn meta(&self) -> Meta<'_> {
        Meta {
            members: self.meta,
            progress: self.progress && self.news.is_some(),
        }
    }
}

impl Errand<'_> {
    pub(super) fn what(&self) -> u64 {
        let params = match self.ask {
            Ask::Tool { .. } => None,
            // As a task it may ask before there is one, or not at all.
            Ask::Task { .. } => Some(&b"{\"name\":\"task\"}"[..]),
            Ask::Method { params, .. } => Some(params),
        };
        asker(&self.route.tool, params)
    }

    pub(super) fn tag(&self, turn: Option<Arc<Turn>>) -> Tag {
        Tag {
            call: self.call.clone(),
            session: Arc::clone(self.session),
            tool: self.route.tool.clone(),
            what: self.what(),
            since: self.admitted,
            until: self.admitted + self.route.published.mcp.call_deadline(),
            news: self.aside.news.clone(),
            turn,
            late: self.aside.late,
            level: self.aside.level,
            task: false,
        }
    }
}
