//! Requests that go to servers: `tools/call` the same way as the standard client's calls, and what is passed on by
//! its method. A request of a client without sessions may be one of before that comes back with answers.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::AbortRegistration;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::comeback::Back;
use super::exchange::{Exchange, Side};
use super::flights::{Flight, NoPlace};
use super::headers::{Head, Keeps};
use super::job::{Job, Says, What};
use super::passing::Passing;
use super::rounds::Rounds;
use super::work::Work;
use super::{Shared, answer, tasks};
use crate::actors::clock::random;
use crate::actors::front::{Method, Task};
use crate::actors::session::SessionHandle;
use crate::domain::limits::{CALLED_NAME_BYTES_MAX, MCP_NEWS_MAX};
use crate::protocol::jsonrpc;
use crate::protocol::meta::{self, Split};
use crate::protocol::state;
use crate::telemetry::metrics::labels::RpcOutcome;

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    task: Option<&'a RawValue>,
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
    pub(super) says: &'a Says,
    /// Whether its client takes a task for a result, without having asked for one.
    pub(super) takes_tasks: bool,
    /// Whether its client knows of no sessions: then who lets go of a request cancels it.
    pub(super) stateless: bool,
}

/// Calls a tool.
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
    let task = match tasks::wanted(asked, params.task, token.as_deref()) {
        Ok(task) => task,
        Err(why) => return invalid(why),
    };
    let what = What::Tool {
        name: params.name.into_owned(),
        of: asked.view.map(str::to_owned),
        meta: members,
        progress: token.is_some(),
        task,
    };
    asked.answered("tools/call", what, arguments, token).await
}

/// Passes a method on to the mcp whose address it came to, or to those that it is about.
pub(super) async fn pass(asked: Asked<'_>, method: Method) -> Response {
    let given = asked.params.map_or("", RawValue::get);
    let params = match given {
        "" | "null" => Bytes::from_static(b"{}"),
        given if given.starts_with('{') => match passed_on(asked, given) {
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
    let what = What::Method(method.clone(), asked.view.map(str::to_owned));
    asked.answered(method.name(), what, params, None).await
}

/// Parameters without what is not for a server.
fn passed_on<'a>(asked: Asked<'_>, given: &'a str) -> Result<Cow<'a, str>, serde_json::Error> {
    match asked.stateless {
        true => match state::without_answers(given) {
            Cow::Borrowed(same) => meta::without_token(same),
            Cow::Owned(other) => Ok(Cow::Owned(meta::without_token(&other)?.into_owned())),
        },
        false => meta::without_token(given),
    }
}

/// Waits for the end of a task.
pub(super) async fn attend(asked: Asked<'_>, task: Arc<Task>) -> Response {
    let what = What::TaskEnd(task);
    let hears = asked.head.takes_events;
    let given = (Bytes::from_static(b"{}"), Bytes::new());
    match asked.begin(None, hears, what, given, None) {
        Ok(exchange) => exchange.answered(asked.shared).await,
        Err(why) => asked.no_place(&why),
    }
}

impl Asked<'_> {
    async fn answered(
        self,
        method: &str,
        what: What,
        given: Bytes,
        token: Option<String>,
    ) -> Response {
        let asks = state::asking(method);
        let mut brought = Bytes::new();
        if self.stateless
            && let Some(method) = asks
        {
            match self.comes_back(method) {
                Ok(Back::Held(mut exchange)) => {
                    exchange.id = self.id.to_owned();
                    exchange.token = token;
                    exchange.takes_events = self.head.takes_events;
                    return exchange.answered(self.shared).await;
                }
                Ok(Back::New(answers)) => brought = answers,
                Err(why) => return answer::error(self.id, jsonrpc::INVALID_PARAMS, &why),
            }
        }
        // Who takes no events hears nothing but the answer, and what stands in its place.
        let hears = asks.is_some() && (self.head.takes_events || self.stateless);
        match self.begin(asks, hears, what, (given, brought), token) {
            Ok(exchange) => exchange.answered(self.shared).await,
            Err(why) => self.no_place(&why),
        }
    }

    /// Begins work: a connection that is lost does not cancel it. `asks` is the method, if its server may
    /// ask the client meanwhile.
    fn begin(
        self,
        asks: Option<&'static str>,
        hears: bool,
        what: What,
        (given, brought): (Bytes, Bytes),
        token: Option<String>,
    ) -> Result<Exchange, NoPlace> {
        let shared = &self.shared.0;
        let (place, abort) = self.place()?;
        let (tell, news) = match hears {
            true => {
                let (tell, news) = mpsc::channel(MCP_NEWS_MAX);
                (Some(tell), Some(news))
            }
            false => (None, None),
        };
        let done = CancellationToken::new();
        let job = Job {
            front: shared.front.clone(),
            session: Arc::clone(self.session),
            what,
            given,
            says: self.says.clone(),
            modern: self.stateless,
            brought,
            news: tell,
            outcome: RpcOutcome::Cancelled,
            _done: done.clone().drop_guard(),
            _flight: place,
        };
        let side = match self.stateless {
            false => Side::Sessions(shared.inquiries.clone(), Vec::new()),
            true => Side::Stateless(Box::new(Rounds::new(
                self.server(),
                self.principal(),
                asks.map(|method| (method, self.given())),
                random(),
                Passing {
                    sealer: Arc::clone(&shared.held.sealer),
                    front: shared.front.clone(),
                    session: Arc::clone(self.session),
                    declared: self.says.questions,
                },
            ))),
        };
        Ok(Exchange {
            session: Arc::clone(self.session),
            work: Work::new(job, abort, self.stateless, done),
            news,
            id: self.id.to_owned(),
            token,
            takes_events: self.head.takes_events,
            keeps: match self.stateless {
                true => Keeps::Nothing,
                false => self.head.keeps,
            },
            side,
            ended: None,
        })
    }

    /// A place among what is under way. Ids of clients that share a session are no names.
    fn place(self) -> Result<(Flight, AbortRegistration), NoPlace> {
        let shared = &self.shared.0;
        if !self.stateless {
            return shared.flights.enter(self.session, self.id);
        }
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        shared.flights.enter(self.session, &format!("#{number}"))
    }

    fn no_place(self, why: &NoPlace) -> Response {
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
