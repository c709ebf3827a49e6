//! Messages that the bridge writes itself, and what it reads of those it passes on.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::protocol::jsonrpc::{self, Message};

/// What the bridge calls its own requests. No answer to one is ever shown to an AI tool.
pub(super) const OWN_ID: &str = "\"legation-bridge\"";
/// Tells the AI tool to ask for the tools again.
pub(super) const LIST_CHANGED: &[u8] =
    br#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
/// Ends the beginning.
pub(super) const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// What an answer has in it.
#[derive(Deserialize)]
pub(super) struct Answer<'a> {
    #[serde(borrow, default)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
}

/// A request of the bridge's own.
pub(super) fn own(method: &str, params: &RawValue) -> Bytes {
    let method = json!(method);
    let params = params.get();
    let text = format!(r#"{{"jsonrpc":"2.0","id":{OWN_ID},"method":{method},"params":{params}}}"#);
    Bytes::from(text)
}

/// An answer with this result.
pub(super) fn result(id: &str, result: &RawValue) -> Bytes {
    let result = result.get();
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#
    ))
}

/// An answer with this error, as the server made it.
pub(super) fn passed_error(id: &str, error: &RawValue) -> Bytes {
    let error = error.get();
    Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
}

/// An answer with an error of the bridge's own.
pub(super) fn error(id: &str, code: i64, message: &str, ours: &str) -> Bytes {
    let error = json!({"code": code, "message": message, "data": {"error": ours}});
    Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
}

/// An answer that a model reads: a tool's result that is an error.
pub(super) fn tool_failed(id: &str, text: &str, ours: &str) -> Bytes {
    let result = json!({
        "content": [{"type": "text", "text": text}],
        "isError": true,
        "_meta": {"legation/error": ours},
    });
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#
    ))
}

/// Whether a message is the answer to the request of this id.
pub(super) fn is_answer_to(message: &[u8], id: &str) -> bool {
    match jsonrpc::read(message) {
        Ok(Message::Response { id: of, .. }) => is_same_id(of, id),
        _ => false,
    }
}

/// Whether two ids are the same, however they are written.
pub(super) fn is_same_id(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    one.starts_with('"') && other.starts_with('"') && read(one) == read(other)
}

/// One message on one line. A line break between two tokens means nothing, and there is no other.
pub(super) fn line(message: Bytes) -> Bytes {
    let message = message.slice_ref(message.trim_ascii());
    if memchr::memchr2(b'\r', b'\n', &message).is_none() {
        return message;
    }
    let plain = |byte: &u8| match byte {
        b'\r' | b'\n' => b' ',
        other => *other,
    };
    message.iter().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn own_messages_are_json_and_keep_the_id() {
        for bytes in [
            error("\"a\"", -32603, "no\n\"", "busy"),
            tool_failed("\"a\"", "gone\n", "daemon_unreachable"),
        ] {
            assert!(is_answer_to(&bytes, "\"a\""));
            assert!(is_answer_to(&bytes, "\"\\u0061\""));
            assert!(!is_answer_to(&bytes, "1"));
            assert!(!bytes.contains(&b'\n'));
        }
        let params = RawValue::from_string("{\"x\":1.0e2}".to_owned()).unwrap();
        let own: Value = serde_json::from_slice(&own("initialize", &params)).unwrap();
        assert_eq!(own["params"]["x"], 100.0);
    }

    #[test]
    fn a_message_is_written_on_one_line() {
        let pretty = Bytes::from_static(b"{\n  \"id\": 1,\r\n  \"result\": {}\n}\n");
        let one = line(pretty.clone());
        assert!(!one.contains(&b'\n') && !one.contains(&b'\r'));
        let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        assert_eq!(read(&one), read(&pretty));
    }
}
