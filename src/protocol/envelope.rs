//! The JSON-RPC 2.0 envelope: read without touching `params` and `result`, written around them.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::talk::Level;

/// What one line from a server is.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// An answer to one of our requests.
    Response {
        /// Our id.
        id: u64,
        /// Whether it is a result or an error.
        kind: ReplyKind,
        /// Where the `result` or `error` value is in the line.
        body: Range<usize>,
    },
    /// A request of the server to its client.
    Request {
        /// The server's id, as it wrote it.
        id: &'a str,
        /// What it asks.
        method: Cow<'a, str>,
    },
    /// A notification of the server.
    Notification {
        /// What it tells.
        method: Cow<'a, str>,
    },
    /// A well-formed answer to a question that was never ours to ask.
    Stray,
}

/// A result or an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// The call has a result.
    Result,
    /// The server answered with a JSON-RPC error.
    Error,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Reads one line. `None` means it is not JSON-RPC: noise, to be counted and kept as a log line.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Incoming<'_>> {
    let wire: Wire<'_> = serde_json::from_slice(line).ok()?;
    match (wire.method, wire.id) {
        (Some(method), Some(id)) => Some(Incoming::Request {
            id: id.get(),
            method,
        }),
        (Some(method), None) => Some(Incoming::Notification { method }),
        (None, Some(id)) => {
            let Ok(id) = id.get().parse::<u64>() else {
                return Some(Incoming::Stray);
            };
            let (kind, body) = match (wire.result, wire.error) {
                (_, Some(error)) => (ReplyKind::Error, range_in(line, error)?),
                (Some(result), None) => (ReplyKind::Result, range_in(line, result)?),
                // `"result": null` reads as absent; it is an answer all the same.
                (None, None) => (ReplyKind::Result, 0..0),
            };
            Some(Incoming::Response { id, kind, body })
        }
        (None, None) => None,
    }
}

/// Where `part`, which borrows from `line`, is in it.
fn range_in(line: &[u8], part: &RawValue) -> Option<Range<usize>> {
    let start = (part.get().as_ptr() as usize).checked_sub(line.as_ptr() as usize)?;
    let end = start.checked_add(part.get().len())?;
    (end <= line.len()).then_some(start..end)
}

/// Where a part of a line that was cut out as `&RawValue` is in that line.
#[must_use]
pub fn locate(line: &[u8], part: &RawValue) -> Option<Range<usize>> {
    range_in(line, part)
}

/// A request line: `params` is copied as it is.
#[must_use]
pub fn request(id: u64, method: &str, params: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(64 + method.len() + params.len());
    line.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    put_u64(&mut line, id);
    line.put_slice(b",\"method\":\"");
    line.put_slice(method.as_bytes());
    line.put_slice(b"\",\"params\":");
    put_on_one_line(&mut line, params);
    line.put_slice(b"}\n");
    line.freeze()
}

/// What a client put into `_meta` of a request, and what of it goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meta<'a> {
    /// Its other members as they were written, without braces.
    pub members: &'a [u8],
    /// It wants to hear of progress: our id is the token.
    pub progress: bool,
}

/// A `tools/call` request line for our id. `name` is a tool's own name, which needs no escaping.
#[must_use]
pub fn tool_call(id: u64, name: &str, arguments: &[u8], meta: Meta<'_>) -> Bytes {
    let length = 128 + name.len() + arguments.len() + meta.members.len();
    let mut line = BytesMut::with_capacity(length);
    line.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    put_u64(&mut line, id);
    line.put_slice(b",\"method\":\"tools/call\",\"params\":{\"name\":\"");
    line.put_slice(name.as_bytes());
    line.put_slice(b"\",\"arguments\":");
    put_on_one_line(&mut line, arguments);
    if meta != Meta::default() {
        line.put_slice(b",\"_meta\":{");
        put_on_one_line(&mut line, meta.members);
        if meta.progress {
            if !meta.members.is_empty() {
                line.put_u8(b',');
            }
            line.put_slice(b"\"progressToken\":");
            put_u64(&mut line, id);
        }
        line.put_u8(b'}');
    }
    line.put_slice(b"}}\n");
    line.freeze()
}

/// The parameters of a notification, as far as `P` looks at them.
fn params_of<'a, P: Deserialize<'a>>(line: &'a [u8]) -> Option<P> {
    #[derive(Deserialize)]
    struct Notification<P> {
        params: P,
    }
    let told: Notification<P> = serde_json::from_slice(line).ok()?;
    Some(told.params)
}

/// Where the token of a `notifications/progress` is in its line, and which of our ids it is.
#[must_use]
pub fn progress_token(line: &[u8]) -> Option<(u64, Range<usize>)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        #[serde(borrow)]
        progress_token: &'a RawValue,
    }
    let token = params_of::<Params<'_>>(line)?.progress_token;
    Some((token.get().parse().ok()?, range_in(line, token)?))
}

/// The id that a server's `notifications/cancelled` names, raw.
#[must_use]
pub fn cancelled_id(line: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        #[serde(borrow)]
        request_id: &'a RawValue,
    }
    params_of::<Params<'_>>(line).map(|params| params.request_id.get())
}

/// The resource that a server's `notifications/resources/updated` names.
#[must_use]
pub fn updated_uri(line: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        uri: Cow<'a, str>,
    }
    params_of::<Params<'_>>(line).map(|params| params.uri)
}

/// Which of our subscriptions a server's message is of.
#[must_use]
pub fn subscription(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Params {
        #[serde(rename = "_meta")]
        meta: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        #[serde(rename = "io.modelcontextprotocol/subscriptionId")]
        id: u64,
    }
    params_of::<Params>(line).map(|params| params.meta.id)
}

/// How grave a server's `notifications/message` is; `None` if it does not say it as it must.
#[must_use]
pub fn log_level(line: &[u8]) -> Option<Level> {
    #[derive(Deserialize)]
    struct Params {
        level: Level,
    }
    params_of::<Params>(line).map(|params| params.level)
}

/// A notification line.
#[must_use]
pub fn notification(method: &str, params: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(48 + method.len() + params.len());
    line.put_slice(b"{\"jsonrpc\":\"2.0\",\"method\":\"");
    line.put_slice(method.as_bytes());
    line.put_slice(b"\",\"params\":");
    put_on_one_line(&mut line, params);
    line.put_slice(b"}\n");
    line.freeze()
}

/// `notifications/cancelled` for one of our ids.
#[must_use]
pub fn cancelled(id: u64, reason: &'static str) -> Bytes {
    let mut params = BytesMut::with_capacity(64);
    params.put_slice(b"{\"requestId\":");
    put_u64(&mut params, id);
    params.put_slice(b",\"reason\":\"");
    params.put_slice(reason.as_bytes());
    params.put_slice(b"\"}");
    notification("notifications/cancelled", &params)
}

/// The answer to a server's `ping`.
#[must_use]
pub fn empty_result(id: &str) -> Bytes {
    Bytes::from(format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n"
    ))
}

/// The answer to any other request of a server: we declared no client capabilities.
#[must_use]
pub fn method_not_found(id: &str) -> Bytes {
    Bytes::from(format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-32601,\
         \"message\":\"method not found: the client declared no such capability\"}}}}\n"
    ))
}

/// The answer to a server's question with this id: `member` is `result` or `error`, and `value` JSON.
#[must_use]
pub fn answer(id: &str, member: &'static str, value: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(48 + id.len() + value.len());
    line.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    put_on_one_line(&mut line, id.as_bytes());
    line.put_slice(b",\"");
    line.put_slice(member.as_bytes());
    line.put_slice(b"\":");
    put_on_one_line(&mut line, value);
    line.put_slice(b"}\n");
    line.freeze()
}

/// The same with an error in our words.
#[must_use]
pub fn answer_error(id: &str, code: i64, message: &'static str) -> Bytes {
    let error = format!("{{\"code\":{code},\"message\":\"{message}\"}}");
    answer(id, "error", error.as_bytes())
}

/// JSON text may hold raw line breaks between tokens (never inside strings); stdio framing may
/// not. They become spaces, which leaves the value the same.
fn put_on_one_line(line: &mut BytesMut, json: &[u8]) {
    if memchr::memchr2(b'\n', b'\r', json).is_none() {
        line.put_slice(json);
        return;
    }
    line.extend(json.iter().map(|byte| {
        if matches!(byte, b'\n' | b'\r') {
            b' '
        } else {
            *byte
        }
    }));
}

fn put_u64(line: &mut BytesMut, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(value % 10).unwrap_or_default();
        used += 1;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    line.put_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_four_kinds() {
        let line = br#"{"jsonrpc":"2.0","id":7,"result":{"content":[ 1 ]}}"#;
        let Some(Incoming::Response {
            id: 7,
            kind: ReplyKind::Result,
            body,
        }) = parse(line)
        else {
            panic!("response")
        };
        assert_eq!(&line[body], br#"{"content":[ 1 ]}"#);
        assert!(matches!(
            parse(br#"{"id":1,"error":{"code":1}}"#),
            Some(Incoming::Response {
                kind: ReplyKind::Error,
                ..
            })
        ));
        assert!(matches!(
            parse(br#"{"id":"x","method":"sampling/createMessage"}"#),
            Some(Incoming::Request { id: "\"x\"", .. })
        ));
        assert!(matches!(
            parse(br#"{"method":"notifications/message","params":{}}"#),
            Some(Incoming::Notification { .. })
        ));
        assert!(matches!(
            parse(br#"{"id":"abc","result":{}}"#),
            Some(Incoming::Stray)
        ));
        assert!(matches!(
            parse(br#"{"id":-1,"result":{}}"#),
            Some(Incoming::Stray)
        ));
    }

    #[test]
    fn everything_else_is_noise() {
        for noise in [
            "",
            "hello",
            "[]",
            "{}",
            "{\"id\":1,",
            "42",
            "\"x\"",
            "{\"a\":1}",
        ] {
            assert!(parse(noise.as_bytes()).is_none(), "{noise}");
        }
        assert!(
            parse(b"{\"id\":1,\"result\":\"\xff\"}").is_none(),
            "invalid UTF-8"
        );
    }

    #[test]
    fn a_null_result_is_an_answer() {
        assert!(matches!(
            parse(br#"{"id":3,"result":null}"#),
            Some(Incoming::Response {
                id: 3,
                kind: ReplyKind::Result,
                ..
            })
        ));
    }

    #[test]
    fn pretty_printed_arguments_stay_on_one_line() {
        let line = tool_call(1, "echo", b"{\n  \"a\": \"x\\ny\"\r\n}", Meta::default());
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["params"]["arguments"]["a"], "x\ny");
    }

    #[test]
    fn progress_is_asked_for_by_our_id_and_its_token_is_found() {
        let meta = |members: &'static [u8], progress| Meta { members, progress };
        let text = |meta| String::from_utf8(tool_call(7, "t", b"{}", meta).to_vec()).unwrap();
        assert!(text(meta(b"", true)).contains(r#","_meta":{"progressToken":7}}}"#));
        let both = text(meta(br#""a":{"b":1}"#, true));
        assert!(
            both.contains(r#""_meta":{"a":{"b":1},"progressToken":7}}}"#),
            "{both}"
        );
        assert!(text(meta(br#""a":1"#, false)).contains(r#""_meta":{"a":1}}}"#));
        let line = br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1,"progressToken": 7}}"#;
        let (id, range) = progress_token(line).unwrap();
        assert_eq!((id, &line[range]), (7, &b"7"[..]));
        assert_eq!(progress_token(br#"{"params":{"progressToken":"7"}}"#), None);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn ids_round_trip(id in any::<u64>()) {
            let line = request(id, "ping", b"{}");
            let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(value["id"].as_u64(), Some(id));
        }

        #[test]
        fn bodies_are_located_exactly(pad in "[ \t]{0,8}", text in "[a-z\\\\\"]{0,20}") {
            let body = serde_json::to_string(&text).unwrap();
            let line = format!("{{{pad}\"id\":{pad}9,\"result\":{pad}{body}{pad}}}");
            let Some(Incoming::Response { body: range, .. }) = parse(line.as_bytes()) else {
                panic!("response")
            };
            prop_assert_eq!(&line.as_bytes()[range], body.as_bytes());
        }
    }
}
