//! Tasks of 2025-11-25: `tasks/get`, `tasks/result`, `tasks/list`, `tasks/cancel`.

use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::call::{self, Asked};
use super::super::{answer, not_offered};
use super::CORE;
use crate::actors::front::{Front, Task};
use crate::actors::session::SessionHandle;
use crate::protocol::jsonrpc;
use crate::protocol::tasks;

/// The capability that a client is told of; a member with a comma before it, or nothing.
pub(in super::super) fn capability(
    front: &Front,
    session: &SessionHandle,
    view: Option<&str>,
    version: &str,
) -> &'static str {
    match (
        version == CORE && front.offers_tasks(session, view, false),
        front.cancels_tasks(session, view),
    ) {
        (false, _) => "",
        (true, true) => {
            ",\"tasks\":{\"list\":{},\"cancel\":{},\"requests\":{\"tools\":{\"call\":{}}}}"
        }
        (true, false) => ",\"tasks\":{\"list\":{},\"requests\":{\"tools\":{\"call\":{}}}}",
    }
}

/// Answers a request about tasks.
pub(in super::super) async fn respond(asked: Asked<'_>, method: &str) -> Response {
    let is_known = matches!(
        method,
        "tasks/get" | "tasks/result" | "tasks/list" | "tasks/cancel"
    );
    if !is_known || !asked.speaks_core() || !asked.offers_tasks() {
        return not_offered(asked.id, method);
    }
    let invalid = |why: &str| answer::error(asked.id, jsonrpc::INVALID_PARAMS, why);
    if method == "tasks/list" {
        return list(asked);
    }
    let task = match asked.task() {
        Ok(task) => task,
        Err(why) => return invalid(&why),
    };
    let front = &asked.shared.0.front;
    match method {
        "tasks/result" => return call::attend(asked, task).await,
        "tasks/cancel" => {
            if !front.cancel_task(&task) {
                let (shown, _) = task.look();
                let text = format!(
                    "the task cannot be cancelled: it has ended and is `{}`",
                    shown.status.word()
                );
                return invalid(&text);
            }
        }
        _ => front.look_at_task(&task).await,
    }
    answer::result(asked.id, shown(&task).as_bytes())
}

fn shown(task: &Task) -> String {
    let (shown, _) = task.look();
    format!("{{{}}}", shown.core())
}

fn list(asked: Asked<'_>) -> Response {
    #[derive(Deserialize, Default)]
    struct Params {
        #[serde(default)]
        cursor: Option<String>,
    }
    let given = asked.params.map_or("{}", RawValue::get);
    let read = serde_json::from_str::<Params>(given).ok();
    let from = read.and_then(|params| match params.cursor {
        None => Some(0),
        Some(cursor) => cursor.strip_prefix("from-")?.parse().ok(),
    });
    let Some(from) = from else {
        let text = "`cursor` must be as it was given with the page before";
        return answer::error(asked.id, jsonrpc::INVALID_PARAMS, text);
    };
    let front = &asked.shared.0.front;
    let (page, next) = front.tasks(asked.session, asked.view, from);
    let page: Vec<_> = page.iter().map(|task| shown(task)).collect();
    let next = next.map(|next| format!(",\"nextCursor\":\"from-{next}\""));
    let result = format!(
        "{{\"tasks\":[{}]{}}}",
        page.join(","),
        next.unwrap_or_default()
    );
    answer::result(asked.id, result.as_bytes())
}

/// A whole answer whose result says of which task it is; `None` if it has none.
pub(super) fn related(body: &[u8], task: &Task) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
        #[serde(borrow)]
        result: &'a RawValue,
    }
    let whole: Whole<'_> = serde_json::from_slice(body).ok()?;
    let result = tasks::relate(whole.result.get().as_bytes(), Some(task.id.as_str()))?;
    Some(answer::body_of_result(whole.id.get(), &result))
}
