//! The face for every MCP client: Streamable HTTP on the client port.
//!
//! `/mcp` shows all tools of a user under their exposed names, `/mcp/<name>` those of one mcp under
//! their own. Versions 2025-03-26 to 2025-11-25 with sessions, and 2026-07-28 without; the client's key (or a
//! session's token) is its bearer. Calls go the same way as those of the standard client: admission, kill switches,
//! audit and isolates do not know which client asks.
//!
//! The transport of 2024-11-05 (HTTP+SSE) is in `sse`, if the operator wants it.
//!
//! Not here: OAuth. Nobody answers its discovery documents on this port, so clients ask for no login.

mod answer;
mod batch;
mod call;
mod comeback;
mod events;
mod everywhere;
mod exchange;
mod flights;
mod headers;
mod held;
mod inquiries;
mod job;
mod listen;
mod methods;
mod modern;
mod passing;
mod rounds;
mod sse;
mod streams;
mod subscribe;
mod tasks;
mod work;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};
use serde_json::value::RawValue;

use crate::actors::front::{Front, Method};
use crate::actors::session::SessionHandle;
use crate::config::Cidr;
use crate::domain::code::Code;
use crate::domain::limits::MCP_BEGIN_BYTES_MAX;
use crate::domain::talk::{Level, Questions};
use crate::protocol::jsonrpc::{self, Malformed, Message};
use crate::protocol::modern as era;
use crate::telemetry::metrics::labels::{RpcMethod, RpcOutcome, known};

use super::client::{Options, body};
use super::error::{Error, json, status};
use super::{peer, shares};
use call::Asked;
use flights::Flights;
use headers::Head;
use held::Held;
use inquiries::Inquiries;
use job::Says;
use listen::{Listeners, Listening};
use sse::Lines;
use streams::Streams;

/// The header that names a session.
const SESSION: &str = "mcp-session-id";

/// What the handlers share.
#[derive(Debug, Clone)]
struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    front: Front,
    /// Requests of clients without sessions, whose own ids are no names among those of others.
    numbers: AtomicU64,
    flights: Flights,
    inquiries: Inquiries,
    held: Held,
    listeners: Listeners,
    streams: Streams,
    lines: Lines,
    listening: Listening,
    body_bytes_max: usize,
    trusted_proxies: Vec<Cidr>,
}

impl Shared {
    /// Where a request came from.
    fn caller(&self, request: &Request) -> Option<IpAddr> {
        peer::caller(request, &self.0.trusted_proxies)
    }
}

/// The face's routes, for a router that has a fallback.
pub fn router(front: Front, options: &Options) -> Router {
    let methods = || post(take).delete(leave).get(listen);
    let shared = Shared(Arc::new(Inner {
        front,
        numbers: AtomicU64::new(0),
        flights: Flights::default(),
        inquiries: Inquiries::default(),
        held: Held::default(),
        listeners: Listeners::default(),
        streams: Streams::default(),
        lines: Lines::default(),
        listening: Listening::default(),
        body_bytes_max: options.body_bytes_max,
        trusted_proxies: options.trusted_proxies.clone(),
    }));
    let router = Router::new()
        .route("/mcp", methods())
        .route("/mcp/{name}", methods())
        .with_state(shared.clone());
    match options.http_sse {
        true => router.merge(sse::router(shared)),
        false => router,
    }
}

/// The mcp a request's path names; `None` for all of a user's.
fn view_of(path: &str) -> Option<&str> {
    path.strip_prefix("/mcp/")
}

/// One message of a client.
async fn take(State(shared): State<Shared>, mut request: Request) -> Response {
    let head = match Head::of(request.headers(), shared.caller(&request)) {
        Ok(head) => head,
        Err(error) => {
            body::discard(request.body_mut()).await;
            return refused(error);
        }
    };
    if head.is_modern() {
        return modern::take(&shared, &head, request).await;
    }
    // Who names a session is known before a large body is read; whoever begins sends a small one.
    let session = if head.names_a_session() {
        match shared
            .0
            .front
            .resume(&head.bearer, head.session.as_deref())
            .await
        {
            Ok(session) => Some(session),
            Err(refusal) => {
                body::discard(request.body_mut()).await;
                return refused(refusal.into());
            }
        }
    } else {
        None
    };
    let read = match &session {
        Some(session) => {
            let most = shared.0.body_bytes_max;
            body::read_of(request.body_mut(), most, &session.key).await
        }
        None => body::read(request.body_mut(), MCP_BEGIN_BYTES_MAX).await,
    };
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) => return refused(error),
    };
    let view = view_of(request.uri().path()).map(str::to_owned);
    if let Some(session) = &session
        && batch::is_one(&head, &bytes)
    {
        let session = Arc::clone(session);
        return Box::pin(batch::take(&shared, head, session, view, bytes)).await;
    }
    match jsonrpc::read(&bytes) {
        Ok(message) => one(&shared, &head, session, view, &bytes, message).await,
        Err(malformed) => unreadable(&malformed),
    }
}

/// Answers one message, and counts it.
async fn one(
    shared: &Shared,
    head: &Head,
    session: Option<Arc<SessionHandle>>,
    view: Option<String>,
    bytes: &Bytes,
    message: Message<'_>,
) -> Response {
    let method = counted(&message);
    let response = answer(shared, head, session, view, bytes, message).await;
    if let Some(method) = method {
        let known = response.extensions().get::<RpcOutcome>().copied();
        let outcome = match response.status().is_success() {
            true => known.unwrap_or(RpcOutcome::Ok),
            false => RpcOutcome::Error,
        };
        shared.0.front.answered(method, outcome);
    }
    response
}

/// As what a message is counted; what goes to a server is counted where that ends.
fn counted(message: &Message<'_>) -> Option<RpcMethod> {
    match message {
        Message::Request { method, .. } if method == "tools/call" => None,
        Message::Request { method, .. } if method == "tasks/result" => None,
        Message::Request { method, .. } if Method::of(method).is_some() => None,
        Message::Request { method, .. } => Some(rpc_method(method)),
        Message::Notification { .. } => Some(RpcMethod::Notification),
        Message::Response { .. } => None,
    }
}

fn rpc_method(name: &str) -> RpcMethod {
    known(name).unwrap_or(RpcMethod::Other)
}

async fn answer(
    shared: &Shared,
    head: &Head,
    session: Option<Arc<SessionHandle>>,
    view: Option<String>,
    bytes: &Bytes,
    message: Message<'_>,
) -> Response {
    if let Message::Request { id, method, params } = &message
        && method == "initialize"
    {
        return methods::initialize(shared, head, view.as_deref(), id, *params).await;
    }
    let front = &shared.0.front;
    let asks = match &message {
        Message::Request { id, .. } => *id,
        Message::Notification { .. } | Message::Response { .. } => "null",
    };
    if let Err(error) = head.check_version() {
        return refused_to(asks, error);
    }
    let Some(session) = session else {
        // Says whether the bearer is good, and that a session is wanted.
        let none = match front.resume(&head.bearer, None).await {
            Ok(_) => Error::invalid("begin with `initialize`"),
            Err(refusal) => refusal.into(),
        };
        if none.code() == Code::InvalidRequest
            && let Message::Request { id, method, params } = &message
            && (head.says.method.is_some() || era::claims(*params))
            && let Err(wrong) = era::check(&head.says, method, *params)
        {
            // It is of a client without sessions, and its headers say that it is of an older version, or nothing.
            return modern::not_taken(id, &wrong);
        }
        return refused_to(asks, none);
    };
    match message {
        Message::Request { id, method, params } => match &*method {
            "ping" => answer::result(id, b"{}"),
            "tools/list" => methods::list_tools(front, &session, view.as_deref(), (id, params)),
            "logging/setLevel" => methods::set_level(&session, id, params),
            other => {
                let says = Says {
                    // Who takes no events cannot be asked.
                    questions: match head.takes_events {
                        true => session.questions(),
                        false => Questions::NONE,
                    },
                    late: true,
                    // Who says nothing hears everything.
                    level: session.level().or(Some(Level::Debug)),
                    level_said: session.level().is_some(),
                    extensions: front.common(&session, view.as_deref(), &session.extensions()),
                };
                let asked = Asked {
                    shared,
                    head,
                    session: &session,
                    view: view.as_deref(),
                    bytes,
                    id,
                    params,
                    says: &says,
                    takes_tasks: false,
                    stateless: false,
                };
                match (other, Method::of(other)) {
                    ("tools/call", _) => call::call(asked).await,
                    _ if tasks::is_one(other) => tasks::core::respond(asked, other).await,
                    (_, Some(method)) if asked.is_offered(&method) => {
                        call::pass(asked, method).await
                    }
                    (_, None) => match asked.extended(other) {
                        Some(method) => call::pass(asked, method).await,
                        None => not_offered(id, other),
                    },
                    _ => not_offered(id, other),
                }
            }
        },
        Message::Notification { method, params } => {
            match &*method {
                "notifications/cancelled" => {
                    cancel(shared, &session, params.map_or("", |params| params.get()));
                }
                "notifications/roots/list_changed" => front.roots_changed(&session),
                _ => {}
            }
            StatusCode::ACCEPTED.into_response()
        }
        Message::Response { id, outcome } => answers(shared, &session, id, outcome),
    }
}

/// A client answers what a server asked. An answer to nothing, or to what is over, does no harm.
fn answers(
    shared: &Shared,
    session: &SessionHandle,
    id: &str,
    outcome: Result<&RawValue, &RawValue>,
) -> Response {
    let (Ok(said) | Err(said)) = outcome;
    if !said.get().starts_with('{') {
        return refused(Error::invalid("a `result` or an `error` must be an object"));
    }
    // Its question waits on if there is no room: it may come again.
    let Some(kept) = shares::kept(said.get().as_bytes(), &session.key) else {
        let text = "what this key's clients have answered and no server has read yet takes all there is for it; \
                    send this answer again in a moment";
        return refused(Error::new(Code::Busy, text));
    };
    if let Some(asked) = shared.0.inquiries.answered(session, id) {
        let outcome = if outcome.is_ok() { Ok(kept) } else { Err(kept) };
        // It may wait for the call's turn, and for the server to read.
        tokio::spawn(asked.answer(outcome));
    }
    StatusCode::ACCEPTED.into_response()
}

fn not_offered(id: &str, method: &str) -> Response {
    let text = format!("`{}` is not offered here", method.escape_debug());
    answer::error(id, jsonrpc::METHOD_NOT_FOUND, &text)
}

/// A client no longer wants an answer. One that names a call nobody knows, or none, changes nothing.
fn cancel(shared: &Shared, session: &SessionHandle, params: &str) {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Cancelled<'a> {
        #[serde(borrow)]
        request_id: &'a serde_json::value::RawValue,
    }
    if params.starts_with('{')
        && let Ok(cancelled) = serde_json::from_str::<Cancelled<'_>>(params)
    {
        shared.0.flights.cancel(session, cancelled.request_id.get());
    }
}

/// `DELETE`: the client leaves for good.
async fn leave(State(shared): State<Shared>, request: Request) -> Response {
    let front = &shared.0.front;
    let head = match Head::without_body(request.headers(), shared.caller(&request)) {
        Ok(head) => head,
        Err(error) => return refused(error),
    };
    match front.resume(&head.bearer, head.session.as_deref()).await {
        Ok(session) => {
            if let Err(error) = head.check_version() {
                return refused(error);
            }
            shared.0.flights.cancel_all(&session);
            shared.0.streams.forget(&session);
            session.end();
            front.leave(&head.bearer, &session).await;
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => refused(refusal.into()),
    }
}

/// `GET`: what is about no request.
async fn listen(State(shared): State<Shared>, request: Request) -> Response {
    let head = match Head::of_stream(request.headers(), shared.caller(&request)) {
        Ok(head) => head,
        Err(error) => return refused(error),
    };
    let front = &shared.0.front;
    match front.resume(&head.bearer, head.session.as_deref()).await {
        Ok(session) => {
            if let Err(error) = head.check_version() {
                return refused(error);
            }
            let view = view_of(request.uri().path()).map(str::to_owned);
            streams::listen(&shared, &head, &session, view)
        }
        Err(refusal) => refused(refusal.into()),
    }
}

/// A request that did not become a message: a JSON-RPC error without an id, with the status its code
/// has everywhere.
fn refused(error: Error) -> Response {
    refused_to("null", error)
}

/// The same of a message that was read, with its id.
fn refused_to(id: &str, error: Error) -> Response {
    let code = error.code();
    let mut response = json(
        status(code),
        answer::body_of_error(id, jsonrpc::INVALID_REQUEST, &error.to_string(), Some(code)),
    );
    if status(code) == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer realm=\"legation\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    }
    response
}

fn unreadable(malformed: &Malformed) -> Response {
    let body = answer::body_of_error("null", malformed.code, &malformed.why, None);
    json(StatusCode::BAD_REQUEST, body)
}
