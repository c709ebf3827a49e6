//! The same from the other side: what we repeat in headers to servers behind HTTP, and which tools ask for it in a
//! way that no client may heed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{MEMBER, PREFIX, Repeated, may_want, shown, wanted};

/// What one tool wants repeated.
#[derive(Debug, Default)]
pub struct Wants(Vec<Repeated>);

impl Wants {
    /// By a tool's definition.
    #[must_use]
    pub fn of(definition: &str) -> Self {
        Self(wanted(definition))
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values of the headers for these arguments.
    #[must_use]
    pub fn headers(&self, arguments: &str) -> Vec<(String, String)> {
        let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
        let header = |one: &Repeated| {
            let value = match one.find(&arguments)? {
                Value::String(text) => encoded(text),
                other => other.to_string(),
            };
            Some((format!("{PREFIX}{}", one.header), value))
        };
        self.0.iter().filter_map(header).collect()
    }
}

/// A header's text for a value: as it is, or in base64 if it would not arrive like that.
#[must_use]
pub fn encoded(text: &str) -> String {
    let plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && text.trim_matches([' ', '\t']) == text
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    match plain {
        true => text.to_owned(),
        false => format!("=?base64?{}?=", STANDARD.encode(text)),
    }
}

/// Why a tool must not be offered by a client that speaks HTTP, if it must not (MCP 2026-07-28, tools, `x-mcp-header`).
#[must_use]
pub fn wrong(definition: &str) -> Option<String> {
    if !may_want(definition) {
        return None;
    }
    let definition: Value = serde_json::from_str(definition).ok()?;
    let mut names = Vec::new();
    look(&definition["inputSchema"], Place::Root, &mut names).err()
}

/// Where in a schema one stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    /// At a property, reached by properties alone.
    Property,
    /// Anywhere else.
    Elsewhere,
}

fn look(schema: &Value, place: Place, names: &mut Vec<String>) -> Result<(), String> {
    let Some(members) = schema.as_object() else {
        return Ok(());
    };
    if let Some(header) = members.get(MEMBER) {
        check(header, members, place, names)?;
    }
    for (key, value) in members {
        match key.as_str() {
            "properties" => {
                let within = match place {
                    Place::Elsewhere => Place::Elsewhere,
                    Place::Root | Place::Property => Place::Property,
                };
                each(value, within, names)?;
            }
            "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
                each(value, Place::Elsewhere, names)?;
            }
            // Values, and no schemas.
            "const" | "enum" | "default" | "examples" => {}
            _ => match value {
                Value::Array(all) => {
                    for one in all {
                        look(one, Place::Elsewhere, names)?;
                    }
                }
                one => look(one, Place::Elsewhere, names)?,
            },
        }
    }
    Ok(())
}

fn each(schemas: &Value, place: Place, names: &mut Vec<String>) -> Result<(), String> {
    let all = schemas.as_object().into_iter().flat_map(Map::values);
    for schema in all {
        look(schema, place, names)?;
    }
    Ok(())
}

fn check(
    header: &Value,
    members: &Map<String, Value>,
    place: Place,
    names: &mut Vec<String>,
) -> Result<(), String> {
    let shown = shown(&header.to_string());
    let Some(name) = header.as_str() else {
        return Err(format!("its {MEMBER} {shown} is no text"));
    };
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(format!("its {MEMBER} {shown} is no name of a header"));
    }
    let kind = members.get("type").and_then(Value::as_str);
    if !matches!(kind, Some("string" | "integer" | "boolean")) {
        return Err(format!(
            "its {MEMBER} {shown} stands at what is neither a string, an integer nor a boolean"
        ));
    }
    if place != Place::Property {
        return Err(format!(
            "its {MEMBER} {shown} stands where no argument is certain to be"
        ));
    }
    let name = name.to_ascii_lowercase();
    if names.contains(&name) {
        return Err(format!("its {MEMBER} {shown} is there twice"));
    }
    names.push(name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(properties: &Value) -> String {
        json!({"name": "t", "inputSchema": {"type": "object", "properties": properties}})
            .to_string()
    }

    #[test]
    fn what_is_given_is_repeated() {
        let tool = tool(&json!({
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
            "on": {"type": "boolean", "x-mcp-header": "On"}}));
        assert_eq!(wrong(&tool), None);
        let wants = Wants::of(&tool);
        let all = wants.headers(r#"{"region":" ü","deep":{"n":42},"on":true}"#);
        let mut all: Vec<_> = all
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        all.sort_unstable();
        assert_eq!(
            all,
            [
                ("Mcp-Param-N", "42"),
                ("Mcp-Param-On", "true"),
                ("Mcp-Param-Region", "=?base64?IMO8?=")
            ]
        );
        assert_eq!(wants.headers(r#"{"region":null}"#), []);
        for (text, wanted) in [
            ("us-west1", "us-west1"),
            ("a b", "a b"),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ] {
            assert_eq!(encoded(text), wanted);
        }
    }

    #[test]
    fn tools_that_ask_wrongly_are_found() {
        let at = |header: Value, kind: &str| json!({"type": kind, "x-mcp-header": header});
        for bad in [
            json!({"a": at(json!(""), "string")}),
            json!({"a": at(json!("a b"), "string")}),
            json!({"a": at(json!("a\n"), "string")}),
            json!({"a": at(json!(7), "string")}),
            json!({"a": at(json!("A"), "number")}),
            json!({"a": at(json!("A"), "array")}),
            json!({"a": at(json!("A"), "string"), "b": at(json!("a"), "string")}),
            json!({"a": {"type": "array", "items": at(json!("A"), "string")}}),
            json!({"a": {"anyOf": [at(json!("A"), "string")]}}),
            json!({"a": {"items": {"properties": {"b": at(json!("A"), "string")}}}}),
        ] {
            assert!(wrong(&tool(&bad)).is_some(), "{bad}");
        }
        // A property of that name, and values that look like schemas, ask for nothing.
        let plain =
            json!({"x-mcp-header": {"type": "string"}, "b": {"enum": [{"x-mcp-header": ""}]}});
        assert_eq!(wrong(&tool(&plain)), None);
    }
}
