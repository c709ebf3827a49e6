//! Requests that go to servers: `tools/call` the same way as the standard client's calls, with news of
//! progress on the way; and what is passed on by its method.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::answer::Era;
use super::events::Events;
use super::flights::{Flight, NoPlace};
use super::headers::Head;
use super::modern::GATEWAY;
use super::{Shared, answer, methods, rpc_method};
use crate::actors::front::{Aside, Called, Front, Method, Progress};
use crate::actors::session::SessionHandle;
use crate::api::error::json;
use crate::api::shares;
use crate::domain::limits::{CALLED_NAME_BYTES_MAX, MCP_PROGRESS_MAX};
use crate::protocol::jsonrpc;
use crate::protocol::meta::{self, Split};
use crate::protocol::modern::Kept;
use crate::telemetry::metrics::labels::{RpcMethod, RpcOutcome};

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

/// A request of a session.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) shared: &'a Shared,
    pub(super) head: &'a Head,
    pub(super) session: &'a Arc<SessionHandle>,
    /// The mcp whose address it came to.
    pub(super) view: Option<&'a str>,
    /// The whole message.
    pub(super) bytes: &'a Bytes,
    /// What the client calls it; raw.
    pub(super) id: &'a str,
    pub(super) params: Option<&'a RawValue>,
    /// Whether its client knows of no sessions: then who lets go of a request cancels it.
    pub(super) stateless: bool,
}

/// Work that does not need its request any more.
struct Job {
    front: Front,
    session: Arc<SessionHandle>,
    id: String,
    what: What,
    /// Arguments or parameters; an object.
    given: Bytes,
    /// Who answers, if its client knows of no sessions.
    server: Option<String>,
    outcome: RpcOutcome,
    _flight: Flight,
}

/// Counted when it goes, however it goes.
impl Drop for Job {
    fn drop(&mut self) {
        let method = match &self.what {
            What::Tool { .. } => RpcMethod::ToolsCall,
            What::Method(method, _) => rpc_method(method.name()),
        };
        self.front.answered(method, self.outcome);
    }
}

enum What {
    Tool {
        name: String,
        /// The mcp whose address it came to.
        of: Option<String>,
        /// Members of `_meta`.
        meta: Vec<u8>,
        progress: Option<mpsc::Sender<Progress>>,
    },
    Method(Method, String),
}

/// Answers with JSON; or with a stream of events, if the client wants to hear of progress.
pub(super) async fn call(asked: Asked<'_>) -> Response {
    let invalid = |why: &str| answer::error(asked.id, jsonrpc::INVALID_PARAMS, why);
    let given = asked.params.map_or("", RawValue::get);
    if !given.starts_with('{') {
        return invalid("`params` must be an object");
    }
    let params: Params<'_> = match serde_json::from_str(given) {
        Ok(params) => params,
        Err(why) => return invalid(&format!("these are no parameters of tools/call: {why}")),
    };
    if params.name.is_empty() || params.name.len() > CALLED_NAME_BYTES_MAX {
        return invalid(&format!(
            "`name` must have 1 to {CALLED_NAME_BYTES_MAX} bytes"
        ));
    }
    let arguments = match params.arguments.map(RawValue::get) {
        Some(given) if given.starts_with('{') => asked.bytes.slice_ref(given.as_bytes()),
        Some("null") | None => Bytes::from_static(b"{}"),
        Some(_) => return invalid("`arguments` must be an object"),
    };
    let Ok(Split { members, token, .. }) = meta::split(params.meta) else {
        return invalid(
            "`_meta` must be an object of at most 256 members, and `progressToken` text or a whole \
             number",
        );
    };
    let events = token.filter(|_| asked.head.takes_events);
    let (progress, news) = mpsc::channel(MCP_PROGRESS_MAX);
    let what = What::Tool {
        name: params.name.into_owned(),
        of: asked.view.map(str::to_owned),
        meta: members,
        progress: events.is_some().then_some(progress),
    };
    let task = match asked.begin(what, arguments) {
        Ok(task) => task,
        Err(why) => return asked.no_place(&why),
    };
    match events {
        Some(token) => {
            let key = asked.session.key.clone();
            let id = asked.id.to_owned();
            let events = Events::new(news, token, task, key, id);
            streamed(Body::new(events.cancels(asked.stateless)))
        }
        None => asked.whole(task).await,
    }
}

/// Passes a method on to the mcp whose address it came to.
pub(super) async fn pass(asked: Asked<'_>, mcp: &str, method: Method) -> Response {
    let given = asked.params.map_or("", RawValue::get);
    let params = match given {
        "" | "null" => Bytes::from_static(b"{}"),
        given if given.starts_with('{') => match meta::without_token(given) {
            Ok(Cow::Borrowed(same)) => asked.bytes.slice_ref(same.as_bytes()),
            Ok(Cow::Owned(other)) => Bytes::from(other),
            Err(why) => {
                let why = format!("these are no parameters: {why}");
                return answer::error(asked.id, jsonrpc::INVALID_PARAMS, &why);
            }
        },
        _ => {
            let why = "`params` must be an object";
            return answer::error(asked.id, jsonrpc::INVALID_PARAMS, why);
        }
    };
    match asked.begin(What::Method(method, mcp.to_owned()), params) {
        Ok(task) => asked.whole(task).await,
        Err(why) => asked.no_place(&why),
    }
}

impl Asked<'_> {
    async fn whole(self, task: JoinHandle<Bytes>) -> Response {
        let done = match self.stateless {
            true => AbortOnDropHandle::new(task).await,
            false => task.await,
        };
        match done {
            Ok(body) => {
                let length = body.len();
                let answered = shares::json(body, &self.session.key);
                answered.unwrap_or_else(|| json(StatusCode::OK, answer::unread(self.id, length)))
            }
            // Cancelled: nobody waits for an answer.
            Err(_) => StatusCode::ACCEPTED.into_response(),
        }
    }

    /// Begins work on its own: a connection that is lost does not cancel it.
    fn begin(self, what: What, given: Bytes) -> Result<JoinHandle<Bytes>, NoPlace> {
        let flights = &self.shared.0.flights;
        let place = self.place()?;
        let name = place.id().to_owned();
        let job = Job {
            front: self.shared.0.front.clone(),
            session: Arc::clone(self.session),
            id: self.id.to_owned(),
            what,
            given,
            server: self
                .stateless
                .then(|| self.view.unwrap_or(GATEWAY).to_owned()),
            outcome: RpcOutcome::Cancelled,
            _flight: place,
        };
        let task = tokio::spawn(job.done());
        flights.started(self.session, &name, task.abort_handle());
        Ok(task)
    }

    /// A place among what is under way. Ids of clients that share a session are no names.
    pub(super) fn place(self) -> Result<Flight, NoPlace> {
        let shared = &self.shared.0;
        if !self.stateless {
            return shared.flights.enter(self.session, self.id);
        }
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        shared.flights.enter(self.session, &format!("#{number}"))
    }

    pub(super) fn no_place(self, why: &NoPlace) -> Response {
        let (code, why) = match why {
            NoPlace::Twice => (
                jsonrpc::INVALID_REQUEST,
                "a request with this id is under way already",
            ),
            NoPlace::Full => (
                jsonrpc::INTERNAL_ERROR,
                "too many requests of this session are under way; wait for some of them",
            ),
        };
        answer::error(self.id, code, why)
    }
}

impl Job {
    fn era(&self, kept: Kept) -> Era<'_> {
        match &self.server {
            Some(server) => Era::Stateless { server, kept },
            None => Era::Sessions,
        }
    }

    async fn done(mut self) -> Bytes {
        let (body, outcome) = self.work().await;
        self.outcome = outcome;
        body
    }

    async fn work(&self) -> (Bytes, RpcOutcome) {
        let id = &self.id;
        let Ok(given) = serde_json::from_slice::<&RawValue>(&self.given) else {
            // Read as JSON before.
            let why = "the parameters are no JSON";
            let body = answer::body_of_error(id, jsonrpc::INVALID_PARAMS, why, None);
            return (body, RpcOutcome::Error);
        };
        match &self.what {
            What::Tool {
                name,
                of,
                meta,
                progress,
            } => {
                let called = match of {
                    Some(mcp) => Called::Of { mcp, tool: name },
                    None => Called::Exposed(name),
                };
                let aside = Aside {
                    meta,
                    progress: progress.clone(),
                };
                let outcome = self.front.call(&self.session, called, given, &aside).await;
                let body = answer::of_tool(id, &outcome, self.era(Kept::Unsaid));
                (body, answer::counts_as(&outcome))
            }
            What::Method(method, mcp) => {
                match self.front.ask(&self.session, mcp, *method, given).await {
                    Some(outcome) => {
                        let era = self.era(Kept::of(method.name()));
                        let body = answer::of_method(id, &outcome, era);
                        (body, answer::counts_as(&outcome))
                    }
                    None => {
                        let why = methods::no_view(mcp).to_string();
                        let code = jsonrpc::INVALID_REQUEST;
                        let body = answer::body_of_error(id, code, &why, None);
                        (body, RpcOutcome::Error)
                    }
                }
            }
        }
    }
}

/// A stream of events.
pub(super) fn streamed(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    headers.insert(unbuffered, HeaderValue::from_static("no"));
    response
}
