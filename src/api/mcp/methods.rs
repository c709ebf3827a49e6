//! What is answered without any server: the beginning, and the list of tools.

use std::borrow::Cow;

use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::headers::Head;
use super::modern::GATEWAY;
use super::{SESSION, Shared, answer, refused_to, tasks};
use crate::actors::front::{Front, ToolView};
use crate::actors::session::SessionHandle;
use crate::api::error::{Error, put_string};
use crate::domain::code::Code;
use crate::domain::limits::LABEL_CHARS_MAX;
use crate::domain::talk::Level;
use crate::protocol::card::{self, Card};
use crate::protocol::extensions::Extensions;
use crate::protocol::handshake::Abilities;
use crate::protocol::{envelope, jsonrpc, questions, tasks as offered, version};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialize<'a> {
    #[serde(borrow)]
    protocol_version: Cow<'a, str>,
    #[serde(borrow, default)]
    client_info: ClientInfo<'a>,
    #[serde(borrow, default)]
    capabilities: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct ClientInfo<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
}

/// `initialize`: a session begins.
pub(super) async fn initialize(
    shared: &Shared,
    head: &Head,
    view: Option<&str>,
    id: &str,
    params: Option<&RawValue>,
) -> Response {
    // serde would take an array for a struct.
    let given = params.map_or("", RawValue::get);
    let given = if given.starts_with('{') { given } else { "" };
    let wanted: Initialize<'_> = match serde_json::from_str(given) {
        Ok(wanted) => wanted,
        Err(why) => {
            let text = format!("`initialize` does not say what it must: {why}");
            return answer::error(id, jsonrpc::INVALID_PARAMS, &text);
        }
    };
    let front = &shared.0.front;
    let declared = wanted.capabilities.map_or("", RawValue::get);
    let questions = questions::declared(declared);
    let client = label(&wanted.client_info.name);
    let session = match front.begin(&head.bearer, client, questions).await {
        Ok(session) => session,
        Err(refusal) => return refused_to(id, refusal.into()),
    };
    session.extend(Extensions::declared(declared));
    let able = match view {
        None => front.abilities_of_all(&session),
        Some(name) => match front.abilities(&session, questions, name).await {
            Some(able) => able,
            None => {
                front.leave(&head.bearer, &session).await;
                return refused_to(id, no_view(name));
            }
        },
    };
    let mut result = BytesMut::with_capacity(256);
    result.put_slice(b"{\"protocolVersion\":");
    let version = version::negotiate(&wanted.protocol_version, head.speaks);
    put_string(&mut result, version);
    result.put_slice(b",\"capabilities\":");
    let tasks = tasks::core::capability(front, &session, view, version);
    // What the client knows nothing of is none of its concern.
    let card = view.and_then(|name| front.card(&session, name));
    let extensions = card.as_ref().map_or(Extensions::NONE, |card| {
        card.extensions.both(&session.extensions())
    });
    put_capabilities(&mut result, able, tasks, &extensions.member(false));
    result.put_slice(b",\"serverInfo\":");
    result.put_slice(info(view, card.as_deref()).as_bytes());
    put_instructions(&mut result, card.as_deref());
    result.put_u8(b'}');
    let mut response = answer::result(id, &result);
    if let Ok(name) = HeaderValue::from_str(session.id().as_str()) {
        response.headers_mut().insert(SESSION, name);
    }
    response
}

/// `serverInfo` of who answers at an address: the mcp's server, if that says who it is; JSON.
pub(super) fn info(view: Option<&str>, card: Option<&Card>) -> String {
    card.and_then(Card::info)
        .unwrap_or_else(|| card::own_info(view.unwrap_or(GATEWAY)))
}

/// How a server says that it is meant to be used: a member with a comma before it, or nothing.
pub(super) fn put_instructions(out: &mut BytesMut, card: Option<&Card>) {
    if let Some(card) = card.filter(|card| !card.instructions.is_empty()) {
        out.put_slice(b",\"instructions\":");
        put_string(out, &card.instructions);
    }
}

/// What can be asked here, and what is told unasked; `tasks` is a member with a comma before it, `extensions` one without.
pub(super) fn put_capabilities(out: &mut BytesMut, able: Abilities, tasks: &str, extensions: &str) {
    out.put_slice(b"{\"tools\":{\"listChanged\":true}");
    let told = |is_told: bool, name: &'static str| is_told.then_some(name);
    let all = [
        (
            able.resources,
            "resources",
            [
                told(able.subscribe, "subscribe"),
                told(able.resources_change, "listChanged"),
            ],
        ),
        (
            able.prompts,
            "prompts",
            [told(able.prompts_change, "listChanged"), None],
        ),
        (able.completions, "completions", [None, None]),
        (able.logging, "logging", [None, None]),
    ];
    for (_, name, told) in all.into_iter().filter(|(is_able, ..)| *is_able) {
        let told: Vec<_> = told.into_iter().flatten().collect();
        let told: Vec<_> = told.iter().map(|name| format!("\"{name}\":true")).collect();
        out.put_slice(format!(",\"{name}\":{{{}}}", told.join(",")).as_bytes());
    }
    out.put_slice(tasks.as_bytes());
    if !extensions.is_empty() {
        out.put_u8(b',');
        out.put_slice(extensions.as_bytes());
    }
    out.put_u8(b'}');
}

/// `logging/setLevel`: the servers of a session's calls are told with the next ones.
pub(super) fn set_level(session: &SessionHandle, id: &str, params: Option<&RawValue>) -> Response {
    #[derive(Deserialize)]
    struct Params {
        level: Level,
    }
    let given = params.map_or("", RawValue::get);
    let given = if given.starts_with('{') { given } else { "" };
    match serde_json::from_str::<Params>(given) {
        Ok(Params { level }) => {
            session.set_level(level);
            answer::result(id, b"{}")
        }
        Err(why) => {
            let text =
                format!("`level` must be a level of logging, from debug to emergency: {why}");
            answer::error(id, jsonrpc::INVALID_PARAMS, &text)
        }
    }
}

/// A name for tables and logs.
fn label(name: &str) -> String {
    let name: String = name
        .chars()
        .filter(|c| !c.is_control())
        .take(LABEL_CHARS_MAX)
        .collect();
    if name.is_empty() {
        "unnamed".to_owned()
    } else {
        name
    }
}

pub(super) fn no_view(name: &str) -> Error {
    let shown: String = name.chars().take(64).collect();
    let text = format!(
        "there is nothing at /mcp/{} for this key; /mcp has all it may use",
        shown.escape_debug()
    );
    Error::new(Code::NotFound, text)
}

/// `tools/list`: all on one page, in an order that stays.
pub(super) fn list_tools(
    front: &Front,
    session: &SessionHandle,
    view: Option<&str>,
    (id, params): (&str, Option<&RawValue>),
) -> Response {
    if has_cursor(params) {
        return answer::error(id, jsonrpc::INVALID_PARAMS, ONE_PAGE);
    }
    match tools(front, session, view) {
        Ok(result) => answer::result(id, &result),
        Err(error) => refused_to(id, error),
    }
}

/// What a client is told that asks for another page of tools.
pub(super) const ONE_PAGE: &str = "there is one page of tools: no cursor was given to anybody";

/// Whether parameters ask for another page than the first.
pub(super) fn has_cursor(params: Option<&RawValue>) -> bool {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow, default)]
        cursor: Option<&'a RawValue>,
    }
    let page = serde_json::from_str::<Page<'_>>(params.map_or("", RawValue::get));
    page.is_ok_and(|page| page.cursor.is_some_and(|cursor| cursor.get() != "null"))
}

/// The tools that a session sees at an address.
///
/// # Errors
/// It sees nothing there.
pub(super) fn tools(
    front: &Front,
    session: &SessionHandle,
    view: Option<&str>,
) -> Result<Bytes, Error> {
    let tools = match view {
        None => front.tools(session),
        Some(name) => front.tools_of(session, name).ok_or_else(|| no_view(name))?,
    };
    let length = tools
        .iter()
        .map(|tool| tool.definition.get().len() + 64)
        .sum();
    let mut result = BytesMut::with_capacity(length);
    result.put_slice(b"{\"tools\":[");
    for (at, tool) in tools.iter().enumerate() {
        if at > 0 {
            result.put_u8(b',');
        }
        put_tool(&mut result, tool);
    }
    result.put_slice(b"]}");
    Ok(result.freeze())
}

/// The definition as its server wrote it, but for its name where that is another one here.
fn put_tool(out: &mut BytesMut, tool: &ToolView) {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        name: &'a RawValue,
    }
    let raw = &*offered::as_offered(tool.definition.get());
    let place = serde_json::from_str::<Named<'_>>(raw)
        .ok()
        .and_then(|named| {
            let own = serde_json::from_str::<Cow<'_, str>>(named.name.get()).ok()?;
            (*own != *tool.name).then(|| envelope::locate(raw.as_bytes(), named.name))?
        });
    let parts = place.and_then(|place| Some((raw.get(..place.start)?, raw.get(place.end..)?)));
    match parts {
        None => out.put_slice(raw.as_bytes()),
        Some((before, after)) => {
            out.put_slice(before.as_bytes());
            put_string(out, &tool.name);
            out.put_slice(after.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::Name;

    fn shown(name: &str, definition: &str) -> String {
        let mut out = BytesMut::new();
        let tool = ToolView {
            name: name.to_owned(),
            mcp: Name::parse("notes").unwrap(),
            definition: RawValue::from_string(definition.to_owned()).unwrap().into(),
        };
        put_tool(&mut out, &tool);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_definition_keeps_its_bytes_but_for_a_name_that_is_another_here() {
        let raw = r#"{ "name" :"\u0061dd", "inputSchema":{"x":1.0e2,"name":"add"} }"#;
        assert_eq!(shown("add", raw), raw);
        let renamed = r#"{ "name" :"notes_add", "inputSchema":{"x":1.0e2,"name":"add"} }"#;
        assert_eq!(shown("notes_add", raw), renamed);
    }

    #[test]
    fn a_client_s_name_is_made_fit_for_a_table() {
        assert_eq!(label(""), "unnamed");
        assert_eq!(label("a\nb\u{1b}c"), "abc");
        assert_eq!(label(&"x".repeat(1000)).chars().count(), LABEL_CHARS_MAX);
    }
}
