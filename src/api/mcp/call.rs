//! `tools/call`: the same way as the standard client's calls, with news of progress on the way.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::events::Events;
use super::flights::{Flight, NoPlace};
use super::headers::Head;
use super::{Shared, answer};
use crate::actors::front::{Aside, Front, Progress};
use crate::actors::session::SessionHandle;
use crate::api::error::json;
use crate::domain::limits::{CALLED_NAME_BYTES_MAX, MCP_PROGRESS_MAX};
use crate::protocol::jsonrpc;
use crate::protocol::meta::{self, Split};

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

/// A call that does not need its request any more.
struct Call {
    front: Front,
    session: Arc<SessionHandle>,
    /// What the client calls it; raw.
    id: String,
    tool: String,
    /// Empty for none.
    arguments: Bytes,
    /// Members of `_meta`.
    meta: Vec<u8>,
    progress: Option<mpsc::Sender<Progress>>,
    _flight: Flight,
}

/// Answers with JSON; or with a stream of events, if the client wants to hear of progress.
pub(super) async fn call(
    shared: &Shared,
    head: &Head,
    session: &Arc<SessionHandle>,
    view: Option<String>,
    bytes: &Bytes,
    id: &str,
    params: Option<&RawValue>,
) -> Response {
    let invalid = |why: &str| answer::error(id, jsonrpc::INVALID_PARAMS, why);
    let params: Params<'_> = match serde_json::from_str(params.map_or("", RawValue::get)) {
        Ok(params) => params,
        Err(why) => return invalid(&format!("these are no parameters of tools/call: {why}")),
    };
    if params.name.is_empty() || params.name.len() > CALLED_NAME_BYTES_MAX {
        return invalid(&format!(
            "`name` must have 1 to {CALLED_NAME_BYTES_MAX} bytes"
        ));
    }
    let arguments = match params.arguments.map(RawValue::get) {
        Some(given) if given.starts_with('{') => bytes.slice_ref(given.as_bytes()),
        Some("null") | None => Bytes::from_static(b"{}"),
        Some(_) => return invalid("`arguments` must be an object"),
    };
    let Ok(Split { members, token }) = meta::split(params.meta) else {
        return invalid("`_meta` must be an object, and `progressToken` text or a whole number");
    };
    let flight = match shared.0.flights.enter(session, id) {
        Ok(flight) => flight,
        Err(NoPlace::Twice) => {
            let why = "a request with this id is under way already";
            return answer::error(id, jsonrpc::INVALID_REQUEST, why);
        }
        Err(NoPlace::Full) => {
            let why = "too many requests of this session are under way; wait for some of them";
            return answer::error(id, jsonrpc::INTERNAL_ERROR, why);
        }
    };
    let events = token.filter(|_| head.takes_events);
    let (progress, news) = mpsc::channel(MCP_PROGRESS_MAX);
    let call = Call {
        front: shared.0.front.clone(),
        session: Arc::clone(session),
        id: id.to_owned(),
        tool: match view {
            Some(mcp) => format!("{mcp}.{}", params.name),
            None => params.name.into_owned(),
        },
        arguments,
        meta: members,
        progress: events.is_some().then_some(progress),
        _flight: flight,
    };
    // On its own: a connection that is lost does not cancel a call.
    let task = tokio::spawn(call.made());
    shared.0.flights.started(session, id, task.abort_handle());
    match events {
        Some(token) => stream(Events::new(news, token, task)),
        None => match task.await {
            Ok(body) => json(StatusCode::OK, body),
            // Cancelled: nobody waits for an answer.
            Err(_) => StatusCode::ACCEPTED.into_response(),
        },
    }
}

impl Call {
    async fn made(self) -> Bytes {
        let Ok(arguments) = serde_json::from_slice(&self.arguments) else {
            // Read as JSON before.
            let why = "the arguments are no JSON";
            return answer::body_of_error(&self.id, jsonrpc::INVALID_PARAMS, why, None);
        };
        let aside = Aside {
            meta: &self.meta,
            progress: self.progress.clone(),
        };
        let called = self
            .front
            .call(&self.session, &self.tool, arguments, &aside);
        answer::body_of(&self.id, &called.await)
    }
}

fn stream(events: Events) -> Response {
    let mut response = Response::new(Body::new(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    headers.insert(unbuffered, HeaderValue::from_static("no"));
    response
}
