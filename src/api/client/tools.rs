//! `GET /v1/tools`: the tools of a session, as their servers declared them.
//!
//! `inputSchema` becomes `input_schema`, raw. What else a server declared (title, annotations,
//! `outputSchema`, …) follows raw under its own name: the standard client ignores it.

use std::fmt;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Shared;
use super::body::Text;
use crate::actors::front::ToolView;
use crate::api::error::{json, put_string};
use crate::api::stamp::rfc3339;
use crate::domain::account::Millis;

const NO_SCHEMA: &str = r#"{"type":"object"}"#;
/// What follows the last tool.
const TAIL: &[u8] = b"]}";

/// The members of a JSON object, in order, raw.
#[derive(Debug, Default)]
struct Members<'a>(Vec<(Text<'a>, &'a RawValue)>);

pub(super) async fn tools(State(shared): State<Shared>, request: Request) -> Response {
    match shared.authenticate(&request) {
        Ok(session) => {
            let front = shared.front();
            let max = shared.options().response_bytes_max;
            let (body, left_out) = render(&front.tools(&session), front.wall_ms(), max);
            if left_out > 0 {
                let id = session.id();
                tracing::warn!(session.id = %id, left_out, max, "tools left out: the list is too long");
            }
            json(StatusCode::OK, body)
        }
        Err(error) => error.into_response(),
    }
}

/// The list, and how many tools at its end did not fit into `max` bytes (the client would destroy
/// the whole answer, and with it every tool).
fn render(views: &[ToolView], at: Millis, max: usize) -> (Bytes, usize) {
    let definitions: usize = views
        .iter()
        .map(|view| view.definition.get().len() + 128)
        .sum();
    let mut out = BytesMut::with_capacity(definitions.min(max) + 128);
    out.put_slice(b"{\"api_version\":\"1.0\",\"timestamp\":\"");
    out.put_slice(&rfc3339(at));
    out.put_slice(b"\",\"tools\":[");
    let mut shown = 0;
    for view in views {
        let before = out.len();
        if shown > 0 {
            out.put_u8(b',');
        }
        put_tool(&mut out, view);
        if out.len() + TAIL.len() >= max {
            out.truncate(before);
            break;
        }
        shown += 1;
    }
    out.put_slice(TAIL);
    (out.freeze(), views.len() - shown)
}

fn put_tool(out: &mut BytesMut, view: &ToolView) {
    // What is not an object declares nothing; its name can still be called.
    let members =
        serde_json::from_str(view.definition.get()).unwrap_or_else(|_| Members::default());
    let raw = |key: &str, first: u8| {
        members
            .get(key)
            .filter(|value| value.as_bytes().first() == Some(&first))
    };
    out.put_slice(b"{\"name\":");
    put_string(out, &view.name);
    out.put_slice(b",\"description\":");
    out.put_slice(raw("description", b'"').unwrap_or("\"\"").as_bytes());
    out.put_slice(b",\"input_schema\":");
    out.put_slice(raw("inputSchema", b'{').unwrap_or(NO_SCHEMA).as_bytes());
    out.put_slice(b",\"metadata\":{\"mcp_server\":");
    put_string(out, view.mcp.as_str());
    out.put_u8(b'}');
    for (Text(key), value) in &members.0 {
        let ours = matches!(
            key.as_ref(),
            "name" | "description" | "inputSchema" | "input_schema" | "metadata"
        );
        if !ours {
            out.put_u8(b',');
            put_string(out, key);
            out.put_u8(b':');
            out.put_slice(value.get().as_bytes());
        }
    }
    out.put_u8(b'}');
}

// === impl Members ===

impl<'a> Members<'a> {
    fn get(&self, wanted: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find(|(Text(key), _)| key == wanted)
            .map(|(_, value)| value.get())
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::name::Name;

    fn view(name: &str, definition: &str) -> ToolView {
        ToolView {
            name: name.to_owned(),
            mcp: Name::parse("notes").unwrap(),
            definition: Arc::from(RawValue::from_string(definition.to_owned()).unwrap()),
        }
    }

    fn list(views: &[ToolView]) -> String {
        let (body, left_out) = render(views, 0, 1 << 20);
        assert_eq!(left_out, 0);
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn nothing_is_a_list_too() {
        assert_eq!(
            list(&[]),
            r#"{"api_version":"1.0","timestamp":"1970-01-01T00:00:00.000Z","tools":[]}"#
        );
    }

    #[test]
    fn definitions_stay_raw_and_keep_what_we_do_not_know() {
        let definition = r#"{ "title" : "\u0041dd","name":"add","inputSchema": {"type": "object", "x":1.0e2} ,
            "description":"adds \u00e4","an\u006eotations":{"readOnlyHint":true}}"#;
        assert_eq!(
            list(&[view("notes_add", definition), view("b", "{}")]),
            concat!(
                r#"{"api_version":"1.0","timestamp":"1970-01-01T00:00:00.000Z","tools":["#,
                r#"{"name":"notes_add","description":"adds \u00e4","input_schema":{"type": "object", "x":1.0e2},"#,
                r#""metadata":{"mcp_server":"notes"},"title":"\u0041dd","annotations":{"readOnlyHint":true}},"#,
                r#"{"name":"b","description":"","input_schema":{"type":"object"},"metadata":{"mcp_server":"notes"}}]}"#,
            )
        );
    }

    #[test]
    fn a_wrong_declaration_still_makes_a_valid_entry() {
        let bare = r#""description":"","input_schema":{"type":"object"},"metadata":{"mcp_server":"notes"}}"#;
        for wrong in [
            "null",
            "[]",
            r#"{"description":null,"inputSchema":[]}"#,
            r#"{"description":{"a":1},"input_schema":"x","metadata":7}"#,
        ] {
            let text = list(&[view("a", wrong)]);
            assert!(text.contains(bare), "{text}");
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }

    #[test]
    fn a_list_that_is_too_long_loses_its_end_not_everything() {
        let views: Vec<ToolView> = (0..100)
            .map(|n| view(&format!("tool{n}"), r#"{"description":"some text"}"#))
            .collect();
        let (body, left_out) = render(&views, 0, 4_000);
        assert!(body.len() < 4_000);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let shown = value["tools"].as_array().unwrap().len();
        assert!(shown > 10, "{shown}");
        assert_eq!(shown + left_out, 100);
    }
}
