//! The ops listener: `/livez`, `/readyz`, `/metrics`, `/metrics/isolates`.
//!
//! `/livez` says that the event loop answers and nothing else: whoever restarts what is not alive
//! must not be told to do so by a slow disk or a drain. `/readyz` says whether calls are taken.
//! Probes need no token, since load balancers have none, and then tell only yes or no; reasons and
//! numbers are for who may have them.

mod token;

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::tls::Tls;
use crate::actors::ops::{Check, Ops, ScrapeBusy, Which};
use crate::domain::code::Code;
use crate::telemetry::metrics::labels::Listener;
use crate::telemetry::metrics::page;

pub use token::{Token, TokenError};

/// What the operator may set.
#[derive(Debug, Default)]
pub struct Options {
    /// The bearer token, if one is asked for.
    pub token: Option<Arc<Token>>,
    /// Which isolates are on their page; `None`: there is none.
    pub isolates: Option<Which>,
    /// Certificates whose end is a metric.
    pub certificates: Vec<(Listener, Arc<Tls>)>,
}

#[derive(Debug, Clone)]
struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ops: Ops,
    options: Options,
}

/// The ops listener's routes.
pub fn router(ops: Ops, options: Options) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/metrics/isolates", get(isolates))
        .fallback(not_found)
        .method_not_allowed_fallback(not_a_get)
        .with_state(Shared(Arc::new(Inner { ops, options })))
}

const TEXT: &str = "text/plain; charset=utf-8";

fn text(status: StatusCode, body: impl Into<String>) -> Response {
    let headers = [(CONTENT_TYPE, TEXT), (CACHE_CONTROL, "no-store")];
    (status, headers, body.into()).into_response()
}

/// An error as text: people and scrapers' logs read it.
fn refuse(status: StatusCode, code: Code, what: &str) -> Response {
    let number = code.number();
    let next = code.next();
    text(status, format!("error[{number}]: {what}\ntry: {next}\n"))
}

async fn livez() -> Response {
    text(StatusCode::OK, "ok\n")
}

/// `?verbose`, with or without a value.
#[derive(Debug, Deserialize)]
struct Verbose {
    verbose: Option<String>,
}

async fn readyz(
    State(shared): State<Shared>,
    Query(query): Query<Verbose>,
    headers: HeaderMap,
) -> Response {
    let checks = shared.0.ops.readiness();
    let ready = checks.iter().all(|check| check.trouble.is_none());
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let verbose = query.verbose.is_some_and(|value| value != "false");
    if verbose {
        if let Some(refused) = shared.refusal(&headers) {
            return refused;
        }
        return text(
            status,
            verbosely(&checks, &shared.0.ops.not_enforced(), ready),
        );
    }
    text(status, if ready { "ok\n" } else { "not ready\n" })
}

fn verbosely(checks: &[Check], not_enforced: &[String], ready: bool) -> String {
    let mut out = String::new();
    for Check { name, trouble } in checks {
        // Writing to a string cannot fail.
        let _ = match trouble {
            None => writeln!(out, "[+] {name} ok"),
            Some(why) => writeln!(out, "[-] {name} failed: {why}"),
        };
    }
    for lack in not_enforced {
        let _ = writeln!(out, "[!] not enforced: {lack}");
    }
    out.push_str(if ready { "ready\n" } else { "not ready\n" });
    out
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    if let Some(refused) = shared.refusal(&headers) {
        return refused;
    }
    for (listener, tls) in &shared.0.options.certificates {
        shared.0.ops.certificate(*listener, tls.not_after());
    }
    scraped(shared.0.ops.metrics().await)
}

async fn isolates(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    if let Some(refused) = shared.refusal(&headers) {
        return refused;
    }
    match shared.0.options.isolates {
        Some(which) => scraped(shared.0.ops.isolates(which).await),
        None => refuse(
            StatusCode::NOT_FOUND,
            Code::NotFound,
            "this page is switched off (ops.isolates = \"off\")",
        ),
    }
}

fn scraped(page: Result<String, ScrapeBusy>) -> Response {
    match page {
        Ok(page) => {
            let headers = [
                (CONTENT_TYPE, page::CONTENT_TYPE),
                (CACHE_CONTROL, "no-store"),
            ];
            (headers, page).into_response()
        }
        Err(busy) => {
            let mut refused = refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                Code::ScrapeBusy,
                &busy.to_string(),
            );
            let later = http::HeaderValue::from_static("5");
            refused.headers_mut().insert(RETRY_AFTER, later);
            refused
        }
    }
}

async fn not_found() -> Response {
    refuse(
        StatusCode::NOT_FOUND,
        Code::NotFound,
        "no such path; there are /livez, /readyz, /metrics and /metrics/isolates",
    )
}

async fn not_a_get() -> Response {
    let what = "this listener only answers GET";
    refuse(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, what)
}

impl Shared {
    /// The answer to a request that may not see numbers and reasons.
    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let token = self.0.options.token.as_ref()?;
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        if given.is_some_and(|given| token.matches(given)) {
            return None;
        }
        let mut refused = refuse(
            StatusCode::UNAUTHORIZED,
            Code::OpsUnauthorized,
            "this needs the bearer token of ops.token_file",
        );
        let scheme = http::HeaderValue::from_static("Bearer");
        refused.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        Some(refused)
    }
}

#[cfg(test)]
mod tests;
