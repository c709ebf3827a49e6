//! MCP 2026-07-28: no sessions, every request says everything. It is served in the name of its key's standing
//! session, over the same isolates: their servers speak older versions, and what this one wants in
//! results is added on the way ([`crate::protocol::modern`]).
//!
//! Here a client that lets go of its request cancels it.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use serde_json::value::RawValue;

use super::answer::Era;
use super::call::{self, Asked};
use super::headers::Head;
use super::job::Says;
use super::{
    Shared, answer, headers, methods, refused, rpc_method, subscribe, tasks, unreadable, view_of,
};
use crate::actors::front::{Called, Method};
use crate::api::client::body;
use crate::api::error::{Error, json};
use crate::domain::limits::{MCP_DISCOVERED_MS, MCP_TOOLS_KEPT_MS};
use crate::protocol::card::Card;
use crate::protocol::extensions::Extensions;
use crate::protocol::handshake::Abilities;
use crate::protocol::jsonrpc::{self, Message};
use crate::protocol::modern::{self, Kept, Wrong};
use crate::protocol::repeated;
use crate::telemetry::metrics::labels::{RpcMethod, RpcOutcome};

/// What the gateway calls itself where it speaks for all servers.
pub(super) const GATEWAY: &str = "legation";

/// One message of a client of this version.
pub(super) async fn take(shared: &Shared, head: &Head, mut request: Request) -> Response {
    let front = &shared.0.front;
    let session = match front.standing(&head.bearer).await {
        Ok(session) => session,
        Err(refusal) => {
            body::discard(request.body_mut()).await;
            return refused(refusal.into());
        }
    };
    let most = shared.0.body_bytes_max;
    let bytes = match body::read_of(request.body_mut(), most, &session.key).await {
        Ok(bytes) => bytes,
        Err(error) => return refused(error),
    };
    let (id, method, params) = match jsonrpc::read(&bytes) {
        Ok(Message::Request { id, method, params }) => (id, method, params),
        Ok(Message::Notification { method, .. }) => {
            let (outcome, response) = match modern::check_notification(&head.says, &method) {
                Ok(()) => (RpcOutcome::Ok, StatusCode::ACCEPTED.into_response()),
                Err(wrong) => (RpcOutcome::Error, not_taken("null", &wrong)),
            };
            front.answered(RpcMethod::Notification, outcome);
            return response;
        }
        Ok(Message::Response { .. }) => {
            let text = "this version asks clients nothing, so they have nothing to answer";
            return refused(Error::invalid(text));
        }
        Err(malformed) => return unreadable(&malformed),
    };
    let view = view_of(request.uri().path());
    let declared = match modern::check(&head.says, &method, params) {
        Ok(declared) => declared,
        Err(wrong) => {
            front.answered(rpc_method(&method), RpcOutcome::Error);
            return not_taken(id, &wrong);
        }
    };
    let says = Says {
        questions: declared.questions,
        late: false,
        level: declared.level,
        level_said: declared.level.is_some(),
        extensions: front.common(&session, view, &declared.extensions),
    };
    let asked = Asked {
        shared,
        head,
        session: &session,
        view,
        bytes: &bytes,
        id,
        params,
        says: &says,
        takes_tasks: declared.tasks,
        stateless: true,
    };
    // What goes to a server is counted where that ends.
    match (&*method, Method::of(&method)) {
        ("tools/call", _) => {
            if let Err(wrong) = repeats(asked, request.headers()) {
                front.answered(RpcMethod::ToolsCall, RpcOutcome::Error);
                return not_taken(id, &wrong);
            }
            return call::call(asked).await;
        }
        (_, Some(passed)) => match asked.able().await {
            Some(able) if offers(able, &passed) => return call::pass(asked, passed).await,
            Some(_) => {}
            None => return asked.nothing_here(view.unwrap_or_default()),
        },
        _ => {
            if let Some(passed) = asked.extended(&method) {
                return call::pass(asked, passed).await;
            }
        }
    }
    let response = own(asked, &method).await;
    let outcome = match response.extensions().get::<RpcOutcome>() {
        Some(outcome) => *outcome,
        None if response.status().is_success() => RpcOutcome::Ok,
        None => RpcOutcome::Error,
    };
    front.answered(rpc_method(&method), outcome);
    response
}

/// Whether the headers say the same as the arguments that are repeated in them.
fn repeats(asked: Asked<'_>, headers: &HeaderMap) -> Result<(), Wrong> {
    // It is the name in the message: that was looked at.
    let name = asked.head.says.name.as_deref().and_then(modern::decoded);
    let tool = name.as_deref().unwrap_or_default();
    let called = match asked.view {
        Some(mcp) => Called::Of { mcp, tool },
        None => Called::Exposed(tool),
    };
    let front = &asked.shared.0.front;
    match front.definition(asked.session, called) {
        Some(definition) if repeated::may_want(definition.get()) => {
            let params = asked.params.map_or("", RawValue::get);
            let header = |name: &str| headers::repeated(headers, name);
            repeated::check(definition.get(), params, header)
        }
        _ => Ok(()),
    }
}

/// What is answered without any server.
async fn own(asked: Asked<'_>, method: &str) -> Response {
    match method {
        "server/discover" => discover(asked).await,
        "tools/list" => list_tools(asked),
        "subscriptions/listen" => subscribe::listen(asked).await,
        _ if tasks::is_one(method) && asked.offers_tasks() => {
            tasks::extension::respond(asked, method).await
        }
        other => {
            let text = format!("`{}` is not offered here", other.escape_debug());
            let body = answer::body_of_error(asked.id, jsonrpc::METHOD_NOT_FOUND, &text, None);
            json(StatusCode::NOT_FOUND, body)
        }
    }
}

pub(super) fn not_taken(id: &str, wrong: &Wrong) -> Response {
    let body = match &wrong.data {
        Some(data) => answer::body_of_error_with(id, wrong.code, &wrong.message, data),
        None => answer::body_of_error(id, wrong.code, &wrong.message, None),
    };
    json(StatusCode::BAD_REQUEST, body)
}

/// Whether a server that can do this answers the method.
fn offers(able: Abilities, method: &Method) -> bool {
    let name = method.name();
    // Here it is `subscriptions/listen` that subscribes.
    !name.ends_with("subscribe") && has(able, method)
}

fn has(able: Abilities, method: &Method) -> bool {
    let name = method.name();
    match name.split('/').next() {
        Some("resources") if name.ends_with("subscribe") => able.subscribe,
        Some("resources") => able.resources,
        Some("prompts") => able.prompts,
        _ => able.completions,
    }
}

async fn discover(asked: Asked<'_>) -> Response {
    let Some(able) = asked.able().await else {
        return asked.nothing_here(asked.view.unwrap_or_default());
    };
    let mut result = BytesMut::with_capacity(256);
    result.put_slice(b"{\"supportedVersions\":[\"");
    result.put_slice(modern::VERSION.as_bytes());
    result.put_slice(b"\"],\"capabilities\":");
    let card = asked.card();
    let extensions = card
        .as_ref()
        .map_or(&Extensions::NONE, |card| &card.extensions);
    let extensions = extensions.member(asked.offers_tasks());
    methods::put_capabilities(&mut result, able, "", &extensions);
    methods::put_instructions(&mut result, card.as_deref());
    result.put_u8(b'}');
    asked.result(&result, Kept::For(MCP_DISCOVERED_MS))
}

fn list_tools(asked: Asked<'_>) -> Response {
    if methods::has_cursor(asked.params) {
        return answer::error(asked.id, jsonrpc::INVALID_PARAMS, methods::ONE_PAGE);
    }
    match methods::tools(&asked.shared.0.front, asked.session, asked.view) {
        Ok(result) => asked.result(&result, Kept::For(MCP_TOOLS_KEPT_MS)),
        Err(_) => asked.nothing_here(asked.view.unwrap_or_default()),
    }
}

impl Asked<'_> {
    /// What can be asked at its address; `None` if its key sees nothing there.
    pub(super) async fn able(self) -> Option<Abilities> {
        let front = &self.shared.0.front;
        match self.view {
            None => Some(front.abilities_of_all(self.session)),
            Some(mcp) => {
                let questions = self.says.questions;
                front.abilities(self.session, questions, mcp).await
            }
        }
    }

    /// The method of this name, if an extension may have it that its client and the server at its address both declare.
    pub(super) fn extended(self, method: &str) -> Option<Method> {
        let extended = !self.says.extensions.is_empty();
        extended.then(|| Method::of_extension(method)).flatten()
    }

    /// What the server at its address says of itself.
    pub(super) fn card(self) -> Option<Arc<Card>> {
        self.shared.0.front.card(self.session, self.view?)
    }

    /// Who answers at its address, as results say it; JSON.
    pub(super) fn server(self) -> String {
        methods::info(self.view, self.card().as_deref())
    }

    /// Whether a client with a session may ask for it at its address. At an mcp's own its server says so itself.
    pub(super) fn is_offered(self, method: &Method) -> bool {
        let able = self
            .view
            .is_none()
            .then(|| self.shared.0.front.abilities_of_all(self.session));
        able.is_none_or(|able| has(able, method))
    }

    /// A result of ours.
    pub(super) fn result(self, result: &[u8], kept: Kept) -> Response {
        json(StatusCode::OK, self.written(result, kept))
    }

    pub(super) fn written(self, result: &[u8], kept: Kept) -> Bytes {
        let era = Era::Stateless {
            server: &self.server(),
            kept,
            rounds: None,
        };
        era.result(self.id, result)
    }

    /// Nothing is at its address for this key.
    pub(super) fn nothing_here(self, name: &str) -> Response {
        let why = methods::no_view(name).to_string();
        let body = answer::body_of_error(self.id, jsonrpc::METHOD_NOT_FOUND, &why, None);
        json(StatusCode::NOT_FOUND, body)
    }
}
