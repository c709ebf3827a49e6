//! Resources, prompts and completions where all servers of a key are: lists put together, and requests that name one of
//! their items, passed on to the server whose it is. What names resources in a result names them there as clients
//! see them here.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

use super::answer::{self, Era};
use super::job::Ended;
use super::methods;
use crate::actors::front::{Aside, Front, Gathered, Listing, Method, Outcome, Owner};
use crate::actors::session::SessionHandle;
use crate::api::error::{millis, put_number, put_string};
use crate::domain::code::Code;
use crate::domain::limits::WATCHED_URI_BYTES_MAX;
use crate::domain::name::Name;
use crate::protocol::jsonrpc;
use crate::protocol::splice::{self, Place};

/// What older versions answer for a resource that is not there.
const RESOURCE_NOT_FOUND: i64 = -32002;

/// Why there is no server that could answer.
#[derive(Debug)]
pub(super) enum Wrong {
    /// The parameters are not what the method takes.
    Params(String),
    /// What they name is not here.
    Resource(Outcome, String),
    /// No prompt has this name.
    Prompt(Outcome),
}

/// Answers a method of all servers.
pub(super) async fn ask(
    front: &Front,
    session: &Arc<SessionHandle>,
    method: &Method,
    given: &RawValue,
    aside: &Aside<'_>,
) -> Ended {
    if let Some(listing) = Listing::of(method.name()) {
        if methods::has_cursor(Some(given)) {
            let why = "there is one page: no cursor was given to anybody";
            return Ended::Wrong(Wrong::Params(why.to_owned()));
        }
        return match front.gather(session, listing, aside).await {
            Ok(gathered) => Ended::Listed(method.clone(), listed(listing, &gathered)),
            Err(refused) => Ended::Method(method.clone(), refused),
        };
    }
    let (mcp, params) = match whose(front, session, method.name(), given.get(), aside).await {
        Ok(found) => found,
        Err(wrong) => return Ended::Wrong(wrong),
    };
    let Ok(params) = RawValue::from_string(params) else {
        return Ended::NoJson;
    };
    let asked = front.ask(session, mcp.as_str(), method, &params, aside);
    match asked.await {
        Some(Outcome::Answered(answer)) => Ended::Method(method.clone(), answer.seen_everywhere()),
        Some(failed) => Ended::Method(method.clone(), failed),
        None => Ended::Nowhere(mcp.to_string()),
    }
}

/// The mcp whose item the parameters name, and the parameters with its own name in them.
async fn whose(
    front: &Front,
    session: &Arc<SessionHandle>,
    method: &str,
    given: &str,
    aside: &Aside<'_>,
) -> Result<(Name, String), Wrong> {
    let missing = |what: &str| {
        Wrong::Params(format!(
            "`{what}` must be text of at most {WATCHED_URI_BYTES_MAX} bytes, and stand there once"
        ))
    };
    let (place, is_prompt) = match method {
        "prompts/get" => (splice::find(given, &["name"]), true),
        "completion/complete" => {
            let kind = splice::find(given, &["ref", "type"]).map(|kind| kind.text);
            match kind.as_deref() {
                Some("ref/prompt") => (splice::find(given, &["ref", "name"]), true),
                Some("ref/resource") => (splice::find(given, &["ref", "uri"]), false),
                _ => {
                    let why = "`ref.type` must be `ref/prompt` or `ref/resource`";
                    return Err(Wrong::Params(why.to_owned()));
                }
            }
        }
        _ => (splice::find(given, &["uri"]), false),
    };
    let place = place
        .filter(|place| place.text.len() <= WATCHED_URI_BYTES_MAX)
        .ok_or_else(|| missing(if is_prompt { "name" } else { "uri" }))?;
    let (mcp, own) = match is_prompt {
        true => prompt(front, session, method, &place).await?,
        false => match front
            .owner(session, method, &place.text, aside, &mut None)
            .await
        {
            Owner::One(mcp, own) => (mcp, own),
            Owner::None(outcome) => return Err(Wrong::Resource(outcome, place.text)),
        },
    };
    Ok((mcp, splice::put(given, &[place], |_| own.clone())))
}

async fn prompt(
    front: &Front,
    session: &SessionHandle,
    method: &str,
    place: &Place,
) -> Result<(Name, String), Wrong> {
    let found = front.prompt(session, &place.text).await;
    let (code, text) = match found {
        Ok(Some(found)) => return Ok(found),
        Ok(None) => {
            let shown: String = place.text.chars().take(64).collect();
            let text = format!(
                "there is no prompt `{}`; list them again",
                shown.escape_debug()
            );
            (Code::NotFound, text)
        }
        Err(error) => {
            tracing::warn!("a prompt's name is not known: {error}");
            let text = "the gateway's store does not answer; try again in a moment";
            (Code::StoreUnavailable, text.to_owned())
        }
    };
    Err(Wrong::Prompt(
        front.no_such(session, method, code, text).await,
    ))
}

fn listed(listing: Listing, gathered: &Gathered) -> Bytes {
    let length = gathered
        .items
        .iter()
        .map(|item| item.len() + 1)
        .sum::<usize>();
    let mut out = BytesMut::with_capacity(length + 64);
    out.put_slice(format!("{{\"{}\":[", listing.member()).as_bytes());
    for (at, item) in gathered.items.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        out.put_slice(item.as_bytes());
    }
    out.put_u8(b']');
    if !gathered.missing.is_empty() {
        out.put_slice(b",\"_meta\":{\"legation/partial\":[");
        for (at, missing) in gathered.missing.iter().enumerate() {
            out.put_slice(if at > 0 { b",{\"mcp\":" } else { b"{\"mcp\":" });
            put_string(&mut out, missing.mcp.as_str());
            out.put_slice(b",\"error\":");
            put_string(&mut out, missing.code.as_str());
            if let Some(wait) = missing.retry_after {
                out.put_slice(b",\"retry_after_ms\":");
                put_number(&mut out, millis(wait));
            }
            out.put_u8(b'}');
        }
        out.put_slice(b"]}");
    }
    out.put_u8(b'}');
    out.freeze()
}

impl Wrong {
    /// The answer to its request.
    pub(super) fn body(&self, id: &str, era: Era<'_>) -> Bytes {
        let (outcome, code, uri) = match self {
            Self::Params(why) => {
                return answer::body_of_error(id, jsonrpc::INVALID_PARAMS, why, None);
            }
            Self::Prompt(outcome) => (outcome, jsonrpc::INVALID_PARAMS, None),
            Self::Resource(outcome, uri) => match era {
                Era::Sessions => (outcome, RESOURCE_NOT_FOUND, Some(uri)),
                Era::Stateless { .. } => (outcome, jsonrpc::INVALID_PARAMS, Some(uri)),
            },
        };
        match outcome {
            Outcome::Failed(failure)
                if matches!(failure.code, Code::NotFound | Code::ResourceUnclear) =>
            {
                let mut data = BytesMut::from(&b"{\"error\":"[..]);
                put_string(&mut data, failure.code.as_str());
                if let Some(uri) = uri {
                    data.put_slice(b",\"uri\":");
                    put_string(&mut data, uri);
                }
                data.put_u8(b'}');
                let data = String::from_utf8_lossy(&data);
                answer::body_of_error_with(id, code, &failure.text, &data)
            }
            other => answer::of_method(id, other, era),
        }
    }
}
