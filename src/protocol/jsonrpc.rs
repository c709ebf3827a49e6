//! A message of a client, read without touching `params`, `result` and `error`.
//!
//! What is ambiguous is refused: members twice, a result and an error at once, an id that is neither
//! text nor a whole number. A reader that takes one of two meanings, before a server that takes the
//! other, is a hole.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::depth;
use super::handshake::cut;
use crate::domain::limits::{RPC_DEPTH_MAX, RPC_ID_BYTES_MAX, RPC_METHOD_BYTES_MAX};

/// The request cannot be parsed as JSON.
pub const PARSE_ERROR: i64 = -32700;
/// It is JSON, and no message of JSON-RPC 2.0.
pub const INVALID_REQUEST: i64 = -32600;
/// Nobody answers to the method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters are not what the method takes.
pub const INVALID_PARAMS: i64 = -32602;
/// We failed.
pub const INTERNAL_ERROR: i64 = -32603;

/// One message of a client.
#[derive(Debug)]
pub enum Message<'a> {
    /// Wants an answer.
    Request {
        /// The client's id as it wrote it, to be sent back.
        id: &'a str,
        /// What it asks.
        method: Cow<'a, str>,
        /// With what.
        params: Option<&'a RawValue>,
    },
    /// Wants none.
    Notification {
        /// What it tells.
        method: Cow<'a, str>,
        /// With what.
        params: Option<&'a RawValue>,
    },
    /// An answer to a request of ours.
    Response {
        /// Our id, as it came back.
        id: &'a str,
        /// The `result`, or the `error`.
        outcome: Result<&'a RawValue, &'a RawValue>,
    },
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Malformed {
    /// [`PARSE_ERROR`] or [`INVALID_REQUEST`].
    pub code: i64,
    /// What is wrong with it.
    pub why: String,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// A member that is there, also if it is `null`.
fn present<'de, D: Deserializer<'de>>(member: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(member).map(Some)
}

/// Reads one message.
///
/// # Errors
/// [`Malformed`].
pub fn read(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    let invalid = |why: &str| Malformed {
        code: INVALID_REQUEST,
        why: why.to_owned(),
    };
    if depth::is_deeper(bytes, RPC_DEPTH_MAX) {
        return Err(invalid("it is nested too deeply"));
    }
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        let is_json = serde_json::from_slice::<&RawValue>(bytes).is_ok();
        return Err(Malformed {
            code: if is_json {
                INVALID_REQUEST
            } else {
                PARSE_ERROR
            },
            why: "the body must be one JSON object".to_owned(),
        });
    }
    let wire: Wire<'_> = serde_json::from_slice(bytes).map_err(|error| Malformed {
        code: match error.classify() {
            serde_json::error::Category::Data => INVALID_REQUEST,
            _ => PARSE_ERROR,
        },
        why: error.to_string().chars().take(200).collect(),
    })?;
    if wire.jsonrpc.as_deref() != Some("2.0") {
        return Err(invalid("`jsonrpc` must be \"2.0\""));
    }
    if let Some(id) = wire.id
        && !is_id(id.get())
    {
        return Err(invalid("`id` must be text or a whole number"));
    }
    if wire.id.is_some_and(|id| id.get().len() > RPC_ID_BYTES_MAX) {
        return Err(invalid("`id` is too long"));
    }
    let long = |method: &str| method.is_empty() || method.len() > RPC_METHOD_BYTES_MAX;
    let answers = wire.result.is_some() || wire.error.is_some();
    match (wire.method, wire.id) {
        (Some(method), _) if long(&method) => Err(invalid("`method` is empty or too long")),
        (Some(_), _) if answers => Err(invalid("a request has no `result` and no `error`")),
        (Some(method), Some(id)) => Ok(Message::Request {
            id: id.get(),
            method,
            params: wire.params,
        }),
        (Some(method), None) => Ok(Message::Notification {
            method,
            params: wire.params,
        }),
        (None, _) if wire.result.is_some() && wire.error.is_some() => {
            Err(invalid("an answer has a `result` or an `error`, not both"))
        }
        (None, Some(id)) if answers => match (wire.result, wire.error) {
            (Some(result), _) => Ok(Message::Response {
                id: id.get(),
                outcome: Ok(result),
            }),
            (None, Some(error)) => Ok(Message::Response {
                id: id.get(),
                outcome: Err(error),
            }),
            (None, None) => Err(invalid("an answer has a `result` or an `error`")),
        },
        (None, _) => Err(invalid("it has no `method`, and is no answer either")),
    }
}

/// A server's error as one that is to be passed on: the same (`None`), if it has a whole number for a code and text for a
/// message; else what can be told of it.
#[must_use]
pub fn proper_error(error: &[u8]) -> Option<Bytes> {
    #[derive(Deserialize, Default)]
    struct Error<'a> {
        #[serde(borrow, default)]
        code: Option<&'a RawValue>,
        #[serde(borrow, default)]
        message: Option<&'a RawValue>,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    let text = |raw: &RawValue| serde_json::from_str::<Cow<'_, str>>(raw.get()).ok();
    let given: Option<&RawValue> = serde_json::from_slice(error).ok();
    let read: Option<Error<'_>> = given
        .filter(|given| given.get().starts_with('{'))
        .and_then(|given| serde_json::from_str(given.get()).ok());
    let is_object = read.is_some();
    let read = read.unwrap_or_default();
    let code = read.code.and_then(|code| code.get().parse::<i64>().ok());
    let message = match is_object {
        true => read.message.and_then(text),
        false => given.and_then(text),
    };
    if code.is_some() && message.is_some() && is_object {
        return None;
    }
    let message = match &message {
        Some(message) => cut(message),
        None => "the server failed, and its error is not of its shape".to_owned(),
    };
    let message = serde_json::to_string(&message).unwrap_or_default();
    let data = read
        .data
        .map_or_else(String::new, |data| format!(",\"data\":{}", data.get()));
    let code = code.unwrap_or(INTERNAL_ERROR);
    Some(format!("{{\"code\":{code},\"message\":{message}{data}}}").into())
}

/// Whether a JSON text is an id: text, or a whole number that everybody reads alike.
fn is_id(text: &str) -> bool {
    const WHOLE_MAX: i64 = 1 << 53;
    text.starts_with('"')
        || text
            .parse::<i64>()
            .is_ok_and(|number| (-WHOLE_MAX..=WHOLE_MAX).contains(&number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_that_is_passed_on_is_of_its_shape() {
        for fine in [
            r#"{"code":-32000,"message":"x","data":[1.0e2]}"#,
            r#"{"message":"","code":0,"more":1}"#,
        ] {
            assert_eq!(proper_error(fine.as_bytes()), None, "{fine}");
        }
        let odd = "the server failed, and its error is not of its shape";
        for (given, code, message, data) in [
            (r#""str""#, INTERNAL_ERROR, "str", ""),
            ("7", INTERNAL_ERROR, odd, ""),
            (r#"[-32000,"x"]"#, INTERNAL_ERROR, odd, ""),
            (r#"{"message":"x"}"#, INTERNAL_ERROR, "x", ""),
            (
                r#"{"code":1.5,"message":"x","data":1.0e2}"#,
                INTERNAL_ERROR,
                "x",
                ",\"data\":1.0e2",
            ),
            (r#"{"code":"1","message":"x"}"#, INTERNAL_ERROR, "x", ""),
            (r#"{"code":-32001}"#, -32001, odd, ""),
            (r#"{"code":-32001,"message":{}}"#, -32001, odd, ""),
            (
                r#"{"code":1,"code":2,"message":"x"}"#,
                INTERNAL_ERROR,
                odd,
                "",
            ),
        ] {
            let wanted = format!(r#"{{"code":{code},"message":"{message}"{data}}}"#);
            assert_eq!(proper_error(given.as_bytes()).unwrap(), wanted, "{given}");
        }
    }

    fn code(text: &str) -> i64 {
        read(text.as_bytes()).unwrap_err().code
    }

    #[test]
    fn reads_the_three_kinds_and_keeps_their_bytes() {
        let text =
            br#" {"id": "a\u0062" ,"jsonrpc":"2.0","method":"tools\/call","params":{ "x":1.0e2 }}"#;
        let Ok(Message::Request { id, method, params }) = read(text) else {
            panic!("a request")
        };
        assert_eq!((id, &*method), (r#""a\u0062""#, "tools/call"));
        assert_eq!(params.unwrap().get(), r#"{ "x":1.0e2 }"#);
        assert!(matches!(
            read(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
            Ok(Message::Notification { .. })
        ));
        assert!(matches!(
            read(br#"{"jsonrpc":"2.0","id":7,"result":{}}"#),
            Ok(Message::Response { id: "7", outcome: Ok(result) }) if result.get() == "{}"
        ));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (text, expected) in [
            ("", PARSE_ERROR),
            ("{", PARSE_ERROR),
            ("nonsense", PARSE_ERROR),
            ("[]", INVALID_REQUEST),
            ("7", INVALID_REQUEST),
            (r#"{"id":1,"method":"x"}"#, INVALID_REQUEST),
            (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#, INVALID_REQUEST),
            (r#"{"jsonrpc":2.0,"id":1,"method":"x"}"#, INVALID_REQUEST),
            (
                r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#,
                INVALID_REQUEST,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","method":"y"}"#,
                INVALID_REQUEST,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{},"params":{}}"#,
                INVALID_REQUEST,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#,
                INVALID_REQUEST,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1e2,"method":"x"}"#,
                INVALID_REQUEST,
            ),
            (
                r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"x"}"#,
                INVALID_REQUEST,
            ),
            (r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#, INVALID_REQUEST),
            (
                r#"{"jsonrpc":"2.0","id":true,"method":"x"}"#,
                INVALID_REQUEST,
            ),
            (
                r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#,
                INVALID_REQUEST,
            ),
            (r#"{"jsonrpc":"2.0","id":1,"method":""}"#, INVALID_REQUEST),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, INVALID_REQUEST),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","result":{}}"#,
                INVALID_REQUEST,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
                INVALID_REQUEST,
            ),
            (r#"{"jsonrpc":"2.0","result":{}}"#, INVALID_REQUEST),
            (r#"{"jsonrpc":"2.0","id":1}"#, INVALID_REQUEST),
            (
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"} {}",
                PARSE_ERROR,
            ),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn an_id_has_a_length_that_everybody_can_keep() {
        let of = |length| {
            format!(
                r#"{{"jsonrpc":"2.0","id":"{}","method":"x"}}"#,
                "i".repeat(length)
            )
        };
        assert!(read(of(RPC_ID_BYTES_MAX - 2).as_bytes()).is_ok());
        assert_eq!(code(&of(RPC_ID_BYTES_MAX - 1)), INVALID_REQUEST);
    }

    #[test]
    fn what_is_nested_too_deeply_for_some_readers_is_refused() {
        let of = |depth: usize| {
            let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":{deep}}}}}"#)
        };
        assert!(read(of(RPC_DEPTH_MAX - 2).as_bytes()).is_ok());
        assert_eq!(code(&of(RPC_DEPTH_MAX - 1)), INVALID_REQUEST);
        assert_eq!(code(&of(1_000_000)), INVALID_REQUEST);
        assert_eq!(code(&"{\"a\":".repeat(1_000_000)), INVALID_REQUEST);
    }

    /// A member of a message, and whether it is one that may be there.
    fn member() -> impl Strategy<Value = (&'static str, &'static str, bool)> {
        let all = [
            ("jsonrpc", "\"2.0\"", true),
            ("jsonrpc", "\"1.0\"", false),
            ("jsonrpc", "2.0", false),
            ("id", "1", true),
            ("id", "\"1\"", true),
            ("id", "null", false),
            ("id", "1.0", false),
            ("id", "[1]", false),
            ("method", "\"x\"", true),
            ("method", "null", true),
            ("method", "7", false),
            ("params", "{}", true),
            ("result", "{}", true),
            ("error", "{}", true),
            ("other", "{}", true),
        ];
        prop::sample::select(all.to_vec())
    }

    proptest! {
        /// Whatever members a message has, in whatever order and however often: it is taken only if everybody reads
        /// the same in it.
        #[test]
        fn what_is_taken_can_be_read_in_one_way_only(
            members in prop::collection::vec(member(), 0..7),
            space in "[ \t\n]{0,2}",
        ) {
            let text: Vec<_> = members
                .iter()
                .map(|(name, value, _)| format!("{space}\"{name}\"{space}:{value}"))
                .collect();
            let text = format!("{{{}{space}}}", text.join(","));
            let count = |name: &str| members.iter().filter(|(other, ..)| *other == name).count();
            let known = ["jsonrpc", "id", "method", "params", "result", "error"];
            let once = known.iter().all(|name| count(name) <= 1);
            let good = members.iter().all(|(_, _, good)| *good) && count("jsonrpc") == 1;
            let named = members.iter().any(|(name, value, _)| *name == "method" && *value != "null");
            let ends = count("result") + count("error");
            let shape = if named { ends == 0 } else { ends == 1 && count("id") == 1 };
            let taken = read(text.as_bytes());
            prop_assert_eq!(taken.is_ok(), once && good && shape, "{}: {:?}", text, taken);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn what_is_read_is_what_was_written(id in any::<i32>(), method in "[a-z/]{1,20}") {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#);
            let Ok(Message::Request { id: read_id, method: read_method, .. }) = read(text.as_bytes())
            else {
                panic!("a request")
            };
            prop_assert_eq!(read_id, id.to_string());
            prop_assert_eq!(&*read_method, method);
        }
    }
}
