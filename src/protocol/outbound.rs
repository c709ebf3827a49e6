//! MCP 2026-07-28 as we speak it to servers: what each request says of itself, how a server is asked whether it
//! speaks it, and what its answers are for a client of an older version.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::talk::{Level, Questions};

use super::card::{Card, Named};
use super::extensions::Extensions;
use super::handshake::{self, Abilities, ServerInfo};
use super::modern::{self, Members, OURS};
use super::{envelope, jsonrpc, questions, state, tasks};

/// The method by which a server of this era says what it is.
pub const DISCOVER: &str = "server/discover";

/// What a client says of itself with each request: members of `_meta`, without braces. `can` is what it can answer,
/// `tasks` whether it takes a task for a result, `extensions` what else it has in common with the server.
#[must_use]
pub fn about(can: Questions, level: Option<Level>, tasks: bool, extensions: &Extensions) -> String {
    // Of roots, this version tells nothing by itself.
    let can = questions::capabilities(can).replace("{\"listChanged\":true}", "{}");
    let can = questions::with_member(can, &extensions.member(tasks));
    let level = level.map(|level| format!(",\"{OURS}logLevel\":\"{}\"", level.word()));
    format!(
        "\"{OURS}protocolVersion\":\"{}\",\"{OURS}clientInfo\":{{\"name\":\"legation\",\
         \"version\":\"{}\"}},\"{OURS}clientCapabilities\":{can}{}",
        modern::VERSION,
        env!("CARGO_PKG_VERSION"),
        level.unwrap_or_default()
    )
}

/// Parameters of a request of our own: these members, and what we say of ourselves.
#[must_use]
pub fn own_params(members: &str) -> Bytes {
    let comma = if members.is_empty() { "" } else { "," };
    let about = about(Questions::NONE, None, false, &Extensions::NONE);
    format!("{{\"_meta\":{{{about}}}{comma}{members}}}").into()
}

/// A request line of `tools/call` for our id; `brought` are members of its parameters that answer what the server
/// asked before.
#[must_use]
pub fn tool_call(
    id: u64,
    name: &str,
    arguments: &[u8],
    meta: envelope::Meta<'_>,
    (about, brought): (&str, &[u8]),
) -> Bytes {
    let length = 96 + name.len() + arguments.len() + meta.members.len() + about.len();
    let mut params = BytesMut::with_capacity(length + brought.len());
    params.put_slice(b"{\"name\":\"");
    params.put_slice(name.as_bytes());
    params.put_slice(b"\",\"arguments\":");
    params.put_slice(arguments);
    params.put_slice(b",\"_meta\":{");
    params.put_slice(about.as_bytes());
    if !meta.members.is_empty() {
        params.put_u8(b',');
        params.put_slice(meta.members);
    }
    if meta.progress {
        params.put_slice(format!(",\"progressToken\":{id}").as_bytes());
    }
    params.put_u8(b'}');
    put_more(&mut params, brought);
    params.put_u8(b'}');
    envelope::request(id, "tools/call", &params)
}

/// The same of another method. Its parameters are an object whose `_meta` has nothing that only this version knows.
#[must_use]
pub fn method(id: u64, name: &str, params: &[u8], about: &str, brought: &[u8]) -> Bytes {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, default, rename = "_meta")]
        meta: Option<&'a RawValue>,
    }
    let text = std::str::from_utf8(params).unwrap_or("{}");
    let text = state::without_answers(text);
    let meta = serde_json::from_str::<Params<'_>>(&text)
        .ok()
        .and_then(|params| params.meta);
    let place = meta.and_then(|meta| envelope::locate(text.as_bytes(), meta));
    let inside = meta.map_or("", |meta| inner(meta.get()));
    let (before, after) = match place {
        Some(place) => (
            text.get(..place.start).unwrap_or_default(),
            text.get(place.end..).unwrap_or_default(),
        ),
        None => ("", ""),
    };
    let mut out = BytesMut::with_capacity(text.len() + about.len() + brought.len() + 32);
    if before.is_empty() {
        out.put_slice(b"{\"_meta\":{");
        out.put_slice(about.as_bytes());
        out.put_u8(b'}');
        put_more(&mut out, inner(&text).as_bytes());
    } else {
        out.put_slice(before.as_bytes());
        out.put_u8(b'{');
        out.put_slice(about.as_bytes());
        put_more(&mut out, inside.as_bytes());
        out.put_u8(b'}');
        // Without its brace: more may follow.
        let after = after.trim_end().strip_suffix('}').unwrap_or_default();
        out.put_slice(after.as_bytes());
    }
    put_more(&mut out, brought);
    out.put_u8(b'}');
    envelope::request(id, name, &out)
}

/// What stands between the braces of an object.
fn inner(text: &str) -> &str {
    let text = text.trim();
    let inside = text
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    inside.unwrap_or_default().trim()
}

fn put_more(out: &mut BytesMut, members: &[u8]) {
    if !members.is_empty() {
        out.put_u8(b',');
        out.put_slice(members);
    }
}

/// What a server is, by its answer to [`DISCOVER`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It speaks this version.
    Modern(ServerInfo),
    /// It failed, which says nothing of what it speaks.
    Unsaid,
    /// It does not; it may speak an older one.
    Older,
    /// It says that it does, and refused to all the same: it may be asked once more.
    Again,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovered<'a> {
    supported_versions: Vec<String>,
    #[serde(borrow, default)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
    /// Where drafts of this version had it.
    #[serde(borrow, default)]
    server_info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    instructions: Option<&'a RawValue>,
}

/// Reads the result of [`DISCOVER`]. What is no such result is one of a server that answers anything.
///
/// # Errors
/// A sentence for the verdict: it speaks neither this version nor one that is known.
pub fn read_discover(result: &[u8]) -> Result<Found, String> {
    #[derive(Deserialize)]
    struct Meta<'a> {
        #[serde(borrow, rename = "io.modelcontextprotocol/serverInfo")]
        server: Named<'a>,
    }
    let Ok(said) = serde_json::from_slice::<Discovered<'_>>(result) else {
        return Ok(Found::Older);
    };
    if !said
        .supported_versions
        .iter()
        .any(|one| one == modern::VERSION)
    {
        return older(&said.supported_versions);
    }
    let named = said
        .meta
        .and_then(|meta| serde_json::from_str(meta.get()).ok());
    let drafted = said
        .server_info
        .and_then(|named| serde_json::from_str(named.get()).ok());
    let named = named.map(|meta: Meta<'_>| meta.server).or(drafted);
    let named = named.unwrap_or_default();
    Ok(Found::Modern(ServerInfo {
        protocol_version: modern::VERSION.to_owned(),
        card: Card::of(&named, said.instructions, said.capabilities),
        abilities: said
            .capabilities
            .map_or_else(Abilities::default, |said| abilities(said.get())),
    }))
}

/// What a server of this version has. Tasks of the older era are none of this one's: here they are an extension, by which
/// all of them can be told to stop.
fn abilities(capabilities: &str) -> Abilities {
    let tasks = tasks::taken(capabilities);
    Abilities {
        tasks,
        tasks_cancel: tasks,
        ..handshake::abilities(capabilities)
    }
}

/// Whether a server that does not speak this version may be asked as one of the older era.
fn older(versions: &[String]) -> Result<Found, String> {
    let known = |one: &String| handshake::PROTOCOL_VERSIONS.contains(&one.as_str());
    if versions.is_empty() || versions.iter().any(known) {
        return Ok(Found::Older);
    }
    let said: Vec<_> = versions.iter().take(8).map(String::as_str).collect();
    let known = handshake::PROTOCOL_VERSIONS.join(", ");
    Err(handshake::cut(&format!(
        "known protocol versions are {known}, {}; the server speaks {}",
        modern::VERSION,
        said.join(", ")
    )))
}

/// What a server is that answers [`DISCOVER`] with an error.
///
/// # Errors
/// A sentence for the verdict: it is of this era, and does not speak with us.
pub fn read_refusal(error: &[u8]) -> Result<Found, String> {
    #[derive(Deserialize)]
    struct Error<'a> {
        code: i64,
        #[serde(borrow, default)]
        message: Cow<'a, str>,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Data {
        supported: Vec<String>,
    }
    let Ok(error) = serde_json::from_slice::<Error<'_>>(error) else {
        return Ok(Found::Older);
    };
    match error.code {
        modern::UNSUPPORTED_VERSION => {
            let data = error
                .data
                .and_then(|data| serde_json::from_str(data.get()).ok());
            let versions = data.map_or_else(Vec::new, |data: Data| data.supported);
            match versions.iter().any(|one| one == modern::VERSION) {
                true => Ok(Found::Again),
                false => older(&versions),
            }
        }
        modern::HEADER_MISMATCH | modern::CAPABILITY_MISSING => Err(handshake::cut(&format!(
            "it refused {DISCOVER} with {}: {}",
            error.code, error.message
        ))),
        // Also what is put in the place of an answer that did not come.
        jsonrpc::INTERNAL_ERROR => Ok(Found::Unsaid),
        _ => Ok(Found::Older),
    }
}

/// What a result of a server of this era is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The result that was asked for.
    Complete,
    /// The server needs answers first.
    Asks,
    /// What we know nothing of: its type.
    Unknown(String),
}

/// What a result is by its `resultType`; one without is complete.
#[must_use]
pub fn said(result: &[u8]) -> Said {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, default, rename = "resultType")]
        kind: Option<&'a RawValue>,
    }
    let Ok(Typed { kind }) = serde_json::from_slice(result) else {
        // Twice, or no object: who passes it on says so.
        return Said::Unknown("unclear".to_owned());
    };
    match kind.map(RawValue::get) {
        None | Some("null" | "\"complete\"") => Said::Complete,
        Some("\"input_required\"") => Said::Asks,
        Some(other) => Said::Unknown(modern::shown(other)),
    }
}

/// A result as a server of an older version would write it: without what only this one knows.
///
/// # Errors
/// It has a member twice, or too many.
pub fn older_result(result: &[u8]) -> Result<Bytes, &'static str> {
    let Ok(Members(members)) = serde_json::from_slice(result) else {
        return Err("it has a member twice, or too many");
    };
    let mut out = BytesMut::with_capacity(result.len());
    out.put_u8(b'{');
    for (key, value) in members {
        let mut value = value.get().as_bytes();
        let split;
        match &*key {
            "resultType" | "ttlMs" | "cacheScope" => continue,
            "_meta" => {
                let text = serde_json::from_slice(value).ok();
                split = super::meta::split(text)
                    .map_err(|_| "its `_meta` is no object of members that stand there once")?;
                if split.members.is_empty() {
                    continue;
                }
                let mut own = Vec::with_capacity(split.members.len() + 2);
                own.push(b'{');
                own.extend(&split.members);
                own.push(b'}');
                if out.len() > 1 {
                    out.put_u8(b',');
                }
                out.put_slice(b"\"_meta\":");
                out.put_slice(&own);
                value = b"";
            }
            _ => {}
        }
        if value.is_empty() {
            continue;
        }
        if out.len() > 1 {
            out.put_u8(b',');
        }
        out.put_slice(serde_json::to_string(&*key).unwrap_or_default().as_bytes());
        out.put_u8(b':');
        out.put_slice(value);
    }
    out.put_u8(b'}');
    Ok(out.freeze())
}

/// An error of a server of this era with the code that an older version has for it; `None` if it is the same.
#[must_use]
pub fn older_error(error: &[u8], method: &str) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Error<'a> {
        code: i64,
        #[serde(borrow, default)]
        message: Option<&'a RawValue>,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    let read: Error<'_> = serde_json::from_slice(error).ok()?;
    #[expect(clippy::cast_precision_loss, reason = "codes are small")]
    let code = match read.code {
        jsonrpc::INVALID_PARAMS if method == "resources/read" => modern::OLD_RESOURCE_NOT_FOUND,
        code if modern::RESERVED.contains(&(code as f64)) => jsonrpc::INTERNAL_ERROR,
        _ => return None,
    };
    let message = read.message.map_or("\"the server failed\"", RawValue::get);
    let data = read
        .data
        .map_or_else(String::new, |data| format!(",\"data\":{}", data.get()));
    Some(format!("{{\"code\":{code},\"message\":{message}{data}}}").into())
}

#[cfg(test)]
mod tests;
