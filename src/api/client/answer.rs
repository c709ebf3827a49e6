//! The answer to a call. `result` is the bytes of the server's `content`, as it wrote them; what
//! went wrong on the way is a text item in its place, with machine fields in `metadata`.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::actors::front::{Answer, Failure};
use crate::api::error::{millis, put_number, put_string};
use crate::api::stamp::rfc3339;
use crate::domain::account::Millis;
use crate::domain::code::Code;
use crate::domain::ids::CallId;
use crate::domain::name::Name;
use crate::telemetry::metrics::labels::Outcome;

/// Room for everything in an answer but the result.
const FRAME_BYTES: usize = 256;
/// The client decodes what it reads piece by piece, and a character cut in two becomes up to four:
/// so much more than it has characters may a text count there (a piece is at least 1 KiB).
const CUT_SHARE: usize = 256;

/// What we look at in a `CallToolResult`.
#[derive(Deserialize)]
struct ToolResult<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "structuredContent")]
    structured: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "isError")]
    is_error: Option<&'a RawValue>,
}

/// The answer of a server that answered. An error that the tool itself reports (`isError`) is only
/// marked in `metadata`: its content is the tool's own explanation and stays as it is.
pub(super) fn answered(answer: &Answer, at: Millis, max: usize) -> Bytes {
    let result = answer.line.get(answer.result.clone()).unwrap_or_default();
    let parsed: ToolResult<'_> = match serde_json::from_slice(result) {
        Ok(parsed) if result.first() == Some(&b'{') => parsed,
        _ => {
            answer.meter.ended(Outcome::RpcError);
            return not_a_result(answer, at);
        }
    };
    let mut out = BytesMut::with_capacity(result.len() + FRAME_BYTES);
    out.put_slice(b"{\"result\":");
    match parsed
        .content
        .map(RawValue::get)
        .filter(|content| content.starts_with('['))
    {
        Some(content) => out.put_slice(content.as_bytes()),
        None => {
            // Valid UTF-8: the parser has seen it.
            let whole = std::str::from_utf8(result).unwrap_or_default();
            put_text(&mut out, parsed.structured.map_or(whole, RawValue::get));
        }
    }
    put_head(&mut out, &answer.call, at);
    put_number(&mut out, millis(answer.took));
    put_mcp(&mut out, &answer.mcp);
    let is_error = parsed.is_error.is_some_and(|flag| flag.get() == "true");
    if is_error {
        answer.meter.ended(Outcome::ToolError);
    }
    out.put_slice(if is_error {
        b",\"is_error\":true}}"
    } else {
        b",\"is_error\":false}}"
    });
    if fits(&out, max) {
        out.freeze()
    } else {
        answer.meter.ended(Outcome::TooLarge);
        too_large(answer, out.len(), at, max)
    }
}

/// The answer of a call that has none from its server.
pub(super) fn failed(failure: &Failure, at: Millis) -> Bytes {
    let mut out = BytesMut::with_capacity(failure.text.len() + 2 * FRAME_BYTES);
    out.put_slice(b"{\"result\":");
    put_text(&mut out, &failure.text);
    put_head(&mut out, &failure.call, at);
    put_number(&mut out, millis(failure.took));
    if let Some(mcp) = &failure.mcp {
        put_mcp(&mut out, mcp);
    }
    out.put_slice(b",\"is_error\":true,\"error\":");
    put_string(&mut out, failure.code.as_str());
    out.put_slice(b",\"retryable\":");
    out.put_slice(if failure.code.retryable() {
        b"true"
    } else {
        b"false"
    });
    if let Some(wait) = failure.retry_after {
        out.put_slice(b",\"retry_after_ms\":");
        put_number(&mut out, millis(wait));
    }
    if let Some(verdict) = &failure.verdict {
        out.put_slice(b",\"verdict\":");
        put_string(&mut out, verdict);
    }
    if let Some(deny) = &failure.deny {
        out.put_slice(b",\"scope\":");
        put_string(&mut out, deny.target.scope().word());
        out.put_slice(b",\"reason\":");
        put_string(&mut out, &deny.reason);
    }
    out.put_slice(b"}}");
    out.freeze()
}

/// A content array of one text item.
fn put_text(out: &mut BytesMut, text: &str) {
    out.put_slice(b"[{\"type\":\"text\",\"text\":");
    put_string(out, text);
    out.put_slice(b"}]");
}

/// From behind the result up to the duration.
fn put_head(out: &mut BytesMut, call: &CallId, at: Millis) {
    // Our own ids and names need no escaping.
    out.put_slice(b",\"request_id\":\"");
    out.put_slice(call.as_str().as_bytes());
    out.put_slice(b"\",\"timestamp\":\"");
    out.put_slice(&rfc3339(at));
    out.put_slice(b"\",\"metadata\":{\"duration_ms\":");
}

fn put_mcp(out: &mut BytesMut, mcp: &Name) {
    out.put_slice(b",\"mcp_server\":\"");
    out.put_slice(mcp.as_str().as_bytes());
    out.put_u8(b'"');
}

/// Whether the standard client takes an answer: it counts UTF-16 units, which are never more than
/// bytes, so only a large answer has to be counted.
fn fits(answer: &[u8], max: usize) -> bool {
    if answer.len() < max {
        return true;
    }
    // A character begins with a byte that does not continue one; four bytes are two units.
    let units: usize = answer
        .iter()
        .map(|byte| usize::from(byte & 0xc0 != 0x80) + usize::from(*byte >= 0xf0))
        .sum();
    let cuts = if units == answer.len() {
        0
    } else {
        answer.len() / CUT_SHARE
    };
    units + cuts < max
}

fn too_large(answer: &Answer, bytes: usize, at: Millis, max: usize) -> Bytes {
    let text = format!(
        "the result of this call has {}, more than the {} this client accepts; \
         ask for less at a time (a filter, a page, a smaller range)",
        mebibytes(bytes),
        mebibytes(max),
    );
    failed(&replaced(answer, Code::ResultTooLarge, text), at)
}

fn not_a_result(answer: &Answer, at: Millis) -> Bytes {
    let text = format!(
        "the server `{}` answered with something that is not a tool result; \
         this is a fault in that server: tell whoever runs it",
        answer.mcp
    );
    failed(&replaced(answer, Code::ServerError, text), at)
}

fn replaced(answer: &Answer, code: Code, text: String) -> Failure {
    Failure {
        call: answer.call.clone(),
        code,
        text,
        mcp: Some(answer.mcp.clone()),
        retry_after: None,
        verdict: None,
        deny: None,
        error: None,
        modern: false,
        took: answer.took,
    }
}

/// `10.0 MiB`, rounded up to a tenth, so that what is too large never reads as the limit itself.
fn mebibytes(bytes: usize) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::metrics::mcp::CallMeter;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn answer(result: &str) -> Answer {
        let line = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{result}}}"#);
        let from = line.len() - result.len() - 1;
        let meter = CallMeter::begin(Arc::clone(Metrics::new().no_mcp()), 0);
        Answer {
            meter,
            call: CallId::from_random([3; 10]),
            mcp: Name::parse("notes").unwrap(),
            result: from..line.len() - 1,
            modern: false,
            line: Bytes::from(line),
            took: Duration::from_micros(12_900),
        }
    }

    fn rendered(result: &str) -> String {
        String::from_utf8(answered(&answer(result), 0, 1 << 20).to_vec()).unwrap()
    }

    fn value(body: &[u8]) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    #[test]
    fn content_passes_byte_for_byte() {
        let content = "[ {\"type\":\"text\",\"text\":\"\\u00e4 ä \\ud83d\\ude00 \\/ 😀\"} ,\t{\"type\":\"audio\",\"n\":1.0e+2, \"k\":1,\"k\":2}\r]";
        let text = rendered(&format!(
            r#"{{"_meta":{{}}, "content" :  {content}  ,"isError":false}}"#
        ));
        assert_eq!(
            text,
            format!(
                r#"{{"result":{content},"request_id":"{}","timestamp":"1970-01-01T00:00:00.000Z","metadata":{{"duration_ms":12,"mcp_server":"notes","is_error":false}}}}"#,
                CallId::from_random([3; 10])
            )
        );
    }

    #[test]
    fn a_tools_own_error_is_marked_and_not_touched() {
        let content = r#"[{"type":"text","text":"no such file"}]"#;
        let text = rendered(&format!(r#"{{"isError" : true,"content":{content}}}"#));
        assert!(
            text.starts_with(&format!(r#"{{"result":{content},"#)),
            "{text}"
        );
        assert_eq!(value(text.as_bytes())["metadata"]["is_error"], true);
        let odd = rendered(r#"{"isError":"true","content":[]}"#);
        assert_eq!(value(odd.as_bytes())["metadata"]["is_error"], false);
    }

    #[test]
    fn without_content_the_json_itself_is_the_text() {
        for (result, text) in [
            (r#"{"structuredContent":{"sum": 3}}"#, r#"{"sum": 3}"#),
            (r#"{"content":null,"structuredContent":[1]}"#, "[1]"),
            (r#"{"toolResult":"old"}"#, r#"{"toolResult":"old"}"#),
            (r#"{"content":"x"}"#, r#"{"content":"x"}"#),
            ("{}", "{}"),
        ] {
            let body = rendered(result);
            assert_eq!(
                value(body.as_bytes())["result"],
                json!([{"type": "text", "text": text}])
            );
        }
    }

    #[test]
    fn what_is_no_result_is_the_servers_error() {
        for result in [
            "null",
            "[[]]",
            "\"x\"",
            "7",
            r#"{"content":[],"content":[]}"#,
        ] {
            let body = value(rendered(result).as_bytes());
            assert_eq!(body["metadata"]["error"], "server_error", "{result}");
            assert_eq!(body["metadata"]["is_error"], true);
            assert!(
                body["result"][0]["text"]
                    .as_str()
                    .unwrap()
                    .contains("`notes`")
            );
        }
        let mut outside = answer("{}");
        outside.result = 5..5_000;
        assert_eq!(
            value(&answered(&outside, 0, 1 << 20))["metadata"]["error"],
            "server_error"
        );
    }

    #[test]
    fn failures_say_what_happened_to_people_and_machines() {
        let mut failure = Failure {
            call: CallId::from_random([3; 10]),
            code: Code::BackingOff,
            text: "`notes` crashed; next start in 2 s: \"panic\"\n".into(),
            mcp: Some(Name::parse("notes").unwrap()),
            retry_after: Some(Duration::from_millis(1_900)),
            verdict: Some("signal".into()),
            deny: None,
            error: None,
            modern: false,
            took: Duration::from_millis(3),
        };
        assert_eq!(
            value(&failed(&failure, 0)),
            json!({
                "result": [{"type": "text", "text": failure.text}],
                "request_id": failure.call.as_str(),
                "timestamp": "1970-01-01T00:00:00.000Z",
                "metadata": {
                    "duration_ms": 3, "mcp_server": "notes", "is_error": true,
                    "error": "backing_off", "retryable": true,
                    "retry_after_ms": 1900, "verdict": "signal",
                },
            })
        );
        failure = Failure {
            code: Code::ToolUnknown,
            mcp: None,
            retry_after: None,
            verdict: None,
            ..failure
        };
        assert_eq!(
            value(&failed(&failure, 0))["metadata"],
            json!({"duration_ms": 3, "is_error": true, "error": "tool_unknown", "retryable": false})
        );
    }

    #[test]
    fn a_result_this_client_would_destroy_becomes_a_text_with_its_size() {
        let max = 10 << 20;
        let of = |filler: &str, count: usize| {
            let text = filler.repeat(count);
            let result = format!(r#"{{"content":[{{"type":"text","text":"{text}"}}]}}"#);
            answered(&answer(&result), 0, max)
        };
        let whole = of("x", max - 300);
        assert!(whole.len() > max - 300 && whole.len() < max);
        let refused = value(&of("x", max));
        assert_eq!(refused["metadata"]["error"], "result_too_large");
        let text = refused["result"][0]["text"].as_str().unwrap();
        assert!(
            text.contains("10.1 MiB") && text.contains("the 10.0 MiB"),
            "{text}"
        );
        // Three bytes each, one character: 12 MiB that the client counts as 4.
        assert!(of("語", 4 << 20).len() > max);
        // Four bytes each, two characters.
        assert_eq!(
            value(&of("😀", 5 << 20))["metadata"]["error"],
            "result_too_large"
        );
    }

    #[test]
    fn the_edge_of_the_limit_is_outside() {
        assert!(fits(b"xxx", 4));
        assert!(!fits(b"xxxx", 4));
        assert!(!fits("ääää".as_bytes(), 4));
        assert!(fits("ääää".as_bytes(), 5));
    }

    proptest! {
        #[test]
        fn never_counts_less_than_the_client(text in "[a-zä語😀]{0,64}", max in 1usize..128) {
            if fits(text.as_bytes(), max) {
                prop_assert!(text.encode_utf16().count() < max);
            }
        }

        #[test]
        fn any_text_of_a_failure_survives(text in any::<String>()) {
            let failure = replaced(&answer("{}"), Code::Internal, text.clone());
            prop_assert_eq!(&value(&failed(&failure, 0))["result"][0]["text"], &Value::from(text));
        }
    }
}
