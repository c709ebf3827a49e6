//! The transport of 2024-11-05 for clients that know no newer one, if the operator wants it: `GET /sse` (or
//! `/sse/NAME`) is a stream for as long as the client stays; its first event says where the client posts its messages,
//! and every answer comes on it. The connection is the session: when it is lost, so are the calls under way.
//!
//! Whoever posts shows the same key as whoever listens; the id of the connection, which nobody can guess, opens
//! nothing by itself.

mod lines;
mod told;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::call::streamed;
use super::events::event;
use super::headers::{Head, Keeps};
use super::listen::{CHANGED, Told, of_server};
use super::{SESSION, Shared, answer, methods, one, refused, rpc_method, unreadable};
use crate::actors::front::ListChange;
use crate::actors::session::SessionHandle;
use crate::api::client::body;
use crate::api::error::Error;
use crate::domain::code::Code;
use crate::domain::limits::{MCP_BEGIN_BYTES_MAX, MCP_SSE_BEGIN_MAX, MCP_SSE_KEY_MAX};
use crate::protocol::jsonrpc::{self, Message};
use crate::protocol::version;
use crate::telemetry::metrics::labels::RpcOutcome;
use lines::Line;
pub(super) use lines::Lines;

const ALIVE: Bytes = Bytes::from_static(b": nothing new\n\n");
/// Events between the one who tells and the connection.
const UNREAD_MAX: usize = 4;

/// The routes.
pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/sse", get(listen))
        .route("/sse/{name}", get(listen))
        .route("/messages", post(take))
        .with_state(shared)
}

/// Of a client of this transport.
fn of_sse(head: Head) -> Head {
    Head {
        session: None,
        takes_events: true,
        keeps: Keeps::Nothing,
        speaks: &version::OVER_SSE,
        ..head
    }
}

/// `GET`: the connection, which is the session.
async fn listen(State(shared): State<Shared>, request: Request) -> Response {
    let head = match Head::of_stream(request.headers(), shared.caller(&request)) {
        Ok(head) => head,
        Err(error) => return refused(error),
    };
    let key = match shared.0.front.key_of(&head.bearer).await {
        Ok(key) => key,
        Err(refusal) => return refused(refusal.into()),
    };
    let view = request.uri().path().strip_prefix("/sse/");
    let (tell, told) = mpsc::channel(UNREAD_MAX);
    let line = Line::new(key, view.map(str::to_owned), head.bearer, tell);
    let Some(place) = shared.0.lines.open(line) else {
        let text = format!("{MCP_SSE_KEY_MAX} streams of this key are open, which is the most");
        return refused(Error::new(Code::Busy, text));
    };
    let task = tokio::spawn(live(shared, place));
    streamed(Body::new(Told::new(told, task)))
}

/// What a connection is told beside answers, until its session ends or nobody reads.
async fn live(shared: Shared, place: lines::Place) -> Option<()> {
    let line = Arc::clone(&place.line);
    // Whatever ends it: nothing of the session goes on.
    let _leaves = Leaves {
        shared: shared.clone(),
        place,
    };
    let endpoint = format!("event: endpoint\ndata: /messages?sessionId={}\n\n", line.id);
    line.say(endpoint.into()).await?;
    let begun = timeout(MCP_SSE_BEGIN_MAX, line.begun());
    let session = tokio::select! {
        begun = begun => begun.ok()?,
        () = line.over.cancelled() => return None,
    };
    let (front, who) = (&shared.0.front, session.id().bits());
    let mut lists = front.follow(session, line.view.clone(), who);
    loop {
        let change = tokio::select! {
            change = lists.next() => change,
            () = line.over.cancelled() => return None,
        };
        match change {
            ListChange::Told(told) => {
                if let Some(message) = of_server(&told) {
                    line.say(event(&message)).await?;
                }
            }
            ListChange::Changed => line.say(event(CHANGED)).await?,
            ListChange::Same => line.say(ALIVE).await?,
            ListChange::Over => return Some(()),
        }
    }
}

/// Ends the session of a connection with the connection.
struct Leaves {
    shared: Shared,
    place: lines::Place,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        let line = Arc::clone(&self.place.line);
        line.over.cancel();
        let Some(session) = line.session() else {
            return;
        };
        self.shared.0.flights.cancel_all(&session);
        let front = self.shared.0.front.clone();
        tokio::spawn(async move { front.leave(&line.bearer, &session).await });
    }
}

/// `POST`: one message; the answer comes on the connection that it names.
async fn take(State(shared): State<Shared>, mut request: Request) -> Response {
    match taken(&shared, &mut request).await {
        Ok(response) => response,
        Err(error) => {
            body::discard(request.body_mut()).await;
            refused(error)
        }
    }
}

async fn taken(shared: &Shared, request: &mut Request) -> Result<Response, Error> {
    let head = of_sse(Head::of(request.headers(), shared.caller(request))?);
    head.check_version()?;
    let front = &shared.0.front;
    let key = front.key_of(&head.bearer).await?;
    let id = query(request.uri().query().unwrap_or_default());
    let line = id
        .and_then(|id| shared.0.lines.find(id, &key))
        .ok_or_else(|| {
            let text = "`sessionId` names no stream of this key; begin with `GET /sse`";
            Error::new(Code::NotFound, text)
        })?;
    let session = match line.session() {
        Some(session) => {
            let named = Some(session.id().as_str());
            let live = front.resume(&head.bearer, named).await;
            Some(live.inspect_err(|_| line.over.cancel())?)
        }
        None => None,
    };
    let busy = || {
        let text = "too many messages of this stream wait for it to be read";
        Error::new(Code::Busy, text)
    };
    let place = line.enter().ok_or_else(busy)?;
    let most = match &session {
        Some(_) => shared.0.body_bytes_max,
        None => MCP_BEGIN_BYTES_MAX,
    };
    let bytes = body::read_of(request.body_mut(), most, &key).await?;
    let message = match jsonrpc::read(&bytes) {
        Ok(message) => message,
        Err(malformed) => return Ok(unreadable(&malformed)),
    };
    match (&message, session) {
        (Message::Request { method, .. }, session) => {
            if session.is_some() && method == "initialize" {
                return Err(Error::invalid("this stream has begun already"));
            }
            // Whatever becomes of it is told on the stream.
            let work = work(shared.clone(), head, line, session, bytes.clone(), place);
            tokio::spawn(work);
            Ok(StatusCode::ACCEPTED.into_response())
        }
        (_, Some(session)) => {
            let view = line.view.clone();
            Ok(one(shared, &head, Some(session), view, &bytes, message).await)
        }
        // It tells of itself before it has begun.
        (_, None) => Ok(StatusCode::ACCEPTED.into_response()),
    }
}

/// Answers one request on its connection.
async fn work(
    shared: Shared,
    head: Head,
    line: Arc<Line>,
    session: Option<Arc<SessionHandle>>,
    bytes: Bytes,
    _place: OwnedSemaphorePermit,
) {
    let Ok(Message::Request { id, method, params }) = jsonrpc::read(&bytes) else {
        return;
    };
    // What we answer by ourselves is not made before somebody takes it.
    let turn = match goes_on(&method) {
        true => None,
        false => tokio::select! {
            turn = line.turn() => Some(turn),
            () = line.over.cancelled() => return,
        },
    };
    let response = match session {
        // Not given up halfway: the session that it begins would be nobody's.
        None => begin(&shared, &head, &line, (id, &method), params).await,
        session => {
            let view = line.view.clone();
            let message = Message::Request { id, method, params };
            tokio::select! {
                response = one(&shared, &head, session, view, &bytes, message) => response,
                () = line.over.cancelled() => return,
            }
        }
    };
    tokio::select! {
        passed = line.pass_on(response, turn) => if passed.is_none() { line.over.cancel() },
        () = line.over.cancelled() => {}
    }
}

/// Whether a request goes to a server, which may take its time.
fn goes_on(method: &str) -> bool {
    !matches!(
        method,
        "initialize" | "ping" | "tools/list" | "logging/setLevel"
    )
}

/// What a request is answered before there is a session.
async fn begin(
    shared: &Shared,
    head: &Head,
    line: &Line,
    (id, method): (&str, &str),
    params: Option<&serde_json::value::RawValue>,
) -> Response {
    let front = &shared.0.front;
    if method != "initialize" {
        front.answered(rpc_method(method), RpcOutcome::Error);
        // A client that looks for a newer version hears that this is none.
        return match method {
            "ping" => answer::result(id, b"{}"),
            _ => answer::error(id, jsonrpc::METHOD_NOT_FOUND, "begin with `initialize`"),
        };
    }
    let response = methods::initialize(shared, head, line.view.as_deref(), id, params).await;
    let outcome = match response.status().is_success() {
        true => RpcOutcome::Ok,
        false => RpcOutcome::Error,
    };
    front.answered(rpc_method(method), outcome);
    let named = response.headers().get(SESSION);
    if let Some(named) = named.and_then(|named| named.to_str().ok())
        && let Ok(session) = front.resume(&head.bearer, Some(named)).await
        && let Some(second) = line.begins(session)
    {
        // Two that began at once, or one whose client is gone: it is nobody's.
        front.leave(&head.bearer, &second).await;
        return answer::error(
            id,
            jsonrpc::INVALID_REQUEST,
            "this stream has begun already",
        );
    }
    response
}

/// The connection that a query names.
fn query(query: &str) -> Option<&str> {
    let pairs = query.split('&');
    let mut named = pairs.filter_map(|pair| pair.strip_prefix("sessionId="));
    let first = named.next()?;
    named.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_one_connection_or_none() {
        assert_eq!(query("sessionId=ab"), Some("ab"));
        assert_eq!(query("x=1&sessionId=ab&y"), Some("ab"));
        for none in [
            "",
            "sessionid=ab",
            "sessionId=a&sessionId=b",
            "xsessionId=a",
        ] {
            assert_eq!(query(none), None, "{none}");
        }
    }
}
