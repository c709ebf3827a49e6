//! A call as a line for the run that it meets: of one era or the other.

use bytes::Bytes;

use crate::domain::limits::millis;
use crate::domain::talk::Questions;
use crate::protocol::{envelope, outbound, tasks};

use super::{Ask, Errand};

impl Errand<'_> {
    /// What its server is told that its client can answer, where that is told with each request.
    pub(in crate::actors) fn declared(&self) -> Questions {
        let permitted = self.route.published.mcp.talk.questions;
        match self.aside.modern || self.aside.news.is_some() {
            true => self.aside.questions.both(permitted),
            false => Questions::NONE,
        }
    }

    /// For a server of the era without sessions.
    fn modern_line(&self, id: u64) -> Bytes {
        let level = self.aside.level.filter(|_| self.aside.news.is_some());
        // Who takes a task, or waits for one, says so: whether it becomes one is for the server to say.
        let tasks = matches!(self.ask, Ask::Task { .. });
        let about = outbound::about(self.declared(), level, tasks, &self.aside.extensions);
        match self.ask {
            Ask::Tool { arguments } | Ask::Task { arguments, .. } => {
                let (tool, brought) = (self.route.tool.as_str(), self.aside.brought);
                outbound::tool_call(id, tool, arguments, self.aside.meta(), (&about, brought))
            }
            // It knows no pings.
            Ask::Method { name: "ping", .. } => {
                envelope::request(id, outbound::DISCOVER, &outbound::own_params(""))
            }
            Ask::Method { name, params } => {
                outbound::method(id, name, params, &about, self.aside.brought)
            }
        }
    }

    /// For the run's server.
    pub(super) fn line(&self, id: u64, modern: bool) -> Bytes {
        if modern {
            return self.modern_line(id);
        }
        match self.ask {
            Ask::Tool { arguments } => {
                let tool = self.route.tool.as_str();
                envelope::tool_call(id, tool, arguments, self.aside.meta())
            }
            Ask::Task { arguments, keep } => {
                let tool = self.route.tool.as_str();
                let ttl = match keep {
                    Some(task) => task.wished_ms(),
                    None => Some(millis(self.route.published.mcp.call_deadline())),
                };
                tasks::tool_call(id, tool, arguments, self.aside.meta(), ttl)
            }
            Ask::Method { name, params } => envelope::request(id, name, params),
        }
    }
}
