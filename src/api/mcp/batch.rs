//! Batches, which version 2025-03-26 has and no other: several messages in one request, their answers in one array, in
//! the order of the messages. What a server says meanwhile, and asks, is not told: an array is no stream.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use serde_json::value::RawValue;

use super::headers::Head;
use super::{Shared, answer, one, unreadable};
use crate::actors::session::SessionHandle;
use crate::api::error::json;
use crate::api::shares;
use crate::domain::limits::{MCP_BATCH_BYTES_MAX, MCP_BATCH_MAX};
use crate::protocol::jsonrpc::{self, INVALID_REQUEST, Malformed, Message};

/// Whether a request brings one, from a client whose version has them. One that names no version is of that one.
pub(super) fn is_one(head: &Head, bytes: &[u8]) -> bool {
    let version = head.says.version.as_deref();
    matches!(version, None | Some("2025-03-26")) && bytes.trim_ascii_start().first() == Some(&b'[')
}

/// Answers all messages of a batch.
pub(super) async fn take(
    shared: &Shared,
    mut head: Head,
    session: Arc<SessionHandle>,
    view: Option<String>,
    bytes: Bytes,
) -> Response {
    let invalid = |why: String| {
        unreadable(&Malformed {
            code: INVALID_REQUEST,
            why,
        })
    };
    let parts: Vec<&RawValue> = match serde_json::from_slice(&bytes) {
        Ok(parts) => parts,
        Err(why) => {
            return unreadable(&Malformed {
                code: jsonrpc::PARSE_ERROR,
                why: why.to_string(),
            });
        }
    };
    if parts.is_empty() || parts.len() > MCP_BATCH_MAX {
        return invalid(format!("a batch has 1 to {MCP_BATCH_MAX} messages"));
    }
    head.takes_events = false;
    let mut messages = Vec::with_capacity(parts.len());
    for part in parts {
        match jsonrpc::read(part.get().as_bytes()) {
            Ok(Message::Request { method, .. }) if method == "initialize" => {
                return invalid("`initialize` is never part of a batch".to_owned());
            }
            Ok(message) => messages.push(message),
            Err(malformed) => return unreadable(&malformed),
        }
    }
    let answers = join_all(messages.into_iter().map(|message| {
        let id = match &message {
            Message::Request { id, .. } => Some(*id),
            Message::Notification { .. } | Message::Response { .. } => None,
        };
        let asked = one(
            shared,
            &head,
            Some(Arc::clone(&session)),
            view.clone(),
            &bytes,
            message,
        );
        async move { whole(id?, asked.await).await }
    }));
    let answers: Vec<Bytes> = answers.await.into_iter().flatten().collect();
    if answers.is_empty() {
        return StatusCode::ACCEPTED.into_response();
    }
    let length = answers.iter().map(|answer| answer.len() + 1).sum::<usize>() + 1;
    let mut all = BytesMut::with_capacity(length);
    for (at, answer) in answers.iter().enumerate() {
        all.put_u8(if at == 0 { b'[' } else { b',' });
        all.put_slice(answer);
    }
    all.put_u8(b']');
    let all = all.freeze();
    let length = all.len();
    let refused = || json(StatusCode::OK, answer::unread("null", length));
    shares::json(all, &session.key).unwrap_or_else(refused)
}

/// The answer to one of the requests; none, if it was cancelled.
async fn whole(id: &str, response: Response) -> Option<Bytes> {
    let body = Limited::new(response.into_body(), MCP_BATCH_BYTES_MAX / MCP_BATCH_MAX);
    let bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            let text = "the answer is too large for a batch: send this request alone";
            answer::body_of_error(id, jsonrpc::INTERNAL_ERROR, text, None)
        }
    };
    (!bytes.is_empty()).then_some(bytes)
}
