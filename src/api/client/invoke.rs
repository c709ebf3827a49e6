//! `POST /v1/tools/invoke`: the hot path. One scan of the request, one of the result, one buffer
//! for the answer.

use std::borrow::Cow;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{Shared, answer, body};
use crate::actors::front::{Aside, Called, Outcome};
use crate::api::error::Error;
use crate::api::shares;
use crate::domain::code::Code;
use crate::domain::limits::CALLED_NAME_BYTES_MAX;

/// Unknown fields are refused: the standard client sends none, and a misspelt `arguments` would
/// otherwise be a call without any.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[serde(borrow)]
    tool: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    /// Part of the contract, sent by nobody.
    #[serde(default, rename = "trace_id")]
    _trace_id: IgnoredAny,
}

/// What is called, with what.
#[derive(Debug)]
struct Invocation<'a> {
    tool: Cow<'a, str>,
    arguments: &'a RawValue,
}

pub(super) async fn invoke(State(shared): State<Shared>, request: Request) -> Response {
    match invoked(&shared, request).await {
        Ok(answered) => answered,
        Err(error) => error.into_response(),
    }
}

async fn invoked(shared: &Shared, mut request: Request) -> Result<Response, Error> {
    let session = shared.authenticate_post(&mut request).await?;
    let max = shared.options().body_bytes_max;
    let bytes = body::read_of(request.body_mut(), max, &session.key).await?;
    let call = parse(&bytes)?;
    let front = shared.front();
    let outcome = front
        .call(
            &session,
            Called::Exposed(&call.tool),
            call.arguments,
            &Aside::default(),
        )
        .await;
    let at = front.wall_ms();
    let body = match &outcome {
        Outcome::Answered(answered) => {
            answer::answered(answered, at, shared.options().response_bytes_max)
        }
        Outcome::Failed(failure) => answer::failed(failure, at),
    };
    let length = body.len();
    shares::json(body, &session.key).ok_or_else(|| unread(length))
}

fn unread(length: usize) -> Error {
    let text = format!(
        "the answer of {length} bytes is withheld: this key's clients have not read those before it"
    );
    Error::new(Code::Busy, text)
}

fn parse(bytes: &[u8]) -> Result<Invocation<'_>, Error> {
    let Wire {
        tool, arguments, ..
    } = body::parse(bytes)?;
    if tool.is_empty() || tool.len() > CALLED_NAME_BYTES_MAX {
        let text = format!("`tool` must have 1 to {CALLED_NAME_BYTES_MAX} bytes");
        return Err(Error::invalid(text));
    }
    let arguments = match arguments {
        Some(given) if given.get().starts_with('{') => given,
        Some(_) => return Err(Error::invalid("`arguments` must be a JSON object")),
        None => serde_json::from_str("{}").map_err(|error| Error::invalid(error.to_string()))?,
    };
    Ok(Invocation { tool, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_their_bytes() {
        let text = r#" {"arguments" : { "a":1.0, "b" : "\u00e4\ud83d\ude00" } ,"tool":"e\u0063ho","trace_id":{"x":[]}}"#;
        let call = parse(text.as_bytes()).unwrap();
        assert_eq!(call.tool, "echo");
        assert_eq!(
            call.arguments.get(),
            r#"{ "a":1.0, "b" : "\u00e4\ud83d\ude00" }"#
        );
    }

    #[test]
    fn no_arguments_are_an_empty_object() {
        for text in [r#"{"tool":"t"}"#, r#"{"tool":"t","arguments":null}"#] {
            assert_eq!(parse(text.as_bytes()).unwrap().arguments.get(), "{}");
        }
    }

    #[test]
    fn a_plain_name_is_not_copied() {
        let call = parse(br#"{"tool":"t","arguments":{}}"#).unwrap();
        assert!(matches!(call.tool, Cow::Borrowed("t")));
    }

    #[test]
    fn bad_calls_say_what_is_bad() {
        let long = format!(r#"{{"tool":"{}"}}"#, "t".repeat(CALLED_NAME_BYTES_MAX + 1));
        for (text, word) in [
            (r#"{"tool":"t","arguments":[1]}"#, "`arguments`"),
            (r#"{"tool":"t","arguments":"{}"}"#, "`arguments`"),
            (r#"{"tool":"t","arguments":1}"#, "`arguments`"),
            (r#"{"tool":"t","args":{}}"#, "unknown field `args`"),
            (r#"{"tool":"","arguments":{}}"#, "`tool`"),
            (&long, "`tool`"),
            (r#"{"tool":7}"#, "invalid type"),
            (r#"{"arguments":{}}"#, "missing field `tool`"),
            (r#"{"tool":"t","arguments":{"a":}}"#, "line 1 column"),
            (r#"["t",{}]"#, "not a JSON object"),
            ("", "empty"),
        ] {
            let complaint = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(complaint.contains(word), "{text}: {complaint}");
        }
    }
}
