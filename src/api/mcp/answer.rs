//! Answers, written around the server's own bytes.

use std::ops::Range;

use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;

use super::passing::Passed;
use super::rounds::Rounds;
use crate::actors::front::{Answer, Failure, Outcome};
use crate::api::error::{json, millis, put_number, put_string};
use crate::domain::code::Code;
use crate::protocol::jsonrpc;
use crate::protocol::modern::{self, Kept};
use crate::telemetry::metrics::labels;

/// Room for everything but what is inside.
const FRAME_BYTES: usize = 128;
/// A result of this size is not copied if that can be helped.
const IN_PLACE_BYTES_MIN: usize = 64 << 10;

/// `result`, for the client's id.
pub(super) fn result(id: &str, result: &[u8]) -> Response {
    json(StatusCode::OK, body_of_result(id, result))
}

/// An error of ours. JSON-RPC errors are `200`s.
pub(super) fn error(id: &str, code: i64, message: &str) -> Response {
    let mut response = json(StatusCode::OK, body_of_error(id, code, message, None));
    response.extensions_mut().insert(labels::RpcOutcome::Error);
    response
}

/// A whole answer with a result.
pub(super) fn body_of_result(id: &str, result: &[u8]) -> Bytes {
    let mut out = begin(id, result.len());
    out.put_slice(b"\"result\":");
    out.put_slice(result);
    out.put_u8(b'}');
    out.freeze()
}

/// A whole answer with an error.
pub(super) fn body_of_error(id: &str, code: i64, message: &str, ours: Option<Code>) -> Bytes {
    let mut out = begin(id, message.len());
    out.put_slice(b"\"error\":{\"code\":");
    out.put_slice(code.to_string().as_bytes());
    out.put_slice(b",\"message\":");
    put_string(&mut out, message);
    if let Some(ours) = ours {
        out.put_slice(b",\"data\":{\"error\":");
        put_string(&mut out, ours.as_str());
        out.put_u8(b'}');
    }
    out.put_slice(b"}}");
    out.freeze()
}

/// The same with data, which is JSON.
pub(super) fn body_of_error_with(id: &str, code: i64, message: &str, data: &str) -> Bytes {
    let mut out = begin(id, message.len() + data.len());
    out.put_slice(b"\"error\":{\"code\":");
    out.put_slice(code.to_string().as_bytes());
    out.put_slice(b",\"message\":");
    put_string(&mut out, message);
    out.put_slice(b",\"data\":");
    out.put_slice(data.as_bytes());
    out.put_slice(b"}}");
    out.freeze()
}

/// The answer in place of one that there is no room for.
pub(super) fn unread(id: &str, length: usize) -> Bytes {
    let text = format!(
        "the answer of {length} bytes is withheld: this key's clients have not read those before it"
    );
    body_of_error(id, jsonrpc::INTERNAL_ERROR, &text, Some(Code::Busy))
}

/// Whether a request that went to a server has an error for an answer.
pub(super) fn counts_as(outcome: &Outcome) -> labels::RpcOutcome {
    match outcome {
        Outcome::Answered(_) => labels::RpcOutcome::Ok,
        Outcome::Failed(_) => labels::RpcOutcome::Error,
    }
}

/// Whether a server says that it failed.
pub(super) fn is_failure(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Answered(answer) => {
            is_tool_error(answer.line.get(answer.result.clone()).unwrap_or_default())
        }
        Outcome::Failed(failure) => failure.error.is_some(),
    }
}

/// Whether a server without sessions says that its client cannot do what it needs, and the client is told so.
pub(super) fn is_incapable(outcome: &Outcome, rounds: &Rounds) -> bool {
    match outcome {
        Outcome::Failed(Failure {
            error: Some(error),
            modern: true,
            ..
        }) => rounds.passing().is_incapable(error),
        _ => false,
    }
}

/// For whom an answer is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Era<'a> {
    /// A client with a session: what its server wrote is what it is to get.
    Sessions,
    /// One of a version that wants more in a result than older servers write.
    Stateless {
        /// Who answers.
        server: &'a str,
        /// How long the result may be kept.
        kept: Kept,
        /// What was asked on the way, if it is a server's.
        rounds: Option<&'a Rounds>,
    },
}

impl Era<'_> {
    pub(super) fn result(self, id: &str, result: &[u8]) -> Bytes {
        match self {
            Self::Sessions => body_of_result(id, result),
            Self::Stateless { server, kept, .. } => {
                let mut out = begin(id, result.len() + modern::COMPLETION_BYTES);
                out.put_slice(b"\"result\":");
                if let Err(why) = modern::put_complete(&mut out, result, server, kept) {
                    return no_result(id, why);
                }
                out.put_u8(b'}');
                out.freeze()
            }
        }
    }
}

fn no_result(id: &str, why: &str) -> Bytes {
    let text = format!("the server's result cannot be passed on: {why}");
    let code = jsonrpc::INTERNAL_ERROR;
    body_of_error(id, code, &text, Some(Code::ServerError))
}

/// The answer to a tool's call, whatever became of it.
pub(super) fn of_tool(id: &str, outcome: &Outcome, era: Era<'_>) -> Bytes {
    match outcome {
        Outcome::Answered(answer) => answered(id, answer, era),
        Outcome::Failed(failure) => failed(id, failure, era),
    }
}

/// The answer to a client with a session, written around a large result where that lies: in the line it came in. `None`
/// if it is not large, if there is no room for the client's id, or if somebody else has the line as well.
pub(super) fn in_place(id: &str, answer: &mut Answer) -> Option<Bytes> {
    let Range { start, end } = answer.result.clone();
    let result = answer.line.get(start..end)?;
    if result.len() < IN_PLACE_BYTES_MIN || result.first() != Some(&b'{') {
        return None;
    }
    let mut head = begin(id, 0);
    head.put_slice(b"\"result\":");
    let from = start.checked_sub(head.len())?;
    let failed = is_tool_error(result);
    let mut line = match std::mem::take(&mut answer.line).try_into_mut() {
        Ok(line) => line,
        Err(line) => {
            answer.line = line;
            return None;
        }
    };
    if failed {
        answer.meter.ended(labels::Outcome::ToolError);
    }
    // The server's own object ends behind its result, so there is room for one brace.
    line.truncate(end);
    line.put_u8(b'}');
    line.get_mut(from..start)?.copy_from_slice(&head);
    Some(line.freeze().slice(from..))
}

/// The answer to another request. There is no result that could tell of a failure.
pub(super) fn of_method(id: &str, outcome: &Outcome, era: Era<'_>) -> Bytes {
    match outcome {
        Outcome::Answered(answer) => answered(id, answer, era),
        Outcome::Failed(failure) if failure.error.is_some() => failed(id, failure, era),
        Outcome::Failed(failure) => {
            let code = jsonrpc::INTERNAL_ERROR;
            body_of_error(id, code, &failure.text, Some(failure.code))
        }
    }
}

/// The server's result is passed on as it is.
fn answered(id: &str, answer: &Answer, era: Era<'_>) -> Bytes {
    let result = answer.line.get(answer.result.clone()).unwrap_or_default();
    if result.first() == Some(&b'{') {
        if is_tool_error(result) {
            answer.meter.ended(labels::Outcome::ToolError);
        }
        return match era {
            Era::Stateless {
                rounds: Some(rounds),
                kept,
                ..
            } if answer.modern => match rounds.passing().passed(result, kept) {
                Ok(result) => body_of_result(id, &result),
                Err(why) => no_result(id, &why),
            },
            _ => era.result(id, result),
        };
    }
    answer.meter.ended(labels::Outcome::RpcError);
    let text = format!(
        "mcp `{}` answered with a result that is no object",
        answer.mcp
    );
    body_of_error(id, jsonrpc::INTERNAL_ERROR, &text, Some(Code::ServerError))
}

fn is_tool_error(result: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct ToolResult {
        #[serde(default, rename = "isError")]
        is_error: bool,
    }
    // Most results do not have the word at all.
    memchr::memmem::find(result, b"isError").is_some()
        && serde_json::from_slice::<ToolResult>(result).is_ok_and(|result| result.is_error)
}

/// What the server itself calls an error stays one; a tool that is not there, or arguments that are
/// not what it takes, are one by the specification; everything else is a result for the model to read and act on.
fn failed(id: &str, failure: &Failure, era: Era<'_>) -> Bytes {
    if let Some(error) = &failure.error {
        let newer = match era {
            Era::Sessions => None,
            Era::Stateless {
                rounds: Some(rounds),
                ..
            } => match rounds.passing().failed(error, failure) {
                Passed::Asks(result) => return body_of_result(id, &result),
                Passed::Error(error) => error,
            },
            Era::Stateless { .. } => modern::error(error),
        };
        let error = newer.as_ref().unwrap_or(error);
        let mut out = begin(id, error.len());
        out.put_slice(b"\"error\":");
        out.put_slice(error);
        out.put_u8(b'}');
        return out.freeze();
    }
    if matches!(
        failure.code,
        Code::ToolUnknown | Code::NotSubscribed | Code::ArgumentsInvalid
    ) {
        let code = jsonrpc::INVALID_PARAMS;
        return body_of_error(id, code, &failure.text, Some(failure.code));
    }
    let mut out = BytesMut::with_capacity(failure.text.len() + 2 * FRAME_BYTES);
    out.put_slice(b"{\"content\":[{\"type\":\"text\",\"text\":");
    put_string(&mut out, &failure.text);
    out.put_slice(b"}],\"isError\":true,\"_meta\":{\"legation/error\":");
    put_string(&mut out, failure.code.as_str());
    out.put_slice(b",\"legation/call\":");
    put_string(&mut out, failure.call.as_str());
    if let Some(wait) = failure.retry_after {
        out.put_slice(b",\"legation/retry_after_ms\":");
        put_number(&mut out, millis(wait));
    }
    out.put_slice(b"}}");
    era.result(id, &out)
}

fn begin(id: &str, inside: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(inside + id.len() + FRAME_BYTES);
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.put_slice(id.as_bytes());
    out.put_u8(b',');
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::domain::ids::CallId;
    use crate::domain::name::Name;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::metrics::mcp::CallMeter;

    #[test]
    fn ids_and_results_keep_their_bytes() {
        assert_eq!(
            body_of_result(r#""a\u0062""#, br#"{ "x":1.0e2 }"#),
            r#"{"jsonrpc":"2.0","id":"a\u0062","result":{ "x":1.0e2 }}"#
        );
        let error: Value =
            serde_json::from_slice(&body_of_error("7", -32600, "no\n\"", Some(Code::Busy)))
                .unwrap();
        assert_eq!(
            error,
            json!({"jsonrpc": "2.0", "id": 7, "error":
                {"code": -32600, "message": "no\n\"", "data": {"error": "busy"}}})
        );
    }

    #[test]
    fn an_error_of_a_tool_is_seen() {
        assert!(is_tool_error(br#"{"content":[],"isError": true}"#));
        assert!(!is_tool_error(br#"{"content":[{"text":"isError true"}]}"#));
        assert!(!is_tool_error(br#"{"isError":false}"#));
    }

    fn answered(line: Bytes) -> Answer {
        let start = memchr::memmem::find(&line, b"{\"x\"").unwrap();
        Answer {
            call: CallId::from_random([3; 10]),
            mcp: Name::parse("notes").unwrap(),
            result: start..line.len() - 1,
            line,
            modern: false,
            took: Duration::ZERO,
            meter: CallMeter::begin(Arc::clone(Metrics::new().no_mcp()), 0),
        }
    }

    #[test]
    fn a_large_result_is_answered_where_it_lies() {
        let result = format!("{{\"x\":\"{}\"}}", "y".repeat(IN_PLACE_BYTES_MIN));
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":123456,\"result\":{result}}}");
        let whole = |id: &str| body_of_result(id, result.as_bytes());

        let own = BytesMut::from(&*line).freeze();
        let lies = own.as_ptr();
        let body = in_place("7", &mut answered(own)).unwrap();
        assert_eq!(body, whole("7"));
        assert!(lies <= body.as_ptr() && body.as_ptr() < lies.wrapping_add(line.len()));

        // Room for the id ends where the server's own was.
        let id = "1234567";
        let mut answer = answered(BytesMut::from(&*line).freeze());
        assert_eq!(in_place(id, &mut answer), None);
        assert_eq!(answered_whole(id, &answer), whole(id));

        let mut shared = answered(BytesMut::from(&*line).freeze());
        let other = shared.line.clone();
        assert_eq!(in_place("7", &mut shared), None);
        assert_eq!(shared.line, other);
        assert_eq!(answered_whole("7", &shared), whole("7"));
    }

    fn answered_whole(id: &str, answer: &Answer) -> Bytes {
        super::answered(id, answer, Era::Sessions)
    }
}
