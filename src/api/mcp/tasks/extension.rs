//! The extension of 2026-07-28: `tasks/get` with what a task ended with or asks, `tasks/update` with answers to that,
//! `tasks/cancel`.

use std::sync::Arc;

use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::call::Asked;
use super::super::modern::not_taken;
use super::super::rounds::Answers;
use super::super::{answer, not_offered};
use crate::actors::front::{End, Failure, Front, Task};
use crate::actors::session::SessionHandle;
use crate::api::error::{json, put_string};
use crate::api::shares;
use crate::protocol::modern::{self, Kept, Wrong};
use crate::protocol::tasks::{self, Status};
use crate::protocol::{jsonrpc, questions};

/// What a client is told that does not take tasks, where they are needed.
pub(in super::super) fn not_declared(id: &str) -> Response {
    let text = format!(
        "this needs a client that declares the extension `{}`",
        tasks::EXTENSION
    );
    let wrong = Wrong {
        code: modern::CAPABILITY_MISSING,
        message: text,
        data: Some(format!("{{\"requiredCapabilities\":{}}}", tasks::REQUIRED)),
    };
    not_taken(id, &wrong)
}

/// Answers a request about tasks.
pub(in super::super) async fn respond(asked: Asked<'_>, method: &str) -> Response {
    if !matches!(method, "tasks/get" | "tasks/update" | "tasks/cancel") {
        let mut response = not_offered(asked.id, method);
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    if !asked.takes_tasks {
        return not_declared(asked.id);
    }
    let task = match asked.task() {
        Ok(task) => task,
        Err(why) => return answer::error(asked.id, jsonrpc::INVALID_PARAMS, &why),
    };
    let front = &asked.shared.0.front;
    match method {
        "tasks/get" => {
            front.look_at_task(&task).await;
            let result = whole(front, asked.session, &task);
            let result = asked.written(&result, Kept::Unsaid);
            let length = result.len();
            shares::json(result, &asked.session.key)
                .unwrap_or_else(|| json(StatusCode::OK, answer::unread(asked.id, length)))
        }
        "tasks/update" => match update(asked, &task) {
            Ok(()) => asked.result(b"{}", Kept::Unsaid),
            Err(why) => answer::error(asked.id, jsonrpc::INVALID_PARAMS, why),
        },
        _ => {
            // Whether it had ended already is of no concern to who does not want it.
            front.cancel_task(&task);
            asked.result(b"{}", Kept::Unsaid)
        }
    }
}

fn update(asked: Asked<'_>, task: &Arc<Task>) -> Result<(), &'static str> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        input_responses: Answers,
    }
    const WRONG: &str =
        "`inputResponses` must be an object of results, by the names of what was asked";
    let given = asked.params.map_or("", RawValue::get);
    let Params { input_responses } = serde_json::from_str(given).map_err(|_| WRONG)?;
    if input_responses
        .values()
        .any(|given| !given.get().starts_with('{'))
    {
        return Err(WRONG);
    }
    // What was not asked, or was answered already, is ignored.
    for (key, given) in input_responses {
        task.answer(&key, Bytes::copy_from_slice(given.get().as_bytes()));
    }
    Ok(())
}

/// A task with what it ended with, or what it asks, as this version shows it; an object.
pub(in super::super) fn whole(front: &Front, session: &SessionHandle, task: &Task) -> Bytes {
    let (shown, end) = task.look();
    let denied = front.read_task(session, task).err();
    let mut out = BytesMut::with_capacity(512);
    out.put_u8(b'{');
    match (denied, end) {
        (Some(failure), Some(_)) => failed(&mut out, &shown, Status::Failed, &failure),
        (None, Some(End::Result { result, .. })) => {
            // That a tool failed is for who reads its result.
            out.put_slice(shown.extension(Status::Completed).as_bytes());
            out.put_slice(b",\"result\":");
            out.put_slice(&tasks::relate(&result, None).unwrap_or(result));
        }
        (None, Some(End::Failed(failure))) => failed(&mut out, &shown, shown.status, &failure),
        (_, None) => {
            out.put_slice(shown.extension(shown.status).as_bytes());
            if shown.status == Status::InputRequired {
                asked(&mut out, task);
            }
        }
    }
    out.put_u8(b'}');
    out.freeze()
}

fn failed(out: &mut BytesMut, shown: &tasks::Shown, status: Status, failure: &Failure) {
    out.put_slice(shown.extension(status).as_bytes());
    if status != Status::Failed {
        return;
    }
    out.put_slice(b",\"error\":");
    if let Some(error) = &failure.error {
        let newer = modern::error(error);
        out.put_slice(newer.as_ref().unwrap_or(error));
        return;
    }
    let head = format!("{{\"code\":{},\"message\":", jsonrpc::INTERNAL_ERROR);
    out.put_slice(head.as_bytes());
    put_string(out, &failure.text);
    out.put_slice(b",\"data\":{\"error\":");
    put_string(out, failure.code.as_str());
    if let Some(verdict) = &failure.verdict {
        out.put_slice(b",\"verdict\":");
        put_string(out, verdict);
    }
    out.put_slice(b"}}");
}

fn asked(out: &mut BytesMut, task: &Task) {
    out.put_slice(b",\"inputRequests\":{");
    for (at, question) in task.questions().iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let head = format!(
            "{comma}\"{}\":{{\"method\":\"{}\",\"params\":",
            question.key, question.method
        );
        out.put_slice(head.as_bytes());
        let plain = tasks::relate(&question.params, None);
        let params = plain.as_ref().unwrap_or(&question.params);
        out.put_slice(&questions::without_elicitation_id(params));
        out.put_u8(b'}');
    }
    out.put_u8(b'}');
}
