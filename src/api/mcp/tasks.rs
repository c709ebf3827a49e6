//! Calls whose client does not wait for them, as clients ask for them and hear of them. The gateway keeps them
//! ([`crate::actors::tasks`]); here is what is said of them in 2025-11-25 ([`core`]) and in the extension of
//! 2026-07-28 ([`extension`]).

pub(super) mod core;
pub(super) mod extension;

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::answer::{self, Era};
use super::call::Asked;
use crate::actors::front::{End, Failure, Front, Maker, News, Outcome, Read, Task};
use crate::actors::session::SessionHandle;
use crate::domain::code::Code;
use crate::domain::limits::CALLED_NAME_BYTES_MAX;
use crate::protocol::jsonrpc;
use crate::protocol::modern;
use crate::protocol::tasks;
use crate::telemetry::metrics::labels::RpcOutcome;

/// The version that has them in its core.
const CORE: &str = "2025-11-25";

/// Whether a method is about tasks.
pub(super) fn is_one(method: &str) -> bool {
    method.starts_with("tasks/")
}

/// The task that a call is to be, and whether it must.
///
/// # Errors
/// In words.
pub(super) fn wanted(
    asked: Asked<'_>,
    task: Option<&RawValue>,
    token: Option<&str>,
) -> Result<Option<(Maker, bool)>, &'static str> {
    let maker = Maker {
        ttl: None,
        token: token.map(Into::into),
        level: asked.says.level,
        stateless: asked.stateless,
        everywhere: asked.view.is_none(),
    };
    match task {
        _ if asked.stateless => Ok(asked.takes_tasks.then_some((maker, false))),
        Some(task) if asked.speaks_core() && task.get() != "null" => {
            let ttl = tasks::wish(task)?;
            Ok(Some((Maker { ttl, ..maker }, true)))
        }
        // Who was told of no tasks wants none.
        _ => Ok(None),
    }
}

impl Asked<'_> {
    fn speaks_core(self) -> bool {
        self.head.says.version.as_deref() == Some(CORE)
    }

    /// Whether there are tasks at its address.
    pub(super) fn offers_tasks(self) -> bool {
        let front = &self.shared.0.front;
        front.offers_tasks(self.session, self.view, self.stateless)
    }

    /// The task that its parameters name.
    ///
    /// # Errors
    /// In words.
    fn task(self) -> Result<Arc<Task>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Params {
            task_id: String,
        }
        let given = self.params.map_or("", RawValue::get);
        let given = if given.starts_with('{') { given } else { "" };
        let Ok(Params { task_id }) = serde_json::from_str(given) else {
            return Err("`taskId` must be text".to_owned());
        };
        let shown: String = task_id
            .chars()
            .take(CALLED_NAME_BYTES_MAX.min(64))
            .collect();
        let front = &self.shared.0.front;
        front.task(self.session, self.view, &task_id).ok_or_else(|| {
            format!(
                "there is no task `{}` for this key here: it has expired, or the gateway was restarted",
                shown.escape_debug()
            )
        })
    }
}

/// The answer to a call that is a task.
pub(super) fn created(id: &str, task: &Task, server: Option<&str>) -> Bytes {
    let (shown, _) = task.look();
    // It may be further by now, and began as all do.
    let shown = tasks::Shown {
        status: tasks::Status::Working,
        ..shown
    };
    let said = task.meta();
    let own = said.as_deref().and_then(members);
    let own = own.as_deref().unwrap_or_default();
    match server {
        None => {
            let meta = if own.is_empty() {
                String::new()
            } else {
                format!(",\"_meta\":{{{own}}}")
            };
            let result = format!("{{\"task\":{{{}}}{meta}}}", shown.core());
            answer::body_of_result(id, result.as_bytes())
        }
        Some(server) => {
            let info = modern::open_meta(server);
            let comma = if own.is_empty() { "" } else { "," };
            let result = format!(
                "{{\"resultType\":\"task\",{},{info}{comma}{own}}}}}",
                shown.extension(shown.status)
            );
            answer::body_of_result(id, result.as_bytes())
        }
    }
}

/// The members of an object, without its braces and without what ties it to a task of its server's.
fn members(object: &str) -> Option<String> {
    let wrapped = format!("{{\"_meta\":{object}}}");
    let plain = tasks::relate(wrapped.as_bytes(), None)?;
    let plain = std::str::from_utf8(&plain).ok()?;
    let inner = plain.strip_prefix("{\"_meta\":{")?.strip_suffix("}}")?;
    Some(inner.to_owned())
}

/// What waiting for the end of a task came to.
#[derive(Debug)]
pub(super) enum Awaited {
    /// What it ended with.
    Ended(Arc<Task>, End),
    /// It may not be read.
    Denied(Failure),
    /// It goes on.
    Open,
}

/// Waits for the end of a task.
pub(super) async fn result(
    front: &Front,
    session: &SessionHandle,
    task: &Arc<Task>,
    tell: Option<mpsc::Sender<News>>,
) -> Awaited {
    loop {
        match front.read_task(session, task) {
            Err(denied) => return Awaited::Denied(*denied),
            Ok(Read::Ended(end)) => return Awaited::Ended(Arc::clone(task), end),
            Ok(Read::Open) => {}
        }
        if !front.attend_task(task, tell.as_ref()).await {
            return Awaited::Open;
        }
    }
}

impl Awaited {
    pub(super) fn counts_as(&self) -> RpcOutcome {
        match self {
            Self::Ended(_, End::Result { .. }) => RpcOutcome::Ok,
            _ => RpcOutcome::Error,
        }
    }

    /// The answer to who waited for it: what the call would have been answered with.
    pub(super) fn body(&self, id: &str) -> Bytes {
        match self {
            Self::Ended(_, End::Result { result, .. }) => answer::body_of_result(id, result),
            Self::Ended(_, End::Failed(failure)) | Self::Denied(failure) => {
                let outcome = Outcome::Failed(failure.clone());
                let body = answer::of_tool(id, &outcome, Era::Sessions);
                match self {
                    Self::Ended(task, _) => core::related(&body, task).unwrap_or(body),
                    _ => body,
                }
            }
            Self::Open => {
                let text = "the task has not ended yet; ask again";
                let code = jsonrpc::INTERNAL_ERROR;
                answer::body_of_error(id, code, text, Some(Code::CallTimeout))
            }
        }
    }
}
