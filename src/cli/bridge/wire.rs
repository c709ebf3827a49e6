//! Messages that the bridge writes itself, and what it reads of those it passes on.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::protocol::jsonrpc::{self, Message};

/// What the bridge calls those of its own requests that begin something. No answer to one is ever shown to an AI tool.
pub(super) const OWN_ID: &str = "\"legation-bridge\"";
/// Tell the AI tool to ask for what there is again.
pub(super) const LISTS_CHANGED: [&[u8]; 3] = [
    br#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#,
    br#"{"jsonrpc":"2.0","method":"notifications/resources/list_changed"}"#,
    br#"{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}"#,
];
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

/// What the bridge calls its own request of this number in a session: one whose connection was cut may still be under way.
pub(super) fn own_id(number: u64) -> String {
    format!("\"legation-bridge-{number}\"")
}

/// A request of the bridge's own.
pub(super) fn own(id: &str, method: &str, params: &RawValue) -> Bytes {
    let method = json!(method);
    let params = params.get();
    let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#);
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

/// Whether an answer is a result.
pub(super) fn is_result(answer: &[u8]) -> bool {
    matches!(
        jsonrpc::read(answer),
        Ok(Message::Response { outcome: Ok(_), .. })
    )
}

/// The version that an `initialize` asks for.
pub(super) fn version_asked(params: Option<&RawValue>) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Asked {
        protocol_version: String,
    }
    let asked: Result<Asked, _> = serde_json::from_str(params.map_or("", RawValue::get));
    asked.map_or_else(|_| String::new(), |asked| asked.protocol_version)
}

/// Whether an object has a member of this name that is not null: not one of its members' members.
pub(super) fn has_member(object: &str, name: &str) -> bool {
    let members: Result<HashMap<&str, &RawValue>, _> = serde_json::from_str(object);
    let members = members.unwrap_or_default();
    members.get(name).is_some_and(|value| value.get() != "null")
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
        let own: Value = serde_json::from_slice(&own(&own_id(7), "initialize", &params)).unwrap();
        assert_eq!(own["params"]["x"], 100.0);
        assert_eq!(own["id"], "legation-bridge-7");
    }

    #[test]
    fn a_tool_with_a_property_of_a_cursors_name_makes_no_page() {
        let page = r#"{"tools":[],"nextCursor":"x"}"#;
        let tools =
            r#"{"tools":[{"outputSchema":{"properties":{"nextCursor":{}}}}],"nextCursor":null}"#;
        assert!(has_member(page, "nextCursor"));
        assert!(!has_member(tools, "nextCursor") && !has_member("", "cursor"));
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
