//! `/v1/audit`: the audit log, for those who may see everything.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use hyper::body::Frame;
use serde::{Deserialize, Serialize};

use super::error::Asked;
use super::{Admin, ApiError, Shared};
use crate::actors::audit::Page;
use crate::actors::control::Control;
use crate::actors::control::audit::{Chunks, Wanted};
use crate::config::nearest;
use crate::domain::account::Millis;
use crate::domain::audit::check::Report;
use crate::domain::audit::events;
use crate::domain::audit::filter::Filter;
use crate::domain::limits::AUDIT_PAGE_MAX;

/// Things in one answer if nobody says otherwise.
const USUAL_PAGE: usize = 50;

/// What is looked for. Users and mcps may be named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// Not before, in milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Millis>,
    /// Before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
    /// About this user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// About this mcp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp: Option<String>,
    /// About this tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// About this client: a key's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// With this event, or one that begins with it and a dot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// With this outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// About this call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// With this text anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Calls without an end.
    #[serde(skip_serializing_if = "is_false")]
    pub unfinished: bool,
    /// For a search: things in one answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// For a search: where the page before ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
    /// For a stream: only records behind this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// For a stream: it goes on with what comes.
    #[serde(skip_serializing_if = "is_false")]
    pub follow: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The key that checks checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Its short name, as checkpoints carry it.
    pub id: String,
    /// The key in PEM form.
    pub pem: String,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/audit/search", get(search))
        .route("/v1/audit/records", get(records))
        .route("/v1/audit/verify", get(verify))
        .route("/v1/audit/key", get(key))
}

impl Query {
    /// # Errors
    /// `invalid_request` if there is no such event: an empty answer would pass for "it never happened".
    fn filter(&self) -> Result<Filter, ApiError> {
        let of = self.clone();
        if let Some(event) = of.event.as_deref().filter(|word| !events::is_event(word)) {
            return Err(no_event(event));
        }
        Ok(Filter {
            since: of.since,
            until: of.until,
            user: of.user,
            mcp: of.mcp,
            tool: of.tool,
            client: of.client,
            event: of.event,
            outcome: of.outcome,
            call: of.call,
            text: of.text,
            unfinished: of.unfinished,
        })
    }
}

fn no_event(word: &str) -> ApiError {
    let words: Vec<&str> = events::words().into_iter().collect();
    let shown: String = word.chars().take(64).collect();
    let error = ApiError::invalid(format!("`{shown}` is no event and no class of events"));
    // `registered` means `auth.register`, whatever the class.
    let last = |event: &'static str| event.rsplit('.').next().unwrap_or(event);
    let named: Vec<&str> = words.iter().map(|event| last(event)).collect();
    let near = nearest::word(&words, word).or_else(|| {
        let near = nearest::word(&named, word)?;
        words.iter().copied().find(|event| last(event) == near)
    });
    match near {
        Some(near) => error.next(format!("did you mean --event {near}?")),
        None => error.next(format!("one of these: {}", words.join(", "))),
    }
}

async fn search(
    _: Admin,
    State(control): State<Control>,
    Asked(query): Asked<Query>,
) -> Result<Json<Page>, ApiError> {
    let limit = query.limit.unwrap_or(USUAL_PAGE);
    if limit == 0 || limit > AUDIT_PAGE_MAX {
        let text = format!("limit is {limit}, but must be from 1 to {AUDIT_PAGE_MAX}");
        return Err(ApiError::invalid(text));
    }
    let page = control
        .audit_search(query.filter()?, query.cursor, limit)
        .await?;
    Ok(Json(page))
}

async fn records(
    _: Admin,
    State(control): State<Control>,
    Asked(query): Asked<Query>,
) -> Result<Response, ApiError> {
    if query.unfinished {
        let text = "a stream cannot know which calls will end; search for them";
        return Err(ApiError::invalid(text).next("legation audit search --unfinished"));
    }
    let wanted = Wanted {
        filter: query.filter()?,
        after: query.after.unwrap_or(0),
        follow: query.follow,
    };
    let chunks = control.audit_stream(wanted).await?;
    let mut response = Body::new(Stream(chunks)).into_response();
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

async fn verify(_: Admin, State(control): State<Control>) -> Result<Json<Report>, ApiError> {
    Ok(Json(control.audit_verify().await?))
}

async fn key(_: Admin, State(control): State<Control>) -> Result<Json<KeyView>, ApiError> {
    let key = control.audit_key().await?;
    Ok(Json(KeyView {
        id: key.id(),
        pem: key.to_pem(),
    }))
}

/// Chunks as a body.
struct Stream(Chunks);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0
            .poll_recv(context)
            .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}
