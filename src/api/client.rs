//! The five calls of the standard client (`@mcpambassador/client`), as it makes them.
//!
//! Its habits that bind us: every `POST` body is chunked; `Content-Type: application/json` comes
//! with `GET` and `DELETE` too, without a body; every 2xx must have a JSON body; errors are flat;
//! an answer of 10 MiB or more is destroyed; a failed tool call is a `200` whose `result` says what
//! happened, since any other status reaches the AI tool as a generic error.

mod answer;
pub(super) mod body;
mod invoke;
mod register;
mod session;
mod tools;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};

use crate::actors::front::Front;
use crate::actors::session::SessionHandle;
use crate::config::Cidr;
use crate::domain::code::Code;
use crate::domain::limits::{BODY_BYTES_MAX, STANDARD_CLIENT_RESPONSE_BYTES_MAX};

use super::error::{Error, method_not_allowed};
use super::peer;

const SESSION_TOKEN: &str = "x-session-token";

/// What the operator may set for the client port.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of one request body (`limits.body_bytes_max`).
    pub body_bytes_max: usize,
    /// Bytes of one answer (`calls.response_bytes_max`).
    pub response_bytes_max: usize,
    /// Proxies whose forwarded address is believed (`trusted_proxies`).
    pub trusted_proxies: Vec<Cidr>,
    /// Whether the transport of 2024-11-05 is served (`client.http_sse`).
    pub http_sse: bool,
}

/// What the handlers share.
#[derive(Debug, Clone)]
struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    front: Front,
    options: Options,
}

/// The client port's routes.
pub fn router(front: Front, options: Options) -> Router {
    Router::new()
        .route("/v1/tools/invoke", post(invoke::invoke))
        .route("/v1/tools", get(tools::tools))
        .route("/v1/sessions/register", post(register::register))
        .route("/v1/sessions/heartbeat", post(session::heartbeat))
        .route("/v1/sessions/connections/{id}", delete(session::disconnect))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Shared(Arc::new(Inner { front, options })))
}

async fn not_found() -> Response {
    let text = "no such path; MCP clients connect to /mcp or /mcp/<name>, and the calls of the standard \
                client are /v1/sessions/register, /v1/tools, /v1/tools/invoke, \
                /v1/sessions/heartbeat and /v1/sessions/connections/<id>";
    Error::new(Code::NotFound, text).into_response()
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            body_bytes_max: BODY_BYTES_MAX,
            response_bytes_max: STANDARD_CLIENT_RESPONSE_BYTES_MAX,
            trusted_proxies: Vec::new(),
            http_sse: false,
        }
    }
}

// === impl Shared ===

impl Shared {
    fn front(&self) -> &Front {
        &self.0.front
    }

    fn options(&self) -> &Options {
        &self.0.options
    }

    /// The session whose token the request carries.
    fn authenticate(&self, request: &Request) -> Result<Arc<SessionHandle>, Error> {
        let token = request.headers().get(SESSION_TOKEN);
        let token = token.and_then(|value| value.to_str().ok());
        Ok(self.front().authenticate(token, self.caller(request))?)
    }

    /// Where a request came from.
    fn caller(&self, request: &Request) -> Option<IpAddr> {
        peer::caller(request, &self.options().trusted_proxies)
    }

    /// The session, or the refusal after the request's body was thrown away: closing on a client
    /// that is still sending would show it a broken connection instead of the `401` it acts on.
    async fn authenticate_post(&self, request: &mut Request) -> Result<Arc<SessionHandle>, Error> {
        let session = match body::is_json(request.headers()) {
            Ok(()) => self.authenticate(request),
            Err(error) => Err(error),
        };
        if session.is_err() {
            body::discard(request.body_mut()).await;
        }
        session
    }
}
